//! Callers, each of which asks again as soon as it is answered.

use std::fmt;
use std::fs;
use std::ops::AddAssign;
use std::time::{Duration, Instant};

use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{NodeId, WorkflowId};
use forebay_engine::{EngineHandle, Error};
use forebay_sim::commands::{claim, completed, create_jobs};

use crate::COUNTING;
use crate::world::World;

/// What each caller does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Claims a job, starts it, completes it.
    Lifecycles,
    /// Creates a job.
    Submissions,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Load::Lifecycles => "lifecycles",
            Load::Submissions => "submissions",
        })
    }
}

/// What was measured.
#[derive(Default)]
pub struct Point {
    pub took: Duration,
    pub cpu: Cpu,
    /// Lifecycles or submissions.
    pub done: u64,
    pub requests: u64,
    pub overloaded: u64,
    pub allocations: u64,
    pub batches: u64,
    pub busy: u64,
    /// Of each kind of request, where they are written down.
    latencies: [Vec<Duration>; 4],
}

/// A kind of request.
#[derive(Clone, Copy)]
pub enum Request {
    Claim,
    Start,
    Report,
    Create,
}

impl Point {
    pub fn rate(&self) -> f64 {
        self.done as f64 / self.took.as_secs_f64()
    }

    /// For 1 000 requests.
    pub fn transactions(&self) -> f64 {
        self.batches as f64 * 1e3 / self.requests as f64
    }

    /// The 99th percentile of the time of such requests, in milliseconds.
    pub fn p99_ms(&self, request: Request) -> f64 {
        let mut sorted = self.latencies[request as usize].clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() * 99 / 100).copied().unwrap_or_default().as_secs_f64() * 1e3
    }
}

impl AddAssign for Point {
    fn add_assign(&mut self, other: Point) {
        self.took += other.took;
        self.cpu += other.cpu;
        self.done += other.done;
        self.requests += other.requests;
        self.overloaded += other.overloaded;
        self.allocations += other.allocations;
        self.batches += other.batches;
        self.busy += other.busy;
        for (mine, others) in self.latencies.iter_mut().zip(other.latencies) {
            mine.extend(others);
        }
    }
}

impl World {
    /// Lets callers at a workflow, until its jobs or the time are up.
    pub fn run(&self, workflow: WorkflowId, load: Load, callers: usize, time: Duration) -> Point {
        self.run_callers(workflow, load, callers, time, false)
    }

    /// The same, and writes down how long each request takes.
    pub fn run_timed(&self, workflow: WorkflowId, load: Load, callers: usize, time: Duration) -> Point {
        self.run_callers(workflow, load, callers, time, true)
    }

    /// To write down each request's time costs the callers a quarter of what they do.
    fn run_callers(&self, workflow: WorkflowId, load: Load, callers: usize, time: Duration, timed: bool) -> Point {
        let before = self.engine.counters();
        let (start, cpu, allocations) = (Instant::now(), Cpu::now(), COUNTING.allocations());
        let until = start + time;
        let mut point = self.runtime.block_on(async {
            let callers: Vec<_> = (0..callers)
                .map(|_| {
                    let mut caller = Caller { engine: self.engine.clone(), workflow, timed, point: Point::default() };
                    tokio::spawn(async move {
                        while Instant::now() < until && caller.once(load).await {
                            caller.point.done += 1;
                        }
                        caller.point
                    })
                })
                .collect();
            let mut point = Point::default();
            for caller in callers {
                point += caller.await.expect("no caller panics");
            }
            point
        });
        let after = self.engine.counters();
        point.took = start.elapsed();
        point.cpu = Cpu::now().since(cpu);
        point.allocations = COUNTING.allocations() - allocations;
        point.batches = after.batches - before.batches;
        point.busy = after.busy - before.busy;
        point
    }
}

struct Caller {
    engine: EngineHandle,
    workflow: WorkflowId,
    timed: bool,
    point: Point,
}

impl Caller {
    /// False once there is nothing left to do.
    async fn once(&mut self, load: Load) -> bool {
        let workflow = self.workflow;
        if load == Load::Submissions {
            return self.ask(Request::Create, create_jobs(workflow, 1)).await.is_some();
        }
        let claim = Command::Claim(claim(workflow, 1, None));
        let Some(Answer::Claimed(claimed)) = self.ask(Request::Claim, claim).await else { return false };
        let Some((row, _)) = claimed.jobs.first() else { return false };
        self.ask(Request::Start, Command::Start { job: row.id, run: 0, node: NodeId(1) }).await.is_some()
            && self.ask(Request::Report, completed(workflow, row)).await.is_some()
    }

    /// `None`: the engine is overloaded.
    async fn ask(&mut self, request: Request, command: Command) -> Option<Answer> {
        let asked = self.timed.then(Instant::now);
        let answer = self.engine.call(command).await;
        self.point.requests += 1;
        if let Some(asked) = asked {
            self.point.latencies[request as usize].push(asked.elapsed());
        }
        match answer {
            Ok(answer) => Some(answer),
            Err(Error::Overloaded) => {
                self.point.overloaded += 1;
                None
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What the processors did for each part of this process, in its threads.
#[derive(Clone, Copy, Default)]
pub struct Cpu {
    /// The machine, its inbox and its outbox.
    pub engine: Duration,
    /// SQLite: commits, and syncs beside them.
    pub writer: Duration,
    /// SQLite: pages and whatever else is read.
    pub readers: Duration,
    /// All else: the callers, or the bare loop.
    pub others: Duration,
}

impl Cpu {
    pub fn now() -> Cpu {
        let mut cpu = Cpu::default();
        for task in fs::read_dir("/proc/self/task").expect("this is Linux").flatten() {
            // A thread that ends meanwhile is none of those that are measured.
            let file = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let part = match file("comm").trim() {
                "forebay-engine" => &mut cpu.engine,
                "forebay-writer" | "forebay-sync" => &mut cpu.writer,
                "forebay-pages" | "forebay-graphs" | "forebay-reads" => &mut cpu.readers,
                _ => &mut cpu.others,
            };
            let ns = file("schedstat").split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default();
            *part += Duration::from_nanos(ns);
        }
        cpu
    }

    pub fn since(self, before: Cpu) -> Cpu {
        Cpu {
            engine: self.engine.saturating_sub(before.engine),
            writer: self.writer.saturating_sub(before.writer),
            readers: self.readers.saturating_sub(before.readers),
            others: self.others.saturating_sub(before.others),
        }
    }

    pub fn sum(&self) -> Duration {
        self.engine + self.writer + self.readers + self.others
    }

    /// Microseconds for each of so many.
    pub fn show(&self, done: u64) -> String {
        let us = |time: Duration| time.as_secs_f64() * 1e6 / done as f64;
        let Cpu { engine, writer, readers, others } = *self;
        format!(
            "{:.1} us (writer {:.1}, engine {:.1}, readers {:.1}, callers {:.1})",
            us(self.sum()),
            us(writer),
            us(engine),
            us(readers),
            us(others)
        )
    }
}

impl AddAssign for Cpu {
    fn add_assign(&mut self, other: Cpu) {
        self.engine += other.engine;
        self.writer += other.writer;
        self.readers += other.readers;
        self.others += other.others;
    }
}
