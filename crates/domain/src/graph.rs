//! The dependency graph of one workflow, in compact arrays: who waits for whom, and for how many.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::ops::Range;

use crate::ids::{BarrierId, Grant, JobId, LaneId, ResultId, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow};
use crate::policy::{Policy, Tries};
use crate::state::JobState;

/// The place of a job in the graph; behind the jobs are the barriers.
pub type Place = u32;

/// What waits for what, as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edges {
    /// (job, the job it depends on).
    pub direct: Vec<(JobId, JobId)>,
    /// (barrier, a job that all who wait at it depend on).
    pub barriers: Vec<(BarrierId, JobId)>,
    /// (job, the barrier it waits at). A job waits at one at most.
    pub members: Vec<(JobId, BarrierId)>,
}

impl Edges {
    /// Edges without barriers.
    pub fn between(direct: Vec<(JobId, JobId)>) -> Edges {
        Edges { direct, ..Edges::default() }
    }

    /// Nothing waits for anything, though jobs may be at barriers whose prerequisites are all gone.
    pub fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.barriers.is_empty()
    }

    /// In an order that tells nothing of how they were found.
    pub fn sort(&mut self) {
        self.direct.sort_unstable();
        self.barriers.sort_unstable();
        self.members.sort_unstable();
    }

    /// Whether a job depends on another, of edges that are sorted.
    pub fn contains(&self, job: JobId, on: JobId) -> bool {
        let at = self.members.binary_search_by_key(&job, |(member, _)| *member);
        self.direct.binary_search(&(job, on)).is_ok()
            || at.is_ok_and(|at| self.barriers.binary_search(&(self.members[at].1, on)).is_ok())
    }
}

/// Where jobs wait that depend on the same others: it is passed when all of these have ended. So a
/// thousand jobs that wait for a thousand are two thousand edges.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Barrier {
    /// Prerequisites that have not ended.
    unmet: u32,
    /// Prerequisites whose end was a failure.
    blamed: u32,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Node {
    lane: LaneId,
    priority: i64,
    attempt: i64,
    /// Prerequisites that have not ended; its barrier counts as one.
    unmet: u32,
    /// Prerequisites whose end was a failure; its barrier counts as one, once it is passed.
    blamed: u32,
    state: JobState,
    flags: JobFlags,
}

impl Node {
    fn new(row: &JobRow) -> Node {
        Node {
            lane: row.lane,
            priority: row.priority,
            attempt: row.attempt,
            unmet: 0,
            blamed: 0,
            state: row.state,
            flags: row.flags,
        }
    }
}

/// What few jobs have: a result while they are not at an end, a moment to wait for, a policy.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
struct Extra {
    result: Option<ResultId>,
    due_at: Option<Timestamp>,
    tries: Tries,
    policy: Option<Policy>,
    expires_at: Option<Timestamp>,
}

impl Extra {
    /// `None`: the job has nothing of it.
    fn of(row: &JobRow) -> Option<Extra> {
        let JobRow { result, due_at, tries, policy, expires_at, .. } = *row;
        Some(Extra { result, due_at, tries, policy, expires_at }).filter(|extra| *extra != Extra::default())
    }
}

/// All jobs of a workflow and the edges between them.
#[derive(Clone, PartialEq, Debug)]
pub struct Graph {
    workflow: WorkflowId,
    /// In rising order; a job's place is its place here.
    ids: Vec<JobId>,
    nodes: Vec<Node>,
    barriers: Vec<Barrier>,
    /// Dependents of place `p` are `dependents[first[p]..first[p + 1]]`.
    first: Vec<u32>,
    dependents: Vec<Place>,
    /// What few jobs have.
    extras: BTreeMap<Place, Extra>,
}

impl Graph {
    /// From the jobs in the order of their ids. Edges of jobs that are not there are left out.
    pub fn new(workflow: WorkflowId, rows: &[JobRow], edges: &Edges) -> Graph {
        let ids: Vec<JobId> = rows.iter().map(|row| row.id).collect();
        let mut graph = Graph {
            workflow,
            nodes: Vec::new(),
            barriers: Vec::new(),
            first: Vec::new(),
            dependents: Vec::new(),
            extras: BTreeMap::new(),
            ids,
        };
        graph.link(edges);
        graph.take_rows(rows);
        graph
    }

