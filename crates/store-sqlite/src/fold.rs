//! Folds the log into the database beside the writer, so that no commit waits for the copying and its
//! syncs.

use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, DEFAULT_NAME, wal::CheckpointMode};

use crate::place::Place;

/// A thread with a connection of its own. What is committed while it is at work is left to the next
/// round.
#[derive(Debug)]
pub(crate) struct Folder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// How many pages of the log are in the database.
pub(crate) type Folded = rusqlite::Result<u32>;

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    Idle,
    Asked,
    AtWork,
    Done(Folded),
    Ended,
}

impl Folder {
    /// # Errors
    /// If there is no connection or no thread to be had.
    pub fn start(place: &Place, busy_timeout: Duration) -> rusqlite::Result<Folder> {
        let db = place.open_writer()?;
        db.busy_timeout(busy_timeout)?;
        // The log ends with the writer's connection, if with any.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // Only who has read something knows that there is a log.
        db.pragma_query(None, "schema_version", |_| Ok(()))?;
        let shared = Arc::new(Shared { state: Mutex::new(State::Idle), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("forebay-fold".to_owned()).spawn(move || of_thread.work(&db));
        let thread = thread.expect("a process that cannot start a thread cannot go on");
        Ok(Folder { shared, thread: Some(thread) })
    }

    /// Asks for a round, unless one is asked for or going on.
    pub fn ask(&self) {
        let mut state = self.shared.lock();
        if matches!(*state, State::Idle | State::Done(_)) {
            *state = State::Asked;
            self.shared.changed.notify_all();
        }
    }

    /// Waits for the round that is asked for or going on.
    pub fn finish(&self) {
        let state = self.shared.lock();
        let is_busy = |state: &mut State| matches!(state, State::Asked | State::AtWork);
        drop(self.shared.changed.wait_while(state, is_busy));
    }

    /// What the last round came to, once.
    pub fn outcome(&self) -> Option<Folded> {
        let mut state = self.shared.lock();
        match std::mem::replace(&mut *state, State::Idle) {
            State::Done(folded) => Some(folded),
            other => {
                *state = other;
                None
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, db: &Connection) {
        let mut state = self.lock();
        loop {
            match *state {
                State::Ended => return,
                State::Asked => {}
                State::Idle | State::AtWork | State::Done(_) => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            }
            *state = State::AtWork;
            drop(state);
            let folded = fold(db);
            state = self.lock();
            if matches!(*state, State::AtWork) {
                *state = State::Done(folded);
                self.changed.notify_all();
            }
        }
    }
}

/// Ends the thread, after the round that is going on.
impl Drop for Folder {
    fn drop(&mut self) {
        *self.shared.lock() = State::Ended;
        self.shared.changed.notify_all();
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            resume_unwind(panic);
        }
    }
}

/// As far as readers let, without waiting for them.
fn fold(db: &Connection) -> Folded {
    let (_, folded) = db.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::PASSIVE)?;
    Ok(u32::try_from(folded).unwrap_or(0))
}
