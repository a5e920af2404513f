//! The oracle: the same rules over plain maps, with every job in memory and no windows, reads or
//! batches. It is told in which order the machine did things, does each itself, and says where the
//! machine decided otherwise.

mod awaited;
mod bulk;
mod check;
mod claims;
mod held;
mod jobs;
mod leases;
mod turns;

use std::collections::{BTreeMap, BTreeSet};

use forebay_domain::batch::WorkflowRow;
use forebay_domain::catalog::Row;
use forebay_domain::claim::Needs;
use forebay_domain::command::{Answer, Claim, ClaimOrder, Command, Rejection};
use forebay_domain::ids::{Grant, JobId, LaneId, RequirementId, ResultId, SchedulerId, Ticket, Timestamp, WorkflowId};
use forebay_domain::job::{JobFlags, JobRow, Payload, RelationKind};
use forebay_domain::lane::LabelSet;
use forebay_domain::limits::Limits;
use forebay_domain::machine::Trace;
use forebay_domain::policy::Tries;
use forebay_domain::share::Share;
use forebay_domain::state::{Event, JobState, STATES};

use crate::store::Db;
use claims::Claiming;
use leases::Leases;
use turns::Turns;

/// What the machine did that it should not have, or did not do.
pub type Wrong = String;

/// What makes jobs interchangeable: their lane's key.
type LaneKey = (RequirementId, Option<SchedulerId>, LabelSet);

#[derive(Debug)]
pub struct Oracle {
    limits: Limits,
    /// The latest claim.
    granted: Grant,
    workflows: BTreeMap<WorkflowId, Workflow>,
    of_job: BTreeMap<JobId, WorkflowId>,
    /// As the machine numbered them.
    lanes: BTreeMap<LaneId, (WorkflowId, LaneKey)>,
    claims: BTreeMap<Ticket, Claiming>,
    leases: Leases,
    /// Jobs of answers that reached nobody, as they were handed out.
    owed: Vec<JobRow>,
    /// What the open batch must hold.
    dirty: BTreeSet<JobId>,
    dirty_workflows: BTreeSet<WorkflowId>,
    deleted: BTreeSet<JobId>,
    /// Of endless workflows, ended.
    over: BTreeSet<JobId>,
    deleted_workflows: BTreeSet<WorkflowId>,
    /// Written, or deleted, by parts of a march that is not over.
    marched: BTreeSet<JobId>,
    /// What waits for these jobs goes on in parts, as of this moment.
    releasing: BTreeMap<JobId, Timestamp>,
    /// As of which moment its jobs are initialized.
    judged: BTreeMap<WorkflowId, Timestamp>,
    /// Of reports.
    results: Vec<Row>,
    shares: BTreeMap<(WorkflowId, LabelSet), Share>,
    /// Of jobs that were canceled, and nobody reported it.
    cancellations: BTreeSet<Cancellation>,
    /// Those that parts of a march kept which is not over.
    kept_in_parts: BTreeSet<Cancellation>,
}

/// (job, run, attempt, node or 0).
type Cancellation = [i64; 4];

#[derive(Debug)]
struct Workflow {
    /// Its counters are not kept, but counted.
    row: WorkflowRow,
    requirements: BTreeMap<RequirementId, Needs>,
    jobs: BTreeMap<JobId, Job>,
    relations: BTreeSet<(JobId, RelationKind, i64)>,
    turns: Turns,
}

#[derive(Clone, Debug)]
struct Job {
    /// Its lane is not kept: see `key`.
    row: JobRow,
    key: LaneKey,
    /// What it depends on.
    on: BTreeSet<JobId>,
    /// What depends on it.
    by: BTreeSet<JobId>,
    /// What it has and had: a claim may be answered with what it was when it took the job, or later.
    payloads: Vec<Payload>,
}

