//! The auditor: it hears what is asked and what is answered, and sees what is committed. It knows
//! nothing of the machine.

use std::collections::{BTreeMap, BTreeSet};

use forebay_domain::batch::Batch;
use forebay_domain::catalog::{Row, Table, Value};
use forebay_domain::command::{Answer, Claimed, Command, Completion, Report, Scope};
use forebay_domain::ids::{JobId, ResultId, Ticket, WorkflowId};
use forebay_domain::job::{CANCELED_CODE, JobRow, RelationKind};
use forebay_domain::limits::Egress;
use forebay_domain::state::{JobState, STATES};

use crate::store::Db;

/// What was promised and is not so.
pub type Breach = String;

/// What was asked and answered, as far as it must last.
#[derive(Debug, Default)]
pub struct Auditor {
    /// At once: a claim, a start or an outcome may be lost in a crash, until it is committed.
    egress: Egress,
    /// Every outcome that anybody reported, by its text.
    reported: BTreeMap<Box<str>, Completion>,
    /// Jobs of which somebody reported an end.
    reported_ends: BTreeSet<JobId>,
    /// Jobs that may end by themselves.
    mortal: BTreeSet<JobId>,
    /// Outcomes that were accepted, by their text, with their workflow.
    accepted: BTreeMap<Box<str>, WorkflowId>,
    /// What was accepted when a flush was asked for.
    flushing: BTreeMap<Ticket, Vec<Box<str>>>,
    /// Attempts that have an accepted end.
    ended: BTreeSet<(JobId, i64, i64)>,
    /// (job, attempt) that somebody holds, or held.
    handed: BTreeSet<(JobId, i64)>,
    /// Those that somebody put back, or tried to: they may be handed out once more.
    put_back: BTreeSet<(JobId, i64)>,
    /// Jobs that were acknowledged, what they wait for, and their workflow.
    jobs: BTreeMap<JobId, (WorkflowId, Vec<JobId>)>,
    writers: BTreeMap<(WorkflowId, i64), Vec<JobId>>,
    /// Somebody asked for their end.
    deleted_jobs: BTreeSet<JobId>,
    deleted_workflows: BTreeSet<WorkflowId>,
    /// Somebody asked for new attempts there: what had ended may not be at an end any more.
    again: BTreeSet<WorkflowId>,
    /// Somebody set states there by hand, or began anew: anything may be handed out again.
    by_hand: BTreeSet<WorkflowId>,
    /// A job of a workflow that nobody was told of was named.
    by_hand_anywhere: bool,
    /// Workflows whose jobs are gone when they end.
    endless: BTreeSet<WorkflowId>,
    /// Outcomes that are stored, by their text.
    stored: BTreeMap<Box<str>, JobId>,
    /// Attempts whose end is stored.
    stored_ends: BTreeSet<(i64, i64, i64)>,
}

impl Auditor {
    pub fn new(egress: Egress) -> Auditor {
        Auditor { egress, ..Auditor::default() }
    }

