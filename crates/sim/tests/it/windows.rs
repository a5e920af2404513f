//! How large windows are, seen by the pages that are asked for.

use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{Ticket, Timestamp, WorkflowId};
use forebay_domain::limits::Limits;
use forebay_domain::machine::{Machine, ReadRequest};
use forebay_domain::port::{Read, Reader, Store};
use forebay_sim::{MemoryStore, commands};

const NOW: Timestamp = Timestamp(1_000);

struct Lane {
    store: MemoryStore,
    machine: Machine,
    workflow: WorkflowId,
    ticket: u64,
    answers: Vec<Answer>,
    wanted: Vec<ReadRequest>,
    /// How many jobs each page was asked for.
    pages: Vec<u32>,
}

impl Lane {
    fn with_ready_jobs(jobs: usize, limits: Limits) -> Lane {
        let mut store = MemoryStore::new();
        let machine = Machine::new(limits, store.recover().expect("an empty store recovers"));
        let (answers, wanted, pages) = (Vec::new(), Vec::new(), Vec::new());
        let mut lane = Lane { store, machine, workflow: WorkflowId(0), ticket: 0, answers, wanted, pages };
        lane.ask(commands::create_workflow());
        lane.settle();
        let Some(Answer::Created(id)) = lane.answers.pop() else { panic!("it is created") };
        lane.workflow = WorkflowId(id);
        lane.ask(commands::create_jobs(lane.workflow, jobs));
        lane.settle();
        lane.ask(Command::Initialize { workflow: lane.workflow, only_drafts: false });
        lane.settle();
        lane.answers.clear();
        lane
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
    let mut lane = Lane::with_ready_jobs(3000, limits);
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
