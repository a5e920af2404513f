//! Work: what is asked for is done as far as it can be, and answered, or waits for what it needs.

use alloc::vec::Vec;

use super::{Machine, Trace, number};
use crate::batch::Sequence;
use crate::catalog::{Statement, Table};
use crate::command::{Answer, Command, Rejection};
use crate::ids::{JobId, NodeId, Ticket, Timestamp, WorkflowId};
use crate::job::JobRow;
use crate::plan::Aim;

/// What there is to do: for a caller, for a timer, or for an answer that came back.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Work {
    Command(Ticket, Command),
    /// A job's moment has come.
    Due(JobId),
    /// A job of a node whose lease is over.
    Orphan {
        job: JobId,
        node: NodeId,
    },
    /// Jobs as they were handed out to a caller who left.
    GiveBack(Vec<JobRow>),
    /// A workflow's march did not end before a crash.
    Resume(WorkflowId),
}

impl Work {
    /// What it makes ready may be claimed, but whoever claims it hears so only once that is committed:
    /// nobody has told of it before. Not so of what runners report, or what comes due.
    pub(super) fn rearms(&self) -> bool {
        match self {
            Work::Command(
                _,
                Command::Start { .. }
                | Command::Claim(_)
                | Command::Report(_)
                | Command::Renew { .. }
                | Command::PutBack { .. },
            ) => false,
            Work::Command(..) | Work::Resume(_) => true,
            Work::Due(_) | Work::Orphan { .. } | Work::GiveBack(_) => false,
        }
    }
}

/// Why work cannot be done now.
pub(super) enum Stop {
    Rejected(Rejection),
    /// These jobs are not in memory.
    Jobs(WorkflowId, Vec<JobId>),
    /// Jobs of a workflow that is not known yet.
    UnknownJobs(Vec<JobId>),
    /// The workflow is not in memory.
    Workflow(WorkflowId),
    /// All rows of the workflow are to be read.
    Rows {
        workflow: WorkflowId,
        aim: Aim,
    },
    /// It was begun, and goes on in parts.
    March,
    /// These jobs shall be there before anything depends on them.
    Prerequisites(WorkflowId, Vec<JobId>),
    /// Who waits for this job is to be read.
    Dependents(WorkflowId, JobId),
    /// All rows of the workflow are being read, or changed in parts.
    Frozen(WorkflowId),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Stop {
        Stop::Rejected(rejection)
    }
}

/// `None`: the answer comes later.
pub(super) type Step = Result<Option<Answer>, Stop>;

impl Machine {
    /// Does work as far as it can be done now.
    pub(super) fn run(&mut self, now: Timestamp, mut work: Work) {
        self.arming = work.rearms();
        let step = match &mut work {
            Work::Command(ticket, command) => self.command(now, *ticket, command),
            Work::Due(job) => self.due(now, *job),
            Work::Orphan { job, node } => self.orphan(now, *job, *node),
            Work::GiveBack(rows) => self.take_back(rows),
            Work::Resume(id) => self.resume(now, *id),
        };
        self.arming = false;
        self.conclude(step, work);
    }

    /// Answers work, or parks it where it can go on.
    pub(super) fn conclude(&mut self, step: Step, work: Work) {
        match step {
            Ok(None) => {
                self.is_done(&work);
                if let Work::Command(ticket, _) = work {
                    self.tracer.note(Trace::Done(ticket));
                }
            }
            Ok(Some(answer)) => self.answer(&work, answer),
            Err(Stop::Rejected(rejection)) => self.answer(&work, Answer::Rejected(rejection)),
            Err(Stop::March) => self.march_for(work),
            Err(Stop::Frozen(id)) => {
                let queue = self.workflows.get_mut(&id).and_then(|workflow| workflow.frozen.as_mut());
                let queue = queue.expect("work stops for a frozen workflow only while it is frozen");
                if queue.len() >= self.limits.parked_max && matches!(work, Work::Command(..)) {
                    let max = self.limits.parked_max as u64;
                    self.answer(&work, Answer::Rejected(Rejection::Limit { option: "parked_max", max }));
                } else {
                    queue.push_back(work);
                }
            }
            Err(stop) => self.park(stop, work),
        }
    }

    /// Work that nobody waits for is over.
    fn is_done(&mut self, work: &Work) {
        match work {
            Work::Due(_) => self.timers.is_seen_to(),
            Work::Orphan { node, .. } => self.orphan_is_seen_to(*node),
            Work::Command(..) | Work::GiveBack(_) | Work::Resume(_) => {}
        }
    }

