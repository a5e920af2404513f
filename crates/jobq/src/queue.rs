//! The queue as its callers hold it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_flusher::{Failure, Group, GroupOptions, Submission};

use crate::bell::Bell;
use crate::conn::Conn;
use crate::ledger::FileLedger;
use crate::op::{Answer, Ask, Given, Op, Polled};
use crate::query::Compiled;
use crate::readers::Readers;
use crate::table::{DEFAULT_QUEUE, Events};
use crate::{CreateOptions, Error, Job, Json, Leased, Query};

/// Tells the time, in milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// The system's clock.
#[must_use]
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        // A clock before 1970 is as good as none.
        since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}

/// What a call that has answered survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Power loss: each commit is synced.
    #[default]
    Power,
    /// The end of the process, `kill -9` too. Power loss takes at most the last `sync_interval`.
    Process,
}

/// How a queue is opened.
#[derive(Clone)]
pub struct Options {
    pub durability: Durability,
    /// With `Process`, how often what was committed is synced in the background.
    pub sync_interval: Duration,
    /// Keeps the events of new files and queues in a table of their own: an append then costs the
    /// same however long the log is. The original cannot open such a file. A file or queue that is
    /// there keeps its form.
    pub events_table: bool,
    /// How calls share commits.
    pub group: GroupOptions,
    /// While somebody waits for a job, how often other processes' commits are looked for.
    pub watch_interval: Duration,
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            durability: Durability::Power,
            sync_interval: Duration::from_millis(100),
            events_table: false,
            group: GroupOptions::default(),
            watch_interval: Duration::from_millis(2),
            clock: system_clock(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("durability", &self.durability)
            .field("events_table", &self.events_table)
            .finish_non_exhaustive()
    }
}

/// A queue of jobs in a file, or in memory. Clones are the same queue.
#[derive(Clone)]
pub struct JobQueue {
    core: Arc<Core>,
    name: Arc<str>,
}

struct Core {
    path: PathBuf,
    options: Options,
    group: Group<FileLedger>,
    /// None in memory, where the one connection reads too.
    readers: Option<Readers>,
    bell: Arc<Bell>,
    watch: Mutex<Watch>,
    compiled: Mutex<CompiledQueries>,
}

/// Looks for other processes' commits while somebody waits.
#[derive(Default)]
struct Watch {
    conn: Option<Conn>,
    version: i64,
    looked: Option<Instant>,
}

/// Queries that were parsed before.
type CompiledQueries = std::collections::HashMap<Query, Arc<Compiled>>;

/// Over this many, the parsed queries are forgotten.
const COMPILED_MAX: usize = 256;

