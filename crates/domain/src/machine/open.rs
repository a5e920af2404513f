//! The open batch: what has changed since the last one was closed.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Map, Workflow};
use crate::batch::{Batch, Extent, JobDetail, JobWrite, LaneRow, LeaseRow, Sequence};
use crate::catalog::{Row, Statement, Table};
use crate::claim::Needs;
use crate::ids::{BarrierId, JobId, LaneId, Lsn, RequirementId, WorkflowId};
use crate::job::{JobRow, RelationKind};
use crate::lane::Lane;

/// Where a job's row stands among the jobs of the open batch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Place(usize);

/// Rows that a new batch has room for at once, at most.
const RESERVED_MAX: usize = 16_384;

#[derive(Debug)]
pub(super) struct OpenBatch {
    batch: Batch,
    /// Where jobs without a slot stand, which may change again.
    unslotted: Map<JobId, Place>,
    workflows: BTreeSet<WorkflowId>,
    /// Lanes whose state has changed, each once.
    lane_states: Vec<LaneId>,
    /// Where jobs stand whose rows go in this batch.
    over: Vec<Place>,
    /// How many changes the batch holds, beside those of workflows and of lanes' states.
    changes: usize,
}

impl OpenBatch {
    pub fn new(lsn: Lsn) -> OpenBatch {
        OpenBatch {
            batch: Batch { lsn, ..Batch::default() },
            unslotted: Map::default(),
            workflows: BTreeSet::new(),
            lane_states: Vec::new(),
            over: Vec::new(),
            changes: 0,
        }
    }

    pub fn lsn(&self) -> Lsn {
        self.batch.lsn
    }

    /// The batch whose commit makes all decided so far durable.
    pub fn stamp(&self) -> Lsn {
        if self.is_empty() { Lsn(self.batch.lsn.0 - 1) } else { self.batch.lsn }
    }

    pub fn len(&self) -> usize {
        self.changes + self.workflows.len() + self.lane_states.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0 && self.batch.sequences.is_empty()
    }

    /// Closes the batch; the next one is open.
    pub fn take(&mut self, workflows: &Map<WorkflowId, Workflow>, lanes: &Map<LaneId, Lane>) -> Option<Batch> {
        if self.is_empty() {
            return None;
        }
        let mut next = Batch { lsn: self.batch.lsn.next(), ..Batch::default() };
        // It will be about as large.
        next.jobs.reserve(self.batch.jobs.len().min(RESERVED_MAX));
        next.appends.reserve(self.batch.appends.len().min(RESERVED_MAX));
        let mut batch = core::mem::replace(&mut self.batch, next);
        batch.workflows = self.workflows.iter().filter_map(|id| Some(workflows.get(id)?.row)).collect();
        let state = |lane| Some(lanes.get(&lane)?.stake.as_ref()?.state);
        batch.lane_states = self.lane_states.drain(..).filter_map(state).collect();
        // The last first, so that the places of the others stay as they are.
        self.over.sort_unstable_by(|one, other| other.cmp(one));
        for Place(place) in self.over.drain(..) {
            // One that is new has its row: it is deleted as all others are.
            if batch.jobs[place].extent != Extent::New {
                batch.jobs.swap_remove(place);
            }
        }
        self.unslotted = Map::default();
        self.workflows.clear();
        self.changes = 0;
        Some(batch)
    }

    /// A job changes for the first time in this batch. Answers its place there.
    pub fn job(&mut self, row: JobRow, extent: Extent) -> Place {
        if let Some(place) = self.unslotted.get(&row.id).copied() {
            self.job_again(place, row, extent);
            return place;
        }
        let place = Place(self.batch.jobs.len());
        self.batch.jobs.push(JobWrite { row, extent });
        self.changes += 1;
        place
    }

    /// A job that has a place in this batch changes again.
    pub fn job_again(&mut self, place: Place, row: JobRow, extent: Extent) {
        let write = &mut self.batch.jobs[place.0];
        *write = JobWrite { row, extent: write.extent.max(extent) };
    }

    /// A job that has a place in this batch loses its slot, and may change again.
    pub fn keep_place(&mut self, id: JobId, place: Place) {
        self.unslotted.insert(id, place);
    }

