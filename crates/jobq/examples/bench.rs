//! jobq's own three measurements (create, poll, append_event), beside what the disk and bare SQLite
//! do in the same run. Each measurement is repeated in turn with the others, and the median of its
//! ratio to its neighbour counts: the machine's mood falls on both. What is in memory is counted in
//! the thread's processor time, which others on the machine do not take away.
//!
//! `bench [calls] [rounds] [directory] [part…]`, by default 10 000 calls in 5 rounds in the system's
//! temporary directory, of the parts `power`, `many`, `process`, `memory` and `among`. The part
//! `ten-million` polls among as many jobs, and takes minutes and gigabytes. Ends with 1 if a gate is
//! missed.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use forebay_jobq::{Durability, JobQueue, Options, Query};
use rusqlite::{Connection, params};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

type Failed = Box<dyn Error>;

/// Callers at once, in the measurement of many.
const CALLERS: usize = 64;
const DISK: &str = "disk: write 4 KiB, fdatasync";

fn main() -> Result<ExitCode, Failed> {
    let mut args = std::env::args().skip(1);
    let calls: usize = args.next().map_or(Ok(10_000), |calls| calls.parse())?;
    let rounds: usize = args.next().map_or(Ok(5), |rounds| rounds.parse())?;
    let root = args.next().map_or_else(std::env::temp_dir, Into::into);
    let parts: Vec<String> = args.collect();
    let parts: Vec<&str> = match parts.is_empty() {
        true => vec!["power", "many", "process", "memory", "among"],
        false => parts.iter().map(String::as_str).collect(),
    };
    let mut table = Table::default();
    let made = tempfile::TempDir::new_in(&root)?;
    for round in 0..rounds {
        let dir = tempfile::TempDir::new_in(&root)?;
        for part in &parts {
            measure(&mut table, part, dir.path(), made.path(), calls.div_ceil(rounds))?;
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    Ok(table.print())
}

/// One part of a round, neighbours that are compared next to each other.
fn measure(table: &mut Table, part: &str, dir: &Path, made: &Path, calls: usize) -> Result<(), Failed> {
    match part {
        "power" => {
            table.add(DISK, calls, disk(&dir.join("disk"), calls)?);
            jobq(table, "power", Some(Durability::Power), dir, calls)?;
            table.add("sqlite power: create", calls, bare(&dir.join("bare-power"), "FULL", calls)?);
        }
        "many" => {
            many(table, dir, calls)?;
            let often = calls * 10;
            table.add("sqlite power: create, 64 a commit", often, batches(&dir.join("bare-many"), often)?);
            many_tasks(table, dir, calls)?;
        }
        "process" => {
            table.add("sqlite process: create", calls, bare(&dir.join("bare-process"), "NORMAL", calls)?);
            jobq(table, "process", Some(Durability::Process), dir, calls)?;
        }
        // What is fast is called more often, so that a round is long enough to measure.
        "memory" => {
            let often = calls * 10;
            table.add("sqlite memory: create", often, bare(Path::new(":memory:"), "OFF", often)?);
            jobq(table, "memory", None, dir, often)?;
        }
        "among" => [10, 1_000_000].into_iter().try_for_each(|others| among(table, made, others, calls))?,
        "ten-million" => [10, 10_000_000].into_iter().try_for_each(|others| among(table, made, others, calls))?,
        other => return Err(format!("there is no part {other:?}").into()),
    }
    Ok(())
}

/// Polls by state in a file of jobs in other states, made by the first round. Counts this thread's
/// processor time: the disk is the same for few and for many.
fn among(table: &mut Table, dir: &Path, others: usize, calls: usize) -> Result<(), Failed> {
    let path = dir.join(others.to_string());
    let is_new = !path.exists();
    let queue = open(&path, Durability::Process)?;
    if is_new {
        Connection::open(&path)?.execute(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?1)
             INSERT INTO job (payload, events, state, modified) SELECT n, ?2, '[\"DONE\"]', ?3 + n / 1000 FROM n",
            params![i64::try_from(others)?, EVENTS, MODIFIED],
        )?;
    }
    (0..calls).try_for_each(|n| queue.create(json!(n), json!(["CREATED"])).map(drop))?;
    let query = Query::tag("CREATED");
    // The first poll makes the index.
    queue.poll(&query, json!(["POLLED"]))?.ok_or("a poll found no job")?;
    let start = Watch::start(true);
    for _ in 1..calls {
        queue.poll(&query, json!(["POLLED"]))?.ok_or("a poll found no job")?;
    }
    table.add(&format!("jobq process: poll among {others}"), calls - 1, start.took());
    Ok(())
}

fn disk(path: &Path, calls: usize) -> Result<Duration, Failed> {
    let file = File::create_new(path)?;
    let page = [b'x'; 4096];
    let start = Watch::start(false);
    for call in 0..calls {
        file.write_all_at(&page, call as u64 * 4096)?;
        file.sync_data()?;
    }
    Ok(start.took())
}

/// The rows that jobq makes, one transaction each, with nothing around.
fn bare(path: &Path, synchronous: &str, calls: usize) -> Result<Duration, Failed> {
    let db = open_bare(path, synchronous)?;
    let mut insert = db.prepare(INSERT)?;
    let (payload, state) = (payload(), state());
    let in_memory = path == Path::new(":memory:");
    let start = Watch::start(in_memory);
    for _ in 0..calls {
        insert.execute(params![payload.to_string(), EVENTS, state.to_string(), MODIFIED])?;
    }
    Ok(start.took())
}

const INSERT: &str = "INSERT INTO job (payload, events, state, modified) VALUES (?1, ?2, ?3, ?4)";
const EVENTS: &str = r#"[["job_created",{"timestamp":"1700000000"}]]"#;
const MODIFIED: i64 = 1_700_000_000;

/// jobq's table, with nothing around.
fn open_bare(path: &Path, synchronous: &str) -> Result<Connection, Failed> {
    let db = Connection::open(path)?;
    db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    db.execute_batch(&format!("PRAGMA synchronous = {synchronous}"))?;
    db.execute_batch(
        "CREATE TABLE job (id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT, events TEXT, \
         state TEXT, modified INTEGER); CREATE INDEX job_modified ON job (modified);",
    )?;
    Ok(db)
}

/// The same rows, as many in each transaction as there are callers: what many callers can reach.
fn batches(path: &Path, calls: usize) -> Result<Duration, Failed> {
    let db = open_bare(path, "FULL")?;
    let mut insert = db.prepare(INSERT)?;
    let (payload, state) = (payload(), state());
    let start = Watch::start(false);
    for call in 0..calls {
        if call % CALLERS == 0 {
            db.execute_batch("BEGIN IMMEDIATE")?;
        }
        insert.execute(params![payload.to_string(), EVENTS, state.to_string(), MODIFIED])?;
        if (call + 1) % CALLERS == 0 || call + 1 == calls {
            db.execute_batch("COMMIT")?;
        }
    }
    Ok(start.took())
}

/// As large as the original's benchmark makes it.
fn payload() -> serde_json::Value {
    json!({"user_id": 2_863_311_530_u32, "msg": "x".repeat(256)})
}

fn state() -> serde_json::Value {
    json!(["CREATED"])
}

fn open(path: &Path, durability: Durability) -> Result<JobQueue, Failed> {
    Ok(JobQueue::open_with(path, Options { durability, ..Options::default() })?)
}

fn jobq(table: &mut Table, name: &str, durability: Option<Durability>, dir: &Path, calls: usize) -> Result<(), Failed> {
    let path = durability.map_or_else(|| ":memory:".into(), |_| dir.join(name));
    let queue = open(&path, durability.unwrap_or_default())?;
    let in_memory = durability.is_none();
    let (payload, state) = (payload(), state());
    let start = Watch::start(in_memory);
    for _ in 0..calls {
        queue.create(&payload, &state)?;
    }
    table.add(&format!("jobq {name}: create"), calls, start.took());
    let query = Query::from("json_extract(j.state, '$[0]') = 'CREATED'");
    let start = Watch::start(in_memory);
    for _ in 0..calls {
        queue.poll(&query, json!(["POLLED"]))?.ok_or("a poll found no job")?;
    }
    table.add(&format!("jobq {name}: poll"), calls, start.took());
    let start = Watch::start(in_memory);
    for call in 0..calls {
        // A stride that visits each job once.
        let id = (call * 7_919) % calls + 1;
        queue.append_event(i64::try_from(id)?, json!({"foo": "bar"}))?;
    }
    table.add(&format!("jobq {name}: append_event"), calls, start.took());
    Ok(())
}

/// Many callers at once, each waiting for its commit.
fn many(table: &mut Table, dir: &Path, calls: usize) -> Result<(), Failed> {
    let queue = open(&dir.join("many"), Durability::Power)?;
    let each = (calls * 10).div_ceil(CALLERS);
    let start = Watch::start(false);
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| -> Result<(), forebay_jobq::Error> {
                    let (payload, state) = (payload(), state());
                    (0..each).try_for_each(|_| queue.create(&payload, &state).map(drop))
                })
            })
            .collect();
        callers.into_iter().try_for_each(|caller| caller.join().expect("no caller panics"))
    })?;
    table.add("jobq power: create, 64 callers", each * CALLERS, start.took());
    Ok(())
}

