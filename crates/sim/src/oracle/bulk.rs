//! What is done to all jobs of a workflow at once.

use std::collections::{BTreeMap, BTreeSet};

use forebay_domain::batch::{March, WorkflowRow};
use forebay_domain::claim::Needs;
use forebay_domain::command::{NewWorkflow, Rejection};
use forebay_domain::graph::{Edges, Graph};
use forebay_domain::ids::{JobId, RequirementId, Timestamp, WorkflowId};
use forebay_domain::job::{JobFlags, JobRow, RelationKind};
use forebay_domain::plan;
use forebay_domain::state::JobState;

use super::{Oracle, Workflow, Wrong, wiped};

impl Oracle {
    pub(super) fn create_workflow(&mut self, id: WorkflowId, new: &NewWorkflow) {
        // The machine says which requirement it got: with the batch.
        let mut workflow = Workflow::new(WorkflowRow::new(id, RequirementId(0)));
        workflow.requirements.insert(RequirementId(0), new.needs);
        self.workflows.insert(id, workflow);
        self.dirty_workflows.insert(id);
    }

    pub(super) fn create_application(&mut self, id: WorkflowId) {
        let mut workflow = Workflow::new(WorkflowRow::endless(id, RequirementId(0)));
        let needs = Needs { cpus: 0, memory_bytes: 0, gpus: 0, nodes: 1, runtime_seconds: 0 };
        workflow.requirements.insert(RequirementId(0), needs);
        self.workflows.insert(id, workflow);
        self.dirty_workflows.insert(id);
    }

    /// Number 0 stands for the default requirement until the machine's number is known.
    pub(super) fn name_default(&mut self, id: WorkflowId, number: RequirementId) {
        let Some(workflow) = self.workflows.get_mut(&id) else { return };
        if workflow.row.default_requirement == RequirementId(0) {
            workflow.row.default_requirement = number;
            if let Some(needs) = workflow.requirements.remove(&RequirementId(0)) {
                workflow.requirements.insert(number, needs);
            }
            for job in workflow.jobs.values_mut().filter(|job| job.key.0 == RequirementId(0)) {
                job.key.0 = number;
            }
        }
    }

    /// What a march did in parts is done: its rows were written with the parts.
    pub(super) fn arrive(&mut self) {
        let (dirty, deleted) = (&mut self.dirty, &mut self.deleted);
        self.marched.retain(|job| !dirty.remove(job) && !deleted.remove(job));
        let cancellations = &mut self.cancellations;
        self.kept_in_parts.retain(|kept| !cancellations.remove(kept));
    }

    /// What waited for a job went on in parts.
    pub(super) fn released(&mut self, job: JobId) {
        let Some(now) = self.releasing.remove(&job) else { return };
        let workflow = self.of_job[&job];
        self.release(now, job);
        self.arrive();
        // Of what else the batches of the march wrote nothing is left to be looked at.
        let of_job = &self.of_job;
        self.marched.retain(|job| of_job.get(job) != Some(&workflow));
    }

    /// What has not gone on since a job ended goes on.
    fn release_rest(&mut self, now: Timestamp, job: JobId) {
        let Some(ended) = self.job(job) else { return };
        for dependent in ended.by.clone() {
            let row = self.job(dependent).expect("an end of an edge").row;
            if row.state == JobState::Canceled && row.flags.has(JobFlags::CASCADED) {
                self.release_rest(now, dependent);
            } else {
                self.go_on(now, dependent);
            }
        }
    }

    /// A march that a crash broke off is done from where it came to.
    pub(super) fn resumed(&mut self, now: Timestamp, id: WorkflowId) -> Result<(), Wrong> {
        let why = |rejection: Rejection| format!("the march of workflow {id} was refused: {rejection:?}");
        match self.workflow(id).map_err(why)?.row.march.take() {
            Some(March::Initialize { only_drafts, done }) => {
                let before = self.behind(id, done, true);
                self.initialize(now, id, only_drafts).map_err(why)?;
                self.leave_as(before);
                Ok(())
            }
            Some(March::Reset { failed_only, done }) => {
                let before = self.behind(id, done, false);
                self.reset_jobs(id, failed_only).map_err(why)?;
                self.leave_as(before);
                Ok(())
            }
            Some(March::Delete) => self.delete_jobs(now, id, None).map(drop).map_err(why),
            Some(March::Create { .. }) => Ok(()),
            Some(March::Release { job }) => {
                self.release_rest(self.judged[&id], job);
                Ok(())
            }
            None => Err(format!("workflow {id} did not march")),
        }
    }

