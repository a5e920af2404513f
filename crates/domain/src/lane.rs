//! Lanes: ready jobs that are interchangeable to a claimant, and their order.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use crate::batch::LaneRow;
use crate::claim::Needs;
use crate::ids::JobId;
use crate::window::Window;

/// The place of a job within its lane: higher priority first, then lower id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OrderKey {
    /// The priority's complement, so that plain order is the lane's order.
    rank: i64,
    id: JobId,
}

impl OrderKey {
    pub fn new(priority: i64, id: JobId) -> OrderKey {
        OrderKey { rank: !priority, id }
    }

    pub fn priority(self) -> i64 {
        !self.rank
    }

    pub fn id(self) -> JobId {
        self.id
    }
}

/// Labels, sorted, each once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct LabelSet(Box<[Box<str>]>);

impl LabelSet {
    pub fn new(labels: impl IntoIterator<Item = Box<str>>) -> LabelSet {
        let mut labels: Vec<Box<str>> = labels.into_iter().collect();
        labels.sort_unstable();
        labels.dedup();
        LabelSet(labels.into_boxed_slice())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|label| &**label)
    }

    /// Whether a claimant with these labels may take a job with those: without labels those without,
    /// with labels those whose labels are among them and not none (torc 1.0.0, `api.rs`).
    pub fn may_take(&self, job: &LabelSet) -> bool {
        self.is_empty() == job.is_empty() && job.0.iter().all(|label| self.0.binary_search(label).is_ok())
    }
}

/// Ready jobs that are interchangeable to a claimant: the window onto them, and what they need.
#[derive(Debug)]
pub struct Lane {
    pub row: LaneRow,
    pub needs: Needs,
    window: Window<OrderKey>,
}

impl Lane {
    /// A lane whose store holds ready jobs, or none.
    pub fn new(row: LaneRow, needs: Needs, has_ready: bool) -> Lane {
        Lane { row, needs, window: Window::new(has_ready) }
    }
}

/// A lane is asked as the window that it is.
impl Deref for Lane {
    type Target = Window<OrderKey>;

    fn deref(&self) -> &Window<OrderKey> {
        &self.window
    }
}

impl DerefMut for Lane {
    fn deref_mut(&mut self) -> &mut Window<OrderKey> {
        &mut self.window
    }
}
