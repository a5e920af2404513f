//! What is done to single jobs, and what follows for others.

use forebay_domain::catalog::Value;
use forebay_domain::command::{Again, Completion, JobChange, Rejection, Report};
use forebay_domain::ids::{Grant, JobId, LaneId, NodeId, ResultId, Timestamp, WorkflowId};
use forebay_domain::job::{JobFlags, JobRow, NewJob};
use forebay_domain::policy::{OnEnd, Policy, Tries};
use forebay_domain::state::{Event, JobState};

use super::{Job, Oracle, Wrong, unended};

/// An outcome, or why it was refused.
pub(super) type Outcomes = Vec<(JobId, Result<(), Rejection>)>;

impl Oracle {
    pub(super) fn may_create_jobs(&mut self, id: WorkflowId, jobs: &[NewJob]) -> Result<(), Rejection> {
        let workflow = self.workflow(id)?;
        if workflow.row.archived {
            return Err(Rejection::Archived(id));
        }
        for job in jobs {
            if job.priority < 0 {
                return Err(Rejection::NegativePriority(job.priority));
            }
            let requirement = job.requirement.unwrap_or(workflow.row.default_requirement);
            if !workflow.requirements.contains_key(&requirement) {
                return Err(Rejection::NoSuchRequirement(requirement));
            }
        }
        let mut wanted: Vec<JobId> = jobs.iter().flat_map(|job| job.depends_on.iter().copied()).collect();
        wanted.sort_unstable();
        match wanted.into_iter().find(|job| !workflow.jobs.contains_key(job)) {
            Some(job) => Err(Rejection::NoSuchPrerequisite(job)),
            None => Ok(()),
        }
    }

    /// The workflow that these jobs are to be part of.
    pub(super) fn may_spawn_jobs(&mut self, parent: JobId, jobs: &[NewJob]) -> Result<WorkflowId, Rejection> {
        let row = self.known(parent)?;
        if row.state != JobState::Running {
            return Err(Rejection::WrongState { job: parent, state: row.state });
        }
        let known_before = |job: &NewJob| {
            let depends_on = job.depends_on.iter().copied().filter(|on| on.0 > 0).collect();
            NewJob { depends_on, ..job.clone() }
        };
        self.may_create_jobs(row.workflow, &jobs.iter().map(known_before).collect::<Vec<_>>())?;
        Ok(row.workflow)
    }

    pub(super) fn create_jobs(&mut self, id: WorkflowId, jobs: &[NewJob], first: i64, parent: Option<JobId>) {
        let workflow = self.workflows.get_mut(&id).expect("checked before");
        for (new, number) in jobs.iter().zip(first..) {
            let job = JobId(number);
            let row = JobRow {
                id: job,
                workflow: id,
                lane: LaneId(0),
                state: if parent.is_some() { JobState::Blocked } else { JobState::Draft },
                priority: new.priority,
                attempt: 1,
                flags: JobFlags::default()
                    .with(JobFlags::CANCEL_ON_FAILURE, new.cancel_on_failure)
                    .with(JobFlags::SPAWNED, parent.is_some()),
                node: None,
                grant: Default::default(),
                started_at: None,
                due_at: new.not_before,
                result: None,
                tries: Tries::default(),
                policy: new.policy,
                expires_at: new.expires_at,
            };
            let requirement = new.requirement.unwrap_or(workflow.row.default_requirement);
            let key = (requirement, new.scheduler, new.labels.clone());
            let made =
                Job { row, key, on: Default::default(), by: Default::default(), payloads: vec![new.payload.clone()] };
            workflow.jobs.insert(job, made);
            for on in new.depends_on.iter().copied().chain(parent) {
                let on = if on.0 < 0 { JobId(first - 1 - on.0) } else { on };
                workflow.link(job, on);
                workflow.row.has_edges |= !workflow.row.endless;
            }
            workflow.relations.extend(new.relations.iter().map(|&(kind, item)| (job, kind, item)));
            self.of_job.insert(job, id);
            self.dirty.insert(job);
        }
    }

