//! Threads that read, each with a reader of its own.

use std::collections::VecDeque;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use forebay_domain::port::Reader;

/// What a thread is to do with its reader.
pub(crate) type Reading = Box<dyn FnOnce(&mut dyn Reader) + Send>;

/// Some reader threads and the queue before them.
#[derive(Clone)]
pub(crate) struct Readers {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    waiting_max: usize,
}

struct State {
    waiting: VecDeque<Reading>,
    running: usize,
    threads: usize,
    closed: bool,
}

/// Why a read was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Full,
    Closed,
}

impl Readers {
    /// Starts one thread for each reader. `panicked` is told when a read panics.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start<R: Reader + Send + 'static>(
        name: &str,
        readers: Vec<R>,
        waiting_max: usize,
        panicked: impl Fn() + Clone + Send + 'static,
    ) -> Readers {
        let state = State { waiting: VecDeque::new(), running: 0, threads: readers.len(), closed: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), waiting_max });
        for reader in readers {
            let shared = Arc::clone(&shared);
            let panicked = panicked.clone();
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || shared.run(reader, &panicked))
                .expect("a process that cannot start a thread cannot go on");
        }
        Readers { shared }
    }

    /// Puts a read at the end of the queue.
    pub fn read(&self, reading: Reading) -> Result<(), NotTaken> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(NotTaken::Closed);
        }
        if state.waiting.len() >= self.shared.waiting_max {
            return Err(NotTaken::Full);
        }
        state.waiting.push_back(reading);
        drop(state);
        self.shared.changed.notify_one();
        Ok(())
    }

    /// How many reads wait or run.
    pub fn in_flight(&self) -> usize {
        let state = self.shared.lock();
        state.waiting.len() + state.running
    }

    /// Takes no more, and drops what waits.
    pub fn close(&self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let dropped = std::mem::take(&mut state.waiting);
        drop(state);
        self.shared.changed.notify_all();
        drop(dropped);
    }

    /// Closes, and waits until the threads have let go of their readers, at most until the
    /// deadline; whether they have.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.close();
        let mut state = self.shared.lock();
        while state.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.threads == 0
    }
}

impl Shared {
    fn run<R: Reader>(&self, mut reader: R, panicked: &impl Fn()) {
        while let Some(reading) = self.next() {
            let caught = panic::catch_unwind(AssertUnwindSafe(|| reading(&mut reader)));
            self.lock().running -= 1;
            if caught.is_err() {
                panicked();
            }
        }
        drop(reader);
        self.lock().threads -= 1;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Reading> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(reading) = state.waiting.pop_front() {
                state.running += 1;
                return Some(reading);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder runs code that can panic between two changes of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