    /// Takes over what all rows are now, in the order of their ids.
    pub fn take_rows(&mut self, rows: &[JobRow]) {
        self.nodes = rows.iter().map(Node::new).collect();
        self.extras.clear();
        for (place, row) in rows.iter().enumerate() {
            if let Some(extra) = Extra::of(row) {
                self.extras.insert(place as Place, extra);
            }
        }
        self.barriers.fill(Barrier::default());
        for (place, row) in rows.iter().enumerate() {
            let (waits, blames) = (!row.state.has_ended(), row.flags.has(JobFlags::BLAMED));
            for at in self.span(place as Place) {
                let (unmet, blamed) = self.counts(self.dependents[at]);
                *unmet += u32::from(waits);
                *blamed += u32::from(!waits && blames);
            }
        }
        for barrier in 0..self.barriers.len() {
            let Barrier { unmet, blamed } = self.barriers[barrier];
            for at in self.span((self.ids.len() + barrier) as Place) {
                let node = &mut self.nodes[self.dependents[at] as usize];
                node.unmet += u32::from(unmet > 0);
                node.blamed += u32::from(unmet == 0 && blamed > 0);
            }
        }
    }

    fn link(&mut self, edges: &Edges) {
        let mut barriers: Vec<BarrierId> = edges.barriers.iter().map(|(barrier, _)| *barrier).collect();
        barriers.sort_unstable();
        barriers.dedup();
        let jobs = self.ids.len();
        let barrier = |id: BarrierId| barriers.binary_search(&id).ok().map(|at| (jobs + at) as Place);
        let all = || {
            let direct = edges.direct.iter().map(|(job, on)| Some((self.place(*job)?, self.place(*on)?)));
            let before = edges.barriers.iter().map(|(id, on)| Some((barrier(*id)?, self.place(*on)?)));
            let behind = edges.members.iter().map(|(job, id)| Some((self.place(*job)?, barrier(*id)?)));
            direct.chain(before).chain(behind).flatten()
        };
        let mut first = alloc::vec![0u32; jobs + barriers.len() + 1];
        let mut count = 0usize;
        for (_, on) in all() {
            first[on as usize + 1] += 1;
            count += 1;
        }
        for place in 1..first.len() {
            first[place] += first[place - 1];
        }
        let mut next = first.clone();
        let mut dependents = alloc::vec![0; count];
        for (waiting, on) in all() {
            dependents[next[on as usize] as usize] = waiting;
            next[on as usize] += 1;
        }
        self.barriers = alloc::vec![Barrier::default(); barriers.len()];
        self.first = first;
        self.dependents = dependents;
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.ids.len() * (size_of::<JobId>() + size_of::<Node>() + size_of::<u32>())
            + self.barriers.len() * (size_of::<Barrier>() + size_of::<u32>())
            + self.dependents.len() * size_of::<Place>()
            + self.extras.len() * size_of::<(Place, Extra)>() * 3 / 2
    }

    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Where a job stands; ids of one workflow are mostly one after the other.
    pub fn place(&self, id: JobId) -> Option<Place> {
        let guess = usize::try_from(id.0 - self.ids.first()?.0).ok()?;
        if self.ids.get(guess) == Some(&id) {
            return Some(guess as Place);
        }
        self.ids.binary_search(&id).ok().map(|place| place as Place)
    }

    pub fn id(&self, place: Place) -> JobId {
        self.ids[place as usize]
    }

    /// Where in `dependents` those of a place are.
    fn span(&self, place: Place) -> Range<usize> {
        self.first[place as usize] as usize..self.first[place as usize + 1] as usize
    }

    fn dependents(&self, place: Place) -> &[Place] {
        &self.dependents[self.span(place)]
    }

    fn is_barrier(&self, place: Place) -> bool {
        place as usize >= self.ids.len()
    }

    /// How many prerequisites of a job or a barrier have not ended, and how many have failed.
    fn counts(&mut self, place: Place) -> (&mut u32, &mut u32) {
        match self.nodes.get_mut(place as usize) {
            Some(Node { unmet, blamed, .. }) => (unmet, blamed),
            None => {
                let Barrier { unmet, blamed } = &mut self.barriers[place as usize - self.ids.len()];
                (unmet, blamed)
            }
        }
    }