impl JobQueue {
    /// Opens a file, making it if there is none; `:memory:` is a queue in memory.
    ///
    /// # Errors
    /// If the file cannot be opened or is not a job queue.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        JobQueue::open_with(path, Options::default())
    }

    /// Opens a file with options.
    ///
    /// # Errors
    /// As [`open`](JobQueue::open).
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self, Error> {
        let path = path.as_ref();
        let events = if options.events_table { Events::Table } else { Events::Column };
        let conn = Conn::open(path, options.durability, events)?;
        let bell = Arc::new(Bell::default());
        let is_memory = conn.is_memory();
        let mut ledger = FileLedger::new(conn, Arc::clone(&options.clock), Arc::clone(&bell));
        if options.durability == Durability::Process && !is_memory {
            ledger = ledger.sync_each(path, options.sync_interval);
        }
        let core = Core {
            path: path.to_owned(),
            group: Group::new(ledger, options.group),
            options,
            readers: (!is_memory).then(|| Readers::new(path.to_owned())),
            bell,
            watch: Mutex::default(),
            compiled: Mutex::default(),
        };
        Ok(JobQueue { core: Arc::new(core), name: DEFAULT_QUEUE.into() })
    }

    /// Adds a job. Its state is `null` if none is given.
    ///
    /// # Errors
    /// If it could not be committed.
    pub fn create(&self, payload: impl Into<Json>, state: impl Into<Json>) -> Result<Job, Error> {
        self.create_with(payload, state, CreateOptions::default())
    }

    /// Adds a job with a priority, a delay or a number of retries.
    ///
    /// # Errors
    /// As [`create`](JobQueue::create).
    pub fn create_with(
        &self,
        payload: impl Into<Json>,
        state: impl Into<Json>,
        options: CreateOptions,
    ) -> Result<Job, Error> {
        let (payload, state) = (payload.into(), state.into());
        one_job(self.ask(Ask::Create { payload, state, options }))
    }

    /// The job of this id.
    ///
    /// # Errors
    /// [`Error::NoJob`].
    pub fn get(&self, id: i64) -> Result<Job, Error> {
        one_job(self.read(Ask::Get { id }))
    }

    /// The jobs that match, the longest untouched first, at most `limit`.
    ///
    /// # Errors
    /// If the query is refused.
    pub fn query(&self, query: impl Into<Query>, limit: Option<u64>) -> Result<Vec<Job>, Error> {
        let query = self.compile(query.into())?;
        jobs(self.read(Ask::Query { query, limit }))
    }

    /// Moves the longest untouched job that matches to `state`; none if no job matches.
    ///
    /// # Errors
    /// If the query is refused, or the move could not be committed.
    pub fn poll(&self, query: impl Into<Query>, state: impl Into<Json>) -> Result<Option<Job>, Error> {
        Ok(self.poll_many(query, state, 1)?.pop())
    }

    /// Moves up to `limit` jobs that match to `state`, the longest untouched first.
    ///
    /// # Errors
    /// As [`poll`](JobQueue::poll).
    pub fn poll_many(&self, query: impl Into<Query>, state: impl Into<Json>, limit: u32) -> Result<Vec<Job>, Error> {
        let query = self.compile(query.into())?;
        let state = state.into();
        let polled = polled(self.ask(Ask::Poll { query, state, limit, lease_ms: None }))?;
        Ok(polled.jobs.into_iter().map(|leased| leased.job).collect())
    }

    /// Polls, and waits up to `timeout` for a job that matches.
    ///
    /// # Errors
    /// As [`poll`](JobQueue::poll).
    pub fn poll_wait(
        &self,
        query: impl Into<Query>,
        state: impl Into<Json>,
        timeout: Duration,
    ) -> Result<Option<Job>, Error> {
        let jobs = self.wait(query.into(), state.into(), 1, None, timeout)?;
        Ok(jobs.into_iter().next().map(|leased| leased.job))
    }

    /// Polls up to `limit` jobs on lease, waiting up to `timeout` for the first. A job whose lease
    /// ends goes back to the state that it had, or to [`DEAD`](crate::DEAD) when its retries are
    /// used up. Moving a job to another state ends its lease.
    ///
    /// # Errors
    /// As [`poll`](JobQueue::poll).
    pub fn lease(
        &self,
        query: impl Into<Query>,
        state: impl Into<Json>,
        limit: u32,
        lease: Duration,
        timeout: Duration,
    ) -> Result<Vec<Leased>, Error> {
        self.wait(query.into(), state.into(), limit, Some(millis(lease)), timeout)
    }

    /// Makes a lease last `lease` from now.
    ///
    /// # Errors
    /// [`Error::LeaseEnded`] if it has ended and the job went on.
    pub fn renew(&self, leased: &Leased, lease: Duration) -> Result<(), Error> {
        let (id, attempt) = (leased.job.id, leased.attempt);
        self.ask(Ask::Renew { id, attempt, lease_ms: millis(lease) }).map(drop)
    }

    /// Moves a job on lease to its next state.
    ///
    /// # Errors
    /// [`Error::LeaseEnded`] if the lease has ended and the job went on.
    pub fn finish(&self, leased: &Leased, state: impl Into<Json>) -> Result<Job, Error> {
        let (id, attempt) = (leased.job.id, leased.attempt);
        one_job(self.ask(Ask::Finish { id, attempt, state: state.into() }))
    }

    /// Moves a job from one state to another; none if its state was not `old`.
    ///
    /// # Errors
    /// If the move could not be committed.
    pub fn cas_state(&self, id: i64, old: impl Into<Json>, new: impl Into<Json>) -> Result<Option<Job>, Error> {
        maybe_job(self.ask(Ask::Cas { id, old: old.into(), new: new.into() }))
    }

    /// Adds an event of the user's to a job's log.
    ///
    /// # Errors
    /// [`Error::NoJob`].
    pub fn append_event(&self, id: i64, event: impl Into<Json>) -> Result<Job, Error> {
        one_job(self.ask(Ask::Append { id, event: event.into(), wants_job: true }))
    }

    /// Adds an event as [`append_event`](JobQueue::append_event) does, without reading the log
    /// back: where events have a table of their own its cost does not grow with the log.
    ///
    /// # Errors
    /// [`Error::NoJob`].
    pub fn log_event(&self, id: i64, event: impl Into<Json>) -> Result<(), Error> {
        self.ask(Ask::Append { id, event: event.into(), wants_job: false }).map(drop)
    }

    /// Removes a job, whatever its state; false if there was none.
    ///
    /// # Errors
    /// If it could not be committed.
    pub fn delete(&self, id: i64) -> Result<bool, Error> {
        done(self.ask(Ask::Delete { id }))
    }

    /// Another queue in the same file, made if there is none. Its jobs are its own: the original,
    /// and the queue that was opened, do not see them.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn queue(&self, name: &str) -> Result<JobQueue, Error> {
        let named = self.named(name)?;
        let events = if self.core.options.events_table { Events::Table } else { Events::Column };
        named.ask(Ask::CreateQueue { events })?;
        Ok(named)
    }

    /// Removes another queue in the same file with all its jobs; false if there was none.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn drop_queue(&self, name: &str) -> Result<bool, Error> {
        done(self.named(name)?.ask(Ask::DropQueue))
    }

    /// The names of the other queues in the file.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn queues(&self) -> Result<Vec<String>, Error> {
        match self.read(Ask::Queues)? {
            Given::Names(names) => Ok(names),
            _ => unreachable!("asking for the queues gives names"),
        }
    }

    /// The file that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.core.path
    }

    /// Finishes the calls in progress and closes the file, for all clones.
    pub fn close(&self) {
        drop(self.core.group.close());
        if let Some(readers) = &self.core.readers {
            readers.close();
        }
        self.core.watch().conn = None;
    }

    fn named(&self, name: &str) -> Result<JobQueue, Error> {
        if !is_queue_name(name) {
            return Err(Error::Name(name.to_owned()));
        }
        Ok(JobQueue { core: Arc::clone(&self.core), name: name.into() })
    }

    fn wait(
        &self,
        query: Query,
        state: Json,
        limit: u32,
        lease_ms: Option<i64>,
        timeout: Duration,
    ) -> Result<Vec<Leased>, Error> {
        let query = self.compile(query)?;
        let deadline = Instant::now() + timeout;
        loop {
            let seen = self.core.bell.count();
            let (query, state) = (Arc::clone(&query), state.clone());
            let polled = polled(self.ask(Ask::Poll { query, state, limit, lease_ms }))?;
            let now = Instant::now();
            if !polled.jobs.is_empty() || now >= deadline {
                return Ok(polled.jobs);
            }
            let until = polled.next_due_ms.map_or(deadline, |due| {
                let left = due.saturating_sub((self.core.options.clock)()).max(0);
                deadline.min(now + Duration::from_millis(left.cast_unsigned()))
            });
            let interval = self.core.options.watch_interval;
            self.core.bell.wait(seen, until, interval, || self.core.look_elsewhere());
        }
    }

    pub(crate) fn compile(&self, query: Query) -> Result<Arc<Compiled>, Error> {
        let mut known = self.core.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(compiled) = known.get(&query) {
            return Ok(Arc::clone(compiled));
        }
        let compiled = Arc::new(query.compile()?);
        if known.len() >= COMPILED_MAX {
            known.clear();
        }
        known.insert(query, Arc::clone(&compiled));
        Ok(compiled)
    }

    fn op(&self, ask: Ask) -> Op {
        Op { queue: Arc::clone(&self.name), ask }
    }

    /// Puts a call in line, for a future to wait for.
    pub(crate) fn submit(&self, ask: Ask) -> Result<Submission<FileLedger>, Error> {
        Ok(self.core.group.submit_async(self.op(ask))?)
    }

    fn ask(&self, ask: Ask) -> Answer {
        self.core.group.submit(self.op(ask))?
    }

    /// Reads beside the writer; what was answered is committed.
    fn read(&self, ask: Ask) -> Answer {
        let op = self.op(ask);
        match &self.core.readers {
            None => self.core.group.submit(op)?,
            Some(readers) => readers.with(|conn| {
                conn.refresh()?;
                match op.apply(conn, 0) {
                    Ok(answer) => answer,
                    Err(Failure::Busy(cause)) => Err(Error::Busy(Arc::new(cause))),
                    Err(Failure::Broken(cause)) => Err(Error::Broken(Arc::new(cause))),
                }
            }),
        }
    }
}