    /// A job changes that shall have no slot.
    pub fn job_in_bulk(&mut self, row: JobRow) {
        let place = self.job(row, Extent::Whole);
        self.unslotted.insert(row.id, place);
    }

    pub fn new_job(&mut self, row: JobRow, detail: JobDetail) {
        self.batch.jobs.push(JobWrite { row, extent: Extent::New });
        self.changes += 1;
        self.batch.details.push(detail);
    }

    /// A new job that may change again in this batch.
    pub fn enqueue(&mut self, row: JobRow, detail: JobDetail) -> Place {
        let place = Place(self.batch.jobs.len());
        self.new_job(row, detail);
        place
    }

    pub fn detail(&mut self, detail: JobDetail) {
        self.batch.details.push(detail);
    }

    pub fn delete_job(&mut self, id: JobId) {
        self.batch.jobs_deleted.push(id);
        self.changes += 1;
    }

    /// A job that has this place is over, and will not change any more.
    pub fn job_over(&mut self, id: JobId, place: Place) {
        self.batch.jobs_over.push(id);
        self.over.push(place);
        self.changes += 1;
    }

    /// The same, of one that others still name that wait for more.
    pub fn awaited_over(&mut self, id: JobId, place: Place) {
        self.batch.jobs_deleted.push(id);
        self.over.push(place);
        self.changes += 1;
    }

    pub fn workflow(&mut self, id: WorkflowId) {
        self.workflows.insert(id);
    }

    pub fn delete_workflow(&mut self, id: WorkflowId) {
        self.workflows.remove(&id);
        self.batch.workflows_deleted.push(id);
        self.changes += 1;
    }

    pub fn lane(&mut self, row: LaneRow) {
        self.batch.lanes.push(row);
        self.changes += 1;
    }

    /// A lane's state changes for the first time in this batch.
    pub fn lane_state(&mut self, id: LaneId) {
        self.lane_states.push(id);
    }

    pub fn requirement(&mut self, workflow: WorkflowId, id: RequirementId, needs: Needs) {
        self.batch.requirements.push((workflow, id, needs));
        self.changes += 1;
    }

    /// A job depends on these from now on, and on nothing else.
    pub fn replace_edges(&mut self, job: JobId, prerequisites: &[JobId]) {
        // Those of this batch would be written after the cut.
        let edges = &mut self.batch.edges;
        edges.direct.retain(|(dependent, _)| *dependent != job);
        if let Some(place) = edges.members.iter().position(|(member, _)| *member == job) {
            let (_, left) = edges.members.swap_remove(place);
            if !edges.members.iter().any(|(_, barrier)| *barrier == left) {
                edges.barriers.retain(|(barrier, _)| *barrier != left);
            }
        }
        self.batch.edges_cut.push(job);
        self.changes += 1;
        for prerequisite in prerequisites {
            self.edge(job, *prerequisite);
        }
    }

    pub fn edge(&mut self, job: JobId, prerequisite: JobId) {
        self.batch.edges.direct.push((job, prerequisite));
        self.changes += 1;
    }

    pub fn barrier(&mut self, barrier: BarrierId, prerequisite: JobId) {
        self.batch.edges.barriers.push((barrier, prerequisite));
        self.changes += 1;
    }

    pub fn member(&mut self, job: JobId, barrier: BarrierId) {
        self.batch.edges.members.push((job, barrier));
        self.changes += 1;
    }

    pub fn relation(&mut self, job: JobId, kind: RelationKind, item: i64) {
        self.batch.relations.push((job, kind, item));
        self.changes += 1;
    }

    pub fn lease(&mut self, row: LeaseRow, begins: bool) {
        self.batch.leases.push((row, begins));
        self.changes += 1;
    }

    pub fn append(&mut self, table: Table, row: Row) {
        self.batch.appends.push((table, row));
        self.changes += 1;
    }

    /// Answers the statement's place in the batch.
    pub fn statement(&mut self, statement: Statement) -> usize {
        self.changes += statement.len();
        self.batch.statements.push(statement);
        self.batch.statements.len() - 1
    }

    pub fn sequence(&mut self, sequence: Sequence, reserved: i64) {
        match self.batch.sequences.iter_mut().find(|(of, _)| *of == sequence) {
            Some((_, mark)) => *mark = reserved,
            None => self.batch.sequences.push((sequence, reserved)),
        }
    }
}
