//! Many runners whose jobs end at the same moment; and completions at a steady rate.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

use super::load::{fill, ids, result};
use crate::http::Http;
use crate::server::{Server, given_or_built, runtime};

/// How many starts are on their way while a side gets ready.
const STARTERS: usize = 64;
/// Connections that share the steady completions.
const REPORTERS: usize = 64;

/// What is measured.
#[derive(Clone, Copy)]
pub struct Plan {
    /// Runners whose jobs end at once.
    pub runners: usize,
    /// How often.
    pub rounds: usize,
    /// Completions a second, for so many seconds.
    pub rate: usize,
    pub seconds: usize,
}

/// What one side did, in milliseconds.
struct Figures {
    /// Each burst, from the first request to the last answer.
    bursts: Vec<f64>,
    /// Each of the steady completions, from the moment when it was due.
    steady: Vec<f64>,
}

impl Figures {
    fn median(&self) -> f64 {
        at(&self.bursts, 0.5)
    }

    fn print(&self, name: &str) {
        println!(
            "  {name:10} burst {:7.1} ms ({:.1} to {:.1})   steady p50 {:6.2} ms  p99 {:6.2} ms",
            self.median(),
            at(&self.bursts, 0.0),
            at(&self.bursts, 1.0),
            at(&self.steady, 0.5),
            at(&self.steady, 0.99)
        );
    }
}

/// Below which so much of it stays.
fn at(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(((last as f64) * part).round() as usize).copied().unwrap_or(f64::NAN)
}

pub fn run(plan: Plan, durability: &str, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let binary = given_or_built(binary)?;
    let scratch = tempfile::tempdir_in(".")?;
    let Plan { runners, rounds, rate, seconds } = plan;
    println!(
        "{runners} runners complete at once, {rounds} times; {rate} completions a second for {seconds} s; \
         durability {durability}"
    );
    let runtime = runtime()?;
    let ours = {
        let server = Server::start(&binary, &scratch.path().join("burst.db"), durability)?;
        let started = LocalSet::new().block_on(&runtime, start(server.address, plan))?;
        LocalSet::new().block_on(&runtime, measure(server.address, plan, started))?
    };
    ours.print("forebay");
    let bare = {
        let echo = Server::echo()?;
        let started = Started { workflow: 1, node: 1, jobs: vec!["1".to_owned(); runners * rounds + rate * seconds] };
        LocalSet::new().block_on(&runtime, measure(echo.address, plan, started))?
    };
    bare.print("bare echo");
    let (ratio, p50) = (ours.median() / bare.median(), at(&ours.steady, 0.5));
    println!("a burst took {ratio:.2} times the echo's time, 2 asked; steady p50 {p50:.2} ms, 5 asked");
    ensure!(ratio <= 2.0 && p50 < 5.0, "too slow");
    Ok(())
}

/// Running jobs, to be completed.
struct Started {
    workflow: i64,
    node: i64,
    jobs: Vec<String>,
}

async fn start(address: SocketAddr, plan: Plan) -> anyhow::Result<Started> {
    let count = plan.runners * plan.rounds + plan.rate * plan.seconds;
    let (workflow, node) = fill(address, count).await?;
    let mut http = Http::connect(address).await?;
    let mut jobs = Vec::with_capacity(count);
    while jobs.len() < count {
        let path = format!("/workflows/{workflow}/claim_next_jobs?limit=1000");
        let (status, answer) = http.send("POST", &path, None).await?;
        ensure!(status.is_success(), "{path}: {status}");
        let before = jobs.len();
        jobs.extend(ids(&String::from_utf8_lossy(&answer)).map(str::to_owned));
        ensure!(jobs.len() > before, "the jobs ran out");
    }
    let shares: Vec<Vec<String>> = shares(&jobs, STARTERS);
    let mut starters = Vec::new();
    for share in shares {
        let mut http = Http::connect(address).await?;
        starters.push(tokio::task::spawn_local(async move {
            for job in share {
                http.call("PUT", &format!("/jobs/{job}/start_job/1/{node}"), None).await?;
            }
            anyhow::Ok(())
        }));
    }
    for starter in starters {
        starter.await??;
    }
    Ok(Started { workflow, node, jobs })
}

/// Each the jobs that one connection is for, in turn.
fn shares(jobs: &[String], count: usize) -> Vec<Vec<String>> {
    (0..count).map(|first| jobs.iter().skip(first).step_by(count).cloned().collect()).collect()
}

async fn measure(address: SocketAddr, plan: Plan, started: Started) -> anyhow::Result<Figures> {
    let Started { workflow, node, mut jobs } = started;
    let steady = jobs.split_off(plan.runners * plan.rounds);
    let mut bursts = Vec::new();
    let mut connections = Vec::new();
    for _ in 0..plan.runners {
        let mut http = Http::connect(address).await?;
        http.send("GET", "/ping", None).await?;
        connections.push(http);
    }
    for burst in jobs.chunks(plan.runners) {
        let go = Rc::new(Semaphore::new(0));
        let mut runners = Vec::new();
        for (mut http, job) in connections.into_iter().zip(burst.to_owned()) {
            let go = go.clone();
            runners.push(tokio::task::spawn_local(async move {
                let _gone = go.acquire().await.context("nobody closes it")?;
                complete(&mut http, &job, workflow, node).await?;
                anyhow::Ok(http)
            }));
        }
        // Each of them stands at the start.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let begin = Instant::now();
        go.add_permits(plan.runners);
        connections = Vec::new();
        for runner in runners {
            connections.push(runner.await??);
        }
        bursts.push(begin.elapsed().as_secs_f64() * 1e3);
    }
    drop(connections);
    bursts.sort_by(f64::total_cmp);
    let mut steady = at_a_rate(address, plan, workflow, node, &steady).await?;
    steady.sort_by(f64::total_cmp);
    Ok(Figures { bursts, steady })
}

/// Completions that are sent when they are due, whatever becomes of those before, as far as there are
/// connections; those that find none wait, and that counts.
async fn at_a_rate(
    address: SocketAddr,
    plan: Plan,
    workflow: i64,
    node: i64,
    jobs: &[String],
) -> anyhow::Result<Vec<f64>> {
    let every = Duration::from_secs_f64(1.0 / plan.rate as f64);
    let begin = Instant::now() + Duration::from_millis(100);
    let latencies: Rc<RefCell<Vec<f64>>> = Rc::default();
    let mut reporters = Vec::new();
    for (first, share) in shares(jobs, REPORTERS).into_iter().enumerate() {
        let mut http = Http::connect(address).await?;
        let latencies = latencies.clone();
        reporters.push(tokio::task::spawn_local(async move {
            for (turn, job) in share.into_iter().enumerate() {
                let due = begin + every * u32::try_from(first + turn * REPORTERS)?;
                let mut since = due;
                if Instant::now() < due {
                    tokio::time::sleep_until(due.into()).await;
                    // The timer has whole milliseconds.
                    since = Instant::now();
                }
                complete(&mut http, &job, workflow, node).await?;
                latencies.borrow_mut().push(since.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(())
        }));
    }
    for reporter in reporters {
        reporter.await??;
    }
    Ok(latencies.take())
}

async fn complete(http: &mut Http, job: &str, workflow: i64, node: i64) -> anyhow::Result<()> {
    let path = format!("/jobs/{job}/complete_job/completed/1");
    let (status, answer) = http.send("POST", &path, Some(result(job, workflow, node).into_bytes())).await?;
    ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&answer));
    Ok(())
}