/// A queue may have this name: 1 to 64 letters, digits, `_`, `-` and `.`, a letter or digit first.
#[must_use]
pub fn is_queue_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

impl fmt::Debug for JobQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        f.debug_struct("JobQueue").field("path", &self.core.path).field("name", name).finish()
    }
}

impl Core {
    /// Rings the bell if another process has committed since the last look.
    fn look_elsewhere(&self) -> bool {
        if self.readers.is_none() {
            return false;
        }
        // Whoever holds the lock is looking.
        let Ok(mut watch) = self.watch.try_lock() else {
            return false;
        };
        let half = self.options.watch_interval / 2;
        if watch.looked.is_some_and(|looked| looked.elapsed() < half) {
            return false;
        }
        watch.looked = Some(Instant::now());
        if watch.conn.is_none() {
            // Without it the wait goes on, and finds what this process commits.
            watch.conn = Conn::open_reader(&self.path).ok();
        }
        let version = watch.conn.as_ref().and_then(|conn| conn.data_version().ok());
        let changed = version.is_some_and(|version| version != watch.version);
        watch.version = version.unwrap_or(watch.version);
        if changed {
            self.bell.ring();
        }
        changed
    }

    fn watch(&self) -> std::sync::MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn one_job(answer: Answer) -> Result<Job, Error> {
    match answer? {
        Given::Job(job) => Ok(job),
        _ => unreachable!("a call about one job gives a job or an error"),
    }
}

/// A job, or that it was not there or not in that state.
pub(crate) fn maybe_job(answer: Answer) -> Result<Option<Job>, Error> {
    match answer? {
        Given::Job(job) => Ok(Some(job)),
        _ => Ok(None),
    }
}

pub(crate) fn jobs(answer: Answer) -> Result<Vec<Job>, Error> {
    match answer? {
        Given::Jobs(jobs) => Ok(jobs),
        _ => unreachable!("a query gives jobs"),
    }
}

pub(crate) fn polled(answer: Answer) -> Result<Polled, Error> {
    match answer? {
        Given::Polled(polled) => Ok(polled),
        _ => unreachable!("a poll gives what it polled"),
    }
}

/// Whether there was something to do.
pub(crate) fn done(answer: Answer) -> Result<bool, Error> {
    Ok(matches!(answer?, Given::Done))
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
