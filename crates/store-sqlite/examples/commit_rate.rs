//! How fast batches commit, beside a bare loop of the same rows over `rusqlite`.
//!
//!     cargo run --release -p forebay-store-sqlite --example commit_rate -- [--process] [--jobs N] [--dir DIR] [--also SQL]
//!
//! A batch is 2 000 changes of a server at work: 500 jobs are claimed, 500 start, 500 complete, and
//! 500 results are added. The bare loop updates a table of the same columns that has nothing but its
//! key and the index that a claim needs, adds to a table of results that has nothing but its key,
//! and writes its number, each with one prepared statement, in one transaction a batch.

use std::path::Path;
use std::time::{Duration, Instant};

use forebay_domain::batch::{Batch, Extent, JobDetail, JobWrite, LaneRow, WorkflowRow};
use forebay_domain::catalog::{Row, Table, Value};
use forebay_domain::ids::{Grant, JobId, LaneId, Lsn, NodeId, RequirementId, ResultId, Timestamp, WorkflowId};
use forebay_domain::job::{JobFlags, JobRow};
use forebay_domain::lane::LabelSet;
use forebay_domain::port::Store;
use forebay_domain::state::{JobState, STATES};
use forebay_store_sqlite::{Durability, Options, SqliteStore};
use rusqlite::{Connection, params, params_from_iter};

const STEP: i64 = 500;
const ROUNDS: usize = 5;

struct Setup {
    durability: Durability,
    jobs: i64,
    dir: Option<String>,
    /// Run on Forebay's database before the measurement, to see what an index costs.
    also: Option<String>,
}

/// What one run took: of the wall clock, of this thread's CPU, and of its slowest batch.
#[derive(Clone, Copy)]
struct Took {
    wall: Duration,
    cpu: Duration,
    slowest: Duration,
    batches: usize,
}

fn main() {
    let mut setup = Setup { durability: Durability::Power, jobs: 200_000, dir: None, also: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("a value follows the option");
        match arg.as_str() {
            "--process" => setup.durability = Durability::Process,
            "--jobs" => setup.jobs = value().parse().expect("--jobs is a number"),
            "--dir" => setup.dir = Some(value()),
            "--also" => setup.also = Some(value()),
            _ => panic!("no such option: {arg}"),
        }
    }
    println!("{} jobs, batches of {} changes, {:?}", setup.jobs, 4 * STEP, setup.durability);
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        // One after the other, so that both meet the same weather.
        let (bare, store) = (run_bare(&setup), run_store(&setup));
        let (rate, bare_rate) = (show("store", store), show("bare", bare));
        ratios.push((rate.0 / bare_rate.0, rate.1 / bare_rate.1));
    }
    let median = |of: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = ratios.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    println!("store/bare, median of {ROUNDS}: {:.2} by wall clock, {:.2} by CPU", median(|r| r.0), median(|r| r.1));
}

/// Changes a second, by the wall clock and by CPU.
fn show(name: &str, took: Took) -> (f64, f64) {
    let changes = (took.batches as i64 * 4 * STEP) as f64;
    let rates = (changes / took.wall.as_secs_f64(), changes / took.cpu.as_secs_f64());
    println!(
        "{name:>6}: {:>8.0} changes/s, {:>8.0} by CPU; {} commits, the slowest {:.1} ms",
        rates.0,
        rates.1,
        took.batches,
        took.slowest.as_secs_f64() * 1e3
    );
    rates
}

/// The batches of a server at work: each job is claimed, started and completed in three batches
/// that follow each other, a step of jobs at a time.
fn work(jobs: i64) -> Vec<Batch> {
    let steps = jobs / STEP;
    (0..steps + 2)
        .map(|at| {
            let mut batch = Batch { workflows: vec![workflow(jobs)], ..Batch::default() };
            for (state, step) in [(JobState::Claimed, at), (JobState::Running, at - 1), (JobState::Completed, at - 2)] {
                if (0..steps).contains(&step) {
                    let ids = step * STEP + 1..=(step + 1) * STEP;
                    batch.jobs.extend(ids.clone().map(|id| JobWrite { row: job(id, state), extent: Extent::Whole }));
                    if state == JobState::Completed {
                        batch.appends.extend(ids.map(|id| (Table::Result, result(id))));
                    }
                }
            }
            batch
        })
        .collect()
}

