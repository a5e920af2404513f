//! Lanes: ready jobs that are interchangeable to a claimant, and their order.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use crate::batch::LaneRow;
use crate::claim::Needs;
use crate::ids::JobId;
use crate::limits::Limits;
use crate::share::Stake;
use crate::window::{Horizon, Window};

/// The place of a job within its lane: higher priority first, then lower id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OrderKey {
    /// The priority's complement, so that plain order is the lane's order.
    rank: i64,
    id: JobId,
}

impl OrderKey {
    /// Before every job.
    pub const FIRST: OrderKey = OrderKey { rank: i64::MIN, id: JobId(i64::MIN) };

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

/// What a lane has to give next: a job, or what is to be read beyond a bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Next {
    pub key: OrderKey,
    pub is_bound: bool,
}

/// Ready jobs that are interchangeable to a claimant: the window onto them, and what they need.
#[derive(Debug)]
pub struct Lane {
    pub row: LaneRow,
    pub needs: Needs,
    /// Which of its workflow's groups of lanes it is in.
    pub group: usize,
    /// How it stands in the orders of its workflow's lanes.
    pub stands: Option<Next>,
    /// Only in endless workflows.
    pub stake: Option<Stake>,
    /// How many jobs its window is to have after a page, as far as there are so many.
    pub target: usize,
    /// Jobs that were taken since its last page was asked for.
    pub taken: usize,
    /// How many jobs of it are counted among those of all windows.
    pub counted: usize,
    /// The same of those that it wishes for.
    pub counted_wished: usize,
    window: Window<OrderKey>,
}

impl Lane {
    /// A lane whose store holds ready jobs, or none.
    pub fn new(row: LaneRow, needs: Needs, has_ready: bool) -> Lane {
        Lane {
            row,
            needs,
            group: 0,
            stands: None,
            stake: None,
            target: 0,
            taken: 0,
            counted: 0,
            counted_wished: 0,
            window: Window::new(has_ready),
        }
    }

    /// Its next job, or the bound beyond which that is to be read. `None`: no job is ready.
    pub fn next(&self) -> Option<Next> {
        if let Some(key) = self.head() {
            return Some(Next { key, is_bound: false });
        }
        match self.horizon() {
            Horizon::Start => Some(Next { key: OrderKey::FIRST, is_bound: true }),
            Horizon::At(key) => Some(Next { key, is_bound: true }),
            Horizon::Open => None,
        }
    }

    /// Whether a claim may find a job in it: in memory, or behind a page.
    pub fn gives(&self) -> bool {
        self.stake.as_ref().map_or(self.stands.is_some(), |stake| stake.turn.gives())
    }

    /// A page has come: fits the window to what was taken meanwhile, which is the rate of claims times the
    /// time of a page. One that ran empty grows at least to twice its size, one that is too large shrinks
    /// slowly.
    pub fn resize(&mut self, limits: &Limits) {
        let Limits { window_min, window_max, window_factor, .. } = *limits;
        let needed = self.taken.saturating_mul(window_factor);
        let grown = if self.is_empty() { self.target.saturating_mul(2) } else { 0 };
        let shrunk = self.target - self.target.div_ceil(8);
        self.target = needed.max(grown).max(shrunk).clamp(window_min.min(window_max), window_max);
    }

    /// How many jobs its window is to have beside those that it has, if there are so many.
    pub fn wished(&self) -> usize {
        if self.is_behind() { self.target.saturating_sub(self.len()) } else { 0 }
    }

    /// It has nothing to give before a page was read.
    pub fn is_starved(&self) -> bool {
        self.is_empty() && self.is_behind()
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
