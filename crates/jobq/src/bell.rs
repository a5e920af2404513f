//! Wakes who waits for a job.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Rung after each commit that may have made a job ready. Nobody waiting costs two atomics.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicU64,
    waiting: AtomicUsize,
    lock: Mutex<()>,
    changed: Condvar,
}

impl Bell {
    /// How often it was rung; take it before looking for a job.
    pub(crate) fn count(&self) -> u64 {
        self.rung.load(Ordering::SeqCst)
    }

    pub(crate) fn ring(&self) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) > 0 {
            // Whoever is about to wait holds the lock until it does.
            drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner));
            self.changed.notify_all();
        }
    }

    /// Waits until the bell was rung more often than `seen`, or until `deadline`, looking at
    /// `elsewhere` each `interval`: true there is a ring too.
    pub(crate) fn wait(&self, seen: u64, deadline: Instant, interval: Duration, mut elsewhere: impl FnMut() -> bool) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        loop {
            let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            let left = deadline.saturating_duration_since(Instant::now());
            if self.count() != seen || left.is_zero() {
                break;
            }
            let woken = self.changed.wait_timeout(guard, left.min(interval));
            drop(woken.unwrap_or_else(PoisonError::into_inner));
            if self.count() != seen || elsewhere() {
                break;
            }
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}
