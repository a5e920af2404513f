//! How long to pause between two tries.

use std::time::Duration;

/// Pauses that double from `first` up to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The pause after the first failed try.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff { first: Duration::from_millis(1), longest: Duration::from_secs(1) }
    }
}

impl Backoff {
    /// The pause after `tries` failed tries (1 for the first).
    #[must_use]
    pub fn pause(&self, tries: u32) -> Duration {
        let doublings = tries.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(10) };
        let pauses: Vec<u128> = (1..=6).map(|tries| backoff.pause(tries).as_millis()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 10, 10]);
    }

    #[test]
    fn the_pause_after_very_many_tries_is_still_the_longest() {
        let backoff = Backoff::default();
        assert_eq!(backoff.pause(u32::MAX), backoff.longest);
    }
}
