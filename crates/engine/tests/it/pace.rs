//! How fast jobs go through the engine and SQLite. Ignored: it is for looking, in an optimized
//! build. `PACE_SECONDS`, `PACE_CALLERS`, `PACE_JOBS` and `PACE_MODE` (power, process) change it.

use std::env;
use std::fmt::Debug;
use std::fs;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_domain::command::{Answer, Command, Report};
use forebay_domain::ids::{NodeId, WorkflowId};
use forebay_domain::job::JobRow;
use forebay_engine::{Ended, Engine, EngineHandle, Options, SystemClock};
use forebay_store_sqlite::{Durability, SqliteReader, SqliteStore};

use crate::world::{a_claim, claim, claimed, completed, create_jobs, create_workflow};

#[test]
#[ignore = "it measures"]
fn lifecycles_a_second() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("pace.db");
    let mode: String = setting("PACE_MODE", "process".to_owned());
    let durability = if mode == "power" { Durability::Power } else { Durability::Process };
    let store = SqliteStore::open(&path, forebay_store_sqlite::Options { durability, ..Default::default() });
    let store = store.expect("a new database");
    let mut syncer = store.syncer().expect("its log is there");
    let options = match durability {
        Durability::Power => Options::power(),
        Durability::Process => Options::process(move || syncer.sync()),
    };
    let readers = move || SqliteReader::open(&path).map_err(|error| panic!("a reader: {error}"));
    let engine = Engine::start(store, readers, Arc::new(SystemClock::new()), options).expect("an engine");

    let jobs: usize = setting("PACE_JOBS", 200_000);
    let callers: usize = setting("PACE_CALLERS", 64);
    let seconds: u64 = setting("PACE_SECONDS", 5);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("a runtime");
    let workflow = runtime.block_on(fill(&engine, jobs));
    for (name, is_joined) in [("three requests", false), ("one request", true)] {
        let before = engine.counters();
        let cpu = cpu_seconds();
        let start = Instant::now();
        let end = start + Duration::from_secs(seconds);
        let mut latencies = runtime.block_on(async {
            let callers: Vec<_> = (0..callers)
                .map(|caller| {
                    let engine = engine.clone();
                    tokio::spawn(async move {
                        if is_joined {
                            joined(engine, workflow, caller, end).await
                        } else {
                            apart(engine, workflow, end).await
                        }
                    })
                })
                .collect();
            let mut latencies = Vec::new();
            for caller in callers {
                latencies.extend(caller.await.expect("no caller panics"));
            }
            latencies
        });
        let took = start.elapsed().as_secs_f64();
        let after = engine.counters();
        let done = latencies.len().max(1);
        latencies.sort_unstable();
        println!(
            "{mode}, {name}, {callers} callers: {:.0} jobs/s, {:.0} batches/s, {:.0} turns/s, lifecycle p50 {:?} p99 {:?}, \
             {:.1} us CPU a job, commits p50 {:?} p99 {:?}",
            done as f64 / took,
            (after.batches - before.batches) as f64 / took,
            (after.turns - before.turns) as f64 / took,
            latencies.get(done / 2).copied().unwrap_or_default(),
            latencies.get(done * 99 / 100).copied().unwrap_or_default(),
            (cpu_seconds() - cpu) * 1e6 / done as f64,
            after.commit.p50,
            after.commit.p99,
        );
    }
    assert!(matches!(runtime.block_on(engine.stop(Duration::from_secs(60))), Ended::Stopped));
}

async fn fill(engine: &EngineHandle, jobs: usize) -> WorkflowId {
    let Ok(Answer::Created(id)) = engine.call(create_workflow()).await else { panic!("it is created") };
    let workflow = WorkflowId(id);
    for _ in 0..jobs.div_ceil(10_000) {
        engine.call(create_jobs(workflow, 10_000)).await.expect("they are created");
    }
    engine.call(Command::Initialize { workflow, only_drafts: false }).await.expect("it is initialized");
    workflow
}

/// Claim, start, complete: one request each.
async fn apart(engine: EngineHandle, workflow: WorkflowId, end: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        let jobs = claimed(engine.call(claim(workflow, 1)).await.expect("it may claim"));
        let [row] = jobs[..] else { break };
        let begin = Command::Start { job: row.id, run: 0, node: NodeId(1) };
        engine.call(begin).await.expect("it is claimed");
        engine.call(completed(workflow, &row)).await.expect("it runs");
        latencies.push(start.elapsed());
    }
    latencies
}

/// Reports, and claims and starts the next, in one request.
async fn joined(engine: EngineHandle, workflow: WorkflowId, caller: usize, end: Instant) -> Vec<Duration> {
    let node = NodeId(i64::try_from(caller).expect("there are few"));
    let mut next = a_claim(workflow, 1, None);
    next.start_on = Some(node);
    let mut latencies = Vec::new();
    let mut row: Option<JobRow> = None;
    while Instant::now() < end {
        let start = Instant::now();
        let completions = match row.map(|row| completed(workflow, &row)) {
            Some(Command::Report(report)) => report.completions,
            Some(_) | None => Vec::new(),
        };
        let report = Report { workflow, completions, claim: Some(next.clone()) };
        let answer = engine.call(Command::Report(report)).await.expect("it may report");
        let Answer::Reported { claimed: Some(claimed), .. } = answer else { panic!("it claimed") };
        let [(claimed, _)] = &claimed.jobs[..] else { break };
        if row.replace(*claimed).is_some() {
            latencies.push(start.elapsed());
        }
    }
    latencies
}

/// What this process has used of the processors, in seconds.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("there is a rest").split_whitespace().collect();
    let ticks: f64 = [fields[11], fields[12]].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum();
    ticks / 100.0
}

fn setting<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    env::var(name).map_or(default, |value| value.parse().expect("a setting of the right kind"))
}
