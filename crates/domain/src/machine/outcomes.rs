//! Starts, outcomes, retries, and what follows from them: dependents freed, canceled or re-armed.

use alloc::vec::Vec;

use super::claims::begin;
use super::{Machine, Slot, Step, Stop, Trace};
use crate::batch::{Sequence, WorkflowRow};
use crate::catalog::{Row, Statement, Table, Value};
use crate::command::{Answer, Completion, Rejection, Report};
use crate::ids::{JobId, NodeId, ResultId, Ticket, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow, Outcome};
use crate::plan;
use crate::policy::{OnEnd, Tries};
use crate::state::{Event, JobState};

impl Machine {
    pub(super) fn start(&mut self, now: Timestamp, job: JobId, run: i64, node: NodeId) -> Step {
        let workflow = self.resident_workflow_of(job)?;
        self.check_run(workflow, run)?;
        self.transition(job, Event::Start, |row| {
            row.node = Some(node);
            row.started_at = Some(now);
        })?;
        Ok(Some(self.job_answer(job)))
    }

    /// Accepts each outcome alone, then claims if asked to.
    pub(super) fn report(&mut self, now: Timestamp, ticket: Ticket, report: &mut Report) -> Step {
        let endless = self.resident(report.workflow)?.row.endless;
        if let Some(claim) = &report.claim {
            claim.goes_with(endless)?;
        }
        if !report.completions.is_empty() {
            self.needs_graph(report.workflow)?;
            self.needs_jobs(report.workflow, report.completions.iter().map(|completion| completion.job))?;
        }
        if report.claim.is_some() && self.waiters.len() >= self.limits.waiting_max {
            // Before anything is accepted: its claim could not wait.
            return Err(Rejection::Limit { option: "waiting_max", max: self.limits.waiting_max as u64 }.into());
        }
        if let Some(claim) = &report.claim {
            self.needs_lease(now, claim.start_on.filter(|_| claim.leased))?;
        }
        let mut completions = core::mem::take(&mut report.completions);
        // What one outcome sets free may push the job of another out of its window.
        let keep = completions.len() > 1;
        let row_of = |completion: &Completion| Some(self.slots.get(&completion.job)?.row);
        let rows: Vec<Option<JobRow>> = completions.iter().filter(|_| keep).map(row_of).collect();
        // A job that waits and is reported all the same may be one that another outcome frees: that is
        // not left for later.
        let in_parts = !rows.iter().flatten().any(|row| row.state == JobState::Blocked);
        let mut outcomes = Vec::with_capacity(completions.len());
        for (place, completion) in completions.iter_mut().enumerate() {
            if let Some(row) = rows.get(place).copied().flatten() {
                self.load_row(row);
            }
            outcomes.push((completion.job, self.complete(now, report.workflow, completion, in_parts)));
        }
        match report.claim.take() {
            Some(claim) => {
                self.tracer.note(Trace::Reported(ticket));
                self.begin_claim(now, ticket, *claim, Some(outcomes))
            }
            None => {
                let row = &self.workflows[&report.workflow].row;
                let (is_complete, is_canceled) = (row.is_complete(), row.canceled);
                Ok(Some(Answer::Reported { outcomes, claimed: None, is_complete, is_canceled }))
            }
        }
    }

    /// Stops unless all of these jobs are in memory, or known not to be there. If one is not, all are
    /// read at once: one by one, the first may be forgotten before the last is there.
    pub(super) fn needs_jobs(
        &self,
        workflow: WorkflowId,
        jobs: impl Iterator<Item = JobId> + Clone,
    ) -> Result<(), Stop> {
        let is_known = |job: JobId| self.slots.contains_key(&job) || self.absent.contains(&job);
        if jobs.clone().all(is_known) { Ok(()) } else { Err(Stop::Jobs(workflow, jobs.collect())) }
    }

