//! Whether a batch, or all that is committed, is what the oracle has.

use std::collections::BTreeSet;

use forebay_domain::batch::{Batch, WorkflowRow};
use forebay_domain::catalog::{Table, Value};
use forebay_domain::ids::{JobId, Ticket, Timestamp, WorkflowId};
use forebay_domain::job::CANCELED_CODE;
use forebay_domain::state::JobState;

use super::{Oracle, Wrong, same_row};
use crate::store::Db;

impl Oracle {
    /// A batch was closed: it must hold what was changed since the last one, as it is now.
    pub fn closed(&mut self, batch: &Batch) -> Result<(), Wrong> {
        for row in &batch.workflows {
            self.name_default(row.id, row.default_requirement);
        }
        for lane in &batch.lanes {
            let key = (lane.requirement, lane.scheduler, lane.labels.clone());
            if self.lanes.values().any(|known| *known == (lane.workflow, key.clone())) {
                return Err(format!("{lane:?} is there already under another number"));
            }
            if self.workflows.contains_key(&lane.workflow) {
                self.lanes.insert(lane.id, (lane.workflow, key));
            }
        }
        for state in &batch.lane_states {
            self.check_lane_state(state).map_err(|why| format!("{:?}: {why}", batch.lsn))?;
        }
        let marching: BTreeSet<WorkflowId> =
            batch.workflows.iter().filter(|row| row.march.is_some()).map(|row| row.id).collect();
        for write in &batch.jobs {
            self.dirty.remove(&write.row.id);
            if marching.contains(&write.row.workflow) {
                self.marched.insert(write.row.id);
                continue;
            }
            let Some(job) = self.job(write.row.id) else {
                let is_gone = self.deleted.contains(&write.row.id) || self.over.contains(&write.row.id);
                if is_gone || self.deleted_workflows.contains(&write.row.workflow) {
                    continue;
                }
                return Err(format!("{:?} writes {:?}, which is not there", batch.lsn, write.row));
            };
            let lane = self.lanes.get(&write.row.lane);
            let in_lane = lane.is_some_and(|(workflow, key)| *workflow == job.row.workflow && *key == job.key);
            if !in_lane || !same_row(&write.row, &job.row) {
                let key = &job.key;
                return Err(format!(
                    "{:?} writes {:?} in {lane:?}, not {:?} in {key:?}",
                    batch.lsn, write.row, job.row
                ));
            }
        }
        if let Some(job) = self.dirty.first() {
            return Err(format!("{:?} does not write job {job}: {:?}", batch.lsn, self.job(*job)));
        }
        for row in &batch.workflows {
            if self.deleted_workflows.contains(&row.id) || marching.contains(&row.id) {
                continue;
            }
            let reserved = |id| WorkflowRow { graph_bytes: row.graph_bytes, ..self.counted(id) };
            let expected = self.workflows.contains_key(&row.id).then(|| reserved(row.id));
            if expected != Some(*row) {
                return Err(format!("{:?} writes {row:?}, not {expected:?}", batch.lsn));
            }
        }
        if let Some(id) = self.dirty_workflows.iter().find(|id| !batch.workflows.iter().any(|row| row.id == **id)) {
            return Err(format!("{:?} does not write workflow {id}", batch.lsn));
        }
        // Of a workflow that marches, or one that was never there for anybody.
        let of_march = |job: &JobId| self.of_job.get(job).is_none_or(|of| marching.contains(of));
        let (marched, deleted): (BTreeSet<JobId>, BTreeSet<JobId>) =
            batch.jobs_deleted.iter().partition(|job| of_march(job) && !self.deleted.contains(job));
        self.marched.extend(marched);
        if let Some(job) = self.deleted.symmetric_difference(&deleted).next() {
            return Err(format!("{:?} deletes {deleted:?}: it is not so for job {job}", batch.lsn));
        }
        let over: BTreeSet<JobId> = batch.jobs_over.iter().copied().collect();
        if over != self.over || over.len() != batch.jobs_over.len() {
            return Err(format!("{:?} removes {:?}, not {:?}", batch.lsn, batch.jobs_over, self.over));
        }
        let deleted = batch.workflows_deleted.iter().copied().collect();
        if self.deleted_workflows != deleted {
            return Err(format!("{:?} deletes {deleted:?}, not {:?}", batch.lsn, self.deleted_workflows));
        }
        let results = batch.appends.iter().filter(|(table, _)| *table == Table::Result);
        let (canceled, results): (Vec<_>, Vec<_>) =
            results.map(|(_, row)| &row[1..10]).partition(|row| row[5] == Value::Int(CANCELED_CODE));
        self.check_cancellations(batch, &canceled, &marching)?;
        if !results.iter().copied().eq(self.results.iter().map(|row| &row[..])) {
            return Err(format!("{:?} appends {results:?}, not {:?}", batch.lsn, self.results));
        }
        self.dirty_workflows.clear();
        self.deleted.clear();
        self.over.clear();
        self.deleted_workflows.clear();
        self.results.clear();
        Ok(())
    }

