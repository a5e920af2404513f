//! Steady work for as long as asked: whether the log of the database keeps its bound, and whether
//! anything gets slower or larger with the age of the database.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::load::{fill, one_job};
use crate::http::Http;
use crate::server::{Profile, Server, build, runtime};

const RUNNERS: usize = 32;
const JOB_MS: u64 = 25;
/// So many jobs are created each time that so many have been done.
const REFILL: usize = 20_000;
/// The bound of the log (DESIGN: 256 MiB).
const WAL_MAX: u64 = 256 << 20;
const PARTS: u32 = 12;

pub fn run(minutes: u64, durability: &str, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let binary = match binary {
        Some(binary) => std::path::absolute(binary)?,
        None => build(Profile::Release)?,
    };
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

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The largest size of the log.
async fn work(server: &Server, db: &Path, length: Duration) -> anyhow::Result<u64> {
    let address = server.address;
    let (workflow, node) = fill(address, 2 * REFILL).await?;
    let latencies: Rc<RefCell<Vec<u32>>> = Rc::default();
    let claims: Rc<RefCell<Vec<u32>>> = Rc::default();
    let done: Rc<Cell<usize>> = Rc::default();
    let until = Instant::now() + length;
    let mut tasks = Vec::new();
    for _ in 0..RUNNERS {
        let mut http = Http::connect(address).await?;
        let (latencies, claims, done) = (latencies.clone(), claims.clone(), done.clone());
        tasks.push(tokio::task::spawn_local(async move {
            while Instant::now() < until {
                if one_job(&mut http, workflow, node, JOB_MS, &latencies, &claims).await? {
                    done.set(done.get() + 1);
                }
            }
            anyhow::Ok(())
        }));
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let over = is_over.clone();
    let reading = tokio::task::spawn_blocking(move || runtime()?.block_on(read(address, workflow, &over)));
    let watched = watch(server, db, workflow, length, &done, &latencies, &claims).await;
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
    workflow: i64,
    length: Duration,
    done: &Cell<usize>,
    latencies: &RefCell<Vec<u32>>,
    claims: &RefCell<Vec<u32>>,
) -> anyhow::Result<u64> {
    let log = db.with_extension("db-wal");
    let mut http = Http::connect(server.address).await?;
    let (begun, mut filled, mut wal) = (Instant::now(), 0, 0);
    for part in 1..=PARTS {
        let before = done.get();
        let since = Instant::now();
        while begun.elapsed() < length * part / PARTS {
            tokio::time::sleep(Duration::from_millis(100)).await;
            wal = wal.max(std::fs::metadata(&log).map_or(0, |log| log.len()));
            if done.get() >= filled {
                let from = 2 * REFILL + filled;
                filled += REFILL;
                let job = |n| json!({"workflow_id": workflow, "name": format!("job_{n}"), "command": "true"});
                for from in (from..from + REFILL).step_by(2_000) {
                    let jobs: Vec<Value> = (from..from + 2_000).map(job).collect();
                    http.call("POST", "/bulk_jobs", Some(json!({"jobs": jobs}))).await?;
                }
                let drafts = format!("/workflows/{workflow}/initialize_jobs?only_uninitialized=true");
                http.call("POST", &drafts, None).await?;
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
async fn read(address: SocketAddr, workflow: i64, is_over: &AtomicBool) -> anyhow::Result<()> {
    let mut http = Http::connect(address).await?;
    while !is_over.load(Ordering::Relaxed) {
        for list in ["jobs", "results"] {
            http.call("GET", &format!("/{list}?workflow_id={workflow}&limit=10000"), None).await?;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(())
}
