//! Connections that read beside the one that writes.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, PoisonError};

use crate::Error;
use crate::conn::Conn;

/// A few connections, opened as they are needed; one more reader waits for one.
pub(crate) struct Readers {
    path: PathBuf,
    state: Mutex<State>,
    returned: Condvar,
}

#[derive(Default)]
struct State {
    idle: Vec<Conn>,
    open: usize,
    is_closed: bool,
}

/// At most so many connections read at once.
const READERS_MAX: usize = 4;

impl Readers {
    pub(crate) fn new(path: PathBuf) -> Self {
        Readers { path, state: Mutex::default(), returned: Condvar::new() }
    }

    /// Runs `read` with a connection.
    pub(crate) fn with<R>(&self, read: impl FnOnce(&mut Conn) -> Result<R, Error>) -> Result<R, Error> {
        let mut lent = Lent { readers: self, conn: Some(self.take()?) };
        read(lent.conn.as_mut().expect("lent until dropped"))
    }

    /// Closes them; who reads now finishes.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        state.idle.clear();
        self.returned.notify_all();
    }

    fn take(&self) -> Result<Conn, Error> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return Err(Error::Closed);
            }
            if let Some(conn) = state.idle.pop() {
                return Ok(conn);
            }
            if state.open < READERS_MAX {
                state.open += 1;
                drop(state);
                return Conn::open_reader(&self.path).inspect_err(|_| self.give(None));
            }
            state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes a connection back, or learns that it is gone.
    fn give(&self, conn: Option<Conn>) {
        let mut state = self.lock();
        match conn {
            Some(conn) if !state.is_closed => state.idle.push(conn),
            Some(_) | None => state.open -= 1,
        }
        self.returned.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // Each holder leaves the counts right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lent<'a> {
    readers: &'a Readers,
    conn: Option<Conn>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.readers.give(self.conn.take());
    }
}