    /// The fence, then the outcome with all that follows from it.
    fn complete(
        &mut self,
        now: Timestamp,
        workflow: WorkflowId,
        completion: &mut Completion,
        in_parts: bool,
    ) -> Result<(), Rejection> {
        let Completion { job, run, attempt, node, grant, outcome, again } = completion;
        let row = self.slots.get(job).ok_or(Rejection::NoSuchJob(*job))?.row;
        if self.workflows.get(&row.workflow).is_some_and(|owner| owner.row.is_over(&row)) {
            return Err(Rejection::NoSuchJob(*job));
        }
        if row.workflow != workflow {
            return Err(Rejection::OtherWorkflow { job: *job, workflow });
        }
        let event = match outcome.state {
            JobState::Completed => Event::Complete,
            JobState::Failed => Event::Fail,
            JobState::Canceled => Event::Cancel,
            JobState::Terminated => Event::Terminate,
            JobState::PendingFailed => Event::Doubt,
            JobState::Draft
            | JobState::Blocked
            | JobState::Ready
            | JobState::Claimed
            | JobState::Running
            | JobState::Disabled
            | JobState::Scheduled => return Err(Rejection::NotAnOutcome(outcome.state)),
        };
        if row.state.has_ended() {
            return Err(Rejection::AlreadyEnded { job: *job, state: row.state });
        }
        let current_run = self.workflows[&workflow].row.run;
        if *run != current_run {
            return Err(Rejection::RunMismatch { given: *run, current: current_run });
        }
        if let Some(given) = attempt.filter(|given| *given != row.attempt) {
            return Err(Rejection::AttemptMismatch { job: *job, given, current: row.attempt });
        }
        if let (Some(given), Some(current)) = (*node, row.node)
            && given != current
        {
            return Err(Rejection::NodeMismatch { job: *job, given, current });
        }
        if let Some(given) = grant.filter(|given| row.held_by() != Some(*given)) {
            return Err(Rejection::GrantMismatch { job: *job, given, current: row.held_by() });
        }
        row.state.on(event).ok_or(Rejection::WrongState { job: *job, state: row.state })?;
        let again = again.as_ref().filter(|_| outcome.state == JobState::Failed && row.policy.is_some());
        if again.is_some() && !row.state.is_held() {
            return Err(Rejection::WrongState { job: *job, state: row.state });
        }
        let node = node.or(row.node);
        let result = self.keep_outcome(&row, node, outcome);
        let blamed = match outcome.state {
            JobState::Failed => outcome.return_code != 0,
            state => matches!(state, JobState::Canceled | JobState::Terminated),
        };
        if let Some(again) = again {
            return self.try_again(now, row, again, result);
        }
        let dead = event == Event::Fail && row.policy.is_some_and(|policy| policy.on_end == OnEnd::DeadLetter);
        self.transition(*job, event, |row| {
            row.result = result;
            row.node = None;
            row.started_at = None;
            row.flags = row.flags.with(JobFlags::BLAMED, blamed).with(JobFlags::DEAD_LETTER, dead);
        })?;
        if self.row(*job).state.has_ended() {
            self.release(now, workflow, *job, in_parts);
        }
        Ok(())
    }

    /// Keeps an outcome as a row of its own, which takes its text. Of endless workflows none is kept.
    fn keep_outcome(&mut self, row: &JobRow, node: Option<NodeId>, outcome: &mut Outcome) -> Option<ResultId> {
        let WorkflowRow { run, endless, .. } = self.workflows[&row.workflow].row;
        if endless {
            return None;
        }
        let result = ResultId(self.take_ids(Sequence::Row(Table::Result), 1));
        self.open.append(Table::Result, result_row(result, run, row, node, outcome));
        Some(result)
    }

    /// A job is canceled, and nobody reports that: it is an outcome all the same.
    pub(super) fn keep_cancellation(&mut self, now: Timestamp, row: &JobRow) -> Option<ResultId> {
        self.keep_outcome(row, row.node, &mut Outcome::canceled(now, row.started_at))
    }

