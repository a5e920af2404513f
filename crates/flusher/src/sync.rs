//! Making commits without fsync durable in the background.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Cause, Failure};

type Sync = Box<dyn FnMut() -> Result<(), Failure> + Send>;

/// A thread that syncs at most once in an interval, and only if something was written.
///
/// What was written is durable at most one interval and one sync later.
#[derive(Debug)]
pub struct BackgroundSync {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    written: bool,
    stopping: bool,
}

impl BackgroundSync {
    /// Starts the thread. `sync` makes all that was written before it durable. If it is `Busy` it
    /// is tried again an interval later; if it is `Broken` the thread calls `broken` and ends.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start(
        interval: Duration,
        sync: impl FnMut() -> Result<(), Failure> + Send + 'static,
        broken: impl FnOnce(Cause) + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let thread = thread::Builder::new()
            .name("forebay-sync".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || {
                    if let Err(cause) = shared.run(interval, Box::new(sync)) {
                        broken(cause);
                    }
                }
            })
            .expect("a process that cannot start a thread cannot go on");
        BackgroundSync { shared, thread: Some(thread) }
    }

    /// Something was committed without fsync.
    pub fn written(&self) {
        let mut state = self.shared.lock();
        if !state.written {
            state.written = true;
            self.shared.changed.notify_all();
        }
    }
}

/// Syncs what is not synced yet, and waits for it.
impl Drop for BackgroundSync {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take()
            && let Err(panic) = thread.join()
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is two flags, valid whatever a panicking holder did.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, interval: Duration, mut sync: Sync) -> Result<(), Cause> {
        let mut next = Instant::now();
        while self.wait_until_due(next) {
            next = Instant::now() + interval;
            match sync() {
                Ok(()) => {}
                Err(Failure::Broken(cause)) => return Err(cause),
                Err(Failure::Busy(cause)) => {
                    let mut state = self.lock();
                    if state.stopping {
                        return Err(cause);
                    }
                    state.written = true;
                }
            }
        }
        Ok(())
    }

    /// Waits until something is written and `next` has come, or the end; true if there is
    /// something to sync.
    fn wait_until_due(&self, next: Instant) -> bool {
        let mut state = self.lock();
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            if state.stopping || (state.written && wait.is_zero()) {
                return std::mem::take(&mut state.written);
            }
            state = if state.written {
                let woken = self.changed.wait_timeout(state, wait);
                woken.unwrap_or_else(PoisonError::into_inner).0
            } else {
                self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn nothing_written_is_never_synced() {
        let (synced, syncs) = mpsc::channel();
        drop(BackgroundSync::start(
            Duration::ZERO,
            move || {
                synced.send(()).expect("the test listens");
                Ok(())
            },
            |cause| panic!("{cause}"),
        ));
        assert_eq!(syncs.iter().count(), 0);
    }

    #[test]
    fn what_was_written_is_synced_without_another_call() {
        let (synced, syncs) = mpsc::channel();
        let sync = BackgroundSync::start(
            Duration::ZERO,
            move || {
                synced.send(()).expect("the test listens");
                Ok(())
            },
            |cause| panic!("{cause}"),
        );
        for _ in 0..3 {
            sync.written();
            syncs.recv().expect("a sync follows each write");
        }
    }

    #[test]
    fn writes_within_an_interval_share_one_sync_and_the_end_syncs_the_rest() {
        let (synced, syncs) = mpsc::channel();
        let sync = BackgroundSync::start(
            LONG,
            move || {
                synced.send(()).expect("the test listens");
                Ok(())
            },
            |cause| panic!("{cause}"),
        );
        sync.written();
        syncs.recv().expect("the first write is synced at once");
        for _ in 0..100 {
            sync.written();
        }
        drop(sync);
        assert_eq!(syncs.iter().count(), 1);
    }

    #[test]
    fn a_broken_sync_is_reported_once_and_ends_the_thread() {
        let (broken, causes) = mpsc::channel();
        let sync = BackgroundSync::start(
            Duration::ZERO,
            || Err(Failure::Broken("the disk is gone".into())),
            move |cause| broken.send(cause.to_string()).expect("the test listens"),
        );
        sync.written();
        assert_eq!(causes.recv().as_deref(), Ok("the disk is gone"));
        drop(sync);
        assert_eq!(causes.iter().count(), 0);
    }

    #[test]
    fn a_busy_sync_is_tried_again() {
        let (synced, syncs) = mpsc::channel();
        let mut tries = 0;
        let sync = BackgroundSync::start(
            Duration::ZERO,
            move || {
                tries += 1;
                if tries < 3 {
                    return Err(Failure::Busy("not yet".into()));
                }
                synced.send(tries).expect("the test listens");
                Ok(())
            },
            |cause| panic!("{cause}"),
        );
        sync.written();
        assert_eq!(syncs.recv(), Ok(3));
    }
}