impl Oracle {
    /// Begins with what is committed, as a start of the machine does.
    pub fn new(limits: &Limits, now: Timestamp, db: &Db) -> Oracle {
        let mut oracle = Oracle {
            limits: limits.clone(),
            granted: Grant::before(db.epoch),
            workflows: BTreeMap::new(),
            of_job: BTreeMap::new(),
            lanes: BTreeMap::new(),
            claims: BTreeMap::new(),
            leases: Leases::new(now, db),
            owed: Vec::new(),
            dirty: BTreeSet::new(),
            dirty_workflows: BTreeSet::new(),
            deleted: BTreeSet::new(),
            over: BTreeSet::new(),
            deleted_workflows: BTreeSet::new(),
            marched: BTreeSet::new(),
            releasing: BTreeMap::new(),
            judged: BTreeMap::new(),
            results: Vec::new(),
            shares: BTreeMap::new(),
            cancellations: BTreeSet::new(),
            kept_in_parts: BTreeSet::new(),
        };
        for (&id, row) in &db.workflows {
            oracle.workflows.insert(id, Workflow::new(*row));
        }
        for (&(workflow, requirement), &needs) in &db.requirements {
            oracle.workflows.get_mut(&workflow).expect("of a workflow").requirements.insert(requirement, needs);
        }
        for (&id, lane) in &db.lanes {
            oracle.lanes.insert(id, (lane.workflow, (lane.requirement, lane.scheduler, lane.labels.clone())));
            let paused = db.lane_states.get(&id).is_some_and(|state| state.paused);
            oracle.workflows.get_mut(&lane.workflow).expect("of a workflow").turns.begin(lane.labels.clone(), paused);
        }
        for (&id, row) in db.jobs.iter().filter(|(id, row)| **id < db.hidden_from(row.workflow)) {
            let job = Job {
                row: JobRow { lane: LaneId(0), ..*row },
                key: oracle.lanes[&row.lane].1.clone(),
                on: BTreeSet::new(),
                by: BTreeSet::new(),
                payloads: vec![db.details[&id].payload.clone()],
            };
            oracle.of_job.insert(id, row.workflow);
            oracle.workflows.get_mut(&row.workflow).expect("of a workflow").jobs.insert(id, job);
        }
        for (job, on) in db.jobs.keys().flat_map(|job| db.edges_from(*job)) {
            let Some(workflow) = oracle.of_job.get(&job) else { continue };
            oracle.workflows.get_mut(workflow).expect("of a job").link(job, on);
        }
        for relation in &db.relations {
            let Some(workflow) = oracle.of_job.get(&relation.0) else { continue };
            oracle.workflows.get_mut(workflow).expect("of a job").relations.insert(*relation);
        }
        oracle
    }

