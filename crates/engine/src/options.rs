//! How an engine is to run. Plain values; flags and files are read elsewhere.

use std::fmt;
use std::time::Duration;

use forebay_domain::limits::{Egress, Limits};
use forebay_domain::port::StoreError;
use forebay_flusher::{Backoff, CadenceOptions};

/// When an answer may leave, and what it then survives. The store must be opened to match.
pub enum Durability {
    /// After a commit with fsync: survives power loss.
    Power,
    /// After a commit without fsync: survives a killed process. Power loss takes at most the last
    /// `sync_interval` and the time of a sync.
    Process {
        sync_interval: Duration,
        /// Makes durable against power loss what was committed before. It is called on a thread of
        /// its own, beside commits.
        sync: Box<dyn FnMut() -> Result<(), StoreError> + Send>,
    },
    /// Claims, starts and outcomes at once, all else after a commit with fsync. What a killed process
    /// or power loss takes of the last `flush_interval` is done again.
    Memory {
        /// The least time between two commits that somebody waits for, and fewer than 1024 callers.
        read_flush_min: Duration,
    },
}

/// How an engine is to run.
#[derive(Debug)]
pub struct Options {
    pub durability: Durability,
    /// The least time from the start of one commit to the start of the next, while fewer than 1024 callers
    /// wait for that.
    pub flush_interval: Duration,
    /// At most so long after the start of a commit the next one gathers for callers to come back, if
    /// that is longer than a tenth of the commit's time.
    pub gather_max: Duration,
    /// Commands that wait to be applied; one more is refused with `Overloaded`.
    pub mailbox_max: usize,
    /// Commands, and about as many changes, that are applied before the engine looks up again; a
    /// batch of so many changes goes as soon as the writer is idle.
    pub batch_max: usize,
    /// Changes that gather while the store is busy; then commands are held.
    pub backlog_max: usize,
    /// How long a command is held while the backlog is full; then it is refused with `Overloaded`.
    /// What is held waits in the mailbox and counts there.
    pub hold: Duration,
    /// Threads that read pages and single jobs for the engine.
    pub page_readers: usize,
    /// Threads that read for the doors.
    pub door_readers: usize,
    /// Reads of doors that wait for a thread; one more is refused with `Overloaded`, as is one that
    /// has waited longer than `hold` when its turn comes.
    pub reads_max: usize,
    /// The pause between two tries of a busy store.
    pub backoff: Backoff,
    /// Its `egress` is set by `durability`.
    pub limits: Limits,
}

impl Options {
    /// The fsync is the cadence.
    #[must_use]
    pub fn power() -> Options {
        Options {
            durability: Durability::Power,
            flush_interval: CadenceOptions::power().flush_interval,
            gather_max: CadenceOptions::power().gather_max,
            mailbox_max: 65_536,
            batch_max: CadenceOptions::power().batch_max,
            backlog_max: 100_000,
            hold: Duration::from_secs(5),
            page_readers: 1,
            door_readers: 2,
            reads_max: 16_384,
            backoff: Backoff { longest: Duration::from_millis(250), ..Backoff::default() },
            limits: Limits::default(),
        }
    }

    /// A commit when all callers are back, or 300 us after the last one; synced each 100 ms.
    #[must_use]
    pub fn process(sync: impl FnMut() -> Result<(), StoreError> + Send + 'static) -> Options {
        Options {
            durability: Durability::Process { sync_interval: Duration::from_millis(100), sync: Box::new(sync) },
            gather_max: CadenceOptions::process().gather_max,
            ..Options::power()
        }
    }

    /// A commit each 100 ms, or 5 ms after the last one when somebody waits for it.
    #[must_use]
    pub fn memory() -> Options {
        let CadenceOptions { flush_interval, answer_interval, .. } = CadenceOptions::memory();
        Options {
            durability: Durability::Memory { read_flush_min: answer_interval },
            flush_interval,
            ..Options::power()
        }
    }

    pub(crate) fn cadence(&self) -> CadenceOptions {
        let answer_interval = match self.durability {
            Durability::Power | Durability::Process { .. } => self.flush_interval,
            Durability::Memory { read_flush_min } => read_flush_min,
        };
        CadenceOptions {
            flush_interval: self.flush_interval,
            answer_interval,
            gather_max: self.gather_max,
            batch_max: self.batch_max,
        }
    }

    pub(crate) fn egress(&self) -> Egress {
        match self.durability {
            Durability::Power | Durability::Process { .. } => Egress::Committed,
            Durability::Memory { .. } => Egress::AtOnce,
        }
    }
}

impl fmt::Debug for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Power => f.write_str("Power"),
            Durability::Process { sync_interval, .. } => {
                f.debug_struct("Process").field("sync_interval", sync_interval).finish_non_exhaustive()
            }
            Durability::Memory { read_flush_min } => {
                f.debug_struct("Memory").field("read_flush_min", read_flush_min).finish()
            }
        }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::power()
    }
}