    /// Whoever was canceled, and nobody reported it, has a result that says so.
    fn check_cancellations(
        &mut self,
        batch: &Batch,
        rows: &[&[Value]],
        marching: &BTreeSet<WorkflowId>,
    ) -> Result<(), Wrong> {
        for row in rows {
            let int = |place: usize| match row[place] {
                Value::Int(n) => n,
                ref other => panic!("a result's numbers are whole, not {other:?}"),
            };
            let kept = [int(1), int(2), int(3), int(4)];
            if int(8) != JobState::Canceled.number() {
                return Err(format!("{:?} keeps {row:?} of a job that was canceled", batch.lsn));
            }
            let workflow = WorkflowId(int(0));
            if self.cancellations.remove(&kept) || self.deleted_workflows.contains(&workflow) {
                continue;
            }
            if !marching.contains(&workflow) {
                return Err(format!("{:?} keeps {row:?}, but nobody canceled it", batch.lsn));
            }
            self.kept_in_parts.insert(kept);
        }
        match self.cancellations.pop_first() {
            Some(lost) => Err(format!("{:?} does not keep that {lost:?} was canceled", batch.lsn)),
            None => Ok(()),
        }
    }

    /// Everything is committed: the store must hold what the oracle holds.
    pub fn check_store(&self, db: &Db) -> Result<(), Wrong> {
        let jobs: usize = self.workflows.values().map(|workflow| workflow.jobs.len()).sum();
        if jobs != db.jobs.len() || self.workflows.len() != db.workflows.len() {
            return Err(format!("{} jobs are stored, not {jobs}", db.jobs.len()));
        }
        self.check_stored_leases(db)?;
        for (id, workflow) in &self.workflows {
            let stored = db.workflows.get(id);
            let graph_bytes = stored.map_or(0, |row| row.graph_bytes);
            let counted = WorkflowRow { graph_bytes, ..self.counted(*id) };
            if stored != Some(&counted) {
                return Err(format!("{stored:?} is stored, not {counted:?}"));
            }
            for (id, job) in &workflow.jobs {
                let stored = db.jobs.get(id);
                if !stored.is_some_and(|row| same_row(row, &job.row) && self.lanes[&row.lane].1 == job.key) {
                    return Err(format!("{stored:?} is stored, not {:?} in {:?}", job.row, job.key));
                }
                if !db.edges_from(*id).into_iter().map(|(_, on)| on).eq(job.on.iter().copied()) {
                    return Err(format!("edges of job {id} are stored otherwise than {:?}", job.on));
                }
                if db.details.get(id).is_none_or(|detail| job.payloads.last() != Some(&detail.payload)) {
                    return Err(format!("the payload of job {id} is stored otherwise"));
                }
            }
        }
        self.check_lane_states(db)?;
        let lanes: i64 = db.workflows.values().map(|row| row.lanes).sum();
        if lanes > self.limits.lanes_max as i64 {
            return Err(format!("{lanes} lanes of workflows that are not complete are stored"));
        }
        match db.stray_edge() {
            Some(edge) => Err(format!("{edge} is stored")),
            None => Ok(()),
        }
    }

    /// Nothing is being read and the timers have fired: nothing that was due may still wait.
    pub fn check_timers(&self, now: Timestamp) -> Result<(), Wrong> {
        for workflow in self.workflows.values() {
            for job in workflow.jobs.values() {
                let never = job.row.state == JobState::Scheduled && job.row.timer().is_none();
                if never || job.row.timer().is_some_and(|at| at <= now) {
                    return Err(format!("{:?} is due at {now:?}", job.row));
                }
            }
        }
        self.check_orphans()?;
        if let Some(row) = self.owed.iter().find(|row| self.is_as_handed(row)) {
            return Err(format!("{row:?} reached nobody, and is not back"));
        }
        Ok(())
    }

    /// A refusal for a bound is right only where the bound can be reached.
    pub(super) fn may_refuse(&self, option: &str, ticket: Ticket) -> Result<(), Wrong> {
        match option {
            "lanes_max" | "waiting_max" | "parked_max" | "leases_max" | "graph_bytes_max" | "step_max" => Ok(()),
            other => Err(format!("{ticket:?} was refused for {other:?}, which is no option")),
        }
    }
}