    pub(super) fn may_enqueue(&mut self, id: WorkflowId, jobs: &[NewJob]) -> Result<(), Rejection> {
        self.endless(id)?;
        for job in jobs {
            if job.priority < 0 {
                return Err(Rejection::NegativePriority(job.priority));
            }
            if let Some(requirement) = job.requirement {
                return Err(Rejection::NoSuchRequirement(requirement));
            }
            if let Some(scheduler) = job.scheduler {
                return Err(Rejection::NoSuchScheduler(scheduler));
            }
        }
        self.may_wait_for(id, jobs)
    }

    /// New jobs that nothing is in the way of but, perhaps, a moment.
    pub(super) fn ready(&mut self, now: Timestamp, jobs: impl Iterator<Item = JobId>) {
        for job in jobs {
            let job_made = self.job(job).expect("just created");
            if !job_made.on.is_empty() {
                self.change(job, Event::Block, |_| {}).expect("a new job can wait");
                continue;
            }
            let row = job_made.row;
            let event = if row.due_at.is_some_and(|due| due > now) { Event::Delay } else { Event::Free };
            self.change(job, event, |_| {}).expect("a new job can be ready");
        }
    }

    pub(super) fn update_job(&mut self, id: JobId, change: &JobChange) -> Result<(), Rejection> {
        let row = self.known(id)?;
        if change.draft_only && row.state != JobState::Draft {
            return Err(Rejection::WrongState { job: id, state: row.state });
        }
        if let Some(priority) = change.priority.filter(|&priority| priority < 0) {
            return Err(Rejection::NegativePriority(priority));
        }
        let workflow = self.workflow(row.workflow)?;
        if let Some(requirement) = change.requirement.filter(|id| !workflow.requirements.contains_key(id)) {
            return Err(Rejection::NoSuchRequirement(requirement));
        }
        let job = workflow.jobs.get_mut(&id).expect("known");
        job.key.0 = change.requirement.unwrap_or(job.key.0);
        job.key.1 = change.scheduler.unwrap_or(job.key.1);
        job.key.2 = change.labels.clone().unwrap_or_else(|| job.key.2.clone());
        job.row.priority = change.priority.unwrap_or(row.priority);
        if let Some(cancel) = change.cancel_on_failure {
            job.row.flags = job.row.flags.with(JobFlags::CANCEL_ON_FAILURE, cancel);
        }
        if let (Some(_), Some(payload)) = (&change.name, &change.payload) {
            job.payloads.push(payload.clone());
        }
        self.dirty.insert(id);
        Ok(())
    }

    pub(super) fn start(&mut self, now: Timestamp, job: JobId, run: i64, node: NodeId) -> Result<JobRow, Rejection> {
        let row = self.known(job)?;
        self.check_run(row.workflow, run)?;
        self.change(job, Event::Start, |row| {
            row.node = Some(node);
            row.started_at = Some(now);
        })
    }

    pub(super) fn complete_all(&mut self, now: Timestamp, report: &Report) -> Outcomes {
        report.completions.iter().map(|one| (one.job, self.complete(now, report.workflow, one))).collect()
    }

