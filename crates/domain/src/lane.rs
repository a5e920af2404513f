//! Lanes and their windows.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::batch::LaneRow;
use crate::claim::Needs;
use crate::ids::{JobId, Lsn};

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

/// How far a window reaches into its lane's order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Horizon {
    /// Nothing was read yet.
    Start,
    /// Up to and with this key; there may be more behind.
    At(OrderKey),
    /// All that is ready is in the window.
    Open,
}

impl Horizon {
    fn covers(self, key: OrderKey) -> bool {
        match self {
            Horizon::Start => false,
            Horizon::At(last) => key <= last,
            Horizon::Open => true,
        }
    }

    /// The key that a page is read after.
    pub fn after(self) -> Option<OrderKey> {
        match self {
            Horizon::Start | Horizon::Open => None,
            Horizon::At(last) => Some(last),
        }
    }
}

/// Where a job went that entered a lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// Into the window.
    Window,
    /// Into the window, whose last job had to leave it.
    Evicting(OrderKey),
    /// Behind the window: it is found there by a page.
    Behind,
}

/// Ready jobs that are interchangeable to a claimant, and the window onto them: a prefix of the
/// lane's order, up to the horizon. All that is ready beyond it is in the store, or in `recent`.
#[derive(Debug)]
pub struct Lane {
    pub row: LaneRow,
    pub needs: Needs,
    window: BTreeSet<OrderKey>,
    horizon: Horizon,
    /// One more whenever the window lost jobs that a page in flight does not know of.
    epoch: u32,
    /// A page of an older snapshot does not know of a bulk change.
    fresh_from: Lsn,
    /// Ready jobs behind the horizon that a page in flight may be too old to show.
    recent: BTreeMap<OrderKey, Lsn>,
    /// A page was asked for and has not come.
    pub asked: bool,
}

impl Lane {
    /// A lane whose store holds ready jobs, or none.
    pub fn new(row: LaneRow, needs: Needs, has_ready: bool) -> Lane {
        Lane {
            row,
            needs,
            window: BTreeSet::new(),
            horizon: if has_ready { Horizon::Start } else { Horizon::Open },
            epoch: 0,
            fresh_from: Lsn::default(),
            recent: BTreeMap::new(),
            asked: false,
        }
    }

    pub fn head(&self) -> Option<OrderKey> {
        self.window.first().copied()
    }

    pub fn horizon(&self) -> Horizon {
        self.horizon
    }

    /// There may be ready jobs beyond the window.
    pub fn is_behind(&self) -> bool {
        self.horizon != Horizon::Open
    }

    pub fn len(&self) -> usize {
        self.window.len()
    }

    pub fn is_empty(&self) -> bool {
        self.window.is_empty()
    }

    pub fn recent_len(&self) -> usize {
        self.recent.len()
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    pub fn fresh_from(&self) -> Lsn {
        self.fresh_from
    }

    pub fn keys(&self) -> impl Iterator<Item = OrderKey> + '_ {
        self.window.iter().copied()
    }

    /// A job became ready at `lsn`.
    pub fn enter(&mut self, key: OrderKey, lsn: Lsn, window_max: usize) -> Entered {
        if !self.horizon.covers(key) {
            self.recent.insert(key, lsn);
            return Entered::Behind;
        }
        self.window.insert(key);
        match self.evict(window_max) {
            Some(evicted) => Entered::Evicting(evicted),
            None => Entered::Window,
        }
    }

    /// A job is no longer ready.
    pub fn leave(&mut self, key: OrderKey) {
        if !self.window.remove(&key) {
            self.recent.remove(&key);
        }
    }

    /// Takes the last job out of a window that is too large. The horizon moves to the last one kept.
    fn evict(&mut self, window_max: usize) -> Option<OrderKey> {
        if self.window.len() <= window_max {
            return None;
        }
        let evicted = self.window.pop_last()?;
        self.horizon = match self.window.last() {
            Some(last) => Horizon::At(*last),
            None => Horizon::Start,
        };
        self.epoch += 1;
        Some(evicted)
    }

    /// Remembers a job behind the horizon until no page in flight can miss it.
    pub fn remember(&mut self, key: OrderKey, lsn: Lsn) {
        self.recent.insert(key, lsn);
    }

    /// No page in flight is older than this job's change any more.
    pub fn forget(&mut self, key: OrderKey) {
        self.recent.remove(&key);
    }

    /// All of the lane was changed in bulk by batch `lsn`: it is read anew. Answers what was in the window.
    pub fn reload(&mut self, lsn: Lsn) -> BTreeSet<OrderKey> {
        self.horizon = Horizon::Start;
        self.epoch += 1;
        self.fresh_from = lsn;
        self.recent.clear();
        core::mem::take(&mut self.window)
    }

    /// Whether a page asked for in `epoch` and read at `lsn` still tells the truth.
    pub fn accepts(&self, epoch: u32, lsn: Lsn) -> bool {
        self.epoch == epoch && lsn >= self.fresh_from
    }

    /// Applies a page: `rows` are the keys in it whose jobs have no change newer than the page, `end`
    /// is the key of the last row that was read, or `None` if the page was short. Answers the keys of
    /// recent jobs that it put into the window, and those that the window had no room for.
    pub fn page(
        &mut self,
        rows: impl Iterator<Item = OrderKey>,
        end: Option<OrderKey>,
        window_max: usize,
    ) -> (Vec<OrderKey>, Vec<OrderKey>) {
        let from = self.horizon;
        self.horizon = end.map_or(Horizon::Open, Horizon::At);
        self.window.extend(rows);
        let joined: Vec<OrderKey> =
            self.recent.keys().copied().filter(|key| !from.covers(*key) && self.horizon.covers(*key)).collect();
        for key in &joined {
            self.recent.remove(key);
            self.window.insert(*key);
        }
        let mut evicted = Vec::new();
        while let Some(key) = self.evict(window_max) {
            evicted.push(key);
        }
        (joined, evicted)
    }
}
