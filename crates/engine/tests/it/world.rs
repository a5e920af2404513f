//! A store whose commits wait for the test's word, and jobs to put into it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use forebay_domain::batch::{Batch, Outcomes};
use forebay_domain::catalog::{Table, Value};
use forebay_domain::command::{Answer, Claimed, Command};
use forebay_domain::ids::{JobId, Timestamp, WorkflowId};
use forebay_domain::job::JobRow;
use forebay_domain::port::{Recovered, Store, StoreError};
use forebay_domain::state::JobState;
use forebay_engine::{Clock, Engine, EngineHandle, Options, SystemClock};
use forebay_flusher::Backoff;
use forebay_sim::commands::blank;
use forebay_sim::{MemoryReader, MemoryStore};

pub use forebay_sim::commands::{claim as a_claim, completed, create_jobs, create_workflow};

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

pub fn claim(workflow: WorkflowId, limit: u32) -> Command {
    Command::Claim(a_claim(workflow, limit, None))
}

/// A claim that waits for very long.
pub fn waiting_claim(workflow: WorkflowId) -> Command {
    Command::Claim(a_claim(workflow, 1, Some(Timestamp(i64::MAX))))
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
