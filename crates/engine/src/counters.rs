//! What operators see of an engine.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What an engine has done since its start, and what it holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Commands applied.
    pub commands: u64,
    /// Answers that reached their callers.
    pub answers: u64,
    /// Commands refused with `Overloaded`.
    pub overloaded: u64,
    /// Commands that wait for room in the backlog, now; they count in the mailbox.
    pub held: u64,
    /// Claims that reached nobody and were taken back.
    pub given_back: u64,
    /// Turns of the engine's loop.
    pub turns: u64,
    /// Batches committed: transactions.
    pub batches: u64,
    /// Changes committed.
    pub changes: u64,
    /// Tries of a commit that found the store busy.
    pub busy: u64,
    /// Reads that the machine asked for.
    pub machine_reads: u64,
    /// Commands that wait to be applied, now.
    pub mailbox: u64,
    /// Changes in the open batch, now.
    pub backlog: u64,
    /// Callers whose commands are applied and have no answer yet (waiting claims), now.
    pub callers: u64,
    /// Reads of the machine that wait or run, now.
    pub machine_reads_in_flight: u64,
    /// Reads of doors that wait or run, now.
    pub door_reads_in_flight: u64,
    /// How long committing a batch took: the try that did it.
    pub commit: Latencies,
}

/// How often what was measured, since the start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Distributions {
    /// Committing a batch: the try that did it. Microseconds.
    pub commit: Distribution,
    /// A page of ready jobs, from asking for it. Microseconds.
    pub page: Distribution,
    /// A claim, from asking to having its answer, also one that waits for jobs. Microseconds.
    pub claim: Distribution,
    /// Changes of a batch.
    pub batch: Distribution,
}

/// How many values of each size there were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Distribution {
    pub count: u64,
    pub sum: u64,
    /// How many values were below a bound; bounds are the powers of two from 2 on.
    pub below: Vec<(u64, u64)>,
}

/// A summary of how long something took. Quantiles are at most a quarter too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latencies {
    pub count: u64,
    pub sum: Duration,
    pub p50: Duration,
    pub p99: Duration,
    pub longest: Duration,
}

/// Written by the engine's thread where nothing else is said, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    pub commands: Gauge,
    pub answers: Gauge,
    pub given_back: Gauge,
    pub turns: Gauge,
    pub batches: Gauge,
    pub changes: Gauge,
    pub busy: Gauge,
    pub machine_reads: Gauge,
    pub backlog: Gauge,
    pub callers: Gauge,
    pub held: Gauge,
    pub batch: Histogram,
    pub commit: Histogram,
    /// Written by the readers.
    pub page: Histogram,
    /// Written by callers.
    pub claim: Histogram,
}

/// A number that one thread writes.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub fn add(&self, by: u64) {
        // One writer: no other add can come between.
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    pub fn set(&self, to: usize) {
        self.0.store(count(to), Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Counts of values by size, four sizes to each doubling. Durations are in microseconds.
#[derive(Debug)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    largest: AtomicU64,
}

/// Up to 2^32: over an hour, in microseconds.
const BUCKETS: usize = 32 * 4;

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: std::array::from_fn(|_| AtomicU64::default()),
            sum: AtomicU64::default(),
            largest: AtomicU64::default(),
        }
    }
}

impl Histogram {
    /// Anybody may write.
    pub fn add(&self, value: u64) {
        self.buckets[bucket(value)].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
        if value > self.largest.load(Relaxed) {
            self.largest.fetch_max(value, Relaxed);
        }
    }

    pub fn add_time(&self, took: Duration) {
        self.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    pub fn distribution(&self) -> Distribution {
        let mut count = 0;
        let below = self.buckets.chunks(4).zip(1_u32..).map(|(doubling, exponent)| {
            count += doubling.iter().map(|bucket| bucket.load(Relaxed)).sum::<u64>();
            (1 << exponent, count)
        });
        let below = below.collect();
        Distribution { count, sum: self.sum.load(Relaxed), below }
    }

    pub fn summary(&self) -> Latencies {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
        let count: u64 = counts.iter().sum();
        let longest = self.largest.load(Relaxed);
        let quantile = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = counts.iter().position(|of_this_size| {
                seen += of_this_size;
                seen >= rank
            });
            Duration::from_micros(found.map_or(0, |bucket| bucket_end(bucket).min(longest)))
        };
        Latencies {
            count,
            sum: Duration::from_micros(self.sum.load(Relaxed)),
            p50: quantile(50),
            p99: quantile(99),
            longest: Duration::from_micros(longest),
        }
    }
}

/// The size class of a value: its highest bit and the two bits below.
fn bucket(value: u64) -> usize {
    let value = value.max(1);
    let octave = value.ilog2();
    let quarter = if octave >= 2 { (value >> (octave - 2)) & 3 } else { (value << (2 - octave)) & 3 };
    let quarter = usize::try_from(quarter).expect("two bits fit");
    (octave as usize * 4 + quarter).min(BUCKETS - 1)
}

/// The smallest value over those of a size class.
fn bucket_end(bucket: usize) -> u64 {
    let (octave, quarter) = (bucket / 4, count(bucket % 4));
    ((4 + quarter + 1) << octave) / 4
}

pub(crate) fn count(number: usize) -> u64 {
    u64::try_from(number).expect("no collection is larger than that")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_at_most_a_quarter_too_high() {
        let histogram = Histogram::default();
        for us in 1..=1_000 {
            histogram.add(us);
        }
        let summary = histogram.summary();
        assert_eq!(summary.count, 1_000);
        assert_eq!(summary.sum, Duration::from_micros(500_500));
        assert_eq!(summary.longest, Duration::from_micros(1_000));
        let p50 = summary.p50.as_micros();
        let p99 = summary.p99.as_micros();
        assert!((500..=625).contains(&p50), "{p50}");
        assert!((990..=1_000).contains(&p99), "{p99}");
    }

    #[test]
    fn nothing_measured_is_all_zero() {
        assert_eq!(Histogram::default().summary(), Latencies::default());
    }

    #[test]
    fn very_long_durations_are_counted_too() {
        let histogram = Histogram::default();
        histogram.add_time(Duration::from_secs(1 << 40));
        assert_eq!(histogram.summary().count, 1);
    }

    #[test]
    fn a_distribution_says_how_many_were_below_each_power_of_two() {
        let histogram = Histogram::default();
        for value in [0, 1, 2, 3, 4, 100] {
            histogram.add(value);
        }
        let Distribution { count, sum, below } = histogram.distribution();
        assert_eq!((count, sum), (6, 110));
        assert_eq!(below[..3], [(2, 2), (4, 4), (8, 5)]);
        assert_eq!((below[5], below[6]), ((64, 5), (128, 6)));
    }
}
