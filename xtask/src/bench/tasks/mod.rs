//! The tasks door and a bare echo of the same messages by the same gRPC library, in turn in one run.

pub mod echo;
mod fill;
pub mod hour;
mod pull;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::load::commits;
use crate::server::{Server, given_or_built};
use pull::{Load, Pulled};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// 64 workers drain what was there before, however much that is.
    Drain,
    /// 64, 768 and 4 096 workers; tasks of 0 and 100 ms; alone, and while as many come.
    Crowd,
    /// How long a call takes when there is a quarter of the work that the echo could do, and as many come.
    Pace,
    /// `power` beside `process`.
    Power,
}

pub struct Plan {
    pub parts: Vec<Part>,
    /// Of each side in each round.
    pub seconds: u64,
    pub rounds: usize,
    /// The largest backlog to drain.
    pub backlog_max: u64,
    pub binary: Option<PathBuf>,
}

const FEW: usize = 64;
const MANY: usize = 768;
const CROWD: usize = 4_096;

/// So many tasks are there where it does not matter how many.
const BACKLOG: u64 = 200_000;

/// More are made in the file.
const ENQUEUED_MAX: u64 = 1_000_000;

pub fn run(plan: &Plan) -> anyhow::Result<()> {
    let mut bench = Bench {
        binary: given_or_built(plan.binary.clone())?,
        echo: Side { server: Server::echo_of_tasks()?, stored: None },
        runtime: tokio::runtime::Builder::new_multi_thread().enable_all().build()?,
        rounds: plan.rounds.max(1),
        length: Duration::from_secs(plan.seconds),
        gates: Vec::new(),
    };
    for part in [Part::Drain, Part::Crowd, Part::Pace, Part::Power] {
        if plan.parts.is_empty() || plan.parts.contains(&part) {
            match part {
                Part::Drain => bench.drain(plan.backlog_max)?,
                Part::Crowd => bench.crowd()?,
                Part::Pace => bench.pace()?,
                Part::Power => bench.power()?,
            }
        }
    }
    let missed = bench.gates.iter().filter(|gate| !gate.is_met()).count();
    println!();
    for gate in &bench.gates {
        println!("{}", gate.line());
    }
    ensure!(missed == 0, "{missed} of {} were missed", bench.gates.len());
    Ok(())
}

struct Bench {
    binary: PathBuf,
    echo: Side,
    runtime: Runtime,
    rounds: usize,
    length: Duration,
    gates: Vec<Gate>,
}

/// A server, and what it stores if it does.
struct Side {
    server: Server,
    stored: Option<Stored>,
}

struct Stored {
    folder: TempDir,
    /// Tasks that are there.
    backlog: u64,
}

impl Stored {
    fn db(&self) -> PathBuf {
        self.folder.path().join("tasks.db")
    }
}

/// What one side did in all rounds.
#[derive(Default)]
struct Figures {
    pulled: Pulled,
    /// Tasks a second of each round.
    rates: Vec<f64>,
    cpu: f64,
    transactions: i64,
    resident: u64,
}

/// A figure, and what is asked of it.
struct Gate {
    what: String,
    is: f64,
    asked: Asked,
}

enum Asked {
    AtLeast(f64),
    AtMost(f64),
}

impl Bench {
    fn drain(&mut self, most: u64) -> anyhow::Result<()> {
        for backlog in [10_000, 100_000, 1_000_000, 10_000_000] {
            if backlog > most {
                break;
            }
            let mut side = self.start("process")?;
            if backlog > ENQUEUED_MAX {
                side = self.multiply(side, backlog)?;
            }
            let load = Load { workers: FEW, task_ms: 0, per_second: None, with_ingest: false, length: self.length };
            let (mut ours, mut bare) = (Figures::default(), Figures::default());
            for _ in 0..self.rounds {
                self.fill(&mut side, backlog)?;
                self.measure(&mut side, load, &mut ours)?;
                self.echo(load, &mut bare)?;
            }
            println!("{FEW} workers drain a backlog of {backlog}; process");
            let ratio = report(&mut ours, &mut bare);
            self.gate(format!("of the echo's rate, draining {backlog}, {FEW} workers"), ratio, Asked::AtLeast(0.7));
        }
        Ok(())
    }

