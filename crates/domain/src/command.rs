//! What may be asked of the machine, and what it answers.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU16;

use crate::catalog::{Row, Statement, StatementOutcome, Table, Value};
use crate::claim::{Capacity, Needs};
use crate::ids::{Grant, JobId, NodeId, RequirementId, SchedulerId, Timestamp, WorkflowId};
use crate::job::{JobRow, NewJob, Outcome, Payload};
use crate::lane::LabelSet;
use crate::share::Share;
use crate::state::JobState;

#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// → `Created` (the workflow's id). The rows' ids are set by the machine.
    CreateWorkflow(Box<NewWorkflow>),
    /// → `Done`. Everything of it goes.
    DeleteWorkflow(WorkflowId),
    /// Claimed and running jobs become canceled; nothing more is handed out. → `Done`
    CancelWorkflow(WorkflowId),
    /// → `Done`
    ArchiveWorkflow { workflow: WorkflowId, archived: bool },
    /// A new run: its number goes up, it is no longer canceled. Refused while jobs are held, unless
    /// forced. → `Count` (the new run's number)
    NewRun { workflow: WorkflowId, force: bool },
    /// Jobs back to draft: all, or those that failed and all that hang on them. → `Count`
    ResetJobs { workflow: WorkflowId, failed_only: bool },
    /// Derives the dependencies that files and user data imply, then makes each job blocked or
    /// ready. → `Done`
    Initialize { workflow: WorkflowId, only_drafts: bool },
    /// All or nothing. → `Created` (the first id; the others follow it in order)
    CreateJobs { workflow: WorkflowId, jobs: Vec<NewJob> },
    /// Jobs that a running job brings forth: each waits for it. All or nothing. A prerequisite below 0
    /// is another of them: -1 the first. They may not depend on each other in a circle. → `Created`
    SpawnJobs { parent: JobId, jobs: Vec<NewJob> },
    /// → `Done`
    UpdateJob { job: JobId, change: Box<JobChange> },
    /// One job of a workflow, or all; what waited for it goes on. → `Count`
    DeleteJobs { workflow: WorkflowId, job: Option<JobId> },
    /// An endless workflow for the tasks of an application of this name. → `Created` (its id)
    CreateApplication { name: Box<str> },
    /// Jobs of an endless workflow, ready at once or at their moment, or when what they depend on is
    /// completed; `step_max` at most, and so many prerequisites. One of these that has ended is refused. One
    /// below 0 is another of the new jobs, before the one that names it: -1 the first. A job of whose
    /// prerequisites one ends without success does so, too. All or nothing. → `Created` (the first id; the
    /// others follow it in order)
    Enqueue { workflow: WorkflowId, jobs: Vec<NewJob> },
    /// Of an endless workflow, or of its lane with just these labels if there are any, nothing is handed
    /// out until it is paused no more. → `Done`
    Pause { workflow: WorkflowId, labels: LabelSet, paused: bool },
    /// What the lanes of endless workflows have of what is handed out, instead of what was said before:
    /// `lanes_max` of them at most. It is not stored. → `Done`
    SetShares(Vec<LaneShare>),
    /// → `Claimed`
    Claim(Claim),
    /// → `Job`
    Start { job: JobId, run: i64, node: NodeId },
    /// Accepts outcomes, each alone, then claims if asked to. → `Reported`
    Report(Report),
    /// Attempts that go on: each has its whole time once more, alone. → `Reported`
    Renew { workflow: WorkflowId, attempts: Vec<Held> },
    /// Attempts that were not begun: each job is ready as if nobody had taken it, alone. → `Reported`
    PutBack { workflow: WorkflowId, attempts: Vec<Held> },
    /// A new attempt. → `Job`
    Retry { job: JobId, run: i64, attempts_max: i64, delay_ms: i64 },
    /// A state set by hand. → `Job`
    SetState { job: JobId, run: i64, state: JobState },
    /// A compute node lives, and is believed to for so long; with 0 it says goodbye. What it held when
    /// it has not been heard of for that time is ready again, as a new attempt. `begin`: for the first
    /// time. A node that has no lease, or none any more, is refused. → `Done`
    Heartbeat { workflow: WorkflowId, node: NodeId, lease_ms: i64, begin: bool },
    /// → `Created` (the first id)
    CreateRequirements { workflow: WorkflowId, rows: Vec<(Row, Needs)> },
    /// → `Statement`
    UpdateRequirement { workflow: WorkflowId, id: RequirementId, set: Vec<(usize, Value)>, needs: Needs },
    /// Rows of any other table than workflows and requirements. → `Created`
    Insert { table: Table, workflow: WorkflowId, rows: Vec<Row> },
    /// An update or delete of rows of any such table, or an update of a workflow's row.
    /// → `Statement`
    Apply(Statement),
    /// What the command answers. If it is accepted, the statements are done in the same batch; the
    /// ids of rows that they insert are set by the machine.
    With { statements: Vec<Statement>, command: Box<Command> },
    /// Changes nothing. It is answered when all that was decided of this is committed. → `Done`
    Flush(Scope),
}

/// What a read is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    Everything,
    Workflow(WorkflowId),
    Job(JobId),
}

#[derive(Clone, PartialEq, Debug)]
pub struct NewWorkflow {
    pub row: Row,
    pub default_requirement: Row,
    pub needs: Needs,
}

