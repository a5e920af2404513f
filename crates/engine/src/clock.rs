//! Where the engine's time comes from.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use forebay_domain::ids::Timestamp;

/// The time that commands are stamped with. It never goes back while the engine runs.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// The wall clock, held to its word: where the system's time is set back, this one goes on at its
/// own pace from where it was.
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
    /// The furthest that the wall clock was ahead of `started`, in milliseconds.
    offset_ms: AtomicI64,
}

impl SystemClock {
    #[must_use]
    pub fn new() -> SystemClock {
        SystemClock { started: Instant::now(), offset_ms: AtomicI64::new(i64::MIN) }
    }

    fn at(&self, elapsed_ms: i64, wall_ms: i64) -> Timestamp {
        let offset_ms = wall_ms - elapsed_ms;
        let furthest_ms = self.offset_ms.fetch_max(offset_ms, Ordering::Relaxed).max(offset_ms);
        Timestamp(furthest_ms + elapsed_ms)
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let wall_ms = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => millis(since.as_millis()),
            Err(before) => -millis(before.duration().as_millis()),
        };
        self.at(millis(self.started.elapsed().as_millis()), wall_ms)
    }
}

fn millis(ms: u128) -> i64 {
    i64::try_from(ms).expect("no clock is 292 million years away from 1970")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_set_back_does_not_take_the_engine_back() {
        let clock = SystemClock::new();
        assert_eq!(clock.at(0, 1_000), Timestamp(1_000));
        assert_eq!(clock.at(10, 400), Timestamp(1_010));
        assert_eq!(clock.at(20, 410), Timestamp(1_020));
    }

    #[test]
    fn a_wall_clock_set_forward_is_followed() {
        let clock = SystemClock::new();
        assert_eq!(clock.at(0, 1_000), Timestamp(1_000));
        assert_eq!(clock.at(10, 9_000), Timestamp(9_000));
        assert_eq!(clock.at(11, 9_001), Timestamp(9_001));
    }
}