    fn crowd(&mut self) -> anyhow::Result<()> {
        let mut side = self.start("process")?;
        for (task_ms, with_ingest) in [(0, false), (0, true), (100, false), (100, true)] {
            let mut all: Vec<(usize, Figures, Figures)> =
                [FEW, MANY, CROWD].map(|workers| (workers, Figures::default(), Figures::default())).into();
            for _ in 0..self.rounds {
                for (workers, ours, bare) in &mut all {
                    let load = Load { workers: *workers, task_ms, per_second: None, with_ingest, length: self.length };
                    self.fill(&mut side, BACKLOG)?;
                    self.measure(&mut side, load, ours)?;
                    self.echo(load, bare)?;
                }
            }
            let mut ratios = Vec::new();
            for (workers, ours, bare) in &mut all {
                let ingest = if with_ingest { ", while as many come" } else { "" };
                println!("{workers} workers, tasks of {task_ms} ms{ingest}; process");
                ratios.push(report(ours, bare));
            }
            if (task_ms, with_ingest) == (0, false) {
                let what = format!("the ratio to the echo at {CROWD} workers, of that at {MANY}");
                self.gate(what, ratios[2] / ratios[1], Asked::AtLeast(0.9));
            }
        }
        Ok(())
    }

    fn pace(&mut self) -> anyhow::Result<()> {
        let free = Load { workers: MANY, task_ms: 0, per_second: None, with_ingest: false, length: self.length };
        let mut bare = Figures::default();
        self.echo(free, &mut bare)?;
        let quarter = bare.rate() / 4.0;
        let load = Load { per_second: Some(quarter), with_ingest: true, ..free };
        let mut side = self.start("process")?;
        let (mut ours, mut bare) = (Figures::default(), Figures::default());
        for _ in 0..self.rounds {
            self.fill(&mut side, BACKLOG)?;
            self.measure(&mut side, load, &mut ours)?;
            self.echo(load, &mut bare)?;
        }
        println!("{MANY} workers, {quarter:.0} tasks a second asked of them, while as many come; process");
        report(&mut ours, &mut bare);
        let asked = Asked::AtMost(2.0 * bare.ms(0.99) + 10.0);
        self.gate("p99 of a call in ms, at a quarter of the echo's rate".to_owned(), ours.ms(0.99), asked);
        Ok(())
    }

    fn power(&mut self) -> anyhow::Result<()> {
        let load = Load { workers: MANY, task_ms: 0, per_second: None, with_ingest: false, length: self.length };
        let (mut process, mut power) = (self.start("process")?, self.start("power")?);
        let (mut of_process, mut of_power) = (Figures::default(), Figures::default());
        for _ in 0..self.rounds {
            self.fill(&mut process, BACKLOG)?;
            self.measure(&mut process, load, &mut of_process)?;
            self.fill(&mut power, BACKLOG)?;
            self.measure(&mut power, load, &mut of_power)?;
        }
        println!("{MANY} workers; power and process");
        of_power.print("power");
        of_process.print("process");
        let ratio = median(of_power.rates.iter().zip(&of_process.rates).map(|(power, process)| power / process));
        println!("  of process: {ratio:.2}");
        self.gate(format!("power of process, {MANY} workers"), ratio, Asked::AtLeast(0.5));
        Ok(())
    }

    fn gate(&mut self, what: String, is: f64, asked: Asked) {
        let gate = Gate { what, is, asked };
        println!("  {}", gate.line());
        self.gates.push(gate);
    }

    fn start(&self, durability: &str) -> anyhow::Result<Side> {
        let folder = tempfile::tempdir_in(".")?;
        let stored = Stored { folder, backlog: 0 };
        Ok(Side { server: Server::start_with_grpc(&self.binary, &stored.db(), durability)?, stored: Some(stored) })
    }

    /// The same server, with a backlog that would take long to enqueue.
    fn multiply(&self, mut side: Side, backlog: u64) -> anyhow::Result<Side> {
        self.fill(&mut side, 1)?;
        let mut stored = side.stored.context("a server that stores")?;
        side.server.stop()?;
        fill::multiply(&stored.db(), backlog)?;
        stored.backlog = backlog;
        let server = Server::start_with_grpc(&self.binary, &stored.db(), "process")?;
        Ok(Side { server, stored: Some(stored) })
    }

