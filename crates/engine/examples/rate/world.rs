//! An engine on SQLite, and a store between the two that writes down what it is given.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use forebay_domain::batch::{Batch, JobWrite, Outcomes};
use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::WorkflowId;
use forebay_domain::port::{Recovered, Store, StoreError};
use forebay_engine::{Ended, Engine, EngineHandle, Options, SystemClock};
use forebay_sim::commands::{create_jobs, create_workflow};
use forebay_store_sqlite::{Durability, SqliteReader, SqliteStore};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

/// When answers leave.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Power,
    Process,
    Memory,
}

pub const MODES: [Mode; 3] = [Mode::Power, Mode::Process, Mode::Memory];

impl Mode {
    /// What the store is to survive.
    pub fn durability(self) -> Durability {
        match self {
            Mode::Power | Mode::Memory => Durability::Power,
            Mode::Process => Durability::Process,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Power => "power",
            Mode::Process => "process",
            Mode::Memory => "memory",
        })
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Mode, ()> {
        MODES.into_iter().find(|mode| mode.to_string() == text).ok_or(())
    }
}

/// What of a batch the bare loop is to write as well.
#[derive(Default)]
pub struct Written {
    pub jobs: Vec<JobWrite>,
    pub results: usize,
    pub workflows: usize,
}

impl Written {
    pub fn len(&self) -> usize {
        self.jobs.len() + self.results + self.workflows
    }
}

#[derive(Default)]
pub struct Recorder {
    records: AtomicBool,
    slower_us: AtomicU64,
    written: Mutex<Vec<Written>>,
}

impl Recorder {
    /// Whether batches are written down from now on.
    pub fn record(&self, records: bool) {
        self.records.store(records, Relaxed);
    }

    /// Each commit takes so much longer from now on.
    pub fn slow(&self, by: Duration) {
        self.slower_us.store(u64::try_from(by.as_micros()).expect("not for ever"), Relaxed);
    }
}

struct Recorded {
    store: SqliteStore,
    recorder: Arc<Recorder>,
}

impl Store for Recorded {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.store.recover()
    }

    fn commit(&mut self, batch: &Batch) -> Result<Outcomes, StoreError> {
        let slower = Duration::from_micros(self.recorder.slower_us.load(Relaxed));
        if !slower.is_zero() {
            thread::sleep(slower);
        }
        if self.recorder.records.load(Relaxed) {
            let written =
                Written { jobs: batch.jobs.clone(), results: batch.appends.len(), workflows: batch.workflows.len() };
            self.recorder.written.lock().unwrap_or_else(PoisonError::into_inner).push(written);
        }
        self.store.commit(batch)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.store.close()
    }
}

pub struct World {
    pub engine: EngineHandle,
    pub runtime: Runtime,
    pub recorder: Arc<Recorder>,
    path: PathBuf,
    /// Gone when this is.
    _folder: TempDir,
}

impl World {
    pub fn new(mode: Mode) -> World {
        let folder = tempfile::tempdir_in(".").expect("a folder can be made");
        let path = folder.path().join("rate.db");
        let options = forebay_store_sqlite::Options { durability: mode.durability(), ..Default::default() };
        let store = SqliteStore::open(&path, options).expect("a new database can be opened");
        let mut syncer = store.syncer().expect("its log is there");
        let options = match mode {
            Mode::Power => Options::power(),
            Mode::Process => Options::process(move || syncer.sync()),
            Mode::Memory => Options::memory(),
        };
        let readers = store.readers();
        let open = || -> Result<SqliteReader, StoreError> { Ok(readers.open().expect("a reader can be opened")) };
        let recorder = Arc::new(Recorder::default());
        let store = Recorded { store, recorder: Arc::clone(&recorder) };
        let engine = Engine::start(store, open, Arc::new(SystemClock::new()), options).expect("it recovers");
        // As many as a server has that is alone: the engine and its writer want a processor, too.
        let threads = std::thread::available_parallelism().map_or(1, |processors| (processors.get() - 1).max(1));
        let runtime = Builder::new_multi_thread().worker_threads(threads).build().expect("a runtime");
        World { engine, runtime, recorder, path, _folder: folder }
    }

    /// A new workflow with so many ready jobs.
    pub fn fill(&self, jobs: usize) -> WorkflowId {
        let ask = |command| self.engine.call_blocking(command).expect("the engine has room for one caller");
        let Answer::Created(id) = ask(create_workflow()) else { panic!("it is created") };
        let workflow = WorkflowId(id);
        for from in (0..jobs).step_by(50_000) {
            ask(create_jobs(workflow, (jobs - from).min(50_000)));
        }
        if jobs > 0 {
            ask(Command::Initialize { workflow, only_drafts: false });
        }
        workflow
    }

    /// How many jobs there are.
    pub fn jobs(&self) -> i64 {
        let db = rusqlite::Connection::open(&self.path).expect("it is there");
        db.query_row("SELECT max(id) FROM job", [], |row| row.get(0)).expect("there are jobs")
    }

    /// Ends the engine. What was written while it was written down.
    pub fn stop(self) -> Vec<Written> {
        let ended = self.runtime.block_on(self.engine.stop(Duration::from_secs(600)));
        assert!(matches!(ended, Ended::Stopped), "{ended}");
        std::mem::take(&mut self.recorder.written.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
