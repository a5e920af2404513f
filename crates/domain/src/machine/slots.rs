//! Jobs in memory, and how many bytes of payload they carry.

use core::hash::{BuildHasherDefault, Hasher};
use core::ops::Deref;

use hashbrown::HashMap;

use super::open::Place;
use crate::ids::{JobId, Lsn};
use crate::job::{JobRow, Payload};

/// A job in memory.
#[derive(Debug)]
pub(super) struct Slot {
    pub row: JobRow,
    /// The batch of its last change, or of the snapshot that it was read from.
    pub lsn: Lsn,
    /// The batch that last created, reset or re-armed it, as far as it may not be committed.
    pub armed: Lsn,
    /// Its place in the open batch, if its last change is in there.
    pub place: Place,
    payload: Option<Payload>,
    pub windowed: bool,
    /// Held, and kept though no read in flight could be too old for it.
    pub kept: bool,
}

impl Slot {
    /// As it was in the snapshot of batch `lsn`.
    pub fn read(row: JobRow, lsn: Lsn) -> Slot {
        Slot { row, lsn, armed: Lsn::default(), place: Place::default(), payload: None, windowed: false, kept: false }
    }

    fn bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, |payload| payload.len())
    }
}

/// Jobs that follow each other are mostly looked for one after the other: in the map they lie side by side.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SideBySide(u64);

impl SideBySide {
    /// So many lie together; where these are is scattered, so that ids with even gaps are, too.
    const TOGETHER: u64 = 16;
}

impl Hasher for SideBySide {
    fn write_i64(&mut self, id: i64) {
        let id = id.cast_unsigned();
        // The golden ratio's fraction: what it is multiplied with is spread over the upper bits.
        let scattered = (id / Self::TOGETHER).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        // The map finds its place by the lower bits, and tells those apart that lie there by the upper 7.
        self.0 = (scattered * Self::TOGETHER + id % Self::TOGETHER) ^ (id << 57);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type SlotMap = HashMap<JobId, Slot, BuildHasherDefault<SideBySide>>;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Slots {
    of: SlotMap,
    bytes: usize,
}

impl Slots {
    /// Bytes of payload.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get_mut(&mut self, id: &JobId) -> Option<&mut Slot> {
        self.of.get_mut(id)
    }

    /// Of a job that is not in memory.
    pub fn insert(&mut self, slot: Slot) -> &mut Slot {
        self.of.entry(slot.row.id).insert(slot).into_mut()
    }

    pub fn remove(&mut self, id: JobId) -> Option<Slot> {
        let slot = self.of.remove(&id)?;
        self.bytes -= slot.bytes();
        Some(slot)
    }

    /// Of a job that is in memory.
    pub fn take_payload(&mut self, id: JobId) -> Option<Payload> {
        let payload = self.of.get_mut(&id)?.payload.take();
        self.bytes -= payload.as_ref().map_or(0, |payload| payload.len());
        payload
    }

    /// Of a job that is not in memory, with its payload if there is room for it. Apart from the two: a slot
    /// is looked for again only once it was written, which takes as long as all else.
    pub fn insert_with_payload(&mut self, mut slot: Slot, payload: Option<Payload>, bytes_max: usize) {
        slot.payload = payload.filter(|payload| self.bytes + payload.len() <= bytes_max);
        self.bytes += slot.bytes();
        self.insert(slot);
    }

    /// Keeps the payload of a job that is in memory, if there is room for it.
    pub fn keep_payload(&mut self, id: JobId, payload: Option<Payload>, bytes_max: usize) {
        let Some(slot) = self.of.get_mut(&id) else { return };
        let others = self.bytes - slot.bytes();
        slot.payload = payload.filter(|payload| others + payload.len() <= bytes_max);
        self.bytes = others + slot.bytes();
    }
}

impl Deref for Slots {
    type Target = SlotMap;

    fn deref(&self) -> &SlotMap {
        &self.of
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hash;
    use std::collections::BTreeMap;

    fn hash(id: i64) -> u64 {
        let mut hasher = SideBySide::default();
        JobId(id).hash(&mut hasher);
        hasher.finish()
    }

    #[test]
    fn jobs_that_follow_each_other_lie_side_by_side_and_are_told_apart() {
        let of: std::vec::Vec<u64> = (1600..1616).map(hash).collect();
        assert!(of.is_sorted_by(|one, next| one % 1024 + 1 == next % 1024));
        assert!(of.is_sorted_by(|one, next| one >> 57 != next >> 57));
    }

    #[test]
    fn jobs_with_even_gaps_between_them_are_scattered() {
        for gap in [16, 64, 100, 256, 1000, 4096, 1 << 16, 1 << 20, 1 << 32] {
            let mut places = BTreeMap::new();
            for n in 1..=1000 {
                *places.entry(hash(n * gap) / 16 % 128).or_insert(0) += 1;
            }
            // Eight of each would be even.
            assert!(places.values().all(|jobs| *jobs <= 32), "{gap}: {places:?}");
        }
    }
}
