//! How many lifecycles (claim, start, complete: a command each) a second the machine alone does, and
//! how often it allocates: no mailbox, one thread, a store that keeps nothing. Batches are dropped as
//! a writer would drop them; pages are made up.
//!
//!     cargo run --release -p forebay-sim --example machine_rate -- [--jobs N] [--lanes N] [--rounds N]

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{JobId, LaneId, NodeId, RequirementId, Ticket, Timestamp, WorkflowId};
use forebay_domain::job::{JobRow, NewJob, Payload};
use forebay_domain::lane::OrderKey;
use forebay_domain::limits::Limits;
use forebay_domain::machine::Machine;
use forebay_domain::port::{Read, Reader, Rows, Store};
use forebay_sim::{Counting, MemoryStore, commands};

const NOW: Timestamp = Timestamp(1_000);
/// Commands between two commits.
const BATCH: usize = 1_000;

#[global_allocator]
static COUNTING: Counting = Counting::new();

struct Setup {
    jobs: i64,
    lanes: i64,
    rounds: usize,
}

fn main() {
    let mut setup = Setup { jobs: 400_000, lanes: 1, rounds: 5 };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|text| text.parse().ok()).expect("a number follows the option");
        match arg.as_str() {
            "--jobs" => setup.jobs = number(),
            "--lanes" => setup.lanes = number(),
            "--rounds" => setup.rounds = usize::try_from(number()).expect("a few"),
            _ => panic!("no such option: {arg}"),
        }
    }
    let mut rates: Vec<(f64, f64, f64)> = (0..setup.rounds).map(|_| World::new(&setup).run()).collect();
    rates.sort_by(|one, other| one.1.total_cmp(&other.1));
    let (wall, cpu, allocations) = rates[rates.len() / 2];
    println!(
        "the machine alone, {} lanes: {wall:.0} lifecycles/s, {cpu:.0} by CPU, {allocations:.2} allocations a lifecycle \
         (the median of {} rounds of {})",
        setup.lanes, setup.rounds, setup.jobs
    );
}

/// A machine with one workflow, all of whose jobs are ready.
struct World {
    machine: Machine,
    workflow: WorkflowId,
    /// What each lane's page begins with; job `n` is in lane `n % lanes`.
    first: BTreeMap<LaneId, JobRow>,
    last: JobId,
    payload: Payload,
    ticket: u64,
    answers: Vec<Answer>,
}

impl World {
    /// Jobs are created and initialized in the reference store, one for each lane; the rest is made up.
    fn new(setup: &Setup) -> World {
        let mut store = MemoryStore::new();
        let recovered = store.recover().expect("an empty store recovers");
        let machine = Machine::new(Limits::default(), recovered);
        let payload: Payload = b"{}".as_slice().into();
        let last = JobId(setup.jobs);
        let (workflow, first) = (WorkflowId(0), BTreeMap::new());
        let mut world = World { machine, workflow, first, last, payload, ticket: 0, answers: Vec::new() };
        let Answer::Created(id) = world.call(&mut store, commands::create_workflow()) else {
            panic!("a workflow is created")
        };
        world.workflow = WorkflowId(id);
        let workflow = world.workflow;
        let lanes = usize::try_from(setup.lanes).expect("a few");
        let requirements = commands::create_requirements(workflow, lanes);
        let Answer::Created(requirement) = world.call(&mut store, requirements) else {
            panic!("requirements are created")
        };
        let requirements = (requirement..).map(RequirementId).map(Some);
        let jobs = (0..lanes).map(commands::new_job).zip(requirements);
        let jobs = jobs.map(|(job, requirement)| NewJob { requirement, ..job }).collect();
        world.call(&mut store, Command::CreateJobs { workflow, jobs });
        world.call(&mut store, Command::Initialize { workflow, only_drafts: false });
        world.first = store.look(|db| db.jobs.values().map(|row| (row.lane, *row)).collect());
        world
    }