    /// Enqueues what is missing.
    fn fill(&self, side: &mut Side, backlog: u64) -> anyhow::Result<()> {
        let Some(stored) = &mut side.stored else { return Ok(()) };
        let missing = backlog.saturating_sub(stored.backlog);
        if missing > 0 {
            let begun = Instant::now();
            self.runtime.block_on(fill::fill(side.server.grpc()?, missing))?;
            stored.backlog += missing;
            if missing >= BACKLOG {
                println!("({missing} tasks enqueued in {:.1} s)", begun.elapsed().as_secs_f64());
            }
        }
        Ok(())
    }

    fn echo(&self, load: Load, figures: &mut Figures) -> anyhow::Result<()> {
        measure(&self.echo.server, None, figures, |grpc| self.pull(grpc, load)).map(drop)
    }

    fn measure(&self, side: &mut Side, load: Load, figures: &mut Figures) -> anyhow::Result<()> {
        let db = side.stored.as_ref().map(Stored::db);
        let before = figures.pulled.enqueued;
        let tasks = measure(&side.server, db.as_deref(), figures, |grpc| self.pull(grpc, load))?;
        if let Some(stored) = &mut side.stored {
            let came = figures.pulled.enqueued - before;
            // Each worker had one in its hands at the end.
            stored.backlog = (stored.backlog + came).saturating_sub(tasks + load.workers as u64);
        }
        Ok(())
    }

    fn pull(&self, grpc: SocketAddr, load: Load) -> anyhow::Result<Pulled> {
        self.runtime.block_on(pull::pull(grpc, load))
    }
}

/// How many tasks were done.
fn measure(
    server: &Server,
    db: Option<&Path>,
    figures: &mut Figures,
    work: impl FnOnce(SocketAddr) -> anyhow::Result<Pulled>,
) -> anyhow::Result<u64> {
    let committed = || db.map_or(Ok(0), commits);
    let (cpu, transactions) = (server.cpu_seconds()?, committed()?);
    let mut pulled = work(server.grpc()?)?;
    figures.cpu += server.cpu_seconds()? - cpu;
    figures.transactions += committed()? - transactions;
    figures.resident = figures.resident.max(server.memory("VmRSS")?);
    figures.rates.push(pulled.tasks as f64 / pulled.seconds);
    figures.pulled.tasks += pulled.tasks;
    figures.pulled.seconds += pulled.seconds;
    figures.pulled.enqueued += pulled.enqueued;
    figures.pulled.latencies.append(&mut pulled.latencies);
    Ok(pulled.tasks)
}

/// Prints both sides; what we did of what the echo did.
fn report(ours: &mut Figures, bare: &mut Figures) -> f64 {
    ours.print("forebay");
    bare.print("bare echo");
    let ratio = median(ours.rates.iter().zip(&bare.rates).map(|(ours, bare)| ours / bare));
    println!("  of the echo: {ratio:.2}");
    ratio
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl Figures {
    fn rate(&self) -> f64 {
        self.pulled.tasks as f64 / self.pulled.seconds
    }

    /// Below which so much of the calls stayed, in milliseconds.
    fn ms(&mut self, part: f64) -> f64 {
        self.pulled.latencies.sort_unstable();
        let place = (self.pulled.latencies.len() as f64 * part) as usize;
        self.pulled.latencies.get(place).map_or(f64::NAN, |latency| f64::from(*latency) / 1000.0)
    }

    fn print(&mut self, name: &str) {
        let tasks = self.pulled.tasks as f64;
        println!(
            "  {name:10} {:7.0} tasks/s   call p50 {:7.2} ms  p99 {:7.2} ms   server CPU {:5.1} us/task   \
             {:5.1} transactions for 1 000 tasks   resident {:4.0} MB",
            self.rate(),
            self.ms(0.5),
            self.ms(0.99),
            self.cpu * 1e6 / tasks,
            self.transactions as f64 * 1e3 / tasks,
            self.resident as f64 / 1e6,
        );
    }
}

impl Gate {
    fn is_met(&self) -> bool {
        match self.asked {
            Asked::AtLeast(least) => self.is >= least,
            Asked::AtMost(most) => self.is <= most,
        }
    }

    fn line(&self) -> String {
        let (word, asked) = match self.asked {
            Asked::AtLeast(least) => ("at least", least),
            Asked::AtMost(most) => ("at most", most),
        };
        let verdict = if self.is_met() { "ok" } else { "missed" };
        format!("{verdict:6} {}: {:.2}, asked {word} {asked:.2}", self.what, self.is)
    }
}