    fn complete(&mut self, now: Timestamp, workflow: WorkflowId, completion: &Completion) -> Result<(), Rejection> {
        let Completion { job, run, attempt, node, grant, outcome, again } = completion;
        let row = self.known(*job)?;
        if row.workflow != workflow {
            return Err(Rejection::OtherWorkflow { job: *job, workflow });
        }
        let event = match outcome.state {
            JobState::Completed => Event::Complete,
            JobState::Failed => Event::Fail,
            JobState::Canceled => Event::Cancel,
            JobState::Terminated => Event::Terminate,
            JobState::PendingFailed => Event::Doubt,
            other => return Err(Rejection::NotAnOutcome(other)),
        };
        if row.state.has_ended() {
            return Err(Rejection::AlreadyEnded { job: *job, state: row.state });
        }
        self.check_run(workflow, *run)?;
        if let Some(given) = attempt.filter(|&given| given != row.attempt) {
            return Err(Rejection::AttemptMismatch { job: *job, given, current: row.attempt });
        }
        if let (Some(given), Some(current)) = (*node, row.node)
            && given != current
        {
            return Err(Rejection::NodeMismatch { job: *job, given, current });
        }
        let holder = row.state.is_held().then_some(row.grant);
        if let Some(given) = grant.filter(|&given| Some(given) != holder) {
            return Err(Rejection::GrantMismatch { job: *job, given, current: holder });
        }
        let again = again.filter(|_| outcome.state == JobState::Failed).zip(row.policy);
        if again.is_some() && !row.state.is_held() {
            return Err(Rejection::WrongState { job: *job, state: row.state });
        }
        let blamed = match outcome.state {
            JobState::Failed => outcome.return_code != 0,
            state => state == JobState::Canceled || state == JobState::Terminated,
        };
        let endless = self.workflows[&workflow].row.endless;
        let result = (!endless).then_some(ResultId(0));
        let ended = match again {
            Some((again, policy)) => self.try_again(now, row, again, policy)?,
            None => self.change(*job, event, |row| {
                let dead = outcome.state == JobState::Failed && is_kept(row);
                row.flags = row.flags.with(JobFlags::BLAMED, blamed).with(JobFlags::DEAD_LETTER, dead);
                row.node = None;
                row.started_at = None;
                row.result = result;
            })?,
        };
        if !endless {
            self.results.push(
                [
                    Value::Int(workflow.0),
                    Value::Int(job.0),
                    Value::Int(*run),
                    Value::Int(row.attempt),
                    Value::Int(node.or(row.node).map_or(0, |node| node.0)),
                    Value::Int(outcome.return_code),
                    Value::Real(outcome.exec_time_minutes),
                    Value::Text(outcome.completion_time.clone()),
                    Value::Int(outcome.state.number()),
                ]
                .into(),
            );
        }
        if ended.state.has_ended() {
            self.release(now, *job);
        }
        Ok(())
    }

    /// After a failure: another attempt, at once or later, or the end.
    fn try_again(&mut self, now: Timestamp, row: JobRow, again: Again, policy: Policy) -> Result<JobRow, Rejection> {
        let failures = row.tries.failures + 1;
        let result = (!self.workflows[&row.workflow].row.endless).then_some(ResultId(0));
        let left = again.failures_max.or(policy.failures_max).is_none_or(|max| failures < max.get());
        let delay_ms = again.delay_ms.unwrap_or_else(|| policy.backoff.delay_ms(row.id, row.attempt, failures));
        let event = match (left, delay_ms > 0) {
            (false, _) => Event::Fail,
            (true, true) => Event::Delay,
            (true, false) => Event::Retry,
        };
        self.change(row.id, event, |row| {
            row.tries.failures = failures;
            row.result = result;
            row.node = None;
            row.started_at = None;
            match event {
                Event::Fail => {
                    row.flags = row.flags.with(JobFlags::BLAMED, true).with(JobFlags::DEAD_LETTER, is_kept(row));
                }
                _ => {
                    row.attempt += 1;
                    row.due_at = (delay_ms > 0).then(|| now.after(delay_ms));
                }
            }
        })
    }

    /// An attempt is over, and nobody reported it.
    pub(super) fn lose(&mut self, now: Timestamp, row: JobRow) -> Result<(), Rejection> {
        let losses = row.tries.losses + 1;
        let left = row
            .policy
            .is_none_or(|policy| !policy.at_most_once && policy.losses_max.is_none_or(|max| losses < max.get()));
        self.change(row.id, if left { Event::Retry } else { Event::Fail }, |row| {
            if row.policy.is_some() {
                row.tries.losses = losses;
            }
            row.node = None;
            row.started_at = None;
            if left {
                row.attempt += 1;
                row.due_at = None;
            } else {
                row.flags = row.flags.with(JobFlags::BLAMED, true).with(JobFlags::DEAD_LETTER, is_kept(row));
            }
        })?;
        if !left {
            self.release(now, row.id);
        }
        Ok(())
    }