fn run_store(setup: &Setup) -> Took {
    let folder = folder(setup);
    let path = folder.path().join("a.db");
    let options = Options { durability: setup.durability, ..Options::default() };
    let mut store = SqliteStore::open(&path, options).expect("a new database can be opened");
    let mut lsn = store.recover().expect("a new database is empty").lsn;
    let first = LaneRow {
        id: LaneId(1),
        workflow: WorkflowId(1),
        requirement: RequirementId(1),
        labels: LabelSet::default(),
        scheduler: None,
    };
    let mut lanes = vec![first];
    for start in (1..=setup.jobs).step_by(5_000) {
        lsn = lsn.next();
        let ids = start..(start + 5_000).min(setup.jobs + 1);
        let batch = Batch {
            lsn,
            lanes: std::mem::take(&mut lanes),
            jobs: ids.clone().map(|id| JobWrite { row: job(id, JobState::Ready), extent: Extent::New }).collect(),
            details: ids
                .map(|id| JobDetail {
                    job: JobId(id),
                    workflow: WorkflowId(1),
                    name: format!("job_{id}").into(),
                    payload: format!(r#"{{"command":"echo {id}"}}"#).into_bytes().into(),
                })
                .collect(),
            ..Batch::default()
        };
        store.commit(&batch).expect("jobs can be created");
    }
    if let Some(sql) = &setup.also {
        Connection::open(&path).expect("it is there").execute_batch(sql).expect("--also can be run");
    }
    let mut batches = work(setup.jobs);
    for batch in &mut batches {
        lsn = lsn.next();
        batch.lsn = lsn;
    }
    measure(&batches, |batch| {
        store.commit(batch).expect("a batch can be committed");
    })
}

fn run_bare(setup: &Setup) -> Took {
    let folder = folder(setup);
    let mut db = Connection::open(folder.path().join("a.db")).expect("a new database can be opened");
    db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {}; PRAGMA cache_size = -65536;
         PRAGMA wal_autocheckpoint = 4000;
         CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
         INSERT INTO meta VALUES ('lsn', 0);
         CREATE TABLE job (id INTEGER PRIMARY KEY, workflow_id, lane_id, state, priority, attempt, flags, node_id,
             grant_number, started_at, due_at, result_id);
         CREATE INDEX job_page ON job (lane_id, priority DESC) WHERE state = 2;
         CREATE TABLE result (id INTEGER PRIMARY KEY, workflow_id, job_id, run_id, attempt_id, compute_node_id,
             return_code, exec_time_minutes, completion_time, status, peak_memory_bytes, avg_memory_bytes,
             peak_cpu_percent, avg_cpu_percent);",
        match setup.durability {
            Durability::Power => "FULL",
            Durability::Process => "NORMAL",
        }
    ))
    .expect("the tables can be made");
    let all = db.transaction().expect("nobody else is there");
    for id in 1..=setup.jobs {
        let row = job(id, JobState::Ready);
        all.prepare_cached("INSERT INTO job VALUES (?,?,?,?,?,?,?,?,?,?,?,?)")
            .and_then(|mut insert| {
                insert.execute(params![
                    row.id.0,
                    row.workflow.0,
                    row.lane.0,
                    row.state.number(),
                    row.priority,
                    row.attempt,
                    row.flags.0,
                    row.node.map(|n| n.0),
                    row.grant.0,
                    row.started_at.map(|t| t.0),
                    row.due_at.map(|t| t.0),
                    row.result.map(|r| r.0)
                ])
            })
            .expect("a job can be inserted");
    }
    all.commit().expect("jobs can be created");
    let mut lsn = Lsn(0);
    measure(&work(setup.jobs), |batch| {
        lsn = lsn.next();
        bare_commit(&mut db, lsn, batch).expect("a batch can be committed");
    })
}