    /// The machine did this. `command` finds what a ticket asked for, `answer` what it was answered in
    /// the same call.
    pub fn follow<'a>(
        &mut self,
        now: Timestamp,
        step: &Trace,
        command: impl Fn(Ticket) -> Option<&'a Command>,
        answer: impl Fn(Ticket) -> Option<&'a Answer>,
    ) -> Result<(), Wrong> {
        match *step {
            Trace::Done(ticket) => {
                let command = command(ticket).ok_or_else(|| format!("{ticket:?} was not asked"))?;
                self.done(now, ticket, command, answer(ticket))?;
                self.arrive();
                Ok(())
            }
            Trace::Judged(workflow, as_of) => {
                self.judged.insert(workflow, as_of);
                Ok(())
            }
            Trace::Releasing(job) => {
                self.releasing.insert(job, now);
                Ok(())
            }
            Trace::Released(job) => {
                self.released(job);
                Ok(())
            }
            Trace::Resumed(workflow) => {
                self.resumed(now, workflow)?;
                self.arrive();
                Ok(())
            }
            Trace::Reported(ticket) => {
                let command = command(ticket).ok_or_else(|| format!("{ticket:?} was not asked"))?;
                self.begin(now, ticket, command)
            }
            Trace::Taken(ticket, job) => {
                let command = command(ticket).ok_or_else(|| format!("{ticket:?} was not asked"))?;
                self.begin(now, ticket, command)?;
                self.taken(now, ticket, job)
            }
            Trace::Finished(ticket) => {
                let command = command(ticket).ok_or_else(|| format!("{ticket:?} was not asked"))?;
                self.begin(now, ticket, command)?;
                self.finished(ticket)
            }
            Trace::Due(job) => self.due(now, job),
            Trace::LeaseOver(node) => self.lease_over(now, node),
            Trace::Orphan(job) => self.orphan(now, job),
            Trace::LeaseGone(node) => self.lease_gone(node),
            Trace::WentOn(job) => self.went_on(now, job),
            Trace::Awaited(job) => self.awaited(job),
            Trace::Unloaded(workflow) => {
                self.unloaded(workflow);
                Ok(())
            }
            Trace::Back(job) => self.back(job),
            Trace::Looked(job, grant, back) => self.looked(job, grant, back),
        }
    }

    /// A command took effect, and was answered if it is not a claim.
    fn done(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        command: &Command,
        answer: Option<&Answer>,
    ) -> Result<(), Wrong> {
        if let Some(Answer::Rejected(Rejection::Limit { option, .. })) = answer {
            return self.may_refuse(option, ticket);
        }
        if let Some(Answer::Rejected(Rejection::NoSuchJob(job) | Rejection::NoSuchPrerequisite(job))) = answer
            && self.marched.contains(job)
        {
            // It is being deleted, with all jobs of its workflow.
            return Ok(());
        }
        let created = match answer {
            Some(Answer::Created(first)) => Some(*first),
            _ => None,
        };
        let expected = match self.act(now, ticket, command, created) {
            Ok(expected) => expected,
            Err(rejection) => Some(Answer::Rejected(rejection)),
        };
        // A claim that ends with its beginning is answered after that.
        let Some(expected) = expected else { return Ok(()) };
        match answer {
            Some(answer) if self.same_answer(answer, &expected) => Ok(()),
            other => Err(format!("{command:?} ({ticket:?}) was answered {other:?}, not {expected:?}")),
        }
    }

    /// Does a command. `None`: its answer is checked where its claim ends.
    fn act(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        command: &Command,
        created: Option<i64>,
    ) -> Result<Option<Answer>, Rejection> {
        self.unless_endless(command)?;
        Ok(Some(match command {
            Command::With { command, .. } => return self.act(now, ticket, command, created),
            Command::CreateWorkflow(new) => {
                let Some(id) = created else { return Ok(Some(Answer::Created(0))) };
                self.create_workflow(WorkflowId(id), new);
                Answer::Created(id)
            }
            Command::DeleteWorkflow(id) => {
                self.workflow(*id)?;
                self.delete_workflow(*id);
                Answer::Done
            }
            Command::CancelWorkflow(id) => {
                self.workflow(*id)?;
                self.cancel_workflow(now, *id);
                Answer::Done
            }
            Command::ArchiveWorkflow { workflow, archived } => {
                self.workflow(*workflow)?.row.archived = *archived;
                Answer::Done
            }
            Command::NewRun { workflow, force } => Answer::Count(self.new_run(*workflow, *force)?),
            Command::ResetJobs { workflow, failed_only } => Answer::Count(self.reset_jobs(*workflow, *failed_only)?),
            Command::Initialize { workflow, only_drafts } => {
                self.initialize(now, *workflow, *only_drafts)?;
                Answer::Done
            }
            Command::CreateJobs { workflow, jobs } => {
                self.may_create_jobs(*workflow, jobs)?;
                let Some(first) = created else { return Ok(Some(Answer::Created(0))) };
                self.create_jobs(*workflow, jobs, first, None);
                Answer::Created(first)
            }
            Command::SpawnJobs { parent, jobs } => {
                let workflow = self.may_spawn_jobs(*parent, jobs)?;
                let Some(first) = created else { return Ok(Some(Answer::Created(0))) };
                self.create_jobs(workflow, jobs, first, Some(*parent));
                Answer::Created(first)
            }
            Command::UpdateJob { job, change } => {
                self.update_job(*job, change)?;
                Answer::Done
            }
            Command::DeleteJobs { workflow, job } => Answer::Count(self.delete_jobs(now, *workflow, *job)?),
            Command::CreateApplication { .. } => {
                let Some(id) = created else { return Ok(Some(Answer::Created(0))) };
                self.create_application(WorkflowId(id));
                Answer::Created(id)
            }
            Command::Enqueue { workflow, jobs } => {
                self.may_enqueue(*workflow, jobs)?;
                let Some(first) = created else { return Ok(Some(Answer::Created(0))) };
                self.create_jobs(*workflow, jobs, first, None);
                self.await_all(*workflow, jobs, first);
                self.begin_turns(*workflow, jobs);
                self.ready(now, (first..).take(jobs.len()).map(JobId));
                Answer::Created(first)
            }
            Command::Pause { workflow, labels, paused } => {
                self.pause(*workflow, labels, *paused)?;
                Answer::Done
            }
            Command::SetShares(shares) => {
                self.set_shares(shares);
                Answer::Done
            }
            Command::Claim(claim) => {
                if !self.claims.contains_key(&ticket) && !self.was_finished(ticket) {
                    let endless = self.workflow(claim.workflow)?.row.endless;
                    goes_with(claim, endless)?;
                    self.needs_lease(claim)?;
                    self.begin_claim(ticket, claim, None);
                }
                return Ok(None);
            }
            Command::Start { job, run, node } => Answer::Job(self.start(now, *job, *run, *node)?.into()),
            Command::Report(report) => {
                if let Some(claim) = &report.claim {
                    if !self.claims.contains_key(&ticket) && !self.was_finished(ticket) {
                        let endless = self.workflow(report.workflow)?.row.endless;
                        goes_with(claim, endless)?;
                        self.needs_lease(claim)?;
                        self.begin_report(now, ticket, report);
                    }
                    return Ok(None);
                }
                self.workflow(report.workflow)?;
                let outcomes = self.complete_all(now, report);
                let row = self.counted(report.workflow);
                Answer::Reported { outcomes, claimed: None, is_complete: row.is_complete(), is_canceled: row.canceled }
            }
            Command::Renew { workflow, attempts } => {
                self.each_held(*workflow, attempts, |oracle, row| oracle.renew(now, row))?
            }
            Command::PutBack { workflow, attempts } => self.each_held(*workflow, attempts, Oracle::put_back)?,
            Command::Retry { job, run, attempts_max, delay_ms } => {
                Answer::Job(self.retry(now, *job, *run, *attempts_max, *delay_ms)?.into())
            }
            Command::SetState { job, run, state } => Answer::Job(self.set_state(now, *job, *run, *state)?.into()),
            Command::Heartbeat { workflow, node, lease_ms, begin } => {
                self.heartbeat(now, *workflow, *node, *lease_ms, *begin)?;
                Answer::Done
            }
            Command::CreateRequirements { workflow, rows } => {
                self.workflow(*workflow)?;
                let Some(first) = created else { return Ok(Some(Answer::Created(0))) };
                let requirements = &mut self.workflow(*workflow)?.requirements;
                requirements.extend(rows.iter().zip(first..).map(|((_, needs), id)| (RequirementId(id), *needs)));
                Answer::Created(first)
            }
            Command::UpdateRequirement { workflow, id, needs, .. } => {
                let requirements = &mut self.workflow(*workflow)?.requirements;
                *requirements.get_mut(id).ok_or(Rejection::NoSuchRequirement(*id))? = *needs;
                Answer::Statement(0)
            }
            Command::Insert { workflow, .. } => {
                self.workflow(*workflow)?;
                Answer::Created(created.unwrap_or(0))
            }
            Command::Apply(_) => Answer::Statement(0),
            Command::Flush(_) => Answer::Done,
        }))
    }

    fn workflow(&mut self, id: WorkflowId) -> Result<&mut Workflow, Rejection> {
        self.workflows.get_mut(&id).ok_or(Rejection::NoSuchWorkflow(id))
    }

    fn endless(&mut self, id: WorkflowId) -> Result<&mut Workflow, Rejection> {
        let found = self.workflows.get_mut(&id).filter(|workflow| workflow.row.endless);
        found.ok_or(Rejection::NoSuchWorkflow(id))
    }

    /// What is done to workflows from their beginning to their end is not done to endless ones.
    fn unless_endless(&self, command: &Command) -> Result<(), Rejection> {
        let is_endless = |id: &WorkflowId| self.workflows.get(id).is_some_and(|workflow| workflow.row.endless);
        let of_job = |job: &JobId| self.of_job.get(job).is_some_and(is_endless);
        match command {
            Command::DeleteWorkflow(workflow)
            | Command::CancelWorkflow(workflow)
            | Command::ArchiveWorkflow { workflow, .. }
            | Command::NewRun { workflow, .. }
            | Command::ResetJobs { workflow, .. }
            | Command::Initialize { workflow, .. }
            | Command::CreateJobs { workflow, .. }
            | Command::DeleteJobs { workflow, .. }
            | Command::Heartbeat { workflow, begin: true, .. }
            | Command::CreateRequirements { workflow, .. }
            | Command::UpdateRequirement { workflow, .. }
            | Command::Insert { workflow, .. } => {
                if is_endless(workflow) {
                    Err(Rejection::NoSuchWorkflow(*workflow))
                } else {
                    Ok(())
                }
            }
            Command::SpawnJobs { parent: job, .. } | Command::UpdateJob { job, .. } => {
                if of_job(job) {
                    Err(Rejection::NoSuchJob(*job))
                } else {
                    Ok(())
                }
            }
            Command::CreateWorkflow(_)
            | Command::CreateApplication { .. }
            | Command::Enqueue { .. }
            | Command::Pause { .. }
            | Command::SetShares(_)
            | Command::Heartbeat { begin: false, .. }
            | Command::Claim(_)
            | Command::Start { .. }
            | Command::Report(_)
            | Command::Renew { .. }
            | Command::PutBack { .. }
            | Command::Retry { .. }
            | Command::SetState { .. }
            | Command::Apply(_)
            | Command::With { .. }
            | Command::Flush(_) => Ok(()),
        }
    }

    fn job(&self, id: JobId) -> Option<&Job> {
        self.workflows.get(self.of_job.get(&id)?)?.jobs.get(&id)
    }

    fn known(&self, id: JobId) -> Result<JobRow, Rejection> {
        self.job(id).map(|job| job.row).ok_or(Rejection::NoSuchJob(id))
    }

    /// Changes a job by the table of states; `edit` changes what else changes with it.
    fn change(&mut self, id: JobId, event: Event, edit: impl FnOnce(&mut JobRow)) -> Result<JobRow, Rejection> {
        let workflow = *self.of_job.get(&id).ok_or(Rejection::NoSuchJob(id))?;
        let jobs = &mut self.workflows.get_mut(&workflow).expect("of a job").jobs;
        let job = jobs.get_mut(&id).expect("of a job");
        let row = &mut job.row;
        let before = row.state;
        row.state = row.state.on(event).ok_or(Rejection::WrongState { job: id, state: row.state })?;
        if row.policy.is_some() && before.is_held() && !row.state.is_held() {
            row.due_at = None;
        }
        edit(row);
        let row = *row;
        self.dirty.insert(id);
        let owner = self.workflows.get_mut(&workflow).expect("of a job");
        if owner.row.endless && before == JobState::Blocked && row.state != JobState::Blocked {
            owner.unlink(id);
        }
        if owner.row.is_over(&row) {
            owner.jobs.remove(&id);
            self.of_job.remove(&id);
            self.dirty.remove(&id);
            self.over.insert(id);
        }
        Ok(row)
    }

    /// Changes a job to canceled though nobody reports it: it has an outcome then, but of an endless workflow.
    fn cancel(&mut self, id: JobId, edit: impl FnOnce(&mut JobRow)) -> Result<JobRow, Rejection> {
        let before = self.known(id)?;
        let WorkflowRow { run, endless, .. } = self.workflows[&before.workflow].row;
        let row = self.change(id, Event::Cancel, |row| {
            edit(row);
            row.result = if endless { row.result } else { Some(ResultId(0)) };
        })?;
        if !endless {
            self.cancellations.insert([id.0, run, before.attempt, before.node.map_or(0, |node| node.0)]);
        }
        Ok(row)
    }

    /// The hot row with its counters.
    fn counted(&self, id: WorkflowId) -> WorkflowRow {
        let workflow = &self.workflows[&id];
        let mut row = workflow.row;
        row.counts = [0; STATES];
        for job in workflow.jobs.values() {
            row.counts[job.row.state as usize] += 1;
        }
        let lanes = self.lanes.values().filter(|(workflow, _)| *workflow == id).count();
        row.lanes = if row.is_complete() { 0 } else { lanes as i64 };
        row
    }

    fn check_run(&self, workflow: WorkflowId, given: i64) -> Result<(), Rejection> {
        let current = self.workflows[&workflow].row.run;
        if given == current { Ok(()) } else { Err(Rejection::RunMismatch { given, current }) }
    }
}

