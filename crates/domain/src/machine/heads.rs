//! Where each lane of a workflow stands in the orders by which jobs are claimed: the heads of the lanes,
//! in one merge over the same jobs for each order; and whose turn it is, where lanes take turns.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::ops::Bound;

use crate::claim::Needs;
use crate::command::ClaimOrder;
use crate::ids::{JobId, LaneId, SchedulerId};
use crate::lane::{LabelSet, Lane, Next};
use crate::share::Turns;

/// An order by which jobs are claimed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    Queue = 0,
    Fitting = 1,
}

impl Order {
    /// `None`: lanes take turns.
    pub fn of(by: ClaimOrder) -> Option<Order> {
        match by {
            ClaimOrder::Queue => Some(Order::Queue),
            ClaimOrder::Fitting { .. } => Some(Order::Fitting),
            ClaimOrder::Lanes => None,
        }
    }
}

/// A lane's place in an order: that of its next job, or of the bound beyond which that is to be read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    /// The priority's complement: plain order is the order of claims.
    rank: i64,
    /// The complements of what the order looks at before the id.
    shape: [i64; 4],
    id: JobId,
    pub lane: LaneId,
    /// After the job of the same key.
    is_bound: bool,
}

impl Place {
    fn new(order: Order, next: Next, needs: &Needs, lane: LaneId) -> Place {
        let Next { key, is_bound } = next;
        let shape = match order {
            Order::Queue => [0; 4],
            Order::Fitting => [!needs.gpus, !needs.runtime_seconds, !needs.memory_bytes, !needs.cpus],
        };
        Place { rank: !key.priority(), shape, id: key.id(), lane, is_bound }
    }
}

/// Lanes from which the same claimants may take, and that have, or may have, a ready job.
#[derive(Debug)]
struct Group {
    labels: LabelSet,
    scheduler: Option<SchedulerId>,
    /// By order; empty where nobody has claimed by it.
    places: [BTreeSet<Place>; 2],
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Heads {
    groups: Vec<Group>,
    known: BTreeMap<(LabelSet, Option<SchedulerId>), usize>,
    /// Orders by which somebody has claimed: the others are not kept.
    kept: [bool; 2],
    /// Lanes that stand anywhere.
    standing: usize,
    /// In endless workflows.
    turns: Turns<LaneId>,
}

impl Heads {
    /// Whether any lane has, or may have, a ready job.
    pub fn any(&self) -> bool {
        self.standing > 0
    }

    /// Whether places of this order are kept.
    pub fn keeps(&self, order: Order) -> bool {
        self.kept[order as usize]
    }

    /// Keeps places of this order from now on; these are all lanes.
    pub fn keep<'a>(&mut self, order: Order, lanes: impl Iterator<Item = &'a Lane>) {
        self.kept[order as usize] = true;
        for lane in lanes {
            if let Some(next) = lane.stands {
                let places = &mut self.groups[lane.group].places[order as usize];
                places.insert(Place::new(order, next, &lane.needs, lane.row.id));
            }
        }
    }

    /// Takes in a new lane.
    pub fn join(&mut self, lane: &mut Lane) {
        let (labels, scheduler) = (&lane.row.labels, lane.row.scheduler);
        lane.group = match self.known.get(&(labels.clone(), scheduler)) {
            Some(group) => *group,
            None => {
                self.known.insert((labels.clone(), scheduler), self.groups.len());
                self.groups.push(Group { labels: labels.clone(), scheduler, places: Default::default() });
                self.groups.len() - 1
            }
        };
        self.stand(lane);
    }

    /// A lane's window, or its stake, has changed: it stands where its next job is now. Whether it takes
    /// turns again since.
    pub fn stand(&mut self, lane: &mut Lane) -> bool {
        let next = lane.next();
        if next != lane.stands {
            self.replace(lane, next, lane.needs);
        }
        let id = lane.row.id;
        lane.stake.as_mut().is_some_and(|stake| {
            let gives = next.is_some() && stake.is_open();
            self.turns.settle(id, &mut stake.turn, gives)
        })
    }

    /// The lane whose turn it is.
    pub fn turn(&self) -> Option<LaneId> {
        self.turns.first()
    }

    /// A job is taken from the lane whose turn it is.
    pub fn take_turn(&mut self, lane: &mut Lane) {
        let id = lane.row.id;
        let stake = lane.stake.as_mut().expect("only lanes with a stake take turns");
        self.turns.take(id, &mut stake.turn, &stake.share);
    }

    /// What jobs of a lane need has changed.
    pub fn reshape(&mut self, lane: &mut Lane, needs: Needs) {
        self.replace(lane, lane.stands, needs);
    }

    fn replace(&mut self, lane: &mut Lane, next: Option<Next>, needs: Needs) {
        let group = &mut self.groups[lane.group];
        for order in [Order::Queue, Order::Fitting].into_iter().filter(|order| self.kept[*order as usize]) {
            let places = &mut group.places[order as usize];
            if let Some(stands) = lane.stands {
                places.remove(&Place::new(order, stands, &lane.needs, lane.row.id));
            }
            if let Some(next) = next {
                places.insert(Place::new(order, next, &needs, lane.row.id));
            }
        }
        self.standing -= usize::from(lane.stands.is_some());
        self.standing += usize::from(next.is_some());
        (lane.stands, lane.needs) = (next, needs);
    }

    /// The groups of those lanes whose labels and scheduler are such.
    pub fn groups<'a>(
        &'a self,
        mut may: impl FnMut(&LabelSet, Option<SchedulerId>) -> bool + 'a,
    ) -> impl Iterator<Item = usize> + 'a {
        let all = self.groups.iter().enumerate();
        all.filter(move |(_, group)| may(&group.labels, group.scheduler)).map(|(number, _)| number)
    }

    /// The first place after this one, of these groups.
    pub fn next(&self, order: Order, groups: &[usize], after: Option<Place>) -> Option<Place> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let firsts = groups.iter().filter_map(|group| {
            let places = &self.groups[*group].places[order as usize];
            places.range((from, Bound::Unbounded)).next()
        });
        firsts.min().copied()
    }
}