    pub(super) fn answer(&mut self, work: &Work, answer: Answer) {
        self.is_done(work);
        match work {
            Work::Command(ticket, command) => {
                self.tracer.note(Trace::Done(*ticket));
                let beside = self.beside.remove(ticket);
                if !matches!(answer, Answer::Rejected(_)) {
                    self.state(beside.unwrap_or_default());
                }
                self.answers.push((*ticket, self.stamp(command, &answer), answer));
            }
            Work::Resume(id) => self.tracer.note(Trace::Resumed(*id)),
            Work::Due(_) | Work::Orphan { .. } | Work::GiveBack(_) => {}
        }
    }

    fn command(&mut self, now: Timestamp, ticket: Ticket, command: &mut Command) -> Step {
        self.unless_endless(command)?;
        match command {
            Command::CreateWorkflow(new) => Ok(Some(self.create_workflow(new))),
            Command::DeleteWorkflow(workflow) => self.delete_workflow(*workflow),
            Command::CancelWorkflow(workflow) => self.with_rows(*workflow, Aim::Cancel),
            Command::DeleteJobs { workflow, job } => self.with_rows(*workflow, Aim::Delete { job: *job }),
            Command::ArchiveWorkflow { workflow, archived } => self.archive_workflow(*workflow, *archived),
            Command::NewRun { workflow, force } => self.new_run(*workflow, *force),
            Command::ResetJobs { workflow, failed_only } => {
                self.unless_archived(*workflow)?;
                self.with_rows(*workflow, Aim::Reset { failed_only: *failed_only, done: 0 })
            }
            Command::Initialize { workflow, only_drafts } => {
                self.unless_archived(*workflow)?;
                self.with_rows(*workflow, Aim::Initialize { only_drafts: *only_drafts, done: 0, now })
            }
            Command::CreateJobs { workflow, jobs } => self.create_jobs(*workflow, jobs),
            Command::SpawnJobs { parent, jobs } => self.spawn_jobs(*parent, jobs),
            Command::UpdateJob { job, change } => self.update_job(*job, change),
            Command::CreateApplication { name } => Ok(Some(self.create_application(name))),
            Command::Enqueue { workflow, jobs } => self.enqueue(now, *workflow, jobs),
            Command::Pause { workflow, labels, paused } => self.pause(*workflow, labels, *paused),
            Command::SetShares(shares) => self.set_shares(shares),
            Command::Claim(claim) => self.claim(now, ticket, claim),
            Command::Start { job, run, node } => self.start(now, *job, *run, *node),
            Command::Report(report) => self.report(now, ticket, report),
            Command::Renew { workflow, attempts } => self.renew(now, *workflow, attempts),
            Command::PutBack { workflow, attempts } => self.put_back_all(*workflow, attempts),
            Command::Retry { job, run, attempts_max, delay_ms } => {
                self.retry(now, *job, *run, *attempts_max, *delay_ms)
            }
            Command::SetState { job, run, state } => self.set_state(now, *job, *run, *state),
            Command::Heartbeat { workflow, node, lease_ms, begin } => {
                self.heartbeat(now, *workflow, *node, *lease_ms, *begin)
            }
            Command::CreateRequirements { workflow, rows } => self.create_requirements(*workflow, rows),
            Command::UpdateRequirement { workflow, id, set, needs } => {
                self.update_requirement(*workflow, *id, set, *needs)
            }
            Command::Insert { table: Table::Result, workflow, rows } => self.insert_results(*workflow, rows),
            Command::Insert { table, workflow, rows } => {
                self.resident(*workflow)?;
                let first = self.take_ids(Sequence::Row(*table), rows.len());
                let rows = number(core::mem::take(rows), first);
                self.open.statement(Statement::Insert { table: *table, rows });
                Ok(Some(Answer::Created(first)))
            }
            Command::Flush(_) => Ok(Some(Answer::Done)),
            Command::Apply(statement) => Ok(Some(Answer::Statement(self.open.statement(statement.clone())))),
            Command::With { .. } => unreachable!("it was taken apart when it came"),
        }
    }

    /// Takes statements into the open batch. What becomes of them is told to nobody.
    fn state(&mut self, statements: Vec<Statement>) {
        for statement in statements {
            let statement = match statement {
                Statement::Insert { table, rows } => {
                    let first = self.take_ids(Sequence::Row(table), rows.len());
                    Statement::Insert { table, rows: number(rows, first) }
                }
                statement => statement,
            };
            self.open.statement(statement);
        }
    }
}