    pub fn state(&self, place: Place) -> JobState {
        self.nodes[place as usize].state
    }

    pub fn flags(&self, place: Place) -> JobFlags {
        self.nodes[place as usize].flags
    }

    pub fn unmet(&self, place: Place) -> u32 {
        self.nodes[place as usize].unmet
    }

    /// Whether a prerequisite failed, of a job whose prerequisites have all ended.
    pub fn blamed(&self, place: Place) -> bool {
        self.nodes[place as usize].blamed > 0
    }

    /// A job has ended: the jobs for which it was the last one that they waited for.
    pub fn meet(&mut self, place: Place, blamed: bool) -> Vec<Place> {
        let mut met = Vec::new();
        for at in self.span(place) {
            let dependent = self.dependents[at];
            if !self.count_down(dependent, blamed) {
                continue;
            }
            if !self.is_barrier(dependent) {
                met.push(dependent);
                continue;
            }
            let blamed = *self.counts(dependent).1 > 0;
            for at in self.span(dependent) {
                let member = self.dependents[at];
                if self.count_down(member, blamed) {
                    met.push(member);
                }
            }
        }
        met
    }

    /// The jobs that depend on one, directly or behind a barrier.
    pub fn behind(&self, place: Place) -> impl Iterator<Item = Place> {
        let targets = self.dependents(place).iter();
        targets.flat_map(|target| {
            if self.is_barrier(*target) { self.dependents(*target) } else { core::slice::from_ref(target) }
                .iter()
                .copied()
        })
    }

    /// Whether it waits for nothing more.
    fn count_down(&mut self, place: Place, was_blamed: bool) -> bool {
        let (unmet, blamed) = self.counts(place);
        *unmet -= 1;
        *blamed += u32::from(was_blamed);
        *unmet == 0
    }

    /// A job that had ended is to be done again: the jobs that depend on it.
    pub fn unmeet(&mut self, place: Place, blamed: bool) -> Vec<Place> {
        let mut dependents = Vec::new();
        for at in self.span(place) {
            let dependent = self.dependents[at];
            let had_failed = *self.counts(dependent).1 > 0;
            let was_passed = self.count_up(dependent, blamed);
            if !self.is_barrier(dependent) {
                dependents.push(dependent);
                continue;
            }
            for at in self.span(dependent) {
                let member = self.dependents[at];
                if was_passed {
                    self.count_up(member, had_failed);
                }
                dependents.push(member);
            }
        }
        dependents
    }

    /// Whether it waited for nothing.
    fn count_up(&mut self, place: Place, was_blamed: bool) -> bool {
        let (unmet, blamed) = self.counts(place);
        *unmet += 1;
        *blamed -= u32::from(was_blamed);
        *unmet == 1
    }

    /// The hot row of a job that nobody holds and that has not ended: all of it is known here.
    pub fn row(&self, place: Place) -> JobRow {
        let node = &self.nodes[place as usize];
        let Extra { result, due_at, tries, policy, expires_at } = self.extras.get(&place).copied().unwrap_or_default();
        JobRow {
            id: self.id(place),
            workflow: self.workflow,
            lane: node.lane,
            state: node.state,
            priority: node.priority,
            attempt: node.attempt,
            flags: node.flags,
            node: None,
            grant: Grant::default(),
            started_at: None,
            due_at,
            result,
            tries,
            policy,
            expires_at,
        }
    }

    /// Takes over what a job's row is now.
    pub fn update(&mut self, row: &JobRow) {
        let Some(place) = self.place(row.id) else { return };
        let node = &mut self.nodes[place as usize];
        node.lane = row.lane;
        node.priority = row.priority;
        node.attempt = row.attempt;
        node.state = row.state;
        node.flags = row.flags;
        if let Some(extra) = Extra::of(row) {
            self.extras.insert(place, extra);
        } else if !self.extras.is_empty() {
            self.extras.remove(&place);
        }
    }

