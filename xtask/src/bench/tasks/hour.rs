//! Tasks that come and go at a steady rate for as long as asked: whether the file, its log and what is
//! held in memory keep their size.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::pull::{Load, pull};
use super::{BACKLOG, FEW, Figures, fill};
use crate::bench::hour::{WAL_MAX, mib};
use crate::server::{Server, given_or_built};

const PARTS: u32 = 12;

/// The file may be so much larger at the end than after a quarter of the time.
const GROWTH_MAX: f64 = 1.1;

pub fn run(minutes: f64, per_second: f64, durability: &str, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let binary = given_or_built(binary)?;
    let scratch = tempfile::tempdir_in(".")?;
    let db = scratch.path().join("tasks.db");
    let log = db.with_extension("db-wal");
    let server = Server::start_with_grpc(&binary, &db, durability)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    println!("{minutes} minutes, {per_second} tasks a second come and are done, durability {durability}");
    let length = Duration::from_secs_f64(minutes * 60.0 / f64::from(PARTS));
    let load = Load { workers: FEW, task_ms: 0, per_second: Some(per_second), with_ingest: true, length };
    let (mut there, mut after_a_quarter, mut wal_max) = (0, 0, 0);
    for part in 1..=PARTS {
        runtime.block_on(fill::fill(server.grpc()?, BACKLOG - there))?;
        let (is_over, longest) = (AtomicBool::new(false), AtomicU64::new(0));
        let pulled = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    longest.fetch_max(std::fs::metadata(&log).map_or(0, |log| log.len()), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(50));
                }
            });
            let pulled = runtime.block_on(async { pull(server.grpc()?, load).await });
            is_over.store(true, Ordering::Relaxed);
            pulled
        })?;
        there = (BACKLOG + pulled.enqueued).saturating_sub(pulled.tasks + FEW as u64).min(BACKLOG);
        let (file, wal) = (std::fs::metadata(&db)?.len(), longest.into_inner());
        wal_max = wal_max.max(wal);
        if part == PARTS / 4 {
            after_a_quarter = file;
        }
        let mut figures = Figures { pulled, ..Figures::default() };
        println!(
            "after {:5.0} s  {:6.0} tasks/s  call p99 {:6.2} ms  log {:4.0} MiB  file {:6.1} MiB  resident {:4.0} MiB",
            length.as_secs_f64() * f64::from(part),
            figures.rate(),
            figures.ms(0.99),
            mib(wal),
            mib(file),
            mib(server.memory("VmRSS")?),
        );
    }
    let file = std::fs::metadata(&db).context("the database is there")?.len();
    server.stop()?;
    let growth = file as f64 / after_a_quarter as f64;
    println!(
        "the log was never larger than {:.0} MiB ({:.0} MiB are asked); the file is {growth:.2} of what it was \
         after a quarter of the time (at most {GROWTH_MAX} is asked)",
        mib(wal_max),
        mib(WAL_MAX)
    );
    ensure!(wal_max <= WAL_MAX, "the log of the database outgrew its bound");
    ensure!(growth <= GROWTH_MAX, "the database grows");
    Ok(())
}
