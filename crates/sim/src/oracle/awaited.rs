//! Jobs of endless workflows that wait for others.

use std::collections::BTreeSet;

use forebay_domain::command::Rejection;
use forebay_domain::ids::{JobId, Timestamp, WorkflowId};
use forebay_domain::job::{JobFlags, NewJob};
use forebay_domain::policy::OnEnd;
use forebay_domain::state::{Event, JobState};

use super::{Oracle, Wrong};

impl Oracle {
    pub(super) fn may_wait_for(&self, id: WorkflowId, jobs: &[NewJob]) -> Result<(), Rejection> {
        for (place, job) in jobs.iter().enumerate() {
            if let Some(on) = job.depends_on.iter().find(|on| on.0 < 0 && on.0.unsigned_abs() > place as u64) {
                return Err(Rejection::NoSuchPrerequisite(*on));
            }
        }
        let named: BTreeSet<JobId> = jobs.iter().flat_map(|job| job.depends_on.iter().copied()).collect();
        for on in named.into_iter().filter(|on| on.0 >= 0) {
            let row = self.job(on).map(|job| job.row).filter(|row| row.workflow == id);
            let row = row.ok_or(Rejection::NoSuchPrerequisite(on))?;
            if row.state.has_ended() {
                return Err(Rejection::AlreadyEnded { job: on, state: row.state });
            }
        }
        Ok(())
    }

    /// Others wait for these jobs from now on.
    pub(super) fn await_all(&mut self, id: WorkflowId, jobs: &[NewJob], first: i64) {
        let workflow = self.workflows.get_mut(&id).expect("checked before");
        for on in jobs.iter().flat_map(|job| job.depends_on.iter()) {
            let on = if on.0 < 0 { JobId(first - 1 - on.0) } else { *on };
            let row = &mut workflow.jobs.get_mut(&on).expect("checked before").row;
            if !row.flags.has(JobFlags::AWAITED) {
                row.flags = row.flags.with(JobFlags::AWAITED, true);
                self.dirty.insert(on);
            }
        }
    }

    /// A job waits no more: all that it waited for is completed, or something has ended otherwise.
    pub(super) fn went_on(&mut self, now: Timestamp, job: JobId) -> Result<(), Wrong> {
        let row = self.known(job).map_err(|gone| format!("it went on: {gone:?}"))?;
        let workflow = &self.workflows[&row.workflow];
        let states = workflow.jobs[&job].on.iter().map(|on| workflow.jobs[on].row.state);
        let states: Vec<JobState> = states.collect();
        let is_met = |state: &JobState| *state == JobState::Completed;
        let wrong = |why: Rejection| format!("job {job} went on: {why:?}");
        if row.state != JobState::Blocked || states.is_empty() {
            return Err(format!("{row:?} went on, but waited for nothing"));
        }
        if states.iter().any(|state| state.has_ended() && !is_met(state)) {
            let dead = row.policy.is_some_and(|policy| policy.on_end == OnEnd::DeadLetter);
            let failed = self.change(job, Event::Fail, |row| {
                row.due_at = None;
                row.flags = row.flags.with(JobFlags::BLAMED, true).with(JobFlags::DEAD_LETTER, dead);
            });
            failed.map(drop).map_err(wrong)
        } else if states.iter().all(is_met) {
            let event = if row.due_at.is_some_and(|due| due > now) { Event::Delay } else { Event::Free };
            self.change(job, event, |_| {}).map(drop).map_err(wrong)
        } else {
            Err(format!("{row:?} went on, but waits for {states:?}"))
        }
    }

    /// All that waited for a job that has ended, and for nothing else, went on.
    pub(super) fn awaited(&mut self, job: JobId) -> Result<(), Wrong> {
        let row = self.known(job).map_err(|gone| format!("it was awaited: {gone:?}"))?;
        if !row.state.has_ended() || !row.flags.has(JobFlags::AWAITED) {
            return Err(format!("{row:?} is not awaited any more"));
        }
        let workflow = &self.workflows[&row.workflow];
        let by = workflow.jobs[&job].by.clone();
        let left = by.iter().find(|by| {
            let others = workflow.jobs[by].on.iter().map(|on| workflow.jobs[on].row.state);
            row.state != JobState::Completed || others.into_iter().all(JobState::has_ended)
        });
        if let Some(left) = left {
            return Err(format!("{row:?} is not awaited any more, but {left} waits for nothing else"));
        }
        let workflow = self.workflows.get_mut(&row.workflow).expect("looked up above");
        for by in by {
            workflow.jobs.get_mut(&by).expect("an end of an edge").on.remove(&job);
        }
        let ended = workflow.jobs.get_mut(&job).expect("looked up above");
        ended.by.clear();
        ended.row.flags = ended.row.flags.with(JobFlags::AWAITED, false);
        if workflow.row.is_over(&ended.row) {
            workflow.jobs.remove(&job);
            self.of_job.remove(&job);
            self.dirty.remove(&job);
            self.deleted.insert(job);
        } else {
            self.dirty.insert(job);
        }
        Ok(())
    }
}
