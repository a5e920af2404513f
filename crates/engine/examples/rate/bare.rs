//! The same rows in batches of the same sizes, by nobody but `rusqlite`: prepared statements, and tables
//! with their keys and the index that a claim needs; or with the other indexes of ours, too.

use std::time::{Duration, Instant};

use forebay_domain::batch::{Extent, JobWrite};
use forebay_domain::job::JobRow;
use forebay_store_sqlite::Durability;
use rusqlite::{Connection, Transaction, params};

use crate::load::Cpu;
use crate::world::{Mode, Written};

/// What the bare loop took.
pub struct Took {
    pub took: Duration,
    pub cpu: Duration,
}

/// Which indexes the tables have.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tables {
    /// What a claim needs.
    Few,
    /// What lists, timers and the end of a node need, too.
    AsOurs,
}

/// Writes these batches into a new database in which these jobs are ready.
pub fn write(mode: Mode, tables: Tables, jobs: i64, batches: &[Written]) -> Took {
    let folder = tempfile::tempdir_in(".").expect("a folder can be made");
    let mut db = Connection::open(folder.path().join("bare.db")).expect("a new database can be opened");
    let synchronous = match mode.durability() {
        Durability::Power => "FULL",
        Durability::Process => "NORMAL",
    };
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA cache_size = -65536;
         PRAGMA wal_autocheckpoint = 4000;
         CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
         INSERT INTO meta VALUES ('lsn', 0);
         CREATE TABLE workflow (id INTEGER PRIMARY KEY, run, canceled, ready, claimed, running, completed);
         CREATE TABLE job (id INTEGER PRIMARY KEY, workflow_id, lane_id, state, priority, attempt, flags, node_id,
             epoch, started_at, due_at, result_id);
         CREATE INDEX job_page ON job (lane_id, priority DESC) WHERE state = 2;
         CREATE TABLE detail (id INTEGER PRIMARY KEY, workflow_id, name, payload);
         CREATE TABLE result (id INTEGER PRIMARY KEY, workflow_id, job_id, run_id, attempt_id, compute_node_id,
             return_code, exec_time_minutes, completion_time, status, peak_memory_bytes, avg_memory_bytes,
             peak_cpu_percent, avg_cpu_percent);",
    ))
    .expect("the tables can be made");
    if tables == Tables::AsOurs {
        db.execute_batch(
            "CREATE INDEX job_workflow ON job (workflow_id);
             CREATE INDEX job_few ON job (state, workflow_id) WHERE state > 5;
             CREATE INDEX job_timer ON job (due_at) WHERE due_at IS NOT NULL;
             CREATE INDEX job_node ON job (node_id) WHERE node_id IS NOT NULL;
             CREATE INDEX detail_name ON detail (workflow_id, name);
             CREATE INDEX result_workflow ON result (workflow_id);
             CREATE INDEX result_job ON result (job_id);",
        )
        .expect("the indexes can be made");
    }
    let created: Vec<JobRow> = batches
        .iter()
        .flat_map(|batch| &batch.jobs)
        .filter(|write| write.extent == Extent::New)
        .map(|write| write.row)
        .collect();
    let first_created = created.iter().map(|row| row.id.0).min().unwrap_or(jobs + 1);
    let fill = db.transaction().expect("nobody else is there");
    for id in 1..first_created.min(jobs + 1) {
        let ready = fill.prepare_cached("INSERT INTO job VALUES (?1, 1, 1, 2, 0, 1, 1, NULL, 0, NULL, NULL, NULL)");
        ready.and_then(|mut insert| insert.execute([id])).expect("a job can be inserted");
    }
    fill.commit().expect("jobs can be created");

    let (began, cpu) = (Instant::now(), Cpu::now());
    let mut results = 0;
    for (lsn, batch) in batches.iter().enumerate() {
        let all = db.transaction().expect("nobody else is there");
        one(&all, lsn, batch, &mut results).expect("a batch can be written");
        all.commit().expect("a batch can be committed");
    }
    Took { took: began.elapsed(), cpu: Cpu::now().since(cpu).sum() }
}

fn one(all: &Transaction<'_>, lsn: usize, batch: &Written, results: &mut i64) -> rusqlite::Result<()> {
    let mut put = all.prepare_cached("INSERT OR REPLACE INTO workflow VALUES (?1, 0, 0, ?2, ?2, ?2, ?2)")?;
    for workflow in 0..batch.workflows {
        put.execute(params![workflow as i64, lsn as i64])?;
    }
    let mut update = all.prepare_cached(
        "UPDATE job SET lane_id = ?2, state = ?3, priority = ?4, attempt = ?5, flags = ?6, node_id = ?7, epoch = ?8,
         started_at = ?9, due_at = ?10, result_id = ?11 WHERE id = ?1",
    )?;
    let mut insert = all.prepare_cached("INSERT INTO job VALUES (?1, 1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?;
    let mut detail = all.prepare_cached("INSERT INTO detail VALUES (?1, 1, 'job 0', ?2)")?;
    for JobWrite { row, extent } in &batch.jobs {
        let statement = if *extent == Extent::New { &mut insert } else { &mut update };
        statement.execute(params![
            row.id.0,
            row.lane.0,
            row.state.number(),
            row.priority,
            row.attempt,
            row.flags.0,
            row.node.map(|node| node.0),
            row.grant.0,
            row.started_at.map(|time| time.0),
            row.due_at.map(|time| time.0),
            row.result.map(|result| result.0)
        ])?;
        if *extent == Extent::New {
            detail.execute(params![row.id.0, b"echo 0"])?;
        }
    }
    let mut insert = all.prepare_cached(
        "INSERT INTO result VALUES (?1, 1, ?1, 0, 1, 1, 0, 0.1, '2026-01-01T00:00:01Z', 5, NULL, NULL, NULL, NULL)",
    )?;
    for _ in 0..batch.results {
        *results += 1;
        insert.execute([*results])?;
    }
    all.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'lsn'")?.execute([lsn as i64])?;
    Ok(())
}
