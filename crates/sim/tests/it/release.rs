//! One outcome that frees many jobs, and crashes while they go on in parts.

use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{JobId, NodeId, Ticket, Timestamp, WorkflowId};
use forebay_domain::job::{JobRow, NewJob};
use forebay_domain::limits::Limits;
use forebay_domain::machine::Machine;
use forebay_domain::port::{Reader, Store};
use forebay_domain::state::JobState;
use forebay_sim::{MemoryStore, commands};

const NOW: Timestamp = Timestamp(1_000);
const BEHIND: usize = 30;

struct World {
    store: MemoryStore,
    machine: Machine,
    tickets: u64,
    answers: Vec<(Ticket, Answer)>,
}

fn started(store: &mut MemoryStore) -> Machine {
    let limits = Limits { step_max: 5, part_max: 4, ..Limits::default() };
    Machine::new(limits, store.recover().expect("it recovers"))
}

impl World {
    fn new() -> World {
        let mut store = MemoryStore::new();
        let machine = started(&mut store);
        World { store, machine, tickets: 0, answers: Vec::new() }
    }

    fn ask(&mut self, command: Command) -> Ticket {
        self.tickets += 1;
        self.machine.apply(NOW, Ticket(self.tickets), command);
        Ticket(self.tickets)
    }

    /// Commits the open batch, if there is anything in it, and answers all reads.
    fn step(&mut self) -> bool {
        self.answers.extend(self.machine.answers().map(|(ticket, _, answer)| (ticket, answer)));
        let batch = self.machine.take_batch();
        if let Some(batch) = &batch {
            self.store.commit(batch).expect("it takes every batch");
            self.machine.committed(NOW, batch.lsn);
        }
        let reads: Vec<_> = self.machine.reads().collect();
        for read in &reads {
            let (lsn, rows) = self.store.reader().read(&read.what).expect("it reads");
            self.machine.read_done(NOW, read.id, lsn, read.digest(rows));
        }
        batch.is_some() || !reads.is_empty()
    }

    fn settle(&mut self) {
        while self.step() {}
    }

    fn call(&mut self, command: Command) -> Answer {
        let asked = self.ask(command);
        self.settle();
        let at = self.answers.iter().position(|(ticket, _)| *ticket == asked).expect("it is answered");
        self.answers.remove(at).1
    }

    /// A job that runs, and those that wait for it, of which some wait for another one's failure, too.
    fn fan_out() -> (World, WorkflowId, JobRow) {
        let mut world = World::new();
        let Answer::Created(id) = world.call(commands::create_workflow()) else { panic!("it is created") };
        let workflow = WorkflowId(id);
        let first = vec![commands::new_job(0)];
        let Answer::Created(first) = world.call(Command::CreateJobs { workflow, jobs: first }) else {
            panic!("it is created")
        };
        let behind = |n| NewJob { depends_on: [JobId(first)].into(), ..commands::new_job(n) };
        world.call(Command::CreateJobs { workflow, jobs: (1..=BEHIND).map(behind).collect() });
        world.call(Command::Initialize { workflow, only_drafts: false });
        let Answer::Claimed(claimed) = world.call(Command::Claim(commands::claim(workflow, 1, None))) else {
            panic!("it is claimed")
        };
        let row = claimed.jobs[0].0;
        assert_eq!(row.id, JobId(first));
        world.call(Command::Start { job: row.id, run: 0, node: NodeId(1) });
        (world, workflow, row)
    }

    fn in_state(&self, state: JobState) -> usize {
        self.store.look(|db| db.jobs.values().filter(|row| row.state == state).count())
    }
}

#[test]
fn many_jobs_that_one_outcome_frees_go_on_in_parts_behind_its_answer() {
    let (mut world, workflow, row) = World::fan_out();
    let report = world.ask(commands::completed(workflow, &row));
    let mut answered_at = None;
    let mut ready = Vec::new();
    while world.step() {
        ready.push(world.in_state(JobState::Ready));
        if world.answers.iter().any(|(ticket, _)| *ticket == report) {
            answered_at.get_or_insert(ready.len());
        }
    }
    assert_eq!(answered_at, Some(1), "{ready:?}");
    assert!(ready.windows(2).all(|two| two[1] - two[0] <= 4), "{ready:?}");
    assert_eq!(ready.last(), Some(&BEHIND));
    let Answer::Claimed(claimed) = world.call(Command::Claim(commands::claim(workflow, 100, None))) else {
        panic!("they are claimed")
    };
    assert_eq!(claimed.jobs.len(), BEHIND);
}

#[test]
fn a_crash_in_any_part_loses_nobody_who_waited() {
    for parts in 1..=9 {
        let (mut world, workflow, row) = World::fan_out();
        world.ask(commands::completed(workflow, &row));
        for _ in 0..parts {
            world.step();
        }
        assert_eq!(world.in_state(JobState::Completed), 1, "its outcome is committed with the first part");
        world.machine = started(&mut world.store);
        world.settle();
        assert_eq!(world.in_state(JobState::Ready), BEHIND, "after {parts} parts");
        let Answer::Claimed(claimed) = world.call(Command::Claim(commands::claim(workflow, 100, None))) else {
            panic!("they are claimed")
        };
        assert_eq!(claimed.jobs.len(), BEHIND);
    }
}

#[test]
fn an_outcome_of_a_job_that_the_same_report_frees_stands() {
    let (mut world, workflow, row) = World::fan_out();
    let waiting = world.store.look(|db| *db.jobs.values().find(|row| row.state == JobState::Blocked).expect("one"));
    let (Command::Report(mut report), Command::Report(other)) =
        (commands::completed(workflow, &row), commands::completed(workflow, &waiting))
    else {
        panic!("outcomes are reported")
    };
    report.completions.extend(other.completions);
    world.call(Command::Report(report));
    assert_eq!((world.in_state(JobState::Completed), world.in_state(JobState::Ready)), (2, BEHIND - 1));
}

#[test]
fn a_release_that_has_no_part_in_its_batch_is_known_after_a_crash() {
    let (mut world, workflow, row) = World::fan_out();
    let Answer::Created(other) = world.call(commands::create_workflow()) else { panic!("it is created") };
    let other = WorkflowId(other);
    world.call(commands::create_jobs(other, BEHIND));
    // A march of another workflow has its turn in each batch first.
    world.ask(Command::DeleteJobs { workflow: other, job: None });
    while !world.machine.is_marching() {
        assert!(world.step(), "many jobs are deleted in parts");
    }
    world.ask(commands::completed(workflow, &row));
    world.step();
    assert_eq!((world.in_state(JobState::Completed), world.in_state(JobState::Ready)), (1, 0));
    world.machine = started(&mut world.store);
    world.settle();
    assert_eq!(world.in_state(JobState::Ready), BEHIND);
}