impl Workflow {
    fn new(row: WorkflowRow) -> Workflow {
        Workflow {
            row,
            requirements: BTreeMap::new(),
            jobs: BTreeMap::new(),
            relations: BTreeSet::new(),
            turns: Turns::default(),
        }
    }

    fn link(&mut self, job: JobId, on: JobId) {
        self.jobs.get_mut(&job).expect("an end of an edge").on.insert(on);
        self.jobs.get_mut(&on).expect("an end of an edge").by.insert(job);
    }

    /// It depends on nothing any more.
    fn unlink(&mut self, job: JobId) {
        let on = std::mem::take(&mut self.jobs.get_mut(&job).expect("of the workflow").on);
        for on in on {
            self.jobs.get_mut(&on).expect("an end of an edge").by.remove(&job);
        }
    }

    /// All that it depends on has ended.
    fn is_met(&self, job: JobId) -> bool {
        self.jobs[&job].on.iter().all(|on| self.jobs[on].row.state.has_ended())
    }

    fn is_blamed(&self, job: JobId) -> bool {
        self.jobs[&job].on.iter().any(|on| {
            let row = &self.jobs[on].row;
            row.state.has_ended() && row.flags.has(JobFlags::BLAMED)
        })
    }

    /// These and all that hang on them.
    fn downstream(&self, from: impl Iterator<Item = JobId>) -> BTreeSet<JobId> {
        let mut reached: BTreeSet<JobId> = BTreeSet::new();
        let mut next: Vec<JobId> = from.collect();
        while let Some(job) = next.pop() {
            if reached.insert(job) {
                next.extend(&self.jobs[&job].by);
            }
        }
        reached
    }
}

