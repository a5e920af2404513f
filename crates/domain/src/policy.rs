//! What becomes of a job whose attempt failed, took too long or was lost: set at its creation.

use core::num::NonZeroU16;

use crate::ids::JobId;

/// A job that has one is tried again by itself, and ends by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// An attempt that is not over so long after its claim is lost, in milliseconds. 0: it may take
    /// any time.
    pub deadline_ms: u32,
    /// So many attempts may fail; `None`: any number.
    pub failures_max: Option<NonZeroU16>,
    /// So many attempts may be lost: their time ran out, or their worker died. `None`: any number.
    pub losses_max: Option<NonZeroU16>,
    pub backoff: Backoff,
    /// An attempt that was lost is the last one: it may have done its work.
    pub at_most_once: bool,
    pub on_end: OnEnd,
}

/// What becomes of a job that ends without success by its policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum OnEnd {
    /// It failed, and nobody need look at it.
    Discard = 0,
    /// It is kept as a dead letter, and may be sent back.
    DeadLetter = 1,
}

/// How long a job waits after a failed attempt. After a lost one it does not: it did no wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Backoff {
    /// After the first failure, in milliseconds.
    pub base_ms: u32,
    /// Never longer than this, before the jitter.
    pub cap_ms: u32,
    /// After each further failure so many times as long. 0 and 1: always the same.
    pub factor: u8,
    /// Up to so many hundredths longer, so that what failed together does not come back together.
    pub jitter_percent: u8,
}

impl Backoff {
    /// How long the job waits after its `failures`th failure, in milliseconds. The jitter is the
    /// same for the same attempt, whoever asks.
    pub fn delay_ms(&self, job: JobId, attempt: i64, failures: u16) -> i64 {
        let factor = u64::from(self.factor.max(1));
        let grown = factor.saturating_pow(u32::from(failures.saturating_sub(1)));
        let delay = u64::from(self.base_ms).saturating_mul(grown).min(u64::from(self.cap_ms.max(self.base_ms)));
        let most = delay * u64::from(self.jitter_percent) / 100;
        let jitter = scatter(job.0.cast_unsigned() ^ scatter(attempt.cast_unsigned())) % (most + 1);
        (delay + jitter).cast_signed()
    }
}

/// A number that has little to do with the one it is made of (splitmix64).
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Attempts that did not count for themselves, since the job was created or sent back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tries {
    pub failures: u16,
    pub losses: u16,
}

impl Tries {
    /// As one stored number.
    pub fn number(self) -> i64 {
        i64::from(self.losses) << 16 | i64::from(self.failures)
    }

    /// From its stored number, if it is one.
    pub fn from_number(number: i64) -> Option<Tries> {
        let number = u32::try_from(number).ok()?;
        Some(Tries { failures: (number & 0xFFFF) as u16, losses: (number >> 16) as u16 })
    }
}

/// How many bytes a stored policy has.
pub const POLICY_BYTES: usize = 20;

impl Policy {
    /// As it is stored: deadline, back-off's base and cap (4 bytes each), failures, losses (2 each),
    /// factor, jitter, at most once, on end (1 each); little-endian.
    pub fn to_bytes(self) -> [u8; POLICY_BYTES] {
        let mut bytes = [0; POLICY_BYTES];
        bytes[..4].copy_from_slice(&self.deadline_ms.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.backoff.base_ms.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.backoff.cap_ms.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.failures_max.map_or(0, NonZeroU16::get).to_le_bytes());
        bytes[14..16].copy_from_slice(&self.losses_max.map_or(0, NonZeroU16::get).to_le_bytes());
        bytes[16..].copy_from_slice(&[
            self.backoff.factor,
            self.backoff.jitter_percent,
            u8::from(self.at_most_once),
            self.on_end as u8,
        ]);
        bytes
    }

    /// From its stored bytes, if they are such.
    pub fn from_bytes(bytes: &[u8]) -> Option<Policy> {
        let bytes: &[u8; POLICY_BYTES] = bytes.try_into().ok()?;
        let long = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let short = |at: usize| NonZeroU16::new(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let at_most_once = match bytes[18] {
            0 => false,
            1 => true,
            _ => return None,
        };
        let on_end = match bytes[19] {
            0 => OnEnd::Discard,
            1 => OnEnd::DeadLetter,
            _ => return None,
        };
        let backoff = Backoff { base_ms: long(4), cap_ms: long(8), factor: bytes[16], jitter_percent: bytes[17] };
        Some(Policy {
            deadline_ms: long(0),
            failures_max: short(12),
            losses_max: short(14),
            backoff,
            at_most_once,
            on_end,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn a_stored_policy_is_read_as_it_was() {
        for (at_most_once, on_end) in [(false, OnEnd::Discard), (true, OnEnd::DeadLetter)] {
            let backoff = Backoff { base_ms: 1 << 20, cap_ms: u32::MAX, factor: 3, jitter_percent: 25 };
            let (failures_max, losses_max) = (NonZeroU16::new(9), None);
            let policy = Policy { deadline_ms: 70_000, failures_max, losses_max, backoff, at_most_once, on_end };
            assert_eq!(Policy::from_bytes(&policy.to_bytes()), Some(policy));
        }
        assert_eq!(Policy::from_bytes(&[0; POLICY_BYTES - 1]), None);
        assert_eq!(Policy::from_bytes(&[9; POLICY_BYTES]), None);
        let tries = Tries { failures: 3, losses: u16::MAX };
        assert_eq!(Tries::from_number(tries.number()), Some(tries));
        assert_eq!(Tries::from_number(-1), None);
    }

    #[test]
    fn a_back_off_grows_up_to_its_cap() {
        let backoff = Backoff { base_ms: 100, cap_ms: 1_000, factor: 3, jitter_percent: 0 };
        let delays: Vec<i64> = (1..6).map(|failures| backoff.delay_ms(JobId(7), 1, failures)).collect();
        assert_eq!(delays, [100, 300, 900, 1_000, 1_000]);
        let same = Backoff { base_ms: 5_000, ..Backoff::default() };
        assert_eq!([1, 2, u16::MAX].map(|failures| same.delay_ms(JobId(7), 1, failures)), [5_000; 3]);
        let most = Backoff { base_ms: u32::MAX, cap_ms: u32::MAX, factor: u8::MAX, jitter_percent: u8::MAX };
        assert!(most.delay_ms(JobId(7), 1, u16::MAX) > 0);
    }

    #[test]
    fn the_jitter_of_an_attempt_is_its_own_and_always_the_same() {
        let backoff = Backoff { base_ms: 1_000, cap_ms: 1_000, factor: 2, jitter_percent: 50 };
        let delays: Vec<i64> = (0..1_000).map(|job| backoff.delay_ms(JobId(job), 2, 1)).collect();
        assert!(delays.iter().all(|delay| (1_000..=1_500).contains(delay)));
        assert!(delays.iter().filter(|delay| **delay < 1_250).count().abs_diff(500) < 80, "{delays:?}");
        assert_eq!(delays[3], backoff.delay_ms(JobId(3), 2, 1));
        assert_ne!(delays[3], backoff.delay_ms(JobId(3), 3, 1));
    }
}
