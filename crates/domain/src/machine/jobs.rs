//! Jobs and requirements as they are created, changed and deleted.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::marches::{Bulk, Newborn};
use super::{LaneKey, Machine, Step, Stop, Work, number};
use crate::batch::{JobDetail, Sequence};
use crate::catalog::{Row, Statement, Table, Value};
use crate::claim::Needs;
use crate::command::{Answer, JobChange, Rejection};
use crate::graph::Graph;
use crate::ids::{BarrierId, JobId, LaneId, Lsn, RequirementId, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow, NewJob};
use crate::port::Read;
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
        self.insert_jobs(id, jobs, None)
    }

    /// All or nothing, as a creation is.
    pub(super) fn spawn_jobs(&mut self, parent: JobId, jobs: &[NewJob]) -> Step {
        let id = self.spawning(parent)?;
        self.check_jobs(id, jobs)?;
        let mut prerequisites: Vec<JobId> =
            jobs.iter().flat_map(|job| job.depends_on.iter().copied()).filter(|job| job.0 > 0).collect();
        prerequisites.push(parent);
        prerequisites.sort_unstable();
        prerequisites.dedup();
        Err(Stop::Prerequisites(id, prerequisites))
    }

    /// The workflow of a job that may bring forth others: they wait for its end, so it has not ended.
    fn spawning(&mut self, parent: JobId) -> Result<WorkflowId, Stop> {
        let row = self.resident_job(parent)?;
        if row.state == JobState::Running {
            Ok(row.workflow)
        } else {
            Err(Rejection::WrongState { job: parent, state: row.state }.into())
        }
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
        if let Some(workflow) = self.workflows.get_mut(&id).filter(|owner| owner.purged.max(owner.bulk) > lsn) {
            // Some of them may be gone or changed since. While more of them change, it waits.
            match &mut workflow.frozen {
                Some(waiting) => waiting.push_back(work),
                None => self.park(Stop::Prerequisites(id, wanted.clone()), work),
            }
            return;
        }
        let found: super::Set<JobId> = rows.iter().filter(|row| row.workflow == id).map(|row| row.id).collect();
        let step = match (wanted.iter().find(|job| !found.contains(*job)), &mut work) {
            (Some(job), _) => Err(Rejection::NoSuchPrerequisite(*job).into()),
            (None, Work::Command(_, crate::command::Command::CreateJobs { jobs, .. })) => {
                // Once more: the workflow may have changed while they were looked up.
                self.check_jobs(id, jobs).and_then(|()| self.insert_jobs(id, jobs, None))
            }
            (None, Work::Command(_, crate::command::Command::SpawnJobs { parent, jobs })) => {
                let parent = *parent;
                // It may have been forgotten since it was looked at first; had it changed, it were there.
                if let Some(row) = rows.iter().find(|row| row.id == parent) {
                    self.load_row(*row);
                }
                let checked = self.spawning(parent).and_then(|id| self.check_jobs(id, jobs));
                checked.and_then(|()| self.insert_jobs(id, jobs, Some(parent)))
            }
            (None, Work::Command(_, crate::command::Command::UpdateJob { job, change })) => {
                // As above.
                if let Some(row) = rows.iter().find(|row| row.id == *job) {
                    self.load_row(*row);
                }
                self.change_job(*job, change)
            }
            (None, Work::Command(..) | Work::Due(_) | Work::Orphan { .. } | Work::GiveBack(_) | Work::Resume(_)) => {
                unreachable!("prerequisites are looked up only for what names some")
            }
        };
        self.conclude(step, work);
    }

    /// With a parent, they wait for its end.
    fn insert_jobs(&mut self, id: WorkflowId, jobs: &mut Vec<NewJob>, parent: Option<JobId>) -> Step {
        let lanes = self.lanes_of(id, jobs)?;
        let first = JobId(self.take_ids(Sequence::Job, jobs.len()));
        let mut jobs = core::mem::take(jobs);
        if let Some(parent) = parent {
            for job in &mut jobs {
                let known = |on: &JobId| if on.0 < 0 { JobId(first.0 - 1 - on.0) } else { *on };
                job.depends_on = job.depends_on.iter().map(known).chain([parent]).collect();
            }
        }
        let born = if parent.is_some() { JobState::Blocked } else { JobState::Draft };
        let (shared, barriers) = barriers(first, &mut jobs);
        let jobs = jobs.into_iter().zip(lanes).zip(shared);
        let jobs = jobs.map(|((job, lane), barrier)| Newborn { job, lane, barrier }).collect();
        // Its graph is read anew when it is needed; loads wait for these jobs to be there.
        self.dirty(id).graph = None;
        self.carry_out(id, Bulk::create(first, jobs, barriers, born))
    }

    /// The lane of each of these jobs; the new ones only if there is room for all.
    pub(super) fn lanes_of(&mut self, id: WorkflowId, jobs: &[NewJob]) -> Result<Vec<LaneId>, Rejection> {
        let default = self.workflows[&id].row.default_requirement;
        let key = |job: &NewJob| (job.requirement.unwrap_or(default), job.scheduler, job.labels.clone());
        let known = &self.workflows[&id].lanes;
        let wanted: BTreeSet<LaneKey> = jobs.iter().map(key).filter(|key| !known.contains_key(key)).collect();
        self.room_for_lanes(id, wanted.len())?;
        let mut lanes: Vec<LaneId> = Vec::with_capacity(jobs.len());
        for job in jobs {
            lanes.push(self.lane_for(id, key(job))?);
        }
        self.reserve_lanes(id);
        Ok(lanes)
    }

    pub(super) fn update_job(&mut self, id: JobId, change: &mut JobChange) -> Step {
        let row = self.resident_job(id)?;
        match change.depends_on.as_mut().filter(|prerequisites| !prerequisites.is_empty()) {
            Some(prerequisites) if row.state == JobState::Draft => {
                prerequisites.sort_unstable();
                Err(Stop::Prerequisites(row.workflow, prerequisites.iter().copied().chain([id]).collect()))
            }
            Some(_) | None => self.change_job(id, change),
        }
    }

    /// What the change names is there.
    fn change_job(&mut self, id: JobId, change: &mut JobChange) -> Step {
        let row = self.resident_job(id)?;
        if (change.draft_only || change.depends_on.is_some()) && row.state != JobState::Draft {
            return Err(Rejection::WrongState { job: id, state: row.state }.into());
        }
        if let Some(priority) = change.priority.filter(|priority| *priority < 0) {
            return Err(Rejection::NegativePriority(priority).into());
        }
        if let Some(on) = change.depends_on.as_ref().and_then(|on| on.iter().find(|on| **on == id)) {
            return Err(Rejection::Cycle([*on, id].into()).into());
        }
        let lane = &self.lanes[&row.lane].row;
        let key = (
            change.requirement.unwrap_or(lane.requirement),
            change.scheduler.unwrap_or(lane.scheduler),
            change.labels.take().unwrap_or_else(|| lane.labels.clone()),
        );
        if !self.workflows[&row.workflow].lanes.contains_key(&key) {
            self.room_for_lanes(row.workflow, 1)?;
        }
        let lane = self.lane_for(row.workflow, key)?;
        self.reserve_what_it_needs(row.workflow);
        let mut changed = row;
        changed.lane = lane;
        changed.priority = change.priority.unwrap_or(row.priority);
        if let Some(cancel) = change.cancel_on_failure {
            changed.flags = changed.flags.with(JobFlags::CANCEL_ON_FAILURE, cancel);
        }
        if let (Some(name), Some(payload)) = (change.name.take(), change.payload.take()) {
            let lsn = self.open.lsn();
            self.dirty(row.workflow).details = lsn;
            drop(self.slots.take_payload(id));
            self.open.detail(JobDetail { job: id, workflow: row.workflow, name, payload });
        }
        // A change of lane or priority is a leave and an enter.
        self.put(changed);
        if let Some(prerequisites) = change.depends_on.take() {
            self.open.replace_edges(id, &prerequisites);
            let lsn = self.open.lsn();
            let workflow = self.dirty(row.workflow);
            workflow.row.has_edges |= !prerequisites.is_empty();
            // It is read anew, with the new edges, when it is needed.
            (workflow.graph, workflow.purged) = (None, lsn);
        }
        Ok(Some(Answer::Done))
    }

    /// Deletes one job; what waited for it alone goes on.
    pub(super) fn delete_job(&mut self, now: Timestamp, id: WorkflowId, job: JobRow, graph: Option<Graph>) -> Answer {
        self.delete(job, false);
        self.reload_lanes(id);
        let lsn = self.open.lsn();
        let workflow = self.dirty(id);
        workflow.purged = lsn;
        workflow.graph = graph;
        if !job.state.has_ended() {
            self.release(now, id, job.id, false);
        }
        // It is read anew, without the deleted job, when it is needed.
        self.dirty(id).graph = None;
        self.reserve_what_it_needs(id);
        Answer::Count(1)
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
            let owner = self.workflows.get_mut(&id).expect("it is resident");
            if let Some(lane) = self.lanes.get_mut(&lane) {
                owner.heads.reshape(lane, needs);
            }
        }
        self.dirty(id);
        self.wake_all(id);
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
            let keys = self.lanes.get_mut(&lane).map(|lane| lane.reload(lsn)).unwrap_or_default();
            for key in keys {
                self.remove_slot(key.id());
            }
            self.stand(lane);
        }
        self.wake_all(id);
    }
}

/// Of jobs that are created together, those that depend on the same others, on two or more, wait at one
/// barrier: which one each job waits at, and what each barrier waits for.
fn barriers(first: JobId, jobs: &mut [NewJob]) -> (Vec<Option<BarrierId>>, Vec<(BarrierId, JobId)>) {
    for job in jobs.iter_mut() {
        let mut on = core::mem::take(&mut job.depends_on).into_vec();
        on.sort_unstable();
        on.dedup();
        job.depends_on = on.into();
    }
    let mut sets: BTreeMap<&[JobId], (BarrierId, usize)> = BTreeMap::new();
    for (id, job) in (first.0..).zip(jobs.iter()).filter(|(_, job)| job.depends_on.len() > 1) {
        sets.entry(&job.depends_on).or_insert((BarrierId(id), 0)).1 += 1;
    }
    sets.retain(|_, (_, members)| *members > 1);
    let of_job = jobs.iter().map(|job| sets.get(&job.depends_on[..]).map(|(barrier, _)| *barrier)).collect();
    let waits = sets.iter().flat_map(|(set, (barrier, _))| set.iter().map(|on| (*barrier, *on))).collect();
    (of_job, waits)
}