impl Oracle {
    fn same_answer(&self, answer: &Answer, expected: &Answer) -> bool {
        match (answer, expected) {
            (
                Answer::Reported { outcomes, claimed: None, is_complete, is_canceled },
                Answer::Reported { outcomes: expected, claimed: None, is_complete: complete, is_canceled: canceled },
            ) => self.same_outcomes(outcomes, expected) && is_complete == complete && is_canceled == canceled,
            _ => same_answer(answer, expected),
        }
    }

    /// Outcomes are alike, but for jobs of other workflows that are being deleted.
    fn same_outcomes(&self, outcomes: &[Judged], expected: &[Judged]) -> bool {
        let is_gone = |outcome: &Judged| match outcome {
            (job, Err(Rejection::NoSuchJob(_))) => self.marched.contains(job),
            _ => false,
        };
        // A job of another workflow, where all are just being deleted, or it is just being created.
        let is_elsewhere = |one: &Judged, other: &Judged| {
            let gone = |judged: &Judged| matches!(judged.1, Err(Rejection::NoSuchJob(_)));
            let other_workflow = |judged: &Judged| matches!(judged.1, Err(Rejection::OtherWorkflow { .. }));
            (gone(one) && other_workflow(other)) || (other_workflow(one) && gone(other))
        };
        let alike = |one: &Judged, other: &Judged| {
            one == other || (one.0 == other.0 && (is_gone(one) || is_elsewhere(one, other)))
        };
        outcomes.len() == expected.len() && outcomes.iter().zip(expected).all(|(one, other)| alike(one, other))
    }
}

