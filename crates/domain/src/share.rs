//! What each lane of an endless workflow gets of what is handed out: how many of its jobs may be held at
//! once, and how often it is its turn among the others.

use alloc::collections::BTreeSet;
use core::num::NonZeroU32;

use crate::batch::LaneState;
use crate::ids::Lsn;

/// What a lane may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// While several lanes have ready jobs, they are taken from as often as their weights are to each
    /// other. `WEIGHT_MAX` at most; more counts as that.
    pub weight: NonZeroU32,
    /// So many of its jobs are held at once, at most.
    pub held_max: Option<u32>,
}

pub const WEIGHT_MAX: u32 = 1000;

impl Default for Share {
    fn default() -> Share {
        Share { weight: NonZeroU32::MIN, held_max: None }
    }
}

/// Virtual time that a job takes of a lane that weighs 1. Small weights divide it, and the largest are off
/// by a thousandth.
const STRIDE: u64 = 720_720;

impl Share {
    /// Virtual time that a job of such a lane takes.
    pub fn stride(&self) -> u64 {
        STRIDE / u64::from(self.weight.get().min(WEIGHT_MAX))
    }
}

/// How one stands among others that take turns.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// When it is its turn, in virtual time: not before that of the latest turn, if it stands in the queue.
    pass: u64,
    queued: bool,
}

impl Turn {
    /// Whether it has, or may have, something to give.
    pub fn gives(&self) -> bool {
        self.queued
    }
}

/// Those that have something to give, by their turns: weighted fair queueing by start times. A turn costs
/// virtual time, the more the less one weighs; the next turn is that of the earliest. Who had nothing to
/// give for a while is not owed anything for it.
#[derive(Debug)]
pub struct Turns<K> {
    queue: BTreeSet<(u64, K)>,
    /// The latest turn.
    now: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Self {
        Turns { queue: BTreeSet::new(), now: 0 }
    }
}

impl<K: Copy + Ord> Turns<K> {
    /// Whose turn it is.
    pub fn first(&self) -> Option<K> {
        self.queue.first().map(|(_, key)| *key)
    }

    /// One has something to give now, or not. Whether it has that had nothing before.
    pub fn settle(&mut self, key: K, turn: &mut Turn, gives: bool) -> bool {
        if gives == turn.queued {
            return false;
        }
        turn.queued = gives;
        if gives {
            turn.pass = turn.pass.max(self.now);
            self.queue.insert((turn.pass, key));
        } else {
            self.queue.remove(&(turn.pass, key));
        }
        gives
    }

    /// The turn of the one whose it is, with such a share, is used.
    pub fn take(&mut self, key: K, turn: &mut Turn, share: &Share) {
        self.queue.remove(&(turn.pass, key));
        self.now = turn.pass;
        turn.pass += share.stride();
        self.queue.insert((turn.pass, key));
    }
}

/// A lane among the others of its endless workflow.
#[derive(Debug)]
pub struct Stake {
    pub state: LaneState,
    pub share: Share,
    pub turn: Turn,
    /// The batch that was last to write its state.
    pub written: Lsn,
}

impl Stake {
    pub fn new(state: LaneState, share: Share) -> Stake {
        Stake { state, share, turn: Turn::default(), written: Lsn::default() }
    }

    /// Whether a job of it may be handed out, if it has one.
    pub fn is_open(&self) -> bool {
        !self.state.paused && self.share.held_max.is_none_or(|max| self.state.held < i64::from(max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LaneId;
    use std::collections::BTreeMap;
    use std::vec::Vec;

    struct Lanes {
        turns: Turns<LaneId>,
        of: BTreeMap<LaneId, Stake>,
    }

    impl Lanes {
        fn weighing(weights: &[u32]) -> Lanes {
            let mut lanes = Lanes { turns: Turns::default(), of: BTreeMap::new() };
            for (id, weight) in (1..).map(LaneId).zip(weights) {
                let share = Share { weight: NonZeroU32::new(*weight).unwrap(), held_max: None };
                lanes.of.insert(id, Stake::new(LaneState { lane: id, held: 0, paused: false }, share));
                lanes.has(id.0, true);
            }
            lanes
        }

        fn has(&mut self, id: i64, has_some: bool) -> bool {
            let stake = self.of.get_mut(&LaneId(id)).unwrap();
            let gives = has_some && stake.is_open();
            self.turns.settle(LaneId(id), &mut stake.turn, gives)
        }

        fn take(&mut self, turns: usize) -> Vec<i64> {
            let take = |_| {
                let id = self.turns.first().unwrap();
                let stake = self.of.get_mut(&id).unwrap();
                self.turns.take(id, &mut stake.turn, &stake.share);
                id.0
            };
            (0..turns).map(take).collect()
        }
    }

    fn times(taken: &[i64], id: i64) -> usize {
        taken.iter().filter(|lane| **lane == id).count()
    }

    #[test]
    fn lanes_of_one_weight_are_taken_from_in_turn() {
        assert_eq!(Lanes::weighing(&[1, 1, 1]).take(7), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn lanes_are_taken_from_as_they_weigh() {
        let taken = Lanes::weighing(&[1, 2, 7]).take(1000);
        assert_eq!([1, 2, 3].map(|id| times(&taken, id)), [100, 200, 700]);
        // And not in blocks.
        assert!(taken.chunks(10).all(|ten| times(ten, 1) <= 2 && times(ten, 2) <= 3));
    }

    #[test]
    fn a_lane_is_owed_nothing_for_the_time_when_it_had_nothing() {
        let mut lanes = Lanes::weighing(&[1, 1]);
        lanes.has(2, false);
        assert_eq!(times(&lanes.take(100), 1), 100);
        assert!(lanes.has(2, true));
        assert_eq!(times(&lanes.take(10), 2), 5);
        // Nor does it gain by coming and going.
        let taken = (0..100).flat_map(|_| {
            lanes.has(2, false);
            lanes.has(2, true);
            lanes.take(1)
        });
        assert_eq!(times(&taken.collect::<Vec<_>>(), 2), 50);
    }

    #[test]
    fn a_lane_at_its_bound_or_paused_gives_nothing() {
        let mut lanes = Lanes::weighing(&[1, 1]);
        let stake = lanes.of.get_mut(&LaneId(1)).unwrap();
        (stake.share.held_max, stake.state.held) = (Some(2), 2);
        assert!(!lanes.has(1, true));
        assert_eq!(lanes.take(3), [2, 2, 2]);
        lanes.of.get_mut(&LaneId(1)).unwrap().state.held = 1;
        assert!(lanes.has(1, true));
        lanes.of.get_mut(&LaneId(1)).unwrap().state.paused = true;
        assert!(!lanes.has(1, true) && !lanes.of[&LaneId(1)].turn.gives());
    }

    #[test]
    fn no_weight_is_off_by_more_than_a_thousandth() {
        for weight in 1..=WEIGHT_MAX {
            let share = Share { weight: NonZeroU32::new(weight).unwrap(), held_max: None };
            let exact = STRIDE as f64 / f64::from(weight);
            assert!((share.stride() as f64 - exact).abs() / exact < 0.0014, "{weight}");
        }
    }
}