    /// These jobs and all that hang on them, each once.
    pub fn downstream(&self, from: impl Iterator<Item = Place>) -> Vec<bool> {
        let mut reached = alloc::vec![false; self.places()];
        let mut queue = VecDeque::new();
        for place in from {
            if !core::mem::replace(&mut reached[place as usize], true) {
                queue.push_back(place);
            }
        }
        while let Some(place) = queue.pop_front() {
            for &dependent in self.dependents(place) {
                if !core::mem::replace(&mut reached[dependent as usize], true) {
                    queue.push_back(dependent);
                }
            }
        }
        reached.truncate(self.ids.len());
        reached
    }

    /// Jobs and barriers.
    fn places(&self) -> usize {
        self.ids.len() + self.barriers.len()
    }

    /// All jobs, each after all that it depends on; `None` if some depend on each other in a circle.
    /// Those that can be done in the same step come in the order of their ids, so that the order is the
    /// same whether they wait at a barrier or not.
    pub fn order(&self) -> Option<Vec<Place>> {
        let (steps, waiting) = self.unwind();
        if waiting.iter().any(|waiting| *waiting > 0) {
            return None;
        }
        let mut order: Vec<Place> = (0..self.ids.len() as Place).collect();
        order.sort_by_key(|place| steps[*place as usize]);
        Some(order)
    }

    /// Takes away jobs that wait for nobody, until there are none: in which step each went, and for how
    /// many each still waits.
    fn unwind(&self) -> (Vec<u32>, Vec<u32>) {
        let mut waiting = alloc::vec![0u32; self.places()];
        for &dependent in &self.dependents {
            waiting[dependent as usize] += 1;
        }
        let mut steps = alloc::vec![0u32; self.places()];
        let mut free: Vec<Place> = (0..self.places() as Place).filter(|p| waiting[*p as usize] == 0).collect();
        while let Some(place) = free.pop() {
            // Passing a barrier is no step.
            let next = steps[place as usize] + u32::from(!self.is_barrier(place));
            for &dependent in self.dependents(place) {
                steps[dependent as usize] = steps[dependent as usize].max(next);
                waiting[dependent as usize] -= 1;
                if waiting[dependent as usize] == 0 {
                    free.push(dependent);
                }
            }
        }
        (steps, waiting)
    }