/// What is to change of a job: absent, it stays.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct JobChange {
    /// Only together with the payload.
    pub name: Option<Box<str>>,
    pub payload: Option<Payload>,
    pub requirement: Option<RequirementId>,
    pub labels: Option<LabelSet>,
    pub scheduler: Option<Option<SchedulerId>>,
    pub priority: Option<i64>,
    pub cancel_on_failure: Option<bool>,
    /// What it waits for from now on, instead of what it was created with. Only of a draft; what hangs
    /// on itself is found when it is initialized.
    pub depends_on: Option<Box<[JobId]>>,
    /// May only be done to a draft.
    pub draft_only: bool,
}

/// Who wants jobs, how many, and by which order.
#[derive(Clone, PartialEq, Debug)]
pub struct Claim {
    pub workflow: WorkflowId,
    /// Never more than this many.
    pub limit: u32,
    /// The claimant's labels: without any it gets jobs without any, otherwise jobs whose labels are
    /// some of these, and at least one.
    pub labels: LabelSet,
    pub by: ClaimOrder,
    /// Claimed jobs are started on this node at once.
    pub start_on: Option<NodeId>,
    /// The node must have a lease: without one, or when it ends meanwhile, the claim is refused.
    pub leased: bool,
    /// With nothing to hand out the answer is held until then.
    pub wait_until: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimOrder {
    /// By (priority, id), whatever they need.
    Queue,
    /// By (priority, gpus, runtime, memory, cpus, id), taking what fits.
    Fitting {
        capacity: Capacity,
        /// Takes jobs of this scheduler and of none, if there are any; else, unless `strict`, any.
        scheduler: Option<SchedulerId>,
        strict: bool,
    },
    /// In an endless workflow, and only there. With labels from the lane that has just these, by
    /// (priority, id). Without from all lanes in turns, as their shares say; which of a lane's jobs is next
    /// is as with labels.
    Lanes,
}

/// The share of the lane of an endless workflow that has just these labels. All others weigh 1, and have
/// no bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LaneShare {
    pub workflow: WorkflowId,
    pub labels: LabelSet,
    pub share: Share,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Report {
    pub workflow: WorkflowId,
    pub completions: Vec<Completion>,
    /// Of the same workflow.
    pub claim: Option<Box<Claim>>,
}

/// An outcome as reported, with its fence: what is absent is not checked.
#[derive(Clone, PartialEq, Debug)]
pub struct Completion {
    pub job: JobId,
    pub run: i64,
    pub attempt: Option<i64>,
    pub node: Option<NodeId>,
    /// The claim that gave it out.
    pub grant: Option<Grant>,
    pub outcome: Outcome,
    /// Of a job with a policy that failed: it is tried again if that has an attempt left.
    pub again: Option<Again>,
}

/// An attempt, and the claim that holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    pub job: JobId,
    pub attempt: i64,
    pub grant: Grant,
}

/// How a failed attempt is to be followed by another one: what is absent is as the job's policy has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Again {
    pub failures_max: Option<NonZeroU16>,
    pub delay_ms: Option<i64>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Done,
    Created(i64),
    Count(i64),
    /// Apart: most answers are small, and answers are moved often.
    Job(Box<JobRow>),
    Claimed(Claimed),
    Reported {
        outcomes: Vec<(JobId, Result<(), Rejection>)>,
        claimed: Option<Claimed>,
        is_complete: bool,
        is_canceled: bool,
    },
    /// The place of its statement in its batch: the outcome comes with the commit.
    Statement(usize),
    Rejected(Rejection),
    /// Only after its commit, in the place of `Statement`.
    Outcome(StatementOutcome),
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct Claimed {
    pub jobs: Vec<(JobRow, Payload)>,
    /// The workflow was canceled: nothing is handed out.
    pub canceled: bool,
}

/// Why a command was refused. Nothing was changed.
#[derive(Clone, PartialEq, Debug)]
pub enum Rejection {
    NoSuchWorkflow(WorkflowId),
    NoSuchJob(JobId),
    NoSuchRequirement(RequirementId),
    /// Jobs of endless workflows are bound to none.
    NoSuchScheduler(SchedulerId),
    /// No job with just these labels has come yet.
    NoSuchLane(LabelSet),
    /// The job named as a prerequisite is not of this workflow.
    NoSuchPrerequisite(JobId),
    OtherWorkflow {
        job: JobId,
        workflow: WorkflowId,
    },
    AlreadyEnded {
        job: JobId,
        state: JobState,
    },
    /// The command does not go with the job's state.
    WrongState {
        job: JobId,
        state: JobState,
    },
    RunMismatch {
        given: i64,
        current: i64,
    },
    AttemptMismatch {
        job: JobId,
        given: i64,
        current: i64,
    },
    NodeMismatch {
        job: JobId,
        given: NodeId,
        current: NodeId,
    },
    /// This claim does not hold the job, or no longer: it was given back, reset, handed to another; or a
    /// server handed it out that ended before that was in the store.
    GrantMismatch {
        job: JobId,
        given: Grant,
        /// Which one holds it, if it is held.
        current: Option<Grant>,
    },
    /// The compute node has no lease, or none any more: what it held is not its own.
    NoLease(NodeId),
    /// Its attempt is already the last one that may be.
    NoAttemptLeft {
        job: JobId,
        attempt: i64,
        attempts_max: i64,
    },
    NotAnOutcome(JobState),
    Archived(WorkflowId),
    /// So many of its jobs are claimed or running.
    JobsHeld {
        workflow: WorkflowId,
        held: i64,
    },
    /// Its jobs depend on each other in a circle: here are some of it.
    Cycle(Vec<JobId>),
    NegativePriority(i64),
    /// A bound was reached: which option, and its value.
    Limit {
        option: &'static str,
        max: u64,
    },
}