    /// A call leaves for the server.
    pub fn asked(&mut self, ticket: Ticket, command: &Command) {
        match command {
            Command::With { command, .. } => self.asked(ticket, command),
            Command::Flush(scope) => {
                let is_of = |text: &str, workflow: WorkflowId| match *scope {
                    Scope::Everything => true,
                    Scope::Workflow(id) => workflow == id,
                    Scope::Job(id) => self.reported[text].job == id,
                };
                let known = self.accepted.iter().filter(|(text, workflow)| is_of(text, **workflow));
                self.flushing.insert(ticket, known.map(|(text, _)| text.clone()).collect());
            }
            Command::Report(report) => {
                for completion in &report.completions {
                    if completion.outcome.state.has_ended() {
                        self.reported_ends.insert(completion.job);
                    }
                    self.reported.insert(completion.outcome.completion_time.clone(), completion.clone());
                }
            }
            // Whoever hears of it next does so before, perhaps, who put it back is answered.
            Command::PutBack { attempts, .. } => {
                self.put_back.extend(attempts.iter().map(|held| (held.job, held.attempt)));
            }
            Command::Retry { job, .. } => match self.jobs.get(job) {
                Some((workflow, _)) => drop(self.again.insert(*workflow)),
                None => self.by_hand_anywhere = true,
            },
            Command::SetState { job, .. } => match self.jobs.get(job) {
                Some((workflow, _)) => drop(self.by_hand.insert(*workflow)),
                None => self.by_hand_anywhere = true,
            },
            Command::ResetJobs { workflow, .. } | Command::Initialize { workflow, only_drafts: false } => {
                self.by_hand.insert(*workflow);
            }
            Command::DeleteJobs { workflow, job } => {
                self.by_hand.insert(*workflow);
                match job {
                    Some(job) => drop(self.deleted_jobs.insert(*job)),
                    None => {
                        let all = self.jobs.iter().filter(|(_, (of, _))| of == workflow).map(|(job, _)| *job);
                        self.deleted_jobs.extend(all);
                    }
                }
            }
            Command::DeleteWorkflow(workflow) => drop(self.deleted_workflows.insert(*workflow)),
            Command::CreateWorkflow(_)
            | Command::CancelWorkflow(_)
            | Command::ArchiveWorkflow { .. }
            | Command::NewRun { .. }
            | Command::Initialize { .. }
            | Command::CreateJobs { .. }
            | Command::SpawnJobs { .. }
            | Command::CreateApplication { .. }
            | Command::Enqueue { .. }
            | Command::Pause { .. }
            | Command::SetShares(_)
            | Command::UpdateJob { .. }
            | Command::Claim(_)
            | Command::Heartbeat { .. }
            | Command::Renew { .. }
            | Command::Start { .. }
            | Command::CreateRequirements { .. }
            | Command::UpdateRequirement { .. }
            | Command::Insert { .. }
            | Command::Apply(_) => {}
        }
    }

    /// The server has lost what is not committed: what was told of claims and outcomes may be told
    /// again.
    pub fn crashed(&mut self, db: &Db) {
        if self.egress == Egress::Committed {
            return;
        }
        self.accepted.retain(|text, _| self.stored.contains_key(text));
        // What is reported once more from here on was not asked for.
        for known in self.flushing.values_mut() {
            known.retain(|text| self.stored.contains_key(text));
        }
        self.ended.retain(|(job, run, attempt)| self.stored_ends.contains(&(job.0, *run, *attempt)));
        self.handed.retain(|(job, attempt)| {
            let stored = db.jobs.get(job);
            stored.is_some_and(|row| row.attempt > *attempt || row.state.is_held() || row.state.has_ended())
        });
    }

