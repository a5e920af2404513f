//! The file behind the group commit.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forebay_flusher::{BackgroundSync, Cause, Failure, Ledger};

use crate::Clock;
use crate::bell::Bell;
use crate::conn::Conn;
use crate::op::{Answer, Op};

pub(crate) struct FileLedger {
    conn: Conn,
    clock: Clock,
    bell: Arc<Bell>,
    sync: Option<Syncing>,
    /// The open transaction changed something.
    has_changes: bool,
}

/// The sync of commits that do not sync.
struct Syncing {
    background: BackgroundSync,
    broken: Arc<Mutex<Option<Cause>>>,
}

impl FileLedger {
    pub(crate) fn new(conn: Conn, clock: Clock, bell: Arc<Bell>) -> Self {
        FileLedger { conn, clock, bell, sync: None, has_changes: false }
    }

    /// Syncs what commits leave in the write-ahead log of `path`, at most each `interval`.
    pub(crate) fn sync_each(mut self, path: &Path, interval: Duration) -> Self {
        let broken = Arc::new(Mutex::new(None));
        let mut log = WriteAheadLog { path: with_suffix(path, "-wal"), file: None };
        let background =
            BackgroundSync::start(interval, move || log.sync().map_err(|error| Failure::Broken(error.into())), {
                let broken = Arc::clone(&broken);
                move |cause| {
                    *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
                }
            });
        self.sync = Some(Syncing { background, broken });
        self
    }

    fn check_sync(&self) -> Result<(), Failure> {
        let broken =
            self.sync.as_ref().and_then(|sync| sync.broken.lock().unwrap_or_else(PoisonError::into_inner).take());
        broken.map_or(Ok(()), |cause| Err(Failure::Broken(cause)))
    }

    fn run(&self, sql: &str) -> Result<(), Failure> {
        let ran = self.conn.prepare(sql).and_then(|mut statement| statement.execute([]));
        ran.map(drop).map_err(failure)
    }

    /// Something was committed: others may go on.
    fn committed(&mut self) {
        self.has_changes = false;
        if let Some(sync) = &self.sync {
            sync.background.written();
        }
        self.bell.ring();
    }

    fn apply_within(&mut self, op: &Op) -> Result<Answer, Failure> {
        self.has_changes |= !op.only_reads();
        if op.is_one_write(&mut self.conn) {
            return op.apply(&mut self.conn, (self.clock)());
        }
        self.run("SAVEPOINT op")?;
        let answer = op.apply(&mut self.conn, (self.clock)())?;
        if answer.is_err() {
            self.run("ROLLBACK TO op")?;
            self.conn.forget();
        }
        self.run("RELEASE op")?;
        Ok(answer)
    }
}

impl Ledger for FileLedger {
    type Op = Op;
    type Answer = Answer;

    fn begin(&mut self) -> Result<(), Failure> {
        self.check_sync()?;
        self.run("BEGIN IMMEDIATE")?;
        self.conn.refresh().map_err(failure)
    }

    fn apply(&mut self, op: &Op) -> Result<Answer, Failure> {
        self.apply_within(op)
    }

    fn commit(&mut self) -> Result<(), Failure> {
        self.run("COMMIT")?;
        if self.has_changes {
            self.committed();
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        self.has_changes = false;
        if !self.conn.db().is_autocommit()
            && let Err(failure) = self.run("ROLLBACK")
        {
            // Only a transaction that SQLite has rolled back by itself cannot be rolled back.
            debug_assert!(self.conn.db().is_autocommit(), "{failure}");
        }
        self.conn.forget();
    }

    /// One statement is a transaction by itself; and where nobody else can come between, so are
    /// one write and what was read for it.
    fn apply_alone(&mut self, op: &Op) -> Result<Answer, Failure> {
        self.check_sync()?;
        self.conn.refresh().map_err(failure)?;
        let is_alone =
            op.is_one_statement(&mut self.conn) || (self.conn.is_memory() && op.is_one_write(&mut self.conn));
        if !is_alone {
            self.begin()?;
            let answer = self.apply_within(op)?;
            self.commit()?;
            return Ok(answer);
        }
        let answer = op.apply(&mut self.conn, (self.clock)())?;
        if !op.only_reads() {
            self.committed();
        }
        Ok(answer)
    }

    fn settle(op: Op, answer: Answer) -> Answer {
        answer.map(|given| op.complete(given))
    }
}

/// Closing syncs what is not synced yet, before the connection goes.
impl Drop for FileLedger {
    fn drop(&mut self) {
        drop(self.sync.take());
    }
}

fn failure(error: rusqlite::Error) -> Failure {
    match crate::op::sort(error) {
        Err(failure) => failure,
        // What fails a statement of our own fails the file.
        Ok(Err(error)) => Failure::Broken(error.into()),
        Ok(Ok(_)) => unreachable!("an error is not an answer"),
    }
}

/// The file that commits go to first. SQLite keeps no locks on it, so it may be opened beside.
struct WriteAheadLog {
    path: PathBuf,
    file: Option<File>,
}

impl WriteAheadLog {
    fn sync(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            self.file = match File::open(&self.path) {
                Ok(file) => Some(file),
                // Without one, each commit syncs.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(error),
            };
        }
        self.file.as_ref().map_or(Ok(()), File::sync_data)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
