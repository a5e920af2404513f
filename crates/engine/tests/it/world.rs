//! A store whose commits wait for the test's word, and jobs to put into it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use forebay_domain::batch::{Batch, Outcomes};
use forebay_domain::catalog::{Row, Table, Value};
use forebay_domain::claim::Needs;
use forebay_domain::command::{Answer, Claim, ClaimOrder, Claimed, Command, Completion, NewWorkflow, Report};
use forebay_domain::ids::{JobId, Timestamp, WorkflowId};
use forebay_domain::job::{JobRow, NewJob, Outcome};
use forebay_domain::lane::LabelSet;
use forebay_domain::port::{Recovered, Store, StoreError};
use forebay_domain::state::JobState;
use forebay_engine::{Clock, Engine, EngineHandle, Options, SystemClock};
use forebay_flusher::Backoff;
use forebay_sim::{MemoryReader, MemoryStore};

/// What a try of a commit is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Commit,
    Busy,
    Broken,
}

/// A store that asks the test at each try, once it is closed.
struct GatedStore {
    inner: MemoryStore,
    gate: Arc<Mutex<Option<Gate>>>,
    done: Arc<Done>,
}

/// What else the engine had the store do.
#[derive(Debug, Default)]
pub struct Done {
    pub closes: AtomicUsize,
}

struct Gate {
    tried: Sender<Batch>,
    verdicts: Receiver<Verdict>,
}

impl Store for GatedStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.inner.recover()
    }

    fn commit(&mut self, batch: &Batch) -> Result<Outcomes, StoreError> {
        let gate = self.gate.lock().expect("no test panics with it");
        let verdict = match &*gate {
            None => Verdict::Commit,
            Some(gate) => {
                // A test that is over lets everything through.
                let asked = gate.tried.send(batch.clone());
                asked.ok().and_then(|()| gate.verdicts.recv().ok()).unwrap_or(Verdict::Commit)
            }
        };
        match verdict {
            Verdict::Commit => self.inner.commit(batch),
            Verdict::Busy => Err(StoreError::Busy("the test says so".into())),
            Verdict::Broken => Err(StoreError::Broken("the test says so".into())),
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.inner.sync()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.done.closes.fetch_add(1, Ordering::SeqCst);
        self.inner.close()
    }
}

/// A running engine and the test's hand on its store.
pub struct World {
    pub engine: EngineHandle,
    pub store: MemoryStore,
    pub tried: Receiver<Batch>,
    pub done: Arc<Done>,
    verdicts: Sender<Verdict>,
    gate: Arc<Mutex<Option<Gate>>>,
    closed_gate: Option<Gate>,
}

pub fn quick() -> Options {
    Options { backoff: Backoff { first: Default::default(), longest: Default::default() }, ..Options::power() }
}

impl World {
    pub fn new(options: Options) -> World {
        World::at(options, Arc::new(SystemClock::new()))
    }

    pub fn at(options: Options, clock: Arc<dyn Clock>) -> World {
        World::on(MemoryStore::new(), options, clock)
    }

    pub fn on(store: MemoryStore, options: Options, clock: Arc<dyn Clock>) -> World {
        let (tried, tries) = mpsc::channel();
        let (verdicts, verdict) = mpsc::channel();
        let gate = Arc::new(Mutex::new(None));
        let done = Arc::new(Done::default());
        let gated = GatedStore { inner: store.clone(), gate: Arc::clone(&gate), done: Arc::clone(&done) };
        let reader = store.reader();
        let open = move || -> Result<MemoryReader, StoreError> { Ok(reader.clone()) };
        let engine = Engine::start(gated, open, clock, options).expect("a new store recovers");
        World {
            engine,
            store,
            tried: tries,
            done,
            verdicts,
            gate,
            closed_gate: Some(Gate { tried, verdicts: verdict }),
        }
    }

    /// From now on each try of a commit waits for a verdict.
    pub fn close_gate(&mut self) {
        *self.gate.lock().expect("no test panics with it") = self.closed_gate.take();
    }

    /// From now on commits are not asked about.
    pub fn open_gate(&mut self) {
        self.closed_gate = self.gate.lock().expect("no test panics with it").take();
    }

    /// Waits for a try and lets it go on so.
    pub fn let_go(&self, verdict: Verdict) -> Batch {
        let batch = self.tried.recv().expect("the store is alive");
        self.say(verdict);
        batch
    }

    /// Lets this try and many more be committed.
    pub fn let_all_go(&self) {
        (0..100).for_each(|_| self.say(Verdict::Commit));
    }

    pub fn say(&self, verdict: Verdict) {
        self.verdicts.send(verdict).expect("the store is alive");
    }

    pub fn do_now(&self, command: Command) -> Answer {
        self.engine.call_blocking(command).expect("the test asks for what is possible")
    }

