//! Jobs in memory, and how many bytes of payload they carry.

use core::ops::Deref;

use super::Map;
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

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Slots {
    of: Map<JobId, Slot>,
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

    /// Keeps the payload of a job that is in memory, if there is room for it.
    pub fn keep_payload(&mut self, id: JobId, payload: Option<Payload>, bytes_max: usize) {
        drop(self.take_payload(id));
        let payload = payload.filter(|payload| self.bytes + payload.len() <= bytes_max);
        if let (Some(slot), Some(payload)) = (self.of.get_mut(&id), payload) {
            self.bytes += payload.len();
            slot.payload = Some(payload);
        }
    }
}

impl Deref for Slots {
    type Target = Map<JobId, Slot>;

    fn deref(&self) -> &Map<JobId, Slot> {
        &self.of
    }
}
