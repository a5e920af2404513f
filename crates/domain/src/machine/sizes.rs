//! How large the windows of all lanes are together, and which of them is the largest.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::ids::LaneId;
use crate::lane::Lane;

/// Lanes are told apart by the power of two that their windows have reached: so one seldom moves.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    jobs: usize,
    /// Lanes with jobs.
    lanes: usize,
    /// Jobs that windows want beside those they have, and that may be behind them.
    wished: usize,
    /// By the binary logarithm of their jobs, from 2 jobs on: those with more than their first.
    by_size: Vec<BTreeSet<LaneId>>,
}

impl Sizes {
    /// Jobs in all windows.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// How many jobs a lane that has so many may have: an equal share of all, or more where there is room.
    /// That is for those who want it, for each as much of it as of what all want: what one took of it
    /// alone would be taken out of its window again as soon as the others come.
    pub fn allowed(&self, len: usize, wished: usize, jobs_max: usize) -> usize {
        let share = jobs_max / self.lanes.max(1);
        let room = jobs_max.saturating_sub(self.jobs);
        let part = if wished < self.wished { room.saturating_mul(wished) / self.wished } else { room };
        share.max(len + part)
    }

    /// A lane's window may have become longer or shorter.
    pub fn note(&mut self, lane: &mut Lane) {
        self.resize(lane.row.id, lane.counted, lane.len());
        let wished = lane.wished();
        self.wished = self.wished - lane.counted_wished + wished;
        (lane.counted, lane.counted_wished) = (lane.len(), wished);
    }

    /// A lane leaves memory.
    pub fn forget(&mut self, lane: &Lane) {
        self.resize(lane.row.id, lane.counted, 0);
        self.wished -= lane.counted_wished;
    }

    fn resize(&mut self, lane: LaneId, before: usize, after: usize) {
        if before == after {
            return;
        }
        self.jobs = self.jobs - before + after;
        self.lanes = self.lanes - usize::from(before > 0) + usize::from(after > 0);
        let (was, is) = (size(before), size(after));
        if was != is {
            if was > 0 {
                self.by_size[was].remove(&lane);
            }
            if is > 0 {
                self.by_size.resize_with(self.by_size.len().max(is + 1), BTreeSet::new);
                self.by_size[is].insert(lane);
            }
        }
    }

    /// A lane that has more jobs than its head, and no other has twice as many.
    pub fn largest(&self) -> Option<LaneId> {
        self.by_size.iter().rev().find_map(|lanes| lanes.first().copied())
    }
}

fn size(jobs: usize) -> usize {
    jobs.max(1).ilog2() as usize
}