    /// The first `done` jobs of a change in bulk, as they are.
    fn behind(&self, id: WorkflowId, done: u32, with_implied: bool) -> Vec<JobRow> {
        let workflow = &self.workflows[&id];
        let rows: Vec<JobRow> = workflow.jobs.values().map(|job| job.row).collect();
        let mut edges = if with_implied { workflow.implied() } else { BTreeSet::new() };
        edges.extend(workflow.jobs.iter().flat_map(|(&job, of)| of.on.iter().map(move |&on| (job, on))));
        let graph = Graph::new(id, &rows, &Edges::between(edges.into_iter().collect()));
        plan::order(&graph).into_iter().take(done as usize).map(|place| rows[place as usize]).collect()
    }

    fn leave_as(&mut self, rows: Vec<JobRow>) {
        for row in rows {
            self.dirty.remove(&row.id);
            let workflow = self.workflows.get_mut(&row.workflow).expect("looked up before");
            workflow.jobs.get_mut(&row.id).expect("of the workflow").row = row;
        }
    }

    pub(super) fn delete_workflow(&mut self, id: WorkflowId) {
        let workflow = self.workflows.remove(&id).expect("checked before");
        for job in workflow.jobs.keys() {
            self.of_job.remove(job);
            self.dirty.remove(job);
        }
        self.leases.forget(id);
        self.lanes.retain(|_, (owner, _)| *owner != id);
        self.dirty_workflows.remove(&id);
        self.deleted_workflows.insert(id);
    }

    pub(super) fn cancel_workflow(&mut self, now: Timestamp, id: WorkflowId) {
        let workflow = self.workflows.get_mut(&id).expect("checked before");
        workflow.row.canceled = true;
        let held: Vec<JobId> =
            workflow.jobs.values().map(|job| job.row).filter(|r| r.state.is_held()).map(|r| r.id).collect();
        for job in held {
            let cancel = |row: &mut JobRow| {
                row.flags = row.flags.with(JobFlags::BLAMED, true);
                row.node = None;
                row.started_at = None;
            };
            self.cancel(job, cancel).expect("what is held can be canceled");
            self.release(now, job);
        }
    }

    pub(super) fn new_run(&mut self, id: WorkflowId, force: bool) -> Result<i64, Rejection> {
        self.workflow(id)?;
        let row = self.counted(id);
        if row.archived {
            return Err(Rejection::Archived(id));
        }
        let held = row.counts[JobState::Claimed as usize] + row.counts[JobState::Running as usize];
        if held > 0 && !force {
            return Err(Rejection::JobsHeld { workflow: id, held });
        }
        let row = &mut self.workflow(id)?.row;
        row.run += 1;
        row.canceled = false;
        Ok(row.run)
    }

    pub(super) fn reset_jobs(&mut self, id: WorkflowId, failed_only: bool) -> Result<i64, Rejection> {
        let workflow = self.workflow(id)?;
        if workflow.row.archived {
            return Err(Rejection::Archived(id));
        }
        let is_chosen = |row: &JobRow| {
            use JobState::{Canceled, Failed, PendingFailed, Terminated};
            !failed_only || matches!(row.state, Failed | Canceled | Terminated | PendingFailed)
        };
        let chosen = workflow.jobs.values().filter(|job| is_chosen(&job.row)).map(|job| job.row.id);
        let reached = workflow.downstream(chosen);
        let mut changed = BTreeSet::new();
        for job in &reached {
            let row = &mut workflow.jobs.get_mut(job).expect("of the workflow").row;
            if row.state != JobState::Draft {
                *row = wiped(row, JobState::Draft);
                changed.insert(*job);
            }
        }
        self.dirty.extend(changed);
        Ok(reached.len() as i64)
    }

