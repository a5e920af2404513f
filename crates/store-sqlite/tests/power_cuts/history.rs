//! Clients of an engine on a store: what they were told goes on the tape of its disk.

use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use forebay_domain::batch::{Batch, Outcomes};
use forebay_domain::command::{Answer, Claimed, Command};
use forebay_domain::ids::{Grant, JobId, NodeId, WorkflowId};
use forebay_domain::job::NewJob;
use forebay_domain::port::{Recovered, Store, StoreError};
use forebay_engine::{Ended, Engine, EngineHandle, Options, SystemClock};
use forebay_sim::commands;
use forebay_store_sqlite::{Durability, Options as StoreOptions, SqliteReader, SqliteStore, Syncer};

use crate::power_cuts::random::Random;
use crate::power_cuts::tape::{Entry, Event, Tape};
use crate::power_cuts::vfs;

/// In `process`, for histories that are short.
pub const SYNC_INTERVAL: Duration = Duration::from_millis(5);

const CLIENTS: u64 = 8;
/// Jobs of one creation.
const CREATED_AT_ONCE: usize = 8;

/// How the engine answers, and how the store commits. They belong together; only a test that wants
/// to see it go wrong takes others.
#[derive(Clone, Copy, Debug)]
pub struct Modes {
    pub engine: Durability,
    pub store: Durability,
    /// Whether the disk does what SQLite asks it to sync.
    pub honest: bool,
}

impl Modes {
    pub fn both(mode: Durability) -> Modes {
        Modes { engine: mode, store: mode, honest: true }
    }
}

/// What a client was told.
#[derive(Clone, Copy, Debug)]
pub enum Said {
    WorkflowCreated(WorkflowId),
    Created { first: JobId, count: usize },
    Claimed { job: JobId, attempt: i64, grant: Grant },
    Started(JobId),
    Ended(JobId),
}

/// Plays a history in this folder, each client so many rounds, and gives the tape of it.
pub fn play(folder: &Path, modes: Modes, seed: u64, rounds: usize) -> Vec<Entry> {
    let tape = vfs::record(folder, modes.honest);
    let path = folder.canonicalize().expect("the folder is there").join("a.db");
    let engine = start(&path, modes, &tape).expect("a new database can be opened");
    let workflow = create_workflow(&engine, &tape);
    thread::scope(|clients| {
        for number in 0..CLIENTS {
            let client = Client { engine: &engine, tape: &tape, workflow, node: NodeId(1) };
            clients.spawn(move || client.work(&mut Random(seed * CLIENTS + number), rounds));
        }
    });
    stop(&engine);
    tape.take()
}

/// Stops an engine that must have gone well.
pub fn stop(engine: &EngineHandle) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let ended = runtime.block_on(engine.stop(Duration::from_secs(60)));
    assert!(matches!(ended, Ended::Stopped), "{ended}");
}

/// An engine on the database at this path, whose disk is the tape.
pub fn start(path: &Path, modes: Modes, tape: &Arc<Tape>) -> Result<EngineHandle, Box<dyn std::error::Error>> {
    // The log is folded in again and again: that is where most can go wrong.
    let options =
        StoreOptions { durability: modes.store, checkpoint_pages: 60, log_pages_max: 200, ..StoreOptions::default() };
    let store = SqliteStore::open(path, options)?;
    let log = tape.name_of(path).map(|name| format!("{name}-wal").into_boxed_str()).expect("it is recorded");
    let mut syncer = Taped { syncer: store.syncer().expect("its log is there"), tape: Arc::clone(tape), log };
    let own =
        Taped { syncer: store.syncer().expect("its log is there"), tape: Arc::clone(tape), log: syncer.log.clone() };
    let options = match modes.engine {
        Durability::Power => Options::power(),
        Durability::Process => {
            let mut options = Options::process(move || syncer.sync());
            if let forebay_engine::Durability::Process { sync_interval, .. } = &mut options.durability {
                *sync_interval = SYNC_INTERVAL;
            }
            options
        }
    };
    let path = path.to_owned();
    let reader = move || SqliteReader::open(&path).map_err(|error| StoreError::Broken(Box::new(error)));
    let store = TapedStore { store, syncer: own };
    Ok(Engine::start(store, reader, Arc::new(SystemClock::new()), options)?)
}