    fn call(&mut self, store: &mut MemoryStore, command: Command) -> Answer {
        self.apply(command);
        loop {
            self.answers.extend(self.machine.answers().map(|(_, _, answer)| answer));
            let batch = self.machine.take_batch();
            if let Some(batch) = &batch {
                store.commit(batch).expect("the reference store takes every batch");
                self.machine.committed(NOW, batch.lsn);
            }
            let reads: Vec<_> = self.machine.reads().collect();
            let is_done = batch.is_none() && reads.is_empty();
            for read in reads {
                let (lsn, rows) = store.reader().read(&read.what).expect("the reference store reads");
                self.machine.read_done(NOW, read.id, lsn, read.digest(rows));
            }
            if is_done {
                return self.answers.pop().expect("every command is answered");
            }
        }
    }

    fn apply(&mut self, command: Command) {
        self.ticket += 1;
        self.machine.apply(NOW, Ticket(self.ticket), command);
    }

    /// Applies commands, then commits what they changed and makes up what they asked for.
    fn go(&mut self, commands: impl Iterator<Item = Command>) {
        for command in commands {
            self.apply(command);
        }
        loop {
            self.answers.extend(self.machine.answers().map(|(_, _, answer)| answer));
            let batch = self.machine.take_batch();
            let reads: Vec<_> = self.machine.reads().collect();
            if batch.is_none() && reads.is_empty() {
                return;
            }
            let lsn = batch.map(|batch| batch.lsn);
            if let Some(lsn) = lsn {
                self.machine.committed(NOW, lsn);
            }
            for read in reads {
                let rows = match &read.what {
                    Read::Page { lane, after, limit, .. } => Rows::Page(self.page(*lane, *after, *limit)),
                    other => panic!("only pages are read: {other:?}"),
                };
                // As new as can be: no change is newer.
                let seen = lsn.unwrap_or(read.after);
                self.machine.read_done(NOW, read.id, seen, read.digest(rows));
            }
        }
    }

    fn page(&self, lane: LaneId, after: Option<OrderKey>, limit: u32) -> Vec<(JobRow, Option<Payload>)> {
        let first = self.first.get(&lane).expect("a lane with jobs");
        let step = self.first.len();
        let from = after.map_or(first.id.0, |key| key.id().0 + i64::try_from(step).expect("a few"));
        let ids = (from..=self.last.0).step_by(step).take(limit as usize);
        ids.map(|id| (JobRow { id: JobId(id), ..*first }, Some(self.payload.clone()))).collect()
    }

    /// Lifecycles a second by the wall clock and by CPU, and allocations of each.
    fn run(mut self) -> (f64, f64, f64) {
        let workflow = self.workflow;
        let claim = commands::claim(workflow, 1, None);
        let node = NodeId(1);
        // The first claim reads the first page of every lane.
        self.go([Command::Claim(claim.clone())].into_iter());
        let mut done = self.answers.drain(..).len();
        let (start, cpu, allocations) = (Instant::now(), cpu_time(), COUNTING.allocations());
        let mut held: Vec<JobRow> = Vec::with_capacity(BATCH);
        loop {
            self.go((0..BATCH).map(|_| Command::Claim(claim.clone())));
            for answer in self.answers.drain(..) {
                if let Answer::Claimed(claimed) = answer {
                    held.extend(claimed.jobs.iter().map(|(row, _)| *row));
                }
            }
            if held.is_empty() {
                break;
            }
            done += held.len();
            self.go(held.iter().map(|row| Command::Start { job: row.id, run: 0, node }));
            self.answers.clear();
            self.go(held.drain(..).map(|row| commands::completed(workflow, &row)));
            self.answers.clear();
        }
        assert_eq!(done, usize::try_from(self.last.0).expect("a few"), "{:?}", self.machine.stats());
        let (wall, cpu) = (start.elapsed().as_secs_f64(), (cpu_time() - cpu).as_secs_f64());
        let allocations = COUNTING.allocations() - allocations;
        (done as f64 / wall, done as f64 / cpu, allocations as f64 / done as f64)
    }
}

/// What this process has used of the processors; it has one thread.
fn cpu_time() -> Duration {
    let text = fs::read_to_string("/proc/self/schedstat").expect("this is Linux");
    let ns = text.split(' ').next().and_then(|ns| ns.parse().ok()).expect("nanoseconds come first");
    Duration::from_nanos(ns)
}
