//! The open batch: what has changed since the last one was closed.

use alloc::collections::{BTreeMap, BTreeSet};

use super::{Map, Workflow};
use crate::batch::{Batch, JobDetail, JobWrite, LaneRow, LeaseRow, Sequence};
use crate::catalog::{Row, Statement, Table};
use crate::claim::Needs;
use crate::ids::{JobId, Lsn, RequirementId, WorkflowId};
use crate::job::{JobRow, RelationKind};

#[derive(Debug)]
pub(super) struct OpenBatch {
    batch: Batch,
    /// Where each job stands in the batch that may change again in it.
    places: Map<JobId, usize>,
    workflows: BTreeSet<WorkflowId>,
    sequences: BTreeMap<Sequence, i64>,
    /// How many changes the batch holds, beside those of workflows.
    changes: usize,
}

impl OpenBatch {
    pub fn new(lsn: Lsn) -> OpenBatch {
        OpenBatch {
            batch: Batch { lsn, ..Batch::default() },
            places: Map::default(),
            workflows: BTreeSet::new(),
            sequences: BTreeMap::new(),
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
        self.changes + self.workflows.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0 && self.sequences.is_empty()
    }

    /// Closes the batch; the next one is open.
    pub fn take(&mut self, workflows: &Map<WorkflowId, Workflow>) -> Option<Batch> {
        if self.is_empty() {
            return None;
        }
        let next = OpenBatch::new(self.batch.lsn.next());
        let done = core::mem::replace(self, next);
        let mut batch = done.batch;
        batch.workflows = done.workflows.iter().filter_map(|id| Some(workflows.get(id)?.row)).collect();
        batch.sequences = done.sequences.into_iter().collect();
        Some(batch)
    }

    pub fn job(&mut self, row: JobRow) {
        match self.places.get(&row.id) {
            Some(place) => self.batch.jobs[*place].row = row,
            None => {
                self.places.insert(row.id, self.batch.jobs.len());
                self.batch.jobs.push(JobWrite { row, new: false });
                self.changes += 1;
            }
        }
    }

    pub fn new_job(&mut self, row: JobRow, detail: JobDetail) {
        self.batch.jobs.push(JobWrite { row, new: true });
        self.changes += 1;
        self.batch.details.push(detail);
    }

    pub fn detail(&mut self, detail: JobDetail) {
        self.batch.details.push(detail);
    }

    pub fn delete_job(&mut self, id: JobId) {
        self.batch.jobs_deleted.push(id);
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

    pub fn requirement(&mut self, workflow: WorkflowId, id: RequirementId, needs: Needs) {
        self.batch.requirements.push((workflow, id, needs));
        self.changes += 1;
    }

    pub fn edge(&mut self, job: JobId, prerequisite: JobId) {
        self.batch.edges.push((job, prerequisite));
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
        self.sequences.insert(sequence, reserved);
    }
}