    /// A job has ended: what waited for it alone goes on.
    pub(super) fn release(&mut self, now: Timestamp, job: JobId) {
        // One that is over has none; those of a march go on at its end.
        let Some(ended) = self.job(job).filter(|_| !self.releasing.contains_key(&job)) else { return };
        if self.workflows[&ended.row.workflow].row.endless {
            // Who waits for it is seen to later.
            return;
        }
        for dependent in ended.by.clone() {
            self.go_on(now, dependent);
        }
    }

    /// A blocked job whose prerequisites have all ended is free, or canceled if one failed.
    pub(super) fn go_on(&mut self, now: Timestamp, job: JobId) {
        let workflow = &self.workflows[&self.of_job[&job]];
        let row = workflow.jobs[&job].row;
        // One that waits for what goes on in parts is one of those parts.
        let in_parts = workflow.jobs[&job].on.iter().any(|on| self.releasing.contains_key(on));
        if row.state != JobState::Blocked || in_parts || !workflow.is_met(job) {
            return;
        }
        if workflow.is_blamed(job) && row.flags.has(JobFlags::CANCEL_ON_FAILURE) {
            self.cancel(job, |row| {
                row.flags = row.flags.with(JobFlags::BLAMED, true).with(JobFlags::CASCADED, true);
            })
            .expect("a blocked job can be canceled");
            self.release(now, job);
        } else {
            let event = if row.due_at.is_some_and(|due| due > now) { Event::Delay } else { Event::Free };
            self.change(job, event, |_| {}).expect("a blocked job can be freed");
        }
    }

    /// A job that had ended is to be done again: what was freed or canceled since waits for it again.
    fn rearm(&mut self, job: JobId) {
        let workflow = &self.workflows[&self.of_job[&job]];
        for dependent in workflow.jobs[&job].by.clone() {
            let row = self.job(dependent).expect("an end of an edge").row;
            let cascaded = row.state == JobState::Canceled && row.flags.has(JobFlags::CASCADED);
            if cascaded || matches!(row.state, JobState::Ready | JobState::Scheduled) {
                self.change(dependent, Event::Block, |row| {
                    row.result = row.result.filter(|_| !cascaded);
                    row.flags = row.flags.with(JobFlags::BLAMED, false).with(JobFlags::CASCADED, false);
                })
                .expect("a job that has not begun can wait again");
            }
            if cascaded {
                self.rearm(dependent);
            }
        }
    }

    pub(super) fn retry(
        &mut self,
        now: Timestamp,
        job: JobId,
        run: i64,
        attempts_max: i64,
        delay_ms: i64,
    ) -> Result<JobRow, Rejection> {
        let row = self.known(job)?;
        self.check_run(row.workflow, run)?;
        let event = if delay_ms > 0 { Event::Delay } else { Event::Retry };
        if row.state.on(Event::Retry).is_none() || row.state.on(event).is_none() {
            return Err(Rejection::WrongState { job, state: row.state });
        }
        if row.attempt >= attempts_max {
            return Err(Rejection::NoAttemptLeft { job, attempt: row.attempt, attempts_max });
        }
        let due_at = (delay_ms > 0).then(|| now.after(delay_ms));
        self.again(now, row, event, due_at)
    }

    fn again(
        &mut self,
        now: Timestamp,
        before: JobRow,
        event: Event,
        due_at: Option<Timestamp>,
    ) -> Result<JobRow, Rejection> {
        let row = self.change(before.id, event, |row| {
            row.attempt += 1;
            row.node = None;
            row.started_at = None;
            row.due_at = due_at;
            row.tries = Tries::default();
            if row.expires_at.is_some_and(|expires| expires <= now) {
                row.expires_at = None;
            }
            row.flags = unended(row.flags);
        })?;
        if before.state.has_ended() {
            self.rearm(row.id);
        }
        Ok(row)
    }

