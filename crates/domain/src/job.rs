//! A job as the engine sees it: one hot, narrow, fixed-width row.

use alloc::boxed::Box;
use alloc::sync::Arc;

use crate::catalog::Table;
use crate::ids::{Grant, JobId, LaneId, NodeId, ResultId, SchedulerId, Timestamp, WorkflowId};
use crate::lane::OrderKey;
use crate::policy::{Policy, Tries};
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
    /// Its latest claim. It counts only while the job is held, and is not kept beyond.
    pub grant: Grant,
    pub started_at: Option<Timestamp>,
    /// It is not ready before. Of a job with a policy that is held: its attempt is lost then.
    pub due_at: Option<Timestamp>,
    /// Its latest outcome.
    pub result: Option<ResultId>,
    /// Attempts that its policy counts.
    pub tries: Tries,
    /// Never changed.
    pub policy: Option<Policy>,
    /// Not begun by then, it ends without success.
    pub expires_at: Option<Timestamp>,
}

/// What of a job's row most changes leave as it is, and indexes are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    pub lane: LaneId,
    pub priority: i64,
    pub timer: Option<Timestamp>,
    pub expires_at: Option<Timestamp>,
    pub node: Option<NodeId>,
}

impl JobRow {
    pub fn standing(&self) -> Standing {
        let &JobRow { lane, priority, expires_at, node, .. } = self;
        Standing { lane, priority, timer: self.timer(), expires_at, node }
    }

    /// Its place within its lane.
    pub fn key(&self) -> OrderKey {
        OrderKey::new(self.priority, self.id)
    }

    /// The claim that holds it.
    pub fn held_by(&self) -> Option<Grant> {
        self.state.is_held().then_some(self.grant)
    }

    /// When something happens to it by itself, if it is left as it is. Stored beside it, and looked
    /// for by index.
    pub fn timer(&self) -> Option<Timestamp> {
        match self.state {
            JobState::Scheduled => match (self.due_at, self.expires_at) {
                (Some(due), Some(expires)) => Some(due.min(expires)),
                (one, None) | (None, one) => one,
            },
            JobState::Ready => self.expires_at,
            JobState::Claimed | JobState::Running => self.due_at.filter(|_| self.policy.is_some()),
            // Those that wait for it are to be seen to, whenever that was.
            JobState::Completed | JobState::Failed | JobState::Canceled | JobState::Terminated => {
                self.flags.has(JobFlags::AWAITED).then_some(Timestamp(0))
            }
            JobState::Draft | JobState::Blocked | JobState::Disabled | JobState::PendingFailed => None,
        }
    }

    /// The moment before which it is not ready, if it is let go: not the deadline of an attempt.
    pub fn not_before(&self) -> Option<Timestamp> {
        self.due_at.filter(|_| self.policy.is_none() || !self.state.is_held())
    }

    /// When an attempt that is claimed now is lost, if it is not over.
    pub fn deadline(&self, now: Timestamp) -> Option<Timestamp> {
        let policy = self.policy.filter(|policy| policy.deadline_ms > 0);
        policy.map(|policy| now.after(policy.deadline_ms.into()))
    }

    /// Its timer, as the store's order has it.
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
    /// It ended without success by its policy, and is kept to be looked at and sent back.
    pub const DEAD_LETTER: JobFlags = JobFlags(16);
    /// Of an endless workflow: others wait for its end.
    pub const AWAITED: JobFlags = JobFlags(32);

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
    pub policy: Option<Policy>,
    /// If it is not begun by then, it ends without success.
    pub expires_at: Option<Timestamp>,
    pub depends_on: Box<[JobId]>,
    pub relations: Box<[(RelationKind, i64)]>,
}

impl NewJob {
    /// Its hot row at its beginning.
    pub fn row(&self, id: JobId, workflow: WorkflowId, lane: LaneId, state: JobState) -> JobRow {
        JobRow {
            id,
            workflow,
            lane,
            state,
            priority: self.priority,
            attempt: 1,
            flags: JobFlags::default().with(JobFlags::CANCEL_ON_FAILURE, self.cancel_on_failure),
            node: None,
            grant: Grant::default(),
            started_at: None,
            due_at: self.not_before,
            result: None,
            tries: Tries::default(),
            policy: self.policy,
            expires_at: self.expires_at,
        }
    }
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
            | Table::Task
            | Table::Application => &[],
        }
    }
}

/// The return code of a job that was canceled and that nobody reported: no process of it told one.
pub const CANCELED_CODE: i64 = -1;

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

impl Outcome {
    /// Of a job that is canceled, and that nobody reports.
    pub fn canceled(now: Timestamp, started_at: Option<Timestamp>) -> Outcome {
        let ran_ms = started_at.map_or(0, |since| (now.0 - since.0).max(0));
        Outcome {
            state: JobState::Canceled,
            return_code: CANCELED_CODE,
            exec_time_minutes: ran_ms as f64 / 60_000.0,
            completion_time: now.rfc3339(),
            peak_memory_bytes: None,
            avg_memory_bytes: None,
            peak_cpu_percent: None,
            avg_cpu_percent: None,
        }
    }
}
