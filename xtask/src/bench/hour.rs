//! Steady work for as long as asked: whether the log of the database keeps its bound, and whether
//! anything gets slower or larger with the age of the database.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tokio::task::LocalSet;

use super::load::{fill, one_job};
use crate::http::Http;
use crate::server::{Server, given_or_built, runtime};

const RUNNERS: usize = 32;
const JOB_MS: u64 = 25;
/// A workflow of so many jobs is created each time that so many have been done.
const REFILL: usize = 20_000;
/// The bound of the log (DESIGN: 256 MiB).
pub(super) const WAL_MAX: u64 = 256 << 20;
const PARTS: u32 = 12;

pub fn run(minutes: u64, durability: &str, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let binary = given_or_built(binary)?;
    let scratch = tempfile::tempdir_in(".")?;
    let db = scratch.path().join("hour.db");
    let server = Server::start(&binary, &db, durability)?;
    println!("{minutes} minutes, {RUNNERS} runners of jobs of {JOB_MS} ms, lists read beside, durability {durability}");
    let length = Duration::from_secs(minutes * 60);
    let wal = LocalSet::new().block_on(&runtime()?, work(&server, &db, length))?;
    server.stop()?;
    println!("the log was never larger than {:.0} MiB; {:.0} MiB are asked", mib(wal), mib(WAL_MAX));
    ensure!(wal <= WAL_MAX, "the log of the database outgrew its bound");
    Ok(())
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The largest size of the log.
async fn work(server: &Server, db: &Path, length: Duration) -> anyhow::Result<u64> {
    let address = server.address;
    let first = fill(address, REFILL).await?;
    let latest: Rc<Cell<(i64, i64)>> = Rc::new(Cell::new(first));
    let shown = Arc::new(AtomicI64::new(first.0));
    let latencies: Rc<RefCell<Vec<u32>>> = Rc::default();
    let claims: Rc<RefCell<Vec<u32>>> = Rc::default();
    let done: Rc<Cell<usize>> = Rc::default();
    let until = Instant::now() + length;
    let mut tasks = Vec::new();
    for _ in 0..RUNNERS {
        let mut http = Http::connect(address).await?;
        let (latencies, claims) = (latencies.clone(), claims.clone());
        let (latest, done) = (latest.clone(), done.clone());
        tasks.push(tokio::task::spawn_local(async move {
            let (mut workflow, mut node) = latest.get();
            while Instant::now() < until {
                if one_job(&mut http, workflow, node, JOB_MS, &latencies, &claims).await? {
                    done.set(done.get() + 1);
                } else if (workflow, node) == latest.get() {
                    tokio::time::sleep(Duration::from_millis(JOB_MS)).await;
                } else {
                    (workflow, node) = latest.get();
                }
            }
            anyhow::Ok(())
        }));
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let (over, shows) = (is_over.clone(), shown.clone());
    let reading = tokio::task::spawn_blocking(move || runtime()?.block_on(read(address, &shows, &over)));
    let refill = async || {
        let next = fill(address, REFILL).await?;
        latest.set(next);
        shown.store(next.0, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let watched = watch(server, db, length, refill, &done, &latencies, &claims).await;
    is_over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    reading.await??;
    watched
}

/// Keeps jobs there, and says each part of the time how it goes.
async fn watch(
    server: &Server,
    db: &Path,
    length: Duration,
    refill: impl AsyncFn() -> anyhow::Result<()>,
    done: &Cell<usize>,
    latencies: &RefCell<Vec<u32>>,
    claims: &RefCell<Vec<u32>>,
) -> anyhow::Result<u64> {
    let log = db.with_extension("db-wal");
    let (begun, mut filled, mut wal) = (Instant::now(), 0, 0);
    for part in 1..=PARTS {
        let before = done.get();
        let since = Instant::now();
        while begun.elapsed() < length * part / PARTS {
            tokio::time::sleep(Duration::from_millis(100)).await;
            wal = wal.max(std::fs::metadata(&log).map_or(0, |log| log.len()));
            if done.get() >= filled {
                filled += REFILL;
                refill().await?;
            }
        }
        latencies.borrow_mut().clear();
        let mut took = claims.take();
        took.sort_unstable();
        let p99 = took.get(took.len() * 99 / 100).map_or(f64::NAN, |took| f64::from(*took) / 1e3);
        println!(
            "after {:4.0} s  {:8} jobs done  {:6.0} jobs/s  claim p99 {p99:6.2} ms  log {:4.0} MiB  file {:6.0} MiB  resident {:4.0} MiB",
            begun.elapsed().as_secs_f64(),
            done.get(),
            (done.get() - before) as f64 / since.elapsed().as_secs_f64(),
            mib(wal),
            mib(std::fs::metadata(db)?.len()),
            mib(server.memory("VmRSS")?),
        );
    }
    Ok(wal)
}

/// Reads lists, so that readers hold snapshots all the time.
async fn read(address: SocketAddr, workflow: &AtomicI64, is_over: &AtomicBool) -> anyhow::Result<()> {
    let mut http = Http::connect(address).await?;
    while !is_over.load(Ordering::Relaxed) {
        let workflow = workflow.load(Ordering::Relaxed);
        for list in ["jobs", "results"] {
            http.call("GET", &format!("/{list}?workflow_id={workflow}&limit=10000"), None).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}
