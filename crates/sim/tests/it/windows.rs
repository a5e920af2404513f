//! How large windows are, seen by the pages that are asked for.

use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{RequirementId, Ticket, Timestamp, WorkflowId};
use forebay_domain::job::NewJob;
use forebay_domain::limits::Limits;
use forebay_domain::machine::{Machine, ReadRequest};
use forebay_domain::port::{Read, Reader, Store};
use forebay_sim::{MemoryStore, commands};

const NOW: Timestamp = Timestamp(1_000);

/// A workflow whose jobs are ready.
struct Ready {
    store: MemoryStore,
    machine: Machine,
    workflow: WorkflowId,
    ticket: u64,
    answers: Vec<Answer>,
    wanted: Vec<ReadRequest>,
    /// How many jobs each page was asked for.
    pages: Vec<u32>,
}

impl Ready {
    /// So many jobs, in so many lanes in turn.
    fn new(jobs: usize, lanes: usize, limits: Limits) -> Ready {
        let mut store = MemoryStore::new();
        let machine = Machine::new(limits, store.recover().expect("an empty store recovers"));
        let (answers, wanted, pages) = (Vec::new(), Vec::new(), Vec::new());
        let mut ready = Ready { store, machine, workflow: WorkflowId(0), ticket: 0, answers, wanted, pages };
        ready.workflow = WorkflowId(ready.create(commands::create_workflow()));
        let workflow = ready.workflow;
        let first = ready.create(commands::create_requirements(workflow, lanes));
        let requirements = (first..).take(lanes).map(RequirementId).map(Some).cycle();
        let jobs = (0..jobs).map(commands::new_job).zip(requirements);
        let jobs = jobs.map(|(job, requirement)| NewJob { requirement, ..job }).collect();
        ready.create(Command::CreateJobs { workflow, jobs });
        ready.ask(Command::Initialize { workflow, only_drafts: false });
        ready.settle();
        ready.answers.clear();
        ready
    }

    fn create(&mut self, command: Command) -> i64 {
        self.ask(command);
        self.settle();
        let Some(Answer::Created(id)) = self.answers.pop() else { panic!("it is created") };
        id
    }

    fn ask(&mut self, command: Command) {
        self.ticket += 1;
        self.machine.apply(NOW, Ticket(self.ticket), command);
        self.collect();
    }

    /// So many claims, of one job each, while no page comes.
    fn claim(&mut self, claims: usize) {
        for _ in 0..claims {
            self.ask(Command::Claim(commands::claim(self.workflow, 1, None)));
        }
    }

    fn collect(&mut self) {
        self.answers.extend(self.machine.answers().map(|(_, _, answer)| answer));
        for read in self.machine.reads() {
            if let Read::Page { limit, .. } = read.what {
                self.pages.push(limit);
            }
            self.wanted.push(read);
        }
    }

    /// Commits what changed, and answers all that was asked for.
    fn settle(&mut self) {
        loop {
            let batch = self.machine.take_batch();
            if let Some(batch) = &batch {
                self.store.commit(batch).expect("the reference store takes every batch");
                self.machine.committed(NOW, batch.lsn);
            }
            self.collect();
            let reads = std::mem::take(&mut self.wanted);
            if batch.is_none() && reads.is_empty() {
                return;
            }
            for read in reads {
                let (lsn, rows) = self.store.reader().read(&read.what).expect("the reference store reads");
                self.machine.read_done(NOW, read.id, lsn, read.digest(rows));
                self.collect();
            }
        }
    }
}

#[test]
fn a_window_grows_with_what_is_taken_while_a_page_is_read_and_shrinks_again() {
    let limits = Limits { window_min: 4, window_max: 64, window_factor: 2, page_max: 1000, ..Limits::default() };
    let mut lane = Ready::new(3000, 1, limits);
    lane.claim(1);
    lane.settle();
    assert_eq!(lane.pages, [4], "nothing is known of its claims");
    for _ in 0..10 {
        lane.claim(100);
        lane.settle();
    }
    assert!(lane.pages.iter().any(|limit| *limit > 32), "half of the largest window: {:?}", lane.pages);
    assert_eq!(lane.answers.len(), 1001, "no claim went without a job");
    for _ in 0..1000 {
        lane.claim(1);
        lane.settle();
    }
    assert!(lane.pages.iter().rev().take(10).all(|limit| *limit <= 4), "{:?}", lane.pages);
}

#[test]
fn lanes_whose_windows_are_at_their_bound_together_read_each_job_about_once() {
    let limits = Limits { window_min: 16, windows_jobs_max: 256, ..Limits::default() };
    let mut lanes = Ready::new(3200, 32, limits);
    for _ in 0..32 {
        lanes.claim(100);
        lanes.settle();
    }
    assert_eq!(lanes.answers.len(), 3200, "no claim went without a job");
    let read: u32 = lanes.pages.iter().sum();
    assert!(read < 3200 * 5 / 4, "{read}: {:?}", lanes.pages);
}
