//! The writer thread: one batch in flight, retried while the store is busy.

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{BackgroundSync, Backoff, Cause, Failure};

/// Where batches go.
pub trait Sink: Send + 'static {
    type Batch: Send + 'static;
    /// What a commit tells its owner, such as the outcomes of statements that may fail alone.
    type Done: Send + 'static;

    /// Writes the whole batch in one transaction, or nothing of it.
    ///
    /// # Errors
    /// `Busy` if nothing was written and the same batch may be tried again.
    fn commit(&mut self, batch: &Self::Batch) -> Result<Self::Done, Failure>;
}

/// How to make commits without fsync durable, for a sink that commits so.
pub struct Syncing {
    /// At most one sync in this time.
    pub interval: Duration,
    /// Makes all that was committed before it durable. It runs on a thread of its own, beside
    /// commits.
    pub sync: Box<dyn FnMut() -> Result<(), Failure> + Send>,
}

/// What the writer tells its owner, on the writer's thread: pass it on and return.
#[derive(Debug)]
pub enum Report<D> {
    /// The batch is committed and the writer is idle. `took` is the time of the try that did it.
    Committed { done: D, took: Duration, tries: u32 },
    /// A try failed, nothing was written, and the same batch will be tried again after `pause`.
    /// `since` is when the first try began.
    Busy { cause: Cause, tries: u32, since: Instant, pause: Duration },
    /// The batch, or the sync of an earlier one, failed for good. The writer has ended.
    Broken { cause: Cause },
}

/// The writer has a batch in flight, or has ended; the batch comes back.
#[derive(Debug, PartialEq, Eq)]
pub struct NotIdle<B>(pub B);

/// How the writer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All that was handed over is committed, and synced.
    Clean,
    /// The batch in flight was not known to be committed when the time was up.
    TimedOut,
    /// The store broke; the report said why.
    Broken,
}

/// A thread that commits batches, one at a time.
pub struct Writer<B> {
    desk: Arc<Desk<B>>,
}

/// Where the owner and the thread meet.
struct Desk<B> {
    state: Mutex<State<B>>,
    changed: Condvar,
}

struct State<B> {
    phase: Phase<B>,
    stop_by: Option<Instant>,
    sync_broken: Option<Cause>,
}

enum Phase<B> {
    Idle,
    Handed(B),
    Committing,
    Ended(Stopped),
}