    /// torc 1.0.0, `initialize_jobs_core`, with delays.
    pub(super) fn initialize(&mut self, now: Timestamp, id: WorkflowId, only_drafts: bool) -> Result<(), Rejection> {
        let now = self.judged.remove(&id).unwrap_or(now);
        let workflow = self.workflow(id)?;
        if workflow.row.archived {
            return Err(Rejection::Archived(id));
        }
        // 1. What files and user data imply.
        let implied = workflow.implied();
        let mut on: BTreeMap<JobId, BTreeSet<JobId>> =
            workflow.jobs.iter().map(|(&id, job)| (id, job.on.clone())).collect();
        for (job, prerequisite) in &implied {
            on.get_mut(job).expect("of the workflow").insert(*prerequisite);
        }
        if let Some(some) = circle(&on) {
            return Err(Rejection::Cycle(vec![some]));
        }
        for (job, prerequisite) in implied {
            workflow.link(job, prerequisite);
        }
        workflow.row.has_edges = on.values().any(|on| !on.is_empty());
        let before: BTreeMap<JobId, JobRow> = workflow.jobs.iter().map(|(&id, job)| (id, job.row)).collect();
        // 2. Downstream of drafts all is draft.
        if only_drafts {
            let drafts: Vec<JobId> =
                before.values().filter(|row| row.state == JobState::Draft).map(|row| row.id).collect();
            for job in workflow.downstream(drafts.into_iter()) {
                let row = &mut workflow.jobs.get_mut(&job).expect("of the workflow").row;
                if row.state != JobState::Draft {
                    *row = wiped(row, JobState::Draft);
                }
            }
        }
        let judged: BTreeMap<JobId, JobRow> = workflow.jobs.iter().map(|(&id, job)| (id, job.row)).collect();
        let mut changed = BTreeSet::new();
        for (id, row) in &judged {
            use JobState::*;
            let unmet = on[id].iter().any(|on| !judged[on].state.has_ended());
            let is_deadline = row.policy.is_some() && row.state.is_held();
            let later = !is_deadline && row.due_at.is_some_and(|due| due > now);
            let state = match row.state {
                Disabled => Disabled,
                // 3. Who waits is blocked; a scheduled one is not torc's, and waits as a draft does.
                Draft | Scheduled if unmet => Blocked,
                other if only_drafts && other != Draft => other,
                _ if unmet => Blocked,
                // 4. All else that is not done is ready.
                Draft | Blocked | Claimed | Running | Terminated | PendingFailed => {
                    if later {
                        Scheduled
                    } else {
                        Ready
                    }
                }
                Scheduled => {
                    if later {
                        Scheduled
                    } else {
                        Ready
                    }
                }
                Ready | Completed | Failed | Canceled => row.state,
            };
            let job = workflow.jobs.get_mut(id).expect("of the workflow");
            job.row = if state == row.state { *row } else { wiped(row, state) };
            let was = &before[id];
            if was.result.is_some()
                && (was.state.has_ended() || was.state == PendingFailed)
                && job.row.state != was.state
            {
                job.row.attempt += 1;
            }
            if job.row != before[id] {
                changed.insert(*id);
            }
        }
        self.dirty.extend(changed);
        Ok(())
    }

    pub(super) fn delete_jobs(&mut self, now: Timestamp, id: WorkflowId, job: Option<JobId>) -> Result<i64, Rejection> {
        let workflow = self.workflow(id)?;
        let doomed: Vec<JobId> = match job {
            None => workflow.jobs.keys().copied().collect(),
            Some(job) if workflow.jobs.contains_key(&job) => vec![job],
            Some(job) => return Err(Rejection::NoSuchJob(job)),
        };
        let mut freed = BTreeSet::new();
        for job in &doomed {
            let gone = workflow.jobs.remove(job).expect("of the workflow");
            for other in workflow.jobs.values_mut() {
                other.on.remove(job);
                other.by.remove(job);
            }
            workflow.relations.retain(|(of, ..)| of != job);
            if !gone.row.state.has_ended() {
                freed.extend(gone.by);
            }
        }
        for job in &doomed {
            self.of_job.remove(job);
            self.dirty.remove(job);
            self.deleted.insert(*job);
        }
        for job in freed {
            if self.of_job.contains_key(&job) {
                self.go_on(now, job);
            }
        }
        Ok(doomed.len() as i64)
    }
}

impl Workflow {
    /// (who reads, who writes), by files and user data; none from a job to itself.
    fn implied(&self) -> BTreeSet<(JobId, JobId)> {
        use RelationKind::*;
        let mut implied = BTreeSet::new();
        for &(reader, reads, what) in &self.relations {
            for &(writer, writes, item) in &self.relations {
                let matched = matches!((reads, writes), (InputFile, OutputFile) | (InputUserData, OutputUserData));
                if matched && what == item && reader != writer {
                    implied.insert((reader, writer));
                }
            }
        }
        implied
    }
}

/// A job that waits for itself in the end.
fn circle(on: &BTreeMap<JobId, BTreeSet<JobId>>) -> Option<JobId> {
    let mut done: BTreeSet<JobId> = BTreeSet::new();
    let mut left: Vec<JobId> = on.keys().copied().collect();
    loop {
        let before = left.len();
        left.retain(|job| {
            let free = on[job].iter().all(|on| done.contains(on));
            if free {
                done.insert(*job);
            }
            !free
        });
        if left.len() == before {
            return left.first().copied();
        }
    }
}
