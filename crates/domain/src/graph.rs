//! The dependency graph of one workflow, in compact arrays: who waits for whom, and for how many.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::ids::{Grant, JobId, LaneId, ResultId, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow};
use crate::policy::{Policy, Tries};
use crate::state::JobState;

/// The place of a job in the graph.
pub type Place = u32;

#[derive(Clone, Copy, PartialEq, Debug)]
struct Node {
    lane: LaneId,
    priority: i64,
    attempt: i64,
    /// Prerequisites that have not ended.
    unmet: u32,
    /// Prerequisites whose end was a failure.
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
    /// Dependents of place `p` are `dependents[first[p]..first[p + 1]]`.
    first: Vec<u32>,
    dependents: Vec<Place>,
    /// What few jobs have.
    extras: BTreeMap<Place, Extra>,
}

impl Graph {
    /// From the jobs in the order of their ids, and edges (job, what it depends on). Edges of jobs
    /// that are not there are left out.
    pub fn new(workflow: WorkflowId, rows: &[JobRow], edges: impl Iterator<Item = (JobId, JobId)> + Clone) -> Graph {
        let ids: Vec<JobId> = rows.iter().map(|row| row.id).collect();
        let mut graph = Graph {
            workflow,
            nodes: Vec::new(),
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
        for (place, row) in rows.iter().enumerate() {
            let (from, to) = (self.first[place] as usize, self.first[place + 1] as usize);
            for dependent in &self.dependents[from..to] {
                let node = &mut self.nodes[*dependent as usize];
                if !row.state.has_ended() {
                    node.unmet += 1;
                } else if row.flags.has(JobFlags::BLAMED) {
                    node.blamed += 1;
                }
            }
        }
    }

    fn link(&mut self, edges: impl Iterator<Item = (JobId, JobId)> + Clone) {
        let places =
            |graph: &Graph, (job, prerequisite): (JobId, JobId)| Some((graph.place(job)?, graph.place(prerequisite)?));
        let mut first = alloc::vec![0u32; self.ids.len() + 1];
        let mut count = 0usize;
        for edge in edges.clone() {
            if let Some((_, prerequisite)) = places(self, edge) {
                first[prerequisite as usize + 1] += 1;
                count += 1;
            }
        }
        for place in 0..self.ids.len() {
            first[place + 1] += first[place];
        }
        let mut next = first.clone();
        let mut dependents = alloc::vec![0; count];
        for edge in edges {
            let Some((job, prerequisite)) = places(self, edge) else { continue };
            dependents[next[prerequisite as usize] as usize] = job;
            next[prerequisite as usize] += 1;
        }
        self.first = first;
        self.dependents = dependents;
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.ids.len() * (size_of::<JobId>() + size_of::<Node>() + size_of::<u32>())
            + self.dependents.len() * size_of::<Place>()
            + self.extras.len() * size_of::<(Place, Extra)>() * 3 / 2
    }

    /// About how many bytes a graph of this size takes.
    pub fn bytes_for(jobs: usize, edges: usize) -> usize {
        jobs * (size_of::<JobId>() + size_of::<Node>() + size_of::<u32>()) + edges * size_of::<Place>()
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

    pub fn dependents(&self, place: Place) -> &[Place] {
        let (from, to) = (self.first[place as usize], self.first[place as usize + 1]);
        &self.dependents[from as usize..to as usize]
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

    pub fn blamed(&self, place: Place) -> u32 {
        self.nodes[place as usize].blamed
    }

    /// One prerequisite of `place` has ended.
    pub fn meet(&mut self, place: Place, blamed: bool) {
        let node = &mut self.nodes[place as usize];
        node.unmet -= 1;
        node.blamed += u32::from(blamed);
    }

    /// One prerequisite of `place` that had ended is to be done again.
    pub fn unmeet(&mut self, place: Place, blamed: bool) {
        let node = &mut self.nodes[place as usize];
        node.unmet += 1;
        node.blamed -= u32::from(blamed);
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
        let mut reached = alloc::vec![false; self.ids.len()];
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
        reached
    }

    /// All jobs, each after all that it depends on; `None` if some depend on each other in a circle.
    pub fn order(&self) -> Option<Vec<Place>> {
        let (order, _) = self.unwind();
        (order.len() == self.ids.len()).then_some(order)
    }

    /// Takes away jobs that wait for nobody, until there are none: which, in their order, and for how
    /// many each of the others still waits.
    fn unwind(&self) -> (Vec<Place>, Vec<u32>) {
        let mut waiting = alloc::vec![0u32; self.ids.len()];
        for &dependent in &self.dependents {
            waiting[dependent as usize] += 1;
        }
        let mut order: Vec<Place> = (0..self.ids.len() as Place).filter(|p| waiting[*p as usize] == 0).collect();
        let mut seen = 0;
        while let Some(place) = order.get(seen).copied() {
            seen += 1;
            for &dependent in self.dependents(place) {
                waiting[dependent as usize] -= 1;
                if waiting[dependent as usize] == 0 {
                    order.push(dependent);
                }
            }
        }
        (order, waiting)
    }

    /// Some jobs of a circle of dependencies, if there is one: each depends on the next, the last on
    /// the first.
    pub fn circle(&self) -> Option<Vec<JobId>> {
        let (order, waiting) = self.unwind();
        if order.len() == self.ids.len() {
            return None;
        }
        // Every job that still waits has a prerequisite that still waits: going back from one to
        // the next must come round.
        let mut before = alloc::vec![Place::MAX; self.ids.len()];
        for place in 0..self.ids.len() as Place {
            if waiting[place as usize] > 0 {
                for &dependent in self.dependents(place) {
                    before[dependent as usize] = place;
                }
            }
        }
        let start = (0..self.ids.len() as Place).find(|p| waiting[*p as usize] > 0)?;
        let mut path = Vec::new();
        let mut met = BTreeMap::new();
        let mut place = start;
        while !met.contains_key(&place) {
            met.insert(place, path.len());
            path.push(self.id(place));
            place = before[place as usize];
        }
        Some(path.split_off(met[&place]))
    }
}