    /// Results that a client brings along: each is the latest of its job from now on.
    pub(super) fn insert_results(&mut self, workflow: WorkflowId, rows: &mut Vec<Row>) -> Step {
        let column = Table::Result.column("job_id").expect("a result names its job");
        let job_of = |row: &Row| match row[column] {
            Value::Int(job) => JobId(job),
            Value::Null | Value::Real(_) | Value::Text(_) => JobId(0),
        };
        self.resident(workflow)?;
        let jobs: Vec<JobId> = rows.iter().map(job_of).collect();
        self.needs_jobs(workflow, jobs.iter().copied())?;
        let mut found = Vec::with_capacity(jobs.len());
        for job in jobs {
            let row = self.slots.get(&job).ok_or(Rejection::NoSuchJob(job))?.row;
            if row.workflow != workflow {
                return Err(Rejection::OtherWorkflow { job, workflow }.into());
            }
            found.push(row);
        }
        let first = self.take_ids(Sequence::Row(Table::Result), rows.len());
        let rows = super::number(core::mem::take(rows), first);
        self.open.statement(Statement::Insert { table: Table::Result, rows });
        for (row, id) in found.into_iter().zip(first..) {
            self.load_row(row);
            self.put(JobRow { result: Some(ResultId(id)), ..row });
        }
        Ok(Some(Answer::Created(first)))
    }

    /// A job has ended: what waited for it alone is free, or canceled if it failed; and so on from there.
    /// `in_parts`: if these are many, they may go on behind what is being done.
    pub(super) fn release(&mut self, now: Timestamp, workflow: WorkflowId, job: JobId, in_parts: bool) {
        if self.workflows.get(&workflow).is_none_or(|owner| owner.graph.is_none()) {
            return;
        }
        let mut ended = alloc::vec![job];
        while let Some(job) = ended.pop() {
            let Some(owner) = self.workflows.get_mut(&workflow) else { return };
            let may_march = in_parts && owner.frozen.is_none();
            let Some(graph) = owner.graph.as_mut() else { return };
            let Some(place) = graph.place(job) else { continue };
            let blamed = graph.flags(place).has(JobFlags::BLAMED);
            let mut met = graph.meet(place, blamed);
            met.retain(|dependent| graph.state(*dependent) == JobState::Blocked);
            if met.len() > self.limits.step_max && may_march {
                let rows = plan::go_on(graph, now, met);
                self.release_in_parts(now, workflow, job, rows);
                continue;
            }
            let met = met.into_iter().map(|dependent| (graph.row(dependent), graph.blamed(dependent)));
            for (row, blamed) in met.collect::<Vec<_>>() {
                self.load_row(row);
                if blamed && row.flags.has(JobFlags::CANCEL_ON_FAILURE) {
                    let result = self.keep_cancellation(now, &row);
                    let flag = |row: &mut JobRow| {
                        row.result = result;
                        row.flags = row.flags.with(JobFlags::BLAMED, true).with(JobFlags::CASCADED, true);
                    };
                    self.transition(row.id, Event::Cancel, flag).expect("a blocked job can be canceled");
                    ended.push(row.id);
                } else {
                    self.free(now, row.id, row.due_at);
                }
            }
        }
    }

    /// Nothing is in the way of a job any more but, perhaps, the moment before which it shall not run.
    pub(super) fn free(&mut self, now: Timestamp, job: JobId, due_at: Option<Timestamp>) {
        let event = if due_at.is_some_and(|due| due > now) { Event::Delay } else { Event::Free };
        self.transition(job, event, |_| {}).expect("a blocked job can be freed");
    }