/// As many callers as tasks of one thread.
fn many_tasks(table: &mut Table, dir: &Path, calls: usize) -> Result<(), Failed> {
    let queue = open(&dir.join("tasks"), Durability::Power)?.in_async();
    let each = (calls * 10).div_ceil(CALLERS);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let start = Watch::start(false);
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..CALLERS {
            let queue = queue.clone();
            tasks.spawn(async move {
                let (payload, state) = (payload(), state());
                for _ in 0..each {
                    queue.create(&payload, &state).await?;
                }
                Ok::<_, forebay_jobq::Error>(())
            });
        }
        tasks.join_all().await.into_iter().collect::<Result<(), _>>()
    })?;
    table.add("jobq power: create, 64 tasks", each * CALLERS, start.took());
    Ok(())
}

/// Measures time: the wall's, or this thread's on a processor.
struct Watch {
    in_memory: bool,
    start: Duration,
}

impl Watch {
    fn start(in_memory: bool) -> Self {
        Watch { in_memory, start: Watch::now(in_memory) }
    }

    fn took(&self) -> Duration {
        Watch::now(self.in_memory).saturating_sub(self.start)
    }

    fn now(in_memory: bool) -> Duration {
        let clock = if in_memory { ClockId::ThreadCPUTime } else { ClockId::Monotonic };
        let now = clock_gettime(clock);
        Duration::from_secs(now.tv_sec.cast_unsigned()) + Duration::from_nanos(now.tv_nsec.cast_unsigned())
    }
}

