//! Many threads in many processes on one file, with `kill -9` among them, and an auditor who knows
//! only what they were told.
//!
//! `FOREBAY_JOBQ_AUDIT` sets the number of operations, 20 000 when not set.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use forebay_jobq::{Durability, Job, JobQueue, Json, Options, Query};
use serde_json::{Value, json};
use tempfile::TempDir;

const PROCESSES: u64 = 4;
const THREADS: u64 = 16;
/// The operations for each job that all threads race to move from round to round.
const OPERATIONS_A_RACE: u64 = 2_500;
/// Tells a process that it is a worker: its number, its operations for each thread, the number of
/// races, and the directory.
const WORKER: &str = "FOREBAY_JOBQ_AUDIT_WORKER";

/// Not a test: what the processes that the test starts run.
#[test]
fn a_worker_of_the_audit() {
    if let Ok(worker) = std::env::var(WORKER) {
        let mut parts = worker.splitn(4, ' ');
        let mut number = || parts.next().and_then(|part| part.parse().ok()).expect("a number");
        let (generation, quota, races) = (number(), number(), number());
        work(Path::new(parts.next().expect("a directory")), generation, quota, races);
    }
}

#[test]
fn nothing_is_lost_and_nothing_happens_twice_in_many_processes_some_of_them_killed() {
    let operations: u64 =
        std::env::var("FOREBAY_JOBQ_AUDIT").map_or(20_000, |operations| operations.parse().expect("a number"));
    let dir = TempDir::new().expect("a directory");
    let queue = open(dir.path(), 0);
    let races = operations / OPERATIONS_A_RACE;
    for _ in 0..races {
        queue.create("race", json!(["round", 0, "start"])).expect("created");
    }
    let mut generation = 0;
    let mut workers: Vec<Child> = Vec::new();
    let mut killed = 0;
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let quota = operations / PROCESSES / THREADS / 4 + 1;
    while lines(dir.path()) < operations {
        while workers.len() < usize::try_from(PROCESSES).expect("few") {
            generation += 1;
            workers.push(spawn(dir.path(), generation, quota, races));
        }
        // One is killed at some moment, the others work on or finish.
        let patience = Duration::from_millis(20 + next(&mut seed) % 400);
        let watched = Query::from("json_extract(state, '$[0]') = 'never'");
        queue.poll_wait(watched, json!(0), patience).expect("polled");
        let victim = usize::try_from(next(&mut seed) % PROCESSES).expect("few");
        if killed == 0 || next(&mut seed).is_multiple_of(2) {
            workers[victim].kill().expect("killed");
            killed += 1;
        }
        workers.retain_mut(|worker| worker.try_wait().expect("waited").is_none());
    }
    for mut worker in workers {
        assert!(worker.wait().is_ok());
    }
    // Whoever takes the rest is one more caller.
    let log = Log::new(dir.path(), "rest");
    while let Some(job) = queue.poll(Query::tag("new"), json!(["taken", "rest"])).expect("polled") {
        log.write(&format!("polled {} rest", job.id));
    }
    let told = Told::read(dir.path());
    told.audit(&queue, i64::try_from(races).expect("few"));
    println!(
        "{} operations, {} created, {} polled, {} moves, {killed} processes killed",
        told.operations,
        told.created.len(),
        told.polled.len(),
        told.moved.len()
    );
    assert!(told.operations >= operations);
    assert!(killed > 0);
}

/// Half of the processes sync each commit, the others do not.
fn open(dir: &Path, generation: u64) -> JobQueue {
    let durability = if generation.is_multiple_of(2) { Durability::Process } else { Durability::Power };
    let options = Options { durability, ..Options::default() };
    JobQueue::open_with(dir.join("audited.sqlite3"), options).expect("opened")
}

fn spawn(dir: &Path, generation: u64, quota: u64, races: u64) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "audit::a_worker_of_the_audit"])
        .env(WORKER, format!("{generation} {quota} {races} {}", dir.display()))
        .stdout(Stdio::null())
        .spawn()
        .expect("a process")
}

fn work(dir: &Path, generation: u64, quota: u64, races: u64) {
    let queue = open(dir, generation);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let queue = &queue;
            scope.spawn(move || {
                let who = format!("{generation}.{thread}");
                let log = Log::new(dir, &who);
                let mut seed = generation * 1_000 + thread + 1;
                for n in 0..quota {
                    step(queue, &log, &who, n, next(&mut seed), races);
                }
            });
        }
    });
}

