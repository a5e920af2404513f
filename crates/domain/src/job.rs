//! A job as the engine sees it: one hot, narrow, fixed-width row.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::catalog::Table;
use crate::ids::{Epoch, JobId, LaneId, NodeId, ResultId, SchedulerId, Timestamp, WorkflowId};
use crate::lane::OrderKey;
use crate::port::Moment;
use crate::state::JobState;

/// Once written, opaque to the engine: what the door needs to render the job to a claimant.
pub type Payload = Arc<[u8]>;

/// The hot row of a job: all that changes in its life, and its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobRow {
    pub id: JobId,
    pub workflow: WorkflowId,
    pub lane: LaneId,
    pub state: JobState,
    /// Higher goes first.
    pub priority: i64,
    /// Counts from 1; one more at each retry.
    pub attempt: i64,
    pub flags: JobFlags,
    /// The compute node that runs it.
    pub node: Option<NodeId>,
    /// The boot epoch of the server that granted its claim.
    pub epoch: Epoch,
    pub started_at: Option<Timestamp>,
    /// It is not ready before.
    pub due_at: Option<Timestamp>,
    /// Its latest outcome.
    pub result: Option<ResultId>,
}

impl JobRow {
    /// Its place within its lane.
    pub fn key(&self) -> OrderKey {
        OrderKey::new(self.priority, self.id)
    }

    /// When something happens to it by itself, if it is left as it is. Stored beside it, and looked
    /// for by index.
    pub fn timer(&self) -> Option<Timestamp> {
        match self.state {
            JobState::Scheduled => self.due_at,
            JobState::Draft
            | JobState::Blocked
            | JobState::Ready
            | JobState::Claimed
            | JobState::Running
            | JobState::Completed
            | JobState::Failed
            | JobState::Canceled
            | JobState::Terminated
            | JobState::Disabled
            | JobState::PendingFailed => None,
        }
    }

    /// The same, as the store's order has it.
    pub fn moment(&self) -> Option<Moment> {
        self.timer().map(|at| Moment { at, job: self.id })
    }
}

/// Yes-and-no facts of a job, stored as one number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct JobFlags(pub u8);

impl JobFlags {
    /// It is canceled when a prerequisite fails.
    pub const CANCEL_ON_FAILURE: JobFlags = JobFlags(1);
    /// Its end was a failure for those that depend on it: canceled, terminated, or failed with a
    /// return code other than 0.
    pub const BLAMED: JobFlags = JobFlags(2);
    /// It was canceled since a prerequisite failed, not by a user.
    pub const CASCADED: JobFlags = JobFlags(4);
    /// Another job brought it forth while it ran.
    pub const SPAWNED: JobFlags = JobFlags(8);

    pub fn has(self, flag: JobFlags) -> bool {
        self.0 & flag.0 != 0
    }

    #[must_use]
    pub fn with(self, flag: JobFlags, on: bool) -> JobFlags {
        JobFlags(if on { self.0 | flag.0 } else { self.0 & !flag.0 })
    }
}

/// What a job is to be created from.
#[derive(Clone, PartialEq, Debug)]
pub struct NewJob {
    pub name: Box<str>,
    pub payload: Payload,
    /// The resource requirement; the workflow's default one if absent.
    pub requirement: Option<crate::ids::RequirementId>,
    pub labels: crate::lane::LabelSet,
    pub scheduler: Option<SchedulerId>,
    pub priority: i64,
    pub cancel_on_failure: bool,
    /// Once it is free, it waits until then before it is ready.
    pub not_before: Option<Timestamp>,
    pub depends_on: Box<[JobId]>,
    pub relations: Box<[(RelationKind, i64)]>,
}

/// How a job is tied to a catalog row (a file or a user data record) by id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum RelationKind {
    InputFile = 0,
    OutputFile = 1,
    InputUserData = 2,
    OutputUserData = 3,
}

impl RelationKind {
    /// How jobs may be tied to rows of this table.
    pub fn of(table: Table) -> &'static [RelationKind] {
        match table {
            Table::File => &[RelationKind::InputFile, RelationKind::OutputFile],
            Table::UserData => &[RelationKind::InputUserData, RelationKind::OutputUserData],
            Table::Workflow
            | Table::Requirement
            | Table::Node
            | Table::Handler
            | Table::Event
            | Table::Result
            | Table::Action
            | Table::LocalScheduler
            | Table::SlurmScheduler
            | Table::ScheduledNode
            | Table::Task => &[],
        }
    }
}

/// How an attempt ended, as reported. Kept as a row of the `result` table.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// One of completed, failed, canceled, terminated, pending_failed.
    pub state: JobState,
    pub return_code: i64,
    pub exec_time_minutes: f64,
    /// As reported, RFC 3339.
    pub completion_time: Box<str>,
    pub peak_memory_bytes: Option<i64>,
    pub avg_memory_bytes: Option<i64>,
    pub peak_cpu_percent: Option<f64>,
    pub avg_cpu_percent: Option<f64>,
}