/// Calls a second, a line each, a number for each round.
#[derive(Default)]
struct Table {
    lines: Vec<(String, Vec<f64>)>,
}

impl Table {
    #[expect(clippy::cast_precision_loss, reason = "counts of calls are small")]
    fn add(&mut self, name: &str, calls: usize, took: Duration) {
        let rate = calls as f64 / took.as_secs_f64();
        match self.lines.iter_mut().find(|(known, _)| known == name) {
            Some((_, rates)) => rates.push(rate),
            None => self.lines.push((name.to_owned(), vec![rate])),
        }
    }

    /// The median over the rounds of one rate as a part of another; none if one was not measured.
    fn ratio(&self, name: &str, to: &str) -> Option<f64> {
        let rates = |name: &str| self.lines.iter().find(|(known, _)| known == name).map(|(_, rates)| rates);
        Some(median(rates(name)?.iter().zip(rates(to)?).map(|(rate, to)| rate / to)))
    }

    fn rate(&self, name: &str) -> Option<f64> {
        let (_, rates) = self.lines.iter().find(|(known, _)| known == name)?;
        Some(median(rates.iter().copied()))
    }

    fn print(&self) -> ExitCode {
        println!("{:36} {:>12}", "calls a second, median", "");
        for (name, rates) in &self.lines {
            println!("{name:36} {:>12.0}", median(rates.iter().copied()));
        }
        if let Some(syncs) = self.rate(DISK) {
            println!("{:36} {:>12.2}", "ms for a 4 KiB write and fdatasync", 1_000.0 / syncs);
        }
        println!("\n{:52} {:>8} {:>8}", "gate", "is", "at least");
        let mut all_held = true;
        for (name, is, least) in self.gates() {
            let Some(is) = is else { continue };
            let verdict = if is >= least { "" } else { "  MISSED" };
            all_held &= is >= least;
            println!("{name:52} {is:>8.2} {least:>8.2}{verdict}");
        }
        if all_held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// What must hold: its name, what it is, and what it must be at least.
    fn gates(&self) -> [(&'static str, Option<f64>, f64); 9] {
        let one = "jobq power: create";
        // Where a sync is so fast that SQLite itself does not carry so much, a good part of what it
        // does carry; threads must each be woken for it, tasks need not.
        let carried = self.ratio("sqlite power: create, 64 a commit", one);
        let part = |part: f64| carried.map_or(40.0, |carried| 40.0_f64.min(part * carried));
        [
            ("one caller in power, of a bare write and fdatasync", self.ratio(one, DISK), 0.8),
            ("64 callers in power, of one", self.ratio("jobq power: create, 64 callers", one), part(0.45)),
            ("64 async callers in power, of one", self.ratio("jobq power: create, 64 tasks", one), part(0.7)),
            ("  (of one: bare SQLite, 64 creates a commit)", carried, 0.0),
            (
                "one caller in process, of bare rusqlite",
                self.ratio("jobq process: create", "sqlite process: create"),
                0.8,
            ),
            (":memory: create, of bare rusqlite", self.ratio("jobq memory: create", "sqlite memory: create"), 0.8),
            (
                ":memory: poll, of the original's 8 250 a second",
                self.rate("jobq memory: poll").map(|rate| rate / 8_250.0),
                10.0,
            ),
            (
                "poll among 1 000 000 jobs, of among 10",
                self.ratio("jobq process: poll among 1000000", "jobq process: poll among 10"),
                0.8,
            ),
            (
                "poll among 10 000 000 jobs, of among 10",
                self.ratio("jobq process: poll among 10000000", "jobq process: poll among 10"),
                0.8,
            ),
        ]
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