/// One operation. It is noted before and after, so that the auditor knows what a killed process
/// may have done without having been told.
fn step(queue: &JobQueue, log: &Log, who: &str, n: u64, chance: u64, races: u64) {
    match chance % 10 {
        0..4 => {
            let name = format!("{who}.{n}");
            log.write(&format!("create {name}"));
            let job = queue.create(name.as_str(), json!(["new"])).expect("created");
            log.write(&format!("created {} {name}", job.id));
        }
        4..8 => {
            log.write(&format!("poll {who}"));
            let state = json!(["taken", format!("{who}.{n}")]);
            match queue.poll(Query::tag("new"), state).expect("polled") {
                Some(job) => log.write(&format!("polled {} {who}.{n}", job.id)),
                None => log.write("nothing"),
            }
        }
        _ => {
            let id = i64::try_from((chance >> 8) % races + 1).expect("few");
            let old = queue.get(id).expect("there").state;
            let round: (String, u64, String) = old.to().expect("a round");
            let new = json!(["round", round.1 + 1, format!("{who}.{n}")]);
            log.write(&format!("move {id} {} {who}.{n}", round.1));
            if queue.cas_state(id, &old, &new).expect("cas").is_some() {
                log.write(&format!("moved {id} {} {who}.{n}", round.1));
            } else {
                log.write("conflict");
            }
        }
    }
}

/// What one thread was told, a line each. A line that was written survives its process.
struct Log(File);

impl Log {
    fn new(dir: &Path, who: &str) -> Self {
        let path = dir.join(format!("{who}.log"));
        Log(OpenOptions::new().create(true).append(true).open(path).expect("a log"))
    }

    fn write(&self, line: &str) {
        (&self.0).write_all(format!("{line}\n").as_bytes()).expect("written");
    }
}

fn logs(dir: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(dir).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let logs = paths.filter(|path: &PathBuf| path.extension().is_some_and(|ext| ext == "log"));
    logs.map(|path| std::fs::read_to_string(path).expect("text"))
}

/// Answers and intentions so far; two of these are one operation.
fn lines(dir: &Path) -> u64 {
    let lines: usize = logs(dir).map(|log| log.lines().count()).sum();
    lines as u64 / 2
}

/// All that the workers were told.
#[derive(Default)]
struct Told {
    operations: u64,
    created: HashMap<i64, String>,
    polled: HashMap<i64, String>,
    /// Who moved a race's job on from a round.
    moved: HashMap<(i64, u64), String>,
}

impl Told {
    fn read(dir: &Path) -> Self {
        let mut told = Told::default();
        for log in logs(dir) {
            for line in log.lines() {
                told.line(line);
            }
        }
        told
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |word: &str| word.parse::<i64>().expect("a number");
        match words.as_slice() {
            ["created", id, name] => {
                let before = self.created.insert(number(id), (*name).to_owned());
                assert_eq!(before, None, "job {id} was created twice");
            }
            ["polled", id, who] => {
                let before = self.polled.insert(number(id), (*who).to_owned());
                assert_eq!(before, None, "job {id} was polled twice, again by {who}");
            }
            ["moved", id, round, who] => {
                let round = round.parse().expect("a number");
                let before = self.moved.insert((number(id), round), (*who).to_owned());
                assert_eq!(before, None, "{who} and another moved job {id} from round {round}");
            }
            ["nothing" | "conflict"] => {}
            _ => return,
        }
        self.operations += 1;
    }

    fn audit(&self, queue: &JobQueue, races: i64) {
        let jobs: HashMap<i64, Job> =
            queue.query(Query::all(), None).expect("a query").into_iter().map(|job| (job.id, job)).collect();
        for (id, name) in &self.created {
            let job = jobs.get(id).unwrap_or_else(|| panic!("job {id} is lost"));
            assert_eq!(job.payload, Json::from(name.as_str()));
        }
        let mut names = HashSet::new();
        for job in jobs.values().filter(|job| job.id > races) {
            assert!(names.insert(&job.payload), "{:?} is there twice", job.payload);
            let moves = moves(job);
            assert_eq!(moves.len(), 1, "job {} was polled {} times", job.id, moves.len());
            assert_eq!(moves[0].0, json!(["new"]));
            if let Some(who) = self.polled.get(&job.id) {
                assert_eq!(moves[0].1, json!(["taken", who]), "job {} went to another", job.id);
            }
        }
        for id in 1..=races {
            // Each round follows from the one before, and those who were told won it.
            for (round, (old, new)) in moves(&jobs[&id]).iter().enumerate() {
                assert_eq!(old[1], json!(round));
                assert_eq!(new[1], json!(round + 1));
                if let Some(who) = self.moved.get(&(id, round as u64)) {
                    assert_eq!(new[2], json!(who), "another won round {round} of job {id}");
                }
            }
        }
    }
}

/// From which states to which a job's log says that it went.
fn moves(job: &Job) -> Vec<(Value, Value)> {
    let log: Vec<(String, Value)> = job.events.to().expect("a log");
    log.into_iter()
        .filter(|(name, _)| name == "job_state_advanced")
        .map(|(_, event)| (event["old"].clone(), event["new"].clone()))
        .collect()
}

/// xorshift: the order of things must not depend on chance that a test cannot repeat.
fn next(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}