    /// A workflow with so many ready jobs.
    pub fn workflow(&self, jobs: usize) -> WorkflowId {
        let Answer::Created(id) = self.do_now(create_workflow()) else { panic!("it was created") };
        let workflow = WorkflowId(id);
        if jobs > 0 {
            self.do_now(create_jobs(workflow, jobs));
            self.do_now(Command::Initialize { workflow, only_drafts: false });
        }
        workflow
    }

    pub fn state(&self, job: JobId) -> Option<JobState> {
        self.store.look(|db| db.jobs.get(&job).map(|row| row.state))
    }
}

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct HandClock(AtomicI64);

impl HandClock {
    pub fn set(&self, now: i64) {
        self.0.store(now, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

/// A call on its way, polled by hand: it waits, or is dropped, when the test says so.
pub struct Waiting<'a, T> {
    future: Pin<Box<dyn Future<Output = T> + 'a>>,
    answer: Option<T>,
}

impl<'a, T> Waiting<'a, T> {
    /// Sends it off.
    pub fn start(future: impl Future<Output = T> + 'a) -> Waiting<'a, T> {
        let mut waiting = Waiting { future: Box::pin(future), answer: None };
        waiting.is_answered();
        waiting
    }

    pub fn is_answered(&mut self) -> bool {
        if self.answer.is_none()
            && let Poll::Ready(answer) = self.future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        {
            self.answer = Some(answer);
        }
        self.answer.is_some()
    }

    /// Waits for it.
    pub fn finish(self) -> T {
        let Waiting { future, answer } = self;
        answer.unwrap_or_else(|| block_on(future))
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(future)
}

pub fn create_workflow() -> Command {
    let mut row = blank(Table::Workflow);
    row[1] = Value::Text("test".into());
    row[3] = Value::Text("somebody".into());
    row[4] = Value::Text("2026-01-01T00:00:00Z".into());
    let mut requirement = blank(Table::Requirement);
    requirement[2] = Value::Text("default".into());
    requirement[6] = Value::Text("1m".into());
    requirement[7] = Value::Text("PT1M".into());
    for column in 3..6 {
        requirement[column] = Value::Int(1);
    }
    let needs = Needs { cpus: 1, memory_bytes: 1 << 20, gpus: 0, nodes: 1, runtime_seconds: 60 };
    Command::CreateWorkflow(Box::new(NewWorkflow { row, default_requirement: requirement, needs }))
}

pub fn create_jobs(workflow: WorkflowId, jobs: usize) -> Command {
    let job = |n: usize| NewJob {
        name: format!("job {n}").into(),
        payload: format!("echo {n}").into_bytes().into(),
        requirement: None,
        labels: LabelSet::default(),
        scheduler: None,
        priority: 0,
        cancel_on_failure: true,
        not_before: None,
        policy: None,
        expires_at: None,
        depends_on: [].into(),
        relations: [].into(),
    };
    Command::CreateJobs { workflow, jobs: (0..jobs).map(job).collect() }
}

pub fn claim(workflow: WorkflowId, limit: u32) -> Command {
    Command::Claim(a_claim(workflow, limit, None))
}

/// A claim that waits for very long.
pub fn waiting_claim(workflow: WorkflowId) -> Command {
    Command::Claim(a_claim(workflow, 1, Some(Timestamp(i64::MAX))))
}

pub fn a_claim(workflow: WorkflowId, limit: u32, wait_until: Option<Timestamp>) -> Claim {
    let labels = LabelSet::default();
    Claim { workflow, limit, labels, by: ClaimOrder::Queue, start_on: None, leased: false, wait_until }
}

pub fn completed(workflow: WorkflowId, row: &JobRow) -> Command {
    let outcome = Outcome {
        state: JobState::Completed,
        return_code: 0,
        exec_time_minutes: 0.1,
        completion_time: "2026-01-01T00:00:01Z".into(),
        peak_memory_bytes: None,
        avg_memory_bytes: None,
        peak_cpu_percent: None,
        avg_cpu_percent: None,
    };
    let attempt = Some(row.attempt);
    let completion = Completion { job: row.id, run: 0, attempt, node: None, grant: None, outcome, again: None };
    Command::Report(Report { workflow, completions: vec![completion], claim: None })
}

pub fn insert_event(workflow: WorkflowId) -> Command {
    let mut row = blank(Table::Event);
    row[1] = Value::Int(workflow.0);
    row[2] = Value::Int(1);
    Command::Insert { table: Table::Event, workflow, rows: vec![row] }
}

pub fn claimed(answer: Answer) -> Vec<JobRow> {
    match answer {
        Answer::Claimed(Claimed { jobs, .. }) => jobs.into_iter().map(|(row, _)| row).collect(),
        other => panic!("not a claim's answer: {other:?}"),
    }
}

/// Puts a held job back by hand.
pub fn retry(job: JobId) -> Command {
    Command::Retry { job, run: 0, attempts_max: 100, delay_ms: 0 }
}

fn blank(table: Table) -> Row {
    let mut row: Row = vec![Value::Null; table.columns().len()].into();
    row[0] = Value::Int(0);
    row
}
