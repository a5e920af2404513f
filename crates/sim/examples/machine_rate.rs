//! How many lifecycles (claim, start, complete) a second the machine alone does: no mailbox, no
//! store, one thread. Commits are answered at once; pages come from the reference store.

use std::time::Instant;

use forebay_domain::catalog::Value;
use forebay_domain::claim::Needs;
use forebay_domain::command::{Answer, Claim, ClaimOrder, Command, Completion, NewWorkflow, Report};
use forebay_domain::ids::{NodeId, Ticket, Timestamp, WorkflowId};
use forebay_domain::job::{NewJob, Outcome};
use forebay_domain::limits::Limits;
use forebay_domain::machine::Machine;
use forebay_domain::port::{Reader, Store};
use forebay_domain::state::JobState;
use forebay_sim::MemoryStore;

const NOW: Timestamp = Timestamp(1_000);
const JOBS: usize = 200_000;
/// Commands between two commits.
const BATCH: usize = 1_000;

struct Bench {
    machine: Machine,
    store: MemoryStore,
    ticket: u64,
    answers: Vec<Answer>,
}

impl Bench {
    /// Commits what is open and carries out all reads, until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.answers.extend(self.machine.answers().map(|(_, _, answer)| answer));
            if let Some(batch) = self.machine.take_batch() {
                self.store.commit(&batch).expect("the reference store takes every batch");
                self.machine.committed(NOW, batch.lsn);
                continue;
            }
            let reads: Vec<_> = self.machine.reads().collect();
            if reads.is_empty() {
                break;
            }
            for read in reads {
                let (lsn, rows) = self.store.reader().read(&read.what).expect("the reference store reads");
                self.machine.read_done(NOW, read.id, lsn, read.digest(rows));
            }
        }
    }

    fn apply(&mut self, command: Command) {
        self.ticket += 1;
        self.machine.apply(NOW, Ticket(self.ticket), command);
    }

    fn call(&mut self, command: Command) -> Answer {
        self.apply(command);
        self.settle();
        self.answers.pop().expect("every command is answered")
    }
}

fn main() {
    let mut store = MemoryStore::new();
    let recovered = store.recover().expect("an empty store recovers");
    let machine = Machine::new(Limits::default(), recovered);
    let mut bench = Bench { machine, store, ticket: 0, answers: Vec::new() };
    let needs = Needs { cpus: 1, memory_bytes: 1 << 20, gpus: 0, nodes: 1, runtime_seconds: 60 };
    let blank = |columns: usize| vec![Value::Null; columns].into_boxed_slice();
    let new = NewWorkflow { row: blank(24), default_requirement: blank(8), needs };
    let Answer::Created(workflow) = bench.call(Command::CreateWorkflow(Box::new(new))) else {
        panic!("a workflow is created")
    };
    let workflow = WorkflowId(workflow);
    let job = NewJob {
        name: "job".into(),
        payload: b"{}".as_slice().into(),
        requirement: None,
        labels: Default::default(),
        scheduler: None,
        priority: 0,
        cancel_on_failure: true,
        not_before: None,
        policy: None,
        expires_at: None,
        depends_on: [].into(),
        relations: [].into(),
    };
    bench.call(Command::CreateJobs { workflow, jobs: vec![job; JOBS] });
    bench.call(Command::Initialize { workflow, only_drafts: false });
    bench.answers.clear();

    let claim = Claim {
        workflow,
        limit: 1,
        labels: Default::default(),
        by: ClaimOrder::Queue,
        start_on: None,
        leased: false,
        wait_until: None,
    };
    let outcome = Outcome {
        state: JobState::Completed,
        return_code: 0,
        exec_time_minutes: 0.1,
        completion_time: "2026-01-01T00:00:00Z".into(),
        peak_memory_bytes: None,
        avg_memory_bytes: None,
        peak_cpu_percent: None,
        avg_cpu_percent: None,
    };
    let node = NodeId(1);
    let mut done = 0;
    let mut spent = std::time::Duration::ZERO;
    while done < JOBS {
        let start = Instant::now();
        for _ in 0..BATCH {
            bench.apply(Command::Claim(claim.clone()));
        }
        spent += start.elapsed();
        bench.settle();
        let claimed: Vec<_> = bench
            .answers
            .drain(..)
            .flat_map(|answer| if let Answer::Claimed(claimed) = answer { claimed.jobs } else { Vec::new() })
            .collect();
        assert!(!claimed.is_empty(), "{done} of {JOBS} jobs were handed out: {:?}", bench.machine.stats());
        done += claimed.len();
        let start = Instant::now();
        for (row, _) in &claimed {
            bench.apply(Command::Start { job: row.id, run: 0, node });
        }
        for (row, _) in claimed {
            let completion = Completion {
                job: row.id,
                run: 0,
                attempt: Some(row.attempt),
                node: Some(node),
                grant: None,
                outcome: outcome.clone(),
                again: None,
            };
            bench.apply(Command::Report(Report { workflow, completions: vec![completion], claim: None }));
        }
        spent += start.elapsed();
        bench.settle();
        bench.answers.clear();
    }
    println!(
        "the machine alone: {:.0} lifecycles a second, {:?}",
        done as f64 / spent.as_secs_f64(),
        bench.machine.stats()
    );
}