impl<B: Send + 'static> Writer<B> {
    /// Starts the thread. `report` is called on it after each try.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start<S>(
        sink: S,
        syncing: Option<Syncing>,
        backoff: Backoff,
        report: impl FnMut(Report<S::Done>) + Send + 'static,
    ) -> Self
    where
        S: Sink<Batch = B>,
    {
        let desk = Arc::new(Desk::new());
        thread::Builder::new()
            .name("forebay-writer".to_owned())
            .spawn({
                let desk = Arc::clone(&desk);
                move || Thread { sink, backoff, report, desk: &desk }.run(syncing)
            })
            .expect("a process that cannot start a thread cannot go on");
        Writer { desk }
    }

    /// No batch is in flight and one may be handed over.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.desk.lock().phase, Phase::Idle)
    }

    /// Hands a batch over. A report follows.
    ///
    /// # Errors
    /// Gives the batch back if one is in flight or the writer has ended.
    pub fn hand(&self, batch: B) -> Result<(), NotIdle<B>> {
        let mut state = self.desk.lock();
        match state.phase {
            Phase::Idle => {
                state.phase = Phase::Handed(batch);
                self.desk.changed.notify_all();
                Ok(())
            }
            Phase::Handed(_) | Phase::Committing | Phase::Ended(_) => Err(NotIdle(batch)),
        }
    }

    /// Finishes the batch in flight, trying at most for `timeout`, and ends the thread.
    ///
    /// A try that hangs cannot be interrupted: its thread is then left behind.
    #[must_use = "an unclean stop means that something was not written"]
    pub fn stop(self, timeout: Duration) -> Stopped {
        let deadline = Instant::now() + timeout;
        let mut state = self.desk.lock();
        state.stop_by = Some(deadline);
        self.desk.changed.notify_all();
        loop {
            if let Phase::Ended(stopped) = state.phase {
                return stopped;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Stopped::TimedOut;
            }
            let woken = self.desk.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl<B> fmt::Debug for Writer<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// Ends the thread after the try in progress, without waiting for it. [`Writer::stop`] waits.
impl<B> Drop for Writer<B> {
    fn drop(&mut self) {
        self.desk.lock().stop_by.get_or_insert_with(Instant::now);
        self.desk.changed.notify_all();
    }
}

impl<B> Desk<B> {
    fn new() -> Self {
        Desk {
            state: Mutex::new(State { phase: Phase::Idle, stop_by: None, sync_broken: None }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // No holder runs code that can panic between two changes of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase<B>) {
        self.lock().phase = phase;
        self.changed.notify_all();
    }

    /// Waits for a batch; `Err` is the end.
    fn take(&self) -> Result<B, End> {
        let mut state = self.lock();
        loop {
            if let Some(cause) = state.sync_broken.take() {
                return Err(End::Broken(cause));
            }
            match std::mem::replace(&mut state.phase, Phase::Committing) {
                Phase::Handed(batch) => return Ok(batch),
                idle => state.phase = idle,
            }
            if state.stop_by.is_some() {
                return Err(End::Clean);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Pauses before another try; `Err` is the end.
    fn pause(&self, pause: Duration) -> Result<(), End> {
        let until = Instant::now() + pause;
        let mut state = self.lock();
        loop {
            if let Some(cause) = state.sync_broken.take() {
                return Err(End::Broken(cause));
            }
            let now = Instant::now();
            if state.stop_by.is_some_and(|deadline| deadline <= now) {
                return Err(End::TimedOut);
            }
            let wake = state.stop_by.map_or(until, |deadline| deadline.min(until));
            if until <= now {
                return Ok(());
            }
            let woken = self.changed.wait_timeout(state, wake - now);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

enum End {
    Clean,
    TimedOut,
    Broken(Cause),
}

struct Thread<'a, S: Sink, R> {
    sink: S,
    backoff: Backoff,
    report: R,
    desk: &'a Arc<Desk<S::Batch>>,
}

impl<S: Sink, R: FnMut(Report<S::Done>)> Thread<'_, S, R> {
    fn run(mut self, syncing: Option<Syncing>) {
        let sync = syncing.map(|Syncing { interval, sync }| {
            let desk = Arc::clone(self.desk);
            BackgroundSync::start(interval, sync, move |cause| {
                desk.lock().sync_broken = Some(cause);
                desk.changed.notify_all();
            })
        });
        let mut end = self.commit_batches(sync.as_ref());
        // The last sync; it may still find the disk broken.
        drop(sync);
        if let (End::Clean, Some(cause)) = (&end, self.desk.lock().sync_broken.take()) {
            end = End::Broken(cause);
        }
        let stopped = match end {
            End::Clean => Stopped::Clean,
            End::TimedOut => Stopped::TimedOut,
            End::Broken(cause) => {
                self.desk.lock().phase = Phase::Ended(Stopped::Broken);
                (self.report)(Report::Broken { cause });
                Stopped::Broken
            }
        };
        // The sink closes before anybody is told that it has.
        drop(self.sink);
        self.desk.set(Phase::Ended(stopped));
    }

    fn commit_batches(&mut self, sync: Option<&BackgroundSync>) -> End {
        loop {
            let committed = self.desk.take().and_then(|batch| self.commit(&batch));
            match committed {
                Ok(committed) => {
                    if let Some(sync) = sync {
                        sync.written();
                    }
                    // Idle first: the owner may hand the next batch from within the report.
                    self.desk.set(Phase::Idle);
                    (self.report)(committed);
                }
                Err(end) => return end,
            }
        }
    }

    /// Tries until the batch is committed; `Err` is the end.
    fn commit(&mut self, batch: &S::Batch) -> Result<Report<S::Done>, End> {
        let since = Instant::now();
        let mut tries = 1;
        loop {
            let start = Instant::now();
            match self.try_commit(batch) {
                Ok(done) => return Ok(Report::Committed { done, took: start.elapsed(), tries }),
                Err(Failure::Broken(cause)) => return Err(End::Broken(cause)),
                Err(Failure::Busy(cause)) => {
                    let pause = self.backoff.pause(tries);
                    (self.report)(Report::Busy { cause, tries, since, pause });
                    self.desk.pause(pause)?;
                    tries = tries.saturating_add(1);
                }
            }
        }
    }

    fn try_commit(&mut self, batch: &S::Batch) -> Result<S::Done, Failure> {
        let caught = panic::catch_unwind(AssertUnwindSafe(|| self.sink.commit(batch)));
        // A sink that panicked is not asked again.
        caught.unwrap_or_else(|_| Err(Failure::Broken("the store panicked".into())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender};

    use super::*;

    const NO_PAUSE: Backoff = Backoff { first: Duration::ZERO, longest: Duration::ZERO };
    const LONG_PAUSE: Backoff = Backoff { first: Duration::from_secs(3600), longest: Duration::from_secs(3600) };
    const AMPLE: Duration = Duration::from_secs(60);

    /// A sink that does what the test sends it, one answer a try.
    struct Scripted {
        tried: Sender<u32>,
        answers: Receiver<Result<u32, Failure>>,
    }

    impl Sink for Scripted {
        type Batch = u32;
        type Done = u32;

        fn commit(&mut self, batch: &u32) -> Result<u32, Failure> {
            self.tried.send(*batch).expect("the test listens");
            self.answers.recv().expect("the test answers each try")
        }
    }

    struct Rig {
        writer: Writer<u32>,
        tried: Receiver<u32>,
        answers: Sender<Result<u32, Failure>>,
        reports: Receiver<Report<u32>>,
    }

    fn rig(backoff: Backoff, syncing: Option<Syncing>) -> Rig {
        let (tried, tries) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        let (report, reports) = mpsc::channel();
        let writer = Writer::start(Scripted { tried, answers }, syncing, backoff, move |told| {
            // The receiver is gone when a test has seen enough.
            drop(report.send(told));
        });
        Rig { writer, tried: tries, answers: answer, reports }
    }

    impl Rig {
        fn answer(&self, answer: Result<u32, Failure>) {
            self.answers.send(answer).expect("the writer is alive");
        }

        fn report(&self) -> Report<u32> {
            self.reports.recv().expect("the writer is alive")
        }
    }

    fn locked() -> Result<u32, Failure> {
        Err(Failure::Busy("locked".into()))
    }

    #[test]
    fn a_batch_is_committed_and_reported_and_the_writer_is_idle_again() {
        let rig = rig(NO_PAUSE, None);
        rig.answer(Ok(70));
        rig.writer.hand(7).expect("the writer is idle");
        assert!(matches!(rig.report(), Report::Committed { done: 70, tries: 1, .. }));
        assert!(rig.writer.is_idle());
        assert_eq!(rig.writer.stop(AMPLE), Stopped::Clean);
    }

    #[test]
    fn one_batch_is_in_flight_at_a_time() {
        let rig = rig(NO_PAUSE, None);
        rig.writer.hand(1).expect("the writer is idle");
        assert_eq!(rig.tried.recv(), Ok(1));
        assert!(!rig.writer.is_idle());
        assert_eq!(rig.writer.hand(2), Err(NotIdle(2)));
        rig.answer(Ok(1));
        rig.report();
        rig.writer.hand(2).expect("the writer is idle again");
        rig.answer(Ok(2));
        rig.report();
    }

    #[test]
    fn a_busy_batch_is_kept_whole_and_tried_again_until_it_is_committed() {
        let rig = rig(NO_PAUSE, None);
        rig.writer.hand(5).expect("the writer is idle");
        rig.answer(locked());
        rig.answer(locked());
        rig.answer(Ok(50));
        assert!(matches!(rig.report(), Report::Busy { tries: 1, .. }));
        assert!(matches!(rig.report(), Report::Busy { tries: 2, .. }));
        assert!(matches!(rig.report(), Report::Committed { done: 50, tries: 3, .. }));
        assert_eq!(rig.tried.try_iter().collect::<Vec<_>>(), [5, 5, 5]);
    }

    #[test]
    fn a_broken_store_ends_the_writer_and_nothing_more_is_taken() {
        let rig = rig(NO_PAUSE, None);
        rig.writer.hand(1).expect("the writer is idle");
        rig.answer(Err(Failure::Broken("corrupt".into())));
        assert!(matches!(rig.report(), Report::Broken { cause } if cause.to_string() == "corrupt"));
        assert_eq!(rig.writer.hand(2), Err(NotIdle(2)));
        assert_eq!(rig.writer.stop(AMPLE), Stopped::Broken);
    }

    #[test]
    fn a_panic_in_the_store_is_a_broken_store() {
        struct Panics;
        impl Sink for Panics {
            type Batch = ();
            type Done = ();
            fn commit(&mut self, (): &()) -> Result<(), Failure> {
                panic!("a bug in the store")
            }
        }
        let (report, reports) = mpsc::channel();
        let writer = Writer::start(Panics, None, NO_PAUSE, move |told| {
            report.send(told).expect("the test listens");
        });
        writer.hand(()).expect("the writer is idle");
        assert!(matches!(reports.recv(), Ok(Report::Broken { .. })));
        assert_eq!(writer.stop(AMPLE), Stopped::Broken);
    }

    #[test]
    fn stopping_finishes_the_batch_in_flight() {
        let rig = rig(NO_PAUSE, None);
        rig.writer.hand(1).expect("the writer is idle");
        assert_eq!(rig.tried.recv(), Ok(1));
        rig.answer(locked());
        rig.answer(Ok(10));
        assert_eq!(rig.writer.stop(AMPLE), Stopped::Clean);
        assert!(matches!(rig.reports.recv(), Ok(Report::Busy { .. })));
        assert!(matches!(rig.reports.recv(), Ok(Report::Committed { done: 10, .. })));
    }

    #[test]
    fn stopping_takes_a_batch_that_was_handed_just_before() {
        let rig = rig(NO_PAUSE, None);
        rig.answer(Ok(10));
        rig.writer.hand(1).expect("the writer is idle");
        assert_eq!(rig.writer.stop(AMPLE), Stopped::Clean);
        assert!(matches!(rig.reports.recv(), Ok(Report::Committed { done: 10, .. })));
    }

    #[test]
    fn stopping_gives_a_dead_store_up_when_its_time_is_up() {
        let rig = rig(LONG_PAUSE, None);
        rig.writer.hand(1).expect("the writer is idle");
        rig.answer(locked());
        assert!(matches!(rig.report(), Report::Busy { .. }));
        assert_eq!(rig.writer.stop(Duration::from_millis(1)), Stopped::TimedOut);
    }

    #[test]
    fn stopping_does_not_wait_for_a_try_that_hangs() {
        let rig = rig(NO_PAUSE, None);
        rig.writer.hand(1).expect("the writer is idle");
        assert_eq!(rig.tried.recv(), Ok(1));
        assert_eq!(rig.writer.stop(Duration::from_millis(1)), Stopped::TimedOut);
        rig.answers.send(Ok(1)).expect("the try goes on behind");
    }

    #[test]
    fn each_commit_is_synced_before_a_clean_stop() {
        let (synced, syncs) = mpsc::channel();
        let syncing = Syncing {
            interval: Duration::from_secs(3600),
            sync: Box::new(move || {
                synced.send(()).expect("the test listens");
                Ok(())
            }),
        };
        let rig = rig(NO_PAUSE, Some(syncing));
        for batch in [1, 2] {
            rig.answer(Ok(batch));
            rig.writer.hand(batch).expect("the writer is idle");
            rig.report();
            if batch == 1 {
                syncs.recv().expect("the first commit is synced at once");
            }
        }
        assert_eq!(rig.writer.stop(AMPLE), Stopped::Clean);
        assert_eq!(syncs.iter().count(), 1);
    }

    #[test]
    fn a_broken_sync_ends_an_idle_writer() {
        let syncing =
            Syncing { interval: Duration::ZERO, sync: Box::new(|| Err(Failure::Broken("fsync failed".into()))) };
        let rig = rig(NO_PAUSE, Some(syncing));
        rig.answer(Ok(1));
        rig.writer.hand(1).expect("the writer is idle");
        assert!(matches!(rig.report(), Report::Committed { .. }));
        assert!(matches!(rig.report(), Report::Broken { cause } if cause.to_string() == "fsync failed"));
        assert_eq!(rig.writer.stop(AMPLE), Stopped::Broken);
    }
}