    /// An answer leaves the server: what it says must be committed.
    pub fn told(&mut self, ticket: Ticket, command: &Command, answer: &Answer, db: &Db) -> Result<(), Breach> {
        self.endless.extend(db.workflows.values().filter(|row| row.endless).map(|row| row.id));
        match (command, answer) {
            (Command::With { command, .. }, answer) => self.told(ticket, command, answer, db),
            (Command::CreateWorkflow(_) | Command::CreateApplication { .. }, Answer::Created(id)) => {
                self.is_kept(WorkflowId(*id), db)
            }
            (Command::SpawnJobs { parent, jobs }, Answer::Created(first)) => {
                // Nobody may have been told of the parent: the answer to its creation can be lost.
                let told = self.jobs.get(parent).map(|(workflow, _)| *workflow);
                let Some(workflow) = told.or_else(|| Some(db.jobs.get(parent)?.workflow)) else { return Ok(()) };
                for (new, id) in jobs.iter().zip(*first..) {
                    let id = JobId(id);
                    let on = new.depends_on.iter().chain([parent]);
                    let on = on.map(|on| if on.0 < 0 { JobId(first - 1 - on.0) } else { *on });
                    if self.jobs.insert(id, (workflow, on.collect())).is_some() {
                        return Err(format!("job {id} was created twice"));
                    }
                    if !self.may_be_gone(id, workflow) && !db.jobs.contains_key(&id) {
                        return Err(format!("job {id} was acknowledged, but is not there"));
                    }
                }
                Ok(())
            }
            (Command::CreateJobs { workflow, jobs } | Command::Enqueue { workflow, jobs }, Answer::Created(first)) => {
                for (new, id) in jobs.iter().zip(*first..) {
                    let id = JobId(id);
                    if self.jobs.contains_key(&id) {
                        return Err(format!("job {id} was created twice"));
                    }
                    let may_fail = !new.depends_on.is_empty() && matches!(command, Command::Enqueue { .. });
                    if new.policy.is_some() || new.expires_at.is_some() || may_fail {
                        self.mortal.insert(id);
                    }
                    let known = |on: &JobId| if on.0 < 0 { JobId(first - 1 - on.0) } else { *on };
                    let mut on: Vec<JobId> = new.depends_on.iter().map(known).collect();
                    for (kind, item) in &new.relations {
                        match kind {
                            // Who writes it was there before, so it was seen when this one was initialized.
                            RelationKind::InputFile => {
                                let known = self.writers.get(&(*workflow, *item));
                                on.extend(known.into_iter().flatten().filter(|writer| **writer < id));
                            }
                            RelationKind::OutputFile => {
                                self.writers.entry((*workflow, *item)).or_default().push(id);
                            }
                            RelationKind::InputUserData | RelationKind::OutputUserData => {}
                        }
                    }
                    self.jobs.insert(id, (*workflow, on));
                    let may_be_gone = self.may_be_gone(id, *workflow);
                    let kept = db.details.get(&id).is_some_and(|detail| detail.payload == new.payload);
                    if !may_be_gone && !kept && !db.jobs.contains_key(&id) {
                        return Err(format!("job {id} was acknowledged, but is not there"));
                    }
                }
                Ok(())
            }
            (Command::NewRun { workflow, .. }, Answer::Count(run)) => match db.workflows.get(workflow) {
                Some(row) if row.run < *run => Err(format!("run {run} was acknowledged, but there is {row:?}")),
                Some(_) => Ok(()),
                None => self.is_kept(*workflow, db),
            },
            (Command::Start { .. }, Answer::Job(row)) => {
                self.note_mortal(row);
                let stored = db.jobs.get(&row.id);
                let is_kept = |now: &JobRow| {
                    now.attempt > row.attempt
                        || now.grant != row.grant
                        || now.state != JobState::Claimed
                        || self.may_lag(now, row)
                };
                let kept = self.may_be_gone(row.id, row.workflow)
                    || self.is_by_hand(row.workflow)
                    || stored.is_some_and(is_kept);
                if kept { Ok(()) } else { Err(format!("{row:?} was acknowledged, but there is {stored:?}")) }
            }
            (Command::Retry { .. }, Answer::Job(row)) => match db.jobs.get(&row.id) {
                Some(now) if now.attempt < row.attempt => Err(format!("{row:?} was acknowledged, there is {now:?}")),
                _ => Ok(()),
            },
            (Command::Report(report), Answer::Reported { outcomes, claimed, .. }) => {
                self.accepted(report, outcomes, db)?;
                claimed.as_ref().map_or(Ok(()), |claimed| self.handed(claimed, db))
            }
            (_, Answer::Claimed(claimed)) => self.handed(claimed, db),
            (Command::Flush(_), Answer::Done) => self.is_flushed(ticket),
            _ => Ok(()),
        }
    }

    /// Accepted outcomes are stored, each once, for the attempt that was reported.
    fn accepted<E>(&mut self, report: &Report, outcomes: &[(JobId, Result<(), E>)], db: &Db) -> Result<(), Breach> {
        if outcomes.len() != report.completions.len() {
            return Err(format!("{} outcomes were answered with {}", report.completions.len(), outcomes.len()));
        }
        for (completion, (job, outcome)) in report.completions.iter().zip(outcomes) {
            if *job != completion.job {
                return Err(format!("the outcome of {} was answered for {job}", completion.job));
            }
            if outcome.is_err() {
                continue;
            }
            let text = &completion.outcome.completion_time;
            let twice = self.accepted.insert(text.clone(), report.workflow).is_some();
            let free = self.is_by_hand(report.workflow) || self.may_be_gone(*job, report.workflow);
            let settles = completion.outcome.state.has_ended();
            if let Some(attempt) = completion.attempt
                && settles
                && !self.ended.insert((*job, completion.run, attempt))
                && !free
            {
                return Err(format!("two outcomes were accepted for attempt {attempt} of job {job}"));
            }
            if twice && settles && completion.attempt.is_some() && !free {
                return Err(format!("{text} was accepted twice"));
            }
            let is_stored = if self.endless.contains(&report.workflow) {
                // There is no outcome of it, but it is gone, or has gone on.
                self.accepted.remove(text);
                let goes_on = |row: &JobRow| completion.attempt.is_none_or(|attempt| row.attempt > attempt);
                free || db.jobs.get(job).is_none_or(|row| !row.state.is_held() || goes_on(row))
            } else {
                self.stored.get(text) == Some(job)
            };
            if self.egress == Egress::Committed && !is_stored && !self.may_be_gone(*job, report.workflow) {
                return Err(format!("{text} of job {job} was accepted, but is not there"));
            }
        }
        Ok(())
    }