fn bare_commit(db: &mut Connection, lsn: Lsn, batch: &Batch) -> rusqlite::Result<()> {
    let all = db.transaction()?;
    {
        let mut update = all.prepare_cached(
            "UPDATE job SET lane_id = ?2, state = ?3, priority = ?4, attempt = ?5, flags = ?6, node_id = ?7,
             grant_number = ?8, started_at = ?9, due_at = ?10, result_id = ?11 WHERE id = ?1",
        )?;
        for JobWrite { row, .. } in &batch.jobs {
            update.execute(params![
                row.id.0,
                row.lane.0,
                row.state.number(),
                row.priority,
                row.attempt,
                row.flags.0,
                row.node.map(|n| n.0),
                row.grant.0,
                row.started_at.map(|t| t.0),
                row.due_at.map(|t| t.0),
                row.result.map(|r| r.0)
            ])?;
        }
        let mut insert = all.prepare_cached("INSERT INTO result VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)")?;
        for (_, row) in &batch.appends {
            insert.execute(params_from_iter(row.iter().map(|value| match value {
                Value::Null => rusqlite::types::Value::Null,
                Value::Int(n) => rusqlite::types::Value::Integer(*n),
                Value::Real(x) => rusqlite::types::Value::Real(*x),
                Value::Text(text) => rusqlite::types::Value::Text(text.to_string()),
            })))?;
        }
        all.prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'lsn'")?.execute([lsn.0.cast_signed()])?;
    }
    all.commit()
}

fn measure(batches: &[Batch], mut commit: impl FnMut(&Batch)) -> Took {
    let (began, cpu) = (Instant::now(), cpu_time());
    let mut slowest = Duration::ZERO;
    for batch in batches {
        let began = Instant::now();
        commit(batch);
        slowest = slowest.max(began.elapsed());
    }
    Took { wall: began.elapsed(), cpu: cpu_time() - cpu, slowest, batches: batches.len() }
}

/// How long this thread was on a CPU.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let nanos = stat.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("it begins with the time on CPU"))
}

fn folder(setup: &Setup) -> tempfile::TempDir {
    let near = setup.dir.as_deref().unwrap_or(".");
    tempfile::tempdir_in(Path::new(near)).expect("a folder can be made")
}

fn workflow(jobs: i64) -> WorkflowRow {
    WorkflowRow { counts: [jobs; STATES], ..WorkflowRow::new(WorkflowId(1), RequirementId(1)) }
}

fn job(id: i64, state: JobState) -> JobRow {
    let held = matches!(state, JobState::Running | JobState::Completed);
    JobRow {
        id: JobId(id),
        workflow: WorkflowId(1),
        lane: LaneId(1),
        state,
        priority: 0,
        attempt: 1,
        flags: JobFlags(1),
        node: held.then_some(NodeId(7)),
        grant: Grant(1),
        started_at: held.then_some(Timestamp(1_750_000_000_000)),
        due_at: None,
        result: (state == JobState::Completed).then_some(ResultId(id)),
        tries: Default::default(),
        policy: None,
        expires_at: None,
    }
}

fn result(id: i64) -> Row {
    Box::new([
        Value::Int(id),
        Value::Int(1),
        Value::Int(id),
        Value::Int(0),
        Value::Int(1),
        Value::Int(7),
        Value::Int(0),
        Value::Real(0.25),
        Value::Text("2026-01-01T00:00:00.000Z".into()),
        Value::Int(5),
        Value::Int(9_000_000),
        Value::Null,
        Value::Real(99.5),
        Value::Null,
    ])
}