type Judged = (JobId, Result<(), Rejection>);

/// Endless workflows have claims of their own.
fn goes_with(claim: &Claim, endless: bool) -> Result<(), Rejection> {
    if endless == (claim.by == ClaimOrder::Lanes) { Ok(()) } else { Err(Rejection::NoSuchWorkflow(claim.workflow)) }
}

/// Answers are alike but for the numbers of lanes, results and statements, which are the machine's.
fn same_answer(answer: &Answer, expected: &Answer) -> bool {
    match (answer, expected) {
        (Answer::Job(answer), Answer::Job(expected)) => same_row(answer, expected),
        (Answer::Statement(_), Answer::Statement(_)) => true,
        // Both see that it cannot be; a machine that had to read first sees something else first.
        (Answer::Rejected(Rejection::NoSuchPrerequisite(_)), Answer::Rejected(_)) => true,
        // A job of a workflow that was just deleted: either is right.
        (Answer::Rejected(Rejection::NoSuchWorkflow(_)), Answer::Rejected(Rejection::NoSuchJob(_))) => true,
        // Which circle is named, if there are several, is the machine's choice.
        (Answer::Rejected(Rejection::Cycle(_)), Answer::Rejected(Rejection::Cycle(_))) => true,
        _ => answer == expected,
    }
}

/// Its claim counts only while somebody holds the job.
fn same_row(row: &JobRow, expected: &JobRow) -> bool {
    let comparable = |row: &JobRow| JobRow {
        lane: LaneId(0),
        grant: if row.state.is_held() { row.grant } else { Grant(0) },
        result: None,
        ..*row
    };
    comparable(row) == comparable(expected) && row.result.is_some() == expected.result.is_some()
}

/// Without what an end says of a job.
fn unended(flags: JobFlags) -> JobFlags {
    flags.with(JobFlags::BLAMED, false).with(JobFlags::CASCADED, false).with(JobFlags::DEAD_LETTER, false)
}

/// How a job is after an event of a change in bulk: nobody holds it, and it has no outcome.
fn wiped(row: &JobRow, state: JobState) -> JobRow {
    JobRow {
        state,
        node: None,
        started_at: None,
        result: None,
        flags: unended(row.flags),
        due_at: if row.policy.is_some() && row.state.is_held() { None } else { row.due_at },
        tries: Tries::default(),
        ..*row
    }
}
