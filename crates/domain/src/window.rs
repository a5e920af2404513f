//! Windows: the first part of something long and ordered that the store holds.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use crate::ids::Lsn;

/// How far a window reaches into its order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Horizon<K> {
    /// Nothing was read yet.
    Start,
    /// Up to and with this key; there may be more behind.
    At(K),
    /// Everything is in the window.
    Open,
}

impl<K: Copy + Ord> Horizon<K> {
    fn covers(self, key: K) -> bool {
        match self {
            Horizon::Start => false,
            Horizon::At(last) => key <= last,
            Horizon::Open => true,
        }
    }

    /// The key that a page is read after.
    pub fn after(self) -> Option<K> {
        match self {
            Horizon::Start | Horizon::Open => None,
            Horizon::At(last) => Some(last),
        }
    }
}

/// Where a key went that entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered<K> {
    /// Into the window.
    Window,
    /// Into the window, whose last key had to leave it.
    Evicting(K),
    /// Behind the window: it is found there by a page.
    Behind,
}

/// A window onto an ordered set that the store holds: a prefix of its order, up to the horizon. What
/// is beyond it is in the store, or in `recent`.
#[derive(Debug)]
pub struct Window<K> {
    keys: BTreeSet<K>,
    horizon: Horizon<K>,
    /// One more whenever the window lost keys that a page in flight does not know of.
    epoch: u32,
    /// A page of an older snapshot does not know of a bulk change.
    fresh_from: Lsn,
    /// Keys behind the horizon that a page in flight may be too old to show.
    recent: BTreeMap<K, Lsn>,
    /// A page was asked for and has not come.
    pub asked: bool,
}

impl<K: Copy + Ord> Window<K> {
    /// A window onto a store that holds something, or nothing.
    pub fn new(has_some: bool) -> Window<K> {
        Window {
            keys: BTreeSet::new(),
            horizon: if has_some { Horizon::Start } else { Horizon::Open },
            epoch: 0,
            fresh_from: Lsn::default(),
            recent: BTreeMap::new(),
            asked: false,
        }
    }

    pub fn head(&self) -> Option<K> {
        self.keys.first().copied()
    }

    pub fn horizon(&self) -> Horizon<K> {
        self.horizon
    }

    /// There may be more beyond the window.
    pub fn is_behind(&self) -> bool {
        self.horizon != Horizon::Open
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
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

    pub fn keys(&self) -> impl Iterator<Item = K> + '_ {
        self.keys.iter().copied()
    }

    /// A key came to be at `lsn`.
    pub fn enter(&mut self, key: K, lsn: Lsn, window_max: usize) -> Entered<K> {
        if !self.horizon.covers(key) {
            self.recent.insert(key, lsn);
            return Entered::Behind;
        }
        self.keys.insert(key);
        match self.evict(window_max) {
            Some(evicted) => Entered::Evicting(evicted),
            None => Entered::Window,
        }
    }

    /// A key is no more.
    pub fn leave(&mut self, key: K) {
        if !self.keys.remove(&key) {
            self.recent.remove(&key);
        }
    }

    /// Takes the last key out of a window that is too large. The horizon moves to the last one kept.
    fn evict(&mut self, window_max: usize) -> Option<K> {
        if self.keys.len() <= window_max {
            return None;
        }
        let evicted = self.keys.pop_last()?;
        self.horizon = match self.keys.last() {
            Some(last) => Horizon::At(*last),
            None => Horizon::Start,
        };
        self.epoch += 1;
        Some(evicted)
    }

    /// Takes the last `n` keys out, but never the first one.
    pub fn shed(&mut self, n: usize) -> Vec<K> {
        let kept = self.keys.len().saturating_sub(n).max(1);
        core::iter::from_fn(|| self.evict(kept)).collect()
    }

    /// Remembers a key behind the horizon until no page in flight can miss it.
    pub fn remember(&mut self, key: K, lsn: Lsn) {
        self.recent.insert(key, lsn);
    }

    /// No page in flight is older than this key's change any more.
    pub fn forget(&mut self, key: K) {
        self.recent.remove(&key);
    }

    /// When a key behind the horizon was remembered.
    pub fn remembered(&self, key: K) -> Option<Lsn> {
        self.recent.get(&key).copied()
    }

    /// All of it was changed in bulk by batch `lsn`: it is read anew. Answers what was in the window.
    pub fn reload(&mut self, lsn: Lsn) -> BTreeSet<K> {
        self.horizon = Horizon::Start;
        self.epoch += 1;
        self.fresh_from = lsn;
        self.recent.clear();
        core::mem::take(&mut self.keys)
    }

    /// Whether a page asked for in `epoch` and read at `lsn` still tells the truth.
    pub fn accepts(&self, epoch: u32, lsn: Lsn) -> bool {
        self.epoch == epoch && lsn >= self.fresh_from
    }

    /// Applies a page: `rows` are the keys in it that have no change newer than the page, `end`
    /// is the key of the last row that was read, or `None` if the page was short. Answers the
    /// recent keys that it put into the window, and those that the window had no room for.
    pub fn page(&mut self, rows: impl Iterator<Item = K>, end: Option<K>, window_max: usize) -> (Vec<K>, Vec<K>) {
        let from = self.horizon;
        self.horizon = end.map_or(Horizon::Open, Horizon::At);
        self.keys.extend(rows);
        let joined: Vec<K> =
            self.recent.keys().copied().filter(|key| !from.covers(*key) && self.horizon.covers(*key)).collect();
        for key in &joined {
            self.recent.remove(key);
            self.keys.insert(*key);
        }
        let mut evicted = Vec::new();
        while let Some(key) = self.evict(window_max) {
            evicted.push(key);
        }
        (joined, evicted)
    }
}