    /// A job that had ended is to be done again: what was freed or canceled since it ended, and has
    /// not begun, waits for it again.
    fn rearm(&mut self, workflow: WorkflowId, job: JobId, was_blamed: bool) {
        let mut again = alloc::vec![(job, was_blamed)];
        while let Some((job, was_blamed)) = again.pop() {
            let Some(graph) = self.workflows.get_mut(&workflow).and_then(|owner| owner.graph.as_mut()) else { return };
            let Some(place) = graph.place(job) else { continue };
            let mut blocked = Vec::new();
            for dependent in graph.unmeet(place, was_blamed) {
                match graph.state(dependent) {
                    JobState::Ready | JobState::Scheduled => blocked.push((graph.row(dependent), false)),
                    JobState::Canceled if graph.flags(dependent).has(JobFlags::CASCADED) => {
                        blocked.push((graph.row(dependent), true));
                    }
                    JobState::Draft
                    | JobState::Blocked
                    | JobState::Claimed
                    | JobState::Running
                    | JobState::Completed
                    | JobState::Failed
                    | JobState::Canceled
                    | JobState::Terminated
                    | JobState::Disabled
                    | JobState::PendingFailed => {}
                }
            }
            for (row, had_ended) in blocked {
                self.load_row(row);
                // It was canceled before it began, and may begin now: that is no outcome any more.
                if let Some(result) = row.result.filter(|_| had_ended) {
                    self.open.statement(Statement::Delete { table: Table::Result, id: result.0 });
                }
                let clear = |row: &mut JobRow| {
                    row.result = row.result.filter(|_| !had_ended);
                    row.flags = row.flags.with(JobFlags::BLAMED, false).with(JobFlags::CASCADED, false);
                };
                self.transition(row.id, Event::Block, clear).expect("a job that has not begun can wait again");
                if had_ended {
                    again.push((row.id, row.flags.has(JobFlags::BLAMED)));
                }
            }
        }
    }

    /// Takes a row as it is now into memory, unless the job is there.
    pub(super) fn load_row(&mut self, row: JobRow) {
        let lsn = self.committed;
        let armed = self.workflows.get(&row.workflow).map_or(lsn, |workflow| workflow.bulk);
        if !self.slots.contains_key(&row.id) {
            self.recent.push_back((lsn, row.id));
            self.slots.insert(Slot::read(row, lsn)).armed = armed;
        }
    }

    pub(super) fn retry(&mut self, now: Timestamp, job: JobId, run: i64, attempts_max: i64, delay_ms: i64) -> Step {
        let row = self.resident_job(job)?;
        self.needs_graph(row.workflow)?;
        self.check_run(row.workflow, run)?;
        let event = if delay_ms > 0 { Event::Delay } else { Event::Retry };
        if row.state.on(Event::Retry).is_none() || row.state.on(event).is_none() {
            return Err(Rejection::WrongState { job, state: row.state }.into());
        }
        if row.attempt >= attempts_max {
            return Err(Rejection::NoAttemptLeft { job, attempt: row.attempt, attempts_max }.into());
        }
        self.lanes_fit(row.workflow, 0)?;
        let due_at = (delay_ms > 0).then(|| now.after(delay_ms));
        let again = self.again(now, row, event, due_at)?;
        Ok(Some(again))
    }

    /// A new attempt of a job, now or later.
    fn again(
        &mut self,
        now: Timestamp,
        row: JobRow,
        event: Event,
        due_at: Option<Timestamp>,
    ) -> Result<Answer, Rejection> {
        self.transition(row.id, event, |row| {
            row.attempt += 1;
            row.node = None;
            row.started_at = None;
            row.due_at = due_at;
            // Whoever sends it back means it: what was counted, and what ended it, is over.
            row.tries = Tries::default();
            row.expires_at = row.expires_at.filter(|expires| *expires > now);
            let flags = row.flags.with(JobFlags::BLAMED, false).with(JobFlags::CASCADED, false);
            row.flags = flags.with(JobFlags::DEAD_LETTER, false);
        })?;
        if row.state.has_ended() {
            self.rearm(row.workflow, row.id, row.flags.has(JobFlags::BLAMED));
        }
        Ok(self.job_answer(row.id))
    }

