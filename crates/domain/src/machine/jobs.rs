//! Jobs and requirements as they are created, changed and deleted.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{LaneKey, Machine, Step, Stop, Work, number};
use crate::batch::{JobDetail, Sequence};
use crate::catalog::{Row, Statement, Table, Value};
use crate::claim::Needs;
use crate::command::{Answer, JobChange, Rejection};
use crate::ids::{JobId, LaneId, Lsn, RequirementId, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow, NewJob};
use crate::port::{GraphRows, Read};
use crate::state::JobState;

impl Machine {
    /// All or nothing: everything is checked before anything is written.
    pub(super) fn create_jobs(&mut self, id: WorkflowId, jobs: &mut Vec<NewJob>) -> Step {
        self.check_jobs(id, jobs)?;
        let mut prerequisites: Vec<JobId> = jobs.iter().flat_map(|job| job.depends_on.iter().copied()).collect();
        if !prerequisites.is_empty() {
            prerequisites.sort_unstable();
            prerequisites.dedup();
            return Err(Stop::Prerequisites(id, prerequisites));
        }
        self.insert_jobs(id, jobs)
    }

    fn check_jobs(&mut self, id: WorkflowId, jobs: &[NewJob]) -> Result<(), Stop> {
        let workflow = self.resident(id)?;
        if workflow.row.archived {
            return Err(Rejection::Archived(id).into());
        }
        let default = workflow.row.default_requirement;
        for job in jobs {
            if job.priority < 0 {
                return Err(Rejection::NegativePriority(job.priority).into());
            }
            let requirement = job.requirement.unwrap_or(default);
            if !workflow.requirements.contains_key(&requirement) {
                return Err(Rejection::NoSuchRequirement(requirement).into());
            }
        }
        Ok(())
    }

    /// The prerequisites of jobs that are to be created were looked up.
    pub(super) fn apply_prerequisites(
        &mut self,
        id: WorkflowId,
        what: &Read,
        lsn: Lsn,
        rows: &[JobRow],
        mut work: Work,
    ) {
        let Read::Jobs(wanted) = what else { unreachable!("jobs were asked for as jobs") };
        if self.workflows.get(&id).is_some_and(|workflow| workflow.purged > lsn) {
            // Some of them may be gone since.
            return self.park(Stop::Prerequisites(id, wanted.clone()), work);
        }
        let found: super::Set<JobId> = rows.iter().filter(|row| row.workflow == id).map(|row| row.id).collect();
        let step = match (wanted.iter().find(|job| !found.contains(*job)), &mut work) {
            (Some(job), _) => Err(Rejection::NoSuchPrerequisite(*job).into()),
            (None, Work::Command(_, crate::command::Command::CreateJobs { jobs, .. })) => {
                // Once more: the workflow may have changed while they were looked up.
                self.check_jobs(id, jobs).and_then(|()| self.insert_jobs(id, jobs))
            }
            (None, Work::Command(..) | Work::Due(_) | Work::GiveBack(_)) => {
                unreachable!("prerequisites are looked up for new jobs only")
            }
        };
        self.conclude(step, work);
    }

    fn insert_jobs(&mut self, id: WorkflowId, jobs: &mut Vec<NewJob>) -> Step {
        let default = self.workflows[&id].row.default_requirement;
        let key = |job: &NewJob| (job.requirement.unwrap_or(default), job.scheduler, job.labels.clone());
        let known = &self.workflows[&id].lanes;
        let wanted: BTreeSet<LaneKey> = jobs.iter().map(key).filter(|key| !known.contains_key(key)).collect();
        if !wanted.is_empty() && self.lanes.len() + wanted.len() > self.limits.lanes_max {
            return Err(Rejection::Limit { option: "lanes_max", max: self.limits.lanes_max as u64 }.into());
        }
        let mut lanes: Vec<LaneId> = Vec::with_capacity(jobs.len());
        for job in jobs.iter() {
            lanes.push(self.lane_for(id, key(job))?);
        }
        let first = self.take_ids(Sequence::Job, jobs.len());
        let lsn = self.open.lsn();
        let workflow = self.dirty(id);
        workflow.row.counts[JobState::Draft as usize] += jobs.len() as i64;
        workflow.row.has_edges |= jobs.iter().any(|job| !job.depends_on.is_empty());
        // It is read anew when it is needed; loads wait for these jobs to be there.
        workflow.graph = None;
        workflow.bulk = lsn;
        workflow.details = lsn;
        for ((job, lane), number) in core::mem::take(jobs).into_iter().zip(lanes).zip(first..) {
            let row = JobRow {
                id: JobId(number),
                workflow: id,
                lane,
                state: JobState::Draft,
                priority: job.priority,
                attempt: 1,
                flags: JobFlags::default().with(JobFlags::CANCEL_ON_FAILURE, job.cancel_on_failure),
                node: None,
                epoch: Default::default(),
                started_at: None,
                due_at: job.not_before,
                result: None,
            };
            self.open.new_job(row, JobDetail { job: row.id, workflow: id, name: job.name, payload: job.payload });
            for prerequisite in job.depends_on {
                self.open.edge(row.id, prerequisite);
            }
            for (kind, item) in job.relations {
                self.open.relation(row.id, kind, item);
            }
        }
        Ok(Some(Answer::Created(first)))
    }