/// The syncs of `process`, which SQLite knows nothing of, go on tape here.
struct Taped {
    syncer: Syncer,
    tape: Arc<Tape>,
    log: Box<str>,
}

impl Taped {
    fn sync(&mut self) -> Result<(), StoreError> {
        let from = self.tape.position();
        self.syncer.sync()?;
        let synced = self.tape.sync(&self.log, ptr::from_ref(self).addr(), from);
        synced.map_err(|code| StoreError::Broken(format!("the test says {code}").into()))
    }
}

struct TapedStore {
    store: SqliteStore,
    syncer: Taped,
}

impl Store for TapedStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        let recovered = self.store.recover()?;
        self.syncer.sync()?;
        Ok(recovered)
    }

    fn commit(&mut self, batch: &Batch) -> Result<Outcomes, StoreError> {
        self.store.commit(batch)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.syncer.sync()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.syncer.sync()?;
        self.store.close()
    }
}

struct Client<'a> {
    engine: &'a EngineHandle,
    tape: &'a Tape,
    workflow: WorkflowId,
    node: NodeId,
}

impl Client<'_> {
    fn work(&self, random: &mut Random, rounds: usize) {
        for round in 0..rounds {
            if round == 0 || random.below(6) == 0 {
                self.create();
            } else {
                self.run_jobs(random);
            }
        }
    }

    fn create(&self) {
        let workflow = self.workflow;
        let first = created(self.ask(create_jobs(workflow, CREATED_AT_ONCE)));
        self.hear(Said::Created { first: JobId(first), count: CREATED_AT_ONCE });
        self.ask(Command::Initialize { workflow, only_drafts: true });
    }

    fn run_jobs(&self, random: &mut Random) {
        let Answer::Claimed(Claimed { jobs, .. }) = self.ask(claim(self.workflow, 1 + random.below(3) as u32)) else {
            panic!("a claim is answered with jobs");
        };
        for (row, _) in &jobs {
            self.hear(Said::Claimed { job: row.id, attempt: row.attempt, grant: row.grant });
        }
        for (row, _) in jobs {
            self.ask(Command::Start { job: row.id, run: 0, node: self.node });
            self.hear(Said::Started(row.id));
            // Some run on.
            if random.below(8) > 0 {
                self.ask(commands::completed(self.workflow, &row));
                self.hear(Said::Ended(row.id));
            }
        }
    }

    fn ask(&self, command: Command) -> Answer {
        self.engine.call_blocking(command).expect("only what is possible is asked for")
    }

    fn hear(&self, said: Said) {
        self.tape.push(Event::Said(said));
    }
}

fn create_workflow(engine: &EngineHandle, tape: &Tape) -> WorkflowId {
    let asked = engine.call_blocking(commands::create_workflow());
    let workflow = WorkflowId(created(asked.expect("a new database takes a workflow")));
    tape.push(Event::Said(Said::WorkflowCreated(workflow)));
    workflow
}

pub fn create_jobs(workflow: WorkflowId, count: usize) -> Command {
    let job = |n| NewJob { payload: vec![b'x'; 200].into(), ..commands::new_job(n) };
    Command::CreateJobs { workflow, jobs: (0..count).map(job).collect() }
}

pub fn claim(workflow: WorkflowId, limit: u32) -> Command {
    Command::Claim(commands::claim(workflow, limit, None))
}

pub fn created(answer: Answer) -> i64 {
    match answer {
        Answer::Created(id) => id,
        other => panic!("not the answer to a creation: {other:?}"),
    }
}