    /// Jobs that are handed out are marked so, to nobody else, and what they wait for has ended.
    fn handed(&mut self, claimed: &Claimed, db: &Db) -> Result<(), Breach> {
        for (row, _) in &claimed.jobs {
            if self.is_by_hand(row.workflow) || self.may_be_gone(row.id, row.workflow) {
                continue;
            }
            let Some(stored) = db.jobs.get(&row.id) else {
                self.note_mortal(row);
                if self.may_be_over(row.id, row.workflow) {
                    continue;
                }
                return Err(format!("job {} was handed out of nowhere", row.id));
            };
            let is_so = stored.state.is_held() || stored.state.has_ended() || self.may_lag(stored, row);
            if stored.attempt <= row.attempt && !is_so {
                use JobState::{Disabled, PendingFailed};
                if !matches!(stored.state, Disabled | PendingFailed) {
                    return Err(format!("{row:?} was handed out, but there is {stored:?}"));
                }
            }
            let attempt = (row.id, row.attempt);
            if !self.handed.insert(attempt) && !self.put_back.contains(&attempt) {
                return Err(format!("attempt {} of job {} was handed out twice", row.attempt, row.id));
            }
            if self.again.contains(&row.workflow) {
                continue;
            }
            for on in self.jobs.get(&row.id).map_or(&[][..], |(_, on)| on) {
                let is_gone = self.endless.contains(&row.workflow) && !db.jobs.contains_key(on);
                let ended = is_gone || db.jobs.get(on).is_some_and(|on| on.state.has_ended());
                let will_have = || self.egress == Egress::AtOnce && self.may_have_ended(*on);
                if !ended && !will_have() && !self.deleted_jobs.contains(on) {
                    return Err(format!("job {} was handed out before {on} was done: {:?}", row.id, db.jobs.get(on)));
                }
            }
        }
        Ok(())
    }

    /// A batch was committed.
    pub fn committed(&mut self, batch: &Batch, db: &Db) -> Result<(), Breach> {
        for row in &batch.workflows {
            let Some(row) = db.workflows.get(&row.id) else { continue };
            let visible = |job: &&JobRow| job.id < db.hidden_from(row.id);
            let mut counts = [0; STATES];
            for job in db.jobs_of(row.id).filter(visible) {
                counts[job.state as usize] += 1;
            }
            if counts != row.counts {
                return Err(format!("{row:?} counts otherwise than its jobs: {counts:?}"));
            }
        }
        for write in &batch.jobs {
            let Some(row) = db.jobs.get(&write.row.id) else { continue };
            let says_so = |id: ResultId| {
                let result = db.tables[Table::Result as usize].get(&id.0);
                result.is_some_and(|result| StoredResult::new(result).is_cancellation_of(row.id))
            };
            let has_results = !db.workflows.get(&row.workflow).is_some_and(|workflow| workflow.endless);
            if row.state == JobState::Canceled && has_results && !row.result.is_some_and(says_so) {
                return Err(format!("{row:?} was canceled, and no result says so"));
            }
        }
        for (_, row) in batch.appends.iter().filter(|(table, _)| *table == Table::Result) {
            let result = StoredResult::new(row);
            if result.code == CANCELED_CODE {
                continue;
            }
            let Some(completion) = self.reported.get(result.text) else {
                return Err(format!("{} was never reported", result.text));
            };
            let fenced = completion.attempt.is_none_or(|attempt| attempt == result.attempt)
                && completion.run == result.run
                && completion.job.0 == result.job;
            if !fenced {
                return Err(format!("{completion:?} was stored as attempt {}", result.attempt));
            }
            let job = JobId(result.job);
            let workflow = db.jobs.get(&job).map(|row| row.workflow);
            let free = workflow.is_none_or(|workflow| self.is_by_hand(workflow));
            let end = (result.job, result.run, result.attempt);
            // The same batch may be committed again, when its answer was lost.
            let again = self.stored.insert(result.text.into(), job).is_some();
            if completion.outcome.state.has_ended() && !self.stored_ends.insert(end) && !again && !free {
                return Err(format!("job {job} has two ends of attempt {}", result.attempt));
            }
        }
        Ok(())
    }