    pub(super) fn set_state(
        &mut self,
        now: Timestamp,
        job: JobId,
        run: i64,
        state: JobState,
    ) -> Result<JobRow, Rejection> {
        let before = self.known(job)?;
        self.check_run(before.workflow, run)?;
        if before.state == state {
            return Ok(before);
        }
        let event = match state {
            JobState::Draft => Event::Reset,
            JobState::Blocked if self.workflows[&before.workflow].row.endless => {
                return Err(Rejection::WrongState { job, state: before.state });
            }
            JobState::Blocked => Event::Block,
            JobState::Ready if before.state.is_held() => Event::GiveBack,
            JobState::Ready if before.state.has_ended() || before.state == JobState::PendingFailed => {
                return self.again(now, before, Event::Retry, None);
            }
            JobState::Ready => Event::Free,
            JobState::Claimed => Event::Claim,
            JobState::Running => Event::Start,
            JobState::Disabled => Event::Disable,
            JobState::PendingFailed => Event::Doubt,
            JobState::Canceled => Event::Cancel,
            JobState::Terminated => Event::Terminate,
            JobState::Completed | JobState::Failed | JobState::Scheduled => {
                return Err(Rejection::WrongState { job, state: before.state });
            }
        };
        let grant = self.granted.next();
        let edit = |row: &mut JobRow| {
            if event == Event::Claim {
                hand_out(row, now, grant);
            }
            if event != Event::Claim && event != Event::Start {
                row.node = None;
                row.started_at = None;
            }
            let blamed = row.state.has_ended();
            row.flags = unended(row.flags).with(JobFlags::BLAMED, blamed);
        };
        let row = if event == Event::Cancel { self.cancel(job, edit)? } else { self.change(job, event, edit)? };
        if event == Event::Claim {
            self.granted = grant;
        }
        match (before.state.has_ended(), row.state.has_ended()) {
            (false, true) => self.release(now, job),
            (true, false) => self.rearm(job),
            (false, false) | (true, true) => {}
        }
        Ok(row)
    }

    pub(super) fn due(&mut self, now: Timestamp, job: JobId) -> Result<(), Wrong> {
        let row = self.known(job).map_err(|gone| format!("a job came due: {gone:?}"))?;
        let wrong = |why: Rejection| format!("job {job} came due at {now:?}: {why:?}");
        let is_past = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        match row.state {
            JobState::Scheduled | JobState::Ready if is_past(row.expires_at) => {
                let ended = self.change(job, Event::Fail, |row| {
                    row.due_at = None;
                    row.flags = row.flags.with(JobFlags::BLAMED, true).with(JobFlags::DEAD_LETTER, is_kept(row));
                });
                ended.map_err(wrong)?;
                self.release(now, job);
                Ok(())
            }
            JobState::Scheduled if is_past(row.due_at) => {
                self.change(job, Event::Free, |row| row.due_at = None).map(drop).map_err(wrong)
            }
            JobState::Claimed | JobState::Running if row.policy.is_some() && is_past(row.due_at) => {
                self.lose(now, row).map_err(wrong)
            }
            _ => Err(format!("job {job} came due at {now:?}, but it is {row:?}")),
        }
    }
}

/// Its end without success is to be looked at.
fn is_kept(row: &JobRow) -> bool {
    row.policy.is_some_and(|policy| policy.on_end == OnEnd::DeadLetter)
}

/// The time of an attempt begins with its claim.
pub(super) fn hand_out(row: &mut JobRow, now: Timestamp, grant: Grant) {
    row.grant = grant;
    if let Some(policy) = row.policy {
        row.due_at = (policy.deadline_ms > 0).then(|| now.after(policy.deadline_ms.into()));
    }
}