    pub(super) fn update_job(&mut self, id: JobId, change: &mut JobChange) -> Step {
        let row = self.resident_job(id)?;
        if change.draft_only && row.state != JobState::Draft {
            return Err(Rejection::WrongState { job: id, state: row.state }.into());
        }
        if let Some(priority) = change.priority.filter(|priority| *priority < 0) {
            return Err(Rejection::NegativePriority(priority).into());
        }
        let lane = &self.lanes[&row.lane].row;
        let key = (
            change.requirement.unwrap_or(lane.requirement),
            change.scheduler.unwrap_or(lane.scheduler),
            change.labels.take().unwrap_or_else(|| lane.labels.clone()),
        );
        let lane = self.lane_for(row.workflow, key)?;
        let mut changed = row;
        changed.lane = lane;
        changed.priority = change.priority.unwrap_or(row.priority);
        if let Some(cancel) = change.cancel_on_failure {
            changed.flags = changed.flags.with(JobFlags::CANCEL_ON_FAILURE, cancel);
        }
        if let (Some(name), Some(payload)) = (change.name.take(), change.payload.take()) {
            let lsn = self.open.lsn();
            self.dirty(row.workflow).details = lsn;
            self.slots.get_mut(&id).expect("it is resident").payload = None;
            self.open.detail(JobDetail { job: id, workflow: row.workflow, name, payload });
        }
        // A change of lane or priority is a leave and an enter.
        self.put(changed);
        Ok(Some(Answer::Done))
    }

    /// Deletes one job or all; what waited for it alone goes on.
    pub(super) fn delete_jobs_of(
        &mut self,
        now: Timestamp,
        id: WorkflowId,
        job: Option<JobId>,
        rows: &GraphRows,
    ) -> Step {
        let doomed: Vec<JobRow> = rows.jobs.iter().filter(|row| job.is_none_or(|job| job == row.id)).copied().collect();
        if let (Some(job), true) = (job, doomed.is_empty()) {
            return Err(Rejection::NoSuchJob(job).into());
        }
        for row in &doomed {
            if row.state == JobState::Ready
                && let Some(lane) = self.lanes.get_mut(&row.lane)
            {
                lane.leave(row.key());
            }
            self.retime(Some(row), None);
            self.disown(row, JobState::Draft);
            self.remove_slot(row.id);
            self.dirty(id).row.counts[row.state as usize] -= 1;
            self.open.delete_job(row.id);
        }
        self.reload_lanes(id);
        let lsn = self.open.lsn();
        self.dirty(id).purged = lsn;
        if let Some(job) = job {
            let graph = crate::graph::Graph::new(id, &rows.jobs, rows.edges.iter().copied());
            let ended = doomed.iter().any(|row| row.state.has_ended());
            self.workflows.get_mut(&id).expect("it is resident").graph = Some(graph);
            if !ended {
                self.release(now, id, job);
            }
        }
        // It is read anew, without the deleted jobs, when it is needed.
        self.workflows.get_mut(&id).expect("it is resident").graph = None;
        Ok(Some(Answer::Count(doomed.len() as i64)))
    }

    pub(super) fn create_requirements(&mut self, id: WorkflowId, rows: &mut Vec<(Row, Needs)>) -> Step {
        self.resident(id)?;
        let first = self.take_ids(Sequence::Row(Table::Requirement), rows.len());
        let (rows, needs): (Vec<Row>, Vec<Needs>) = core::mem::take(rows).into_iter().unzip();
        for (needs, number) in needs.into_iter().zip(first..) {
            let requirement = RequirementId(number);
            self.open.requirement(id, requirement, needs);
            self.dirty(id).requirements.insert(requirement, needs);
        }
        self.open.statement(Statement::Insert { table: Table::Requirement, rows: number(rows, first) });
        Ok(Some(Answer::Created(first)))
    }

    pub(super) fn update_requirement(
        &mut self,
        id: WorkflowId,
        requirement: RequirementId,
        set: &mut Vec<(usize, Value)>,
        needs: Needs,
    ) -> Step {
        let workflow = self.resident(id)?;
        let Some(known) = workflow.requirements.get_mut(&requirement) else {
            return Err(Rejection::NoSuchRequirement(requirement).into());
        };
        *known = needs;
        let lanes: Vec<LaneId> =
            workflow.lanes.iter().filter(|((of, _, _), _)| *of == requirement).map(|(_, lane)| *lane).collect();
        for lane in lanes {
            if let Some(lane) = self.lanes.get_mut(&lane) {
                lane.needs = needs;
            }
        }
        self.dirty(id);
        self.awake.insert(id);
        self.open.requirement(id, requirement, needs);
        let statement = Statement::Update {
            table: Table::Requirement,
            id: requirement.0,
            only_if: Vec::new(),
            set: core::mem::take(set),
        };
        Ok(Some(Answer::Statement(self.open.statement(statement))))
    }

    /// Puts the jobs of a change in bulk out of memory, where they are known as they were.
    pub(super) fn reload_lanes(&mut self, id: WorkflowId) {
        let lsn = self.open.lsn();
        let workflow = self.dirty(id);
        workflow.bulk = lsn;
        let lanes: Vec<LaneId> = workflow.lanes.values().copied().collect();
        for lane in lanes {
            let Some(lane) = self.lanes.get_mut(&lane) else { continue };
            for key in lane.reload(lsn) {
                self.slots.remove(&key.id());
            }
        }
        self.awake.insert(id);
    }

    /// A row of a change in bulk: written, and no longer as memory may know it.
    pub(super) fn put_in_bulk(&mut self, before: JobRow, row: JobRow) {
        self.retime(Some(&before), Some(&row));
        self.disown(&before, row.state);
        self.remove_slot(row.id);
        self.open.job(row);
        let counts = &mut self.dirty(row.workflow).row.counts;
        counts[before.state as usize] -= 1;
        counts[row.state as usize] += 1;
    }
}