    /// A state set by hand.
    pub(super) fn set_state(&mut self, now: Timestamp, job: JobId, run: i64, state: JobState) -> Step {
        let row = self.resident_job(job)?;
        self.needs_graph(row.workflow)?;
        self.check_run(row.workflow, run)?;
        if row.state == state {
            return Ok(Some(self.job_answer(job)));
        }
        let wrong = Rejection::WrongState { job, state: row.state };
        if !state.is_settled() {
            self.lanes_fit(row.workflow, 0)?;
        }
        let event = match state {
            JobState::Draft => Event::Reset,
            // There, who is blocked waits for somebody.
            JobState::Blocked if self.workflows[&row.workflow].row.endless => return Err(wrong.into()),
            JobState::Blocked => Event::Block,
            JobState::Ready if row.state.is_held() => Event::GiveBack,
            JobState::Ready if row.state.has_ended() || row.state == JobState::PendingFailed => {
                return Ok(Some(self.again(now, row, Event::Retry, None)?));
            }
            JobState::Ready => Event::Free,
            JobState::Claimed => Event::Claim,
            JobState::Running => Event::Start,
            JobState::Disabled => Event::Disable,
            JobState::PendingFailed => Event::Doubt,
            JobState::Canceled => Event::Cancel,
            JobState::Terminated => Event::Terminate,
            JobState::Completed | JobState::Failed | JobState::Scheduled => return Err(wrong.into()),
        };
        let grant = self.granted.next();
        let held = matches!(event, Event::Claim | Event::Start);
        let is_canceled = event == Event::Cancel && row.state.on(event).is_some();
        let canceled = is_canceled.then(|| self.keep_cancellation(now, &row)).flatten();
        self.transition(job, event, |row| {
            if event == Event::Claim {
                begin(row, now, grant);
            }
            row.result = canceled.or(row.result);
            if !held {
                row.node = None;
                row.started_at = None;
            }
            let flags = row.flags.with(JobFlags::BLAMED, row.state.has_ended()).with(JobFlags::CASCADED, false);
            row.flags = flags.with(JobFlags::DEAD_LETTER, false);
        })?;
        if event == Event::Claim {
            self.granted = grant;
        }
        match (row.state.has_ended(), self.row(job).state.has_ended()) {
            (false, true) => self.release(now, row.workflow, job, true),
            (true, false) => self.rearm(row.workflow, job, row.flags.has(JobFlags::BLAMED)),
            (false, false) | (true, true) => {}
        }
        Ok(Some(self.job_answer(job)))
    }

    fn check_run(&self, workflow: WorkflowId, given: i64) -> Result<(), Rejection> {
        let current = self.workflows[&workflow].row.run;
        if given == current { Ok(()) } else { Err(Rejection::RunMismatch { given, current }) }
    }
}

/// In the order of the columns of `Table::Result`.
fn result_row(id: ResultId, run: i64, row: &JobRow, node: Option<NodeId>, outcome: &mut Outcome) -> Row {
    let int = |value: Option<i64>| value.map_or(Value::Null, Value::Int);
    let real = |value: Option<f64>| value.map_or(Value::Null, Value::Real);
    [
        Value::Int(id.0),
        Value::Int(row.workflow.0),
        Value::Int(row.id.0),
        Value::Int(run),
        Value::Int(row.attempt),
        Value::Int(node.map_or(0, |node| node.0)),
        Value::Int(outcome.return_code),
        Value::Real(outcome.exec_time_minutes),
        Value::Text(core::mem::take(&mut outcome.completion_time)),
        Value::Int(outcome.state.number()),
        int(outcome.peak_memory_bytes),
        int(outcome.avg_memory_bytes),
        real(outcome.peak_cpu_percent),
        real(outcome.avg_cpu_percent),
    ]
    .into()
}