    /// At the end: all that was accepted is there still.
    pub fn at_end(&self, db: &Db) -> Result<(), Breach> {
        let results = db.tables[Table::Result as usize].values();
        let stored: BTreeSet<&str> = results.map(|row| StoredResult::new(row).text).collect();
        for text in self.accepted.keys() {
            let job = self.reported[text].job;
            let workflow = self.jobs.get(&job).map(|(workflow, _)| *workflow);
            let may_be_gone = workflow.is_none_or(|workflow| self.may_be_gone(job, workflow));
            if !stored.contains(&**text) && !may_be_gone {
                return Err(format!("{text} of job {job} was accepted and is lost"));
            }
        }
        for (job, (workflow, _)) in &self.jobs {
            if !db.jobs.contains_key(job) && !self.may_be_gone(*job, *workflow) {
                return Err(format!("job {job} was acknowledged and is lost"));
            }
        }
        Ok(())
    }

    /// Whether a job that was told of as `told` may still be stored as `stored`: steps of its attempt
    /// may not be committed, but what made it that attempt is.
    fn may_lag(&self, stored: &JobRow, told: &JobRow) -> bool {
        let is_armed = stored.attempt == told.attempt && stored.state != JobState::Draft;
        self.egress == Egress::AtOnce && is_armed
    }

    /// Whether anybody reported an end of it, or of what it waits for: it may have been canceled then. Or
    /// it may have come to its end by itself.
    fn may_have_ended(&self, job: JobId) -> bool {
        let waits_for = self.jobs.get(&job).map_or(&[][..], |(_, on)| on);
        self.reported_ends.contains(&job)
            || self.mortal.contains(&job)
            || waits_for.iter().any(|on| self.may_have_ended(*on))
    }

    /// What was accepted before it was asked is stored, unless a crash took it back: a read sees it.
    fn is_flushed(&self, ticket: Ticket) -> Result<(), Breach> {
        let lacks = |text: &str| self.accepted.contains_key(text) && !self.stored.contains_key(text);
        match self.flushing[&ticket].iter().find(|text| lacks(text)) {
            Some(text) => Err(format!("{text} was accepted before {ticket:?}, but a read does not see it")),
            None => Ok(()),
        }
    }

    fn is_kept(&self, workflow: WorkflowId, db: &Db) -> Result<(), Breach> {
        if db.workflows.contains_key(&workflow) || self.deleted_workflows.contains(&workflow) {
            return Ok(());
        }
        Err(format!("workflow {workflow} was acknowledged, but is not there"))
    }

    fn may_be_gone(&self, job: JobId, workflow: WorkflowId) -> bool {
        // "All jobs" may have been asked for before these were known.
        self.deleted_workflows.contains(&workflow)
            || self.deleted_jobs.contains(&job)
            || (!self.deleted_jobs.is_empty() && self.by_hand.contains(&workflow))
            || self.may_be_over(job, workflow)
    }

    /// Whoever created it may not have been told how it may end by itself.
    fn note_mortal(&mut self, row: &JobRow) {
        if row.policy.is_some() || row.expires_at.is_some() {
            self.mortal.insert(row.id);
        }
    }

    /// Whether it may have ended, and be gone for that.
    fn may_be_over(&self, job: JobId, workflow: WorkflowId) -> bool {
        let has_end = self.reported_ends.contains(&job) || self.mortal.contains(&job) || self.is_by_hand(workflow);
        self.endless.contains(&workflow) && has_end
    }

    fn is_by_hand(&self, workflow: WorkflowId) -> bool {
        self.by_hand_anywhere || self.by_hand.contains(&workflow)
    }
}

/// What the auditor reads of a row of results.
struct StoredResult<'a> {
    job: i64,
    run: i64,
    attempt: i64,
    code: i64,
    state: i64,
    text: &'a str,
}

impl StoredResult<'_> {
    fn is_cancellation_of(&self, job: JobId) -> bool {
        self.job == job.0 && self.state == JobState::Canceled.number()
    }

    fn new(row: &Row) -> StoredResult<'_> {
        let int = |value: &Value| match value {
            Value::Int(n) => *n,
            other => panic!("a result's ids are whole numbers, not {other:?}"),
        };
        StoredResult {
            job: int(&row[2]),
            run: int(&row[3]),
            attempt: int(&row[4]),
            code: int(&row[6]),
            state: int(&row[9]),
            text: match &row[8] {
                Value::Text(text) => text,
                other => panic!("a completion time is a text, not {other:?}"),
            },
        }
    }
}