    /// Some jobs of a circle of dependencies, if there is one: each depends on the next, the last on
    /// the first.
    pub fn circle(&self) -> Option<Vec<JobId>> {
        let (_, waiting) = self.unwind();
        let start = waiting.iter().position(|waiting| *waiting > 0)? as Place;
        // Every place that still waits has a prerequisite that still waits: going back from one to
        // the next must come round.
        let mut before = alloc::vec![Place::MAX; self.places()];
        for place in 0..self.places() as Place {
            if waiting[place as usize] > 0 {
                for &dependent in self.dependents(place) {
                    before[dependent as usize] = place;
                }
            }
        }
        let mut path = Vec::new();
        let mut met = BTreeMap::new();
        let mut place = start;
        while !met.contains_key(&place) {
            met.insert(place, path.len());
            path.push(place);
            place = before[place as usize];
        }
        let circle = path.split_off(met[&place]);
        Some(circle.into_iter().filter(|place| !self.is_barrier(*place)).map(|place| self.id(place)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn row(id: i64) -> JobRow {
        JobRow {
            id: JobId(id),
            workflow: WorkflowId(1),
            lane: LaneId(1),
            state: JobState::Blocked,
            priority: 0,
            attempt: 1,
            flags: JobFlags::default(),
            node: None,
            grant: Grant::default(),
            started_at: None,
            due_at: None,
            result: None,
            tries: Tries::default(),
            policy: None,
            expires_at: None,
        }
    }

    /// The same dependencies with barriers and without: sets of earlier jobs, and after which each of the
    /// later jobs waits.
    fn both(early: i64, sets: &[Vec<i64>], waits: &[usize]) -> (Vec<JobRow>, Edges, Edges) {
        let rows: Vec<JobRow> = (1..=early + waits.len() as i64).map(row).collect();
        let (mut with, mut without) = (Edges::default(), Edges::default());
        for (at, set) in sets.iter().enumerate() {
            with.barriers.extend(set.iter().map(|on| (BarrierId(at as i64), JobId(1 + on % early))));
        }
        for (job, set) in (early + 1..).zip(waits) {
            with.members.push((JobId(job), BarrierId((set % sets.len()) as i64)));
            without.direct.extend(sets[set % sets.len()].iter().map(|on| (JobId(job), JobId(1 + on % early))));
            // A chain beside them.
            with.direct.push((JobId(job), JobId(job - 1)));
            without.direct.push((JobId(job), JobId(job - 1)));
        }
        for edges in [&mut with, &mut without] {
            edges.sort();
            edges.direct.dedup();
            edges.barriers.dedup();
        }
        // What waits at a barrier does not depend on the same job directly, too.
        with.direct.retain(|(job, on)| {
            let at = with.members.binary_search_by_key(job, |(member, _)| *member);
            !at.is_ok_and(|at| with.barriers.binary_search(&(with.members[at].1, *on)).is_ok())
        });
        (rows, with, without)
    }

    proptest! {
        /// Whatever ends, fails and is done again: who waits at a barrier waits as if it depended on each.
        #[test]
        fn a_barrier_is_as_many_edges_as_it_stands_for(
            early in 2..6i64,
            sets in proptest::collection::vec(proptest::collection::vec(0..6i64, 1..5), 1..4),
            waits in proptest::collection::vec(0..4usize, 1..8),
            steps in proptest::collection::vec((0..14usize, any::<bool>()), 0..40),
        ) {
            let (mut rows, with, without) = both(early, &sets, &waits);
            let mut one = Graph::new(WorkflowId(1), &rows, &with);
            let mut other = Graph::new(WorkflowId(1), &rows, &without);
            prop_assert_eq!(one.order(), other.order());
            for (job, fails) in steps {
                let place = (job % rows.len()) as Place;
                let row = &mut rows[place as usize];
                let was_blamed = row.flags.has(JobFlags::BLAMED);
                let (mut left, mut right) = if row.state.has_ended() {
                    row.state = JobState::Ready;
                    row.flags = JobFlags::default();
                    (one.unmeet(place, was_blamed), other.unmeet(place, was_blamed))
                } else {
                    row.state = JobState::Failed;
                    row.flags = JobFlags::default().with(JobFlags::BLAMED, fails);
                    (one.meet(place, fails), other.meet(place, fails))
                };
                left.sort_unstable();
                right.sort_unstable();
                prop_assert_eq!(left, right);
                for place in 0..rows.len() as Place {
                    prop_assert_eq!(one.unmet(place) > 0, other.unmet(place) > 0);
                    prop_assert!(one.unmet(place) > 0 || one.blamed(place) == other.blamed(place));
                }
                for graph in [&mut one, &mut other] {
                    graph.update(&rows[place as usize]);
                }
                prop_assert_eq!(one.downstream([place].into_iter()), other.downstream([place].into_iter()));
                prop_assert_eq!(&one, &Graph::new(WorkflowId(1), &rows, &with));
            }
        }
    }

    #[test]
    fn a_circle_through_a_barrier_is_named() {
        let rows: Vec<JobRow> = (1..=4).map(row).collect();
        let mut edges = Edges::between(alloc::vec![(JobId(1), JobId(3))]);
        edges.barriers = alloc::vec![(BarrierId(3), JobId(1)), (BarrierId(3), JobId(2))];
        edges.members = alloc::vec![(JobId(3), BarrierId(3)), (JobId(4), BarrierId(3))];
        let graph = Graph::new(WorkflowId(1), &rows, &edges);
        assert_eq!(graph.order(), None);
        let mut circle = graph.circle().expect("1 waits for 3, and 3 for 1");
        circle.sort_unstable();
        assert_eq!(circle, [JobId(1), JobId(3)]);
    }

    #[test]
    fn a_thousand_behind_a_thousand_are_two_thousand_edges() {
        let rows: Vec<JobRow> = (1..=2_000).map(row).collect();
        let barrier = BarrierId(1_001);
        let edges = Edges {
            direct: Vec::new(),
            barriers: (1..=1_000).map(|on| (barrier, JobId(on))).collect(),
            members: (1_001..=2_000).map(|job| (JobId(job), barrier)).collect(),
        };
        let graph = Graph::new(WorkflowId(1), &rows, &edges);
        assert!(graph.bytes() < 100 * rows.len(), "{} bytes", graph.bytes());
    }
}
