//! A batch: all changes between two commits, applied by the store in one transaction.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::catalog::{Row, Statement, StatementOutcome, Table};
use crate::claim::Needs;
use crate::graph::Edges;
use crate::ids::{JobId, LaneId, Lsn, NodeId, RequirementId, SchedulerId, WorkflowId};
use crate::job::{JobFlags, JobRow, Payload, RelationKind, Standing};
use crate::lane::LabelSet;
use crate::state::STATES;

/// What the store is to make durable at once. The two kinds of entries of the design are apart:
/// `statements` may be refused one by one, all else cannot be.
///
/// The store applies, in this order: sequences, workflows, lanes, `lane_states`, requirements, jobs (as listed),
/// details, `edges_cut`, edges, relations, leases, appends, statements, `jobs_deleted`, `jobs_over`, `workflows_deleted`;
/// and writes its `lsn`. A batch whose lsn is already stored is a no-op that answers as it did (with
/// `Inserted`, `Row(None)` or `Count(0)` for its statements where the answer is gone).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Batch {
    pub lsn: Lsn,
    /// New high-water marks: ids below them may be in use.
    pub sequences: Vec<(Sequence, i64)>,
    /// Hot rows of workflows: inserted or replaced.
    pub workflows: Vec<WorkflowRow>,
    /// Lanes: inserted.
    pub lanes: Vec<LaneRow>,
    /// Of lanes of endless workflows: inserted or replaced.
    pub lane_states: Vec<LaneState>,
    /// What lanes of this requirement need from now on: inserted or replaced.
    pub requirements: Vec<(WorkflowId, RequirementId, Needs)>,
    /// Hot rows of jobs, each job once, as it is at the end of the batch.
    pub jobs: Vec<JobWrite>,
    /// What is written once of a job; replaced where the job has one.
    pub details: Vec<JobDetail>,
    /// Jobs that depend on nothing any more, but for `edges`: they leave their barriers, too.
    pub edges_cut: Vec<JobId>,
    /// Those that are there already stay.
    pub edges: Edges,
    pub relations: Vec<(JobId, RelationKind, i64)>,
    /// Rows of tables that are only ever added to: results and events.
    pub appends: Vec<(Table, Row)>,
    pub statements: Vec<Statement>,
    /// Leases that begin (true) or are over: inserted or deleted.
    pub leases: Vec<(LeaseRow, bool)>,
    /// Jobs to delete with all that hangs on them.
    pub jobs_deleted: Vec<JobId>,
    /// Jobs of endless workflows to delete: nothing hangs on them.
    pub jobs_over: Vec<JobId>,
    /// Workflows to delete with all that hangs on them.
    pub workflows_deleted: Vec<WorkflowId>,
}

/// A hot row to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JobWrite {
    pub row: JobRow,
    pub extent: Extent,
}

/// How much of a hot row a write changes. All of the row is there whatever it is; what does not change need
/// not be written, nor the indexes on it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Extent {
    /// Neither what is named below, nor the lane, the priority, the timer or the moment of expiry.
    Step,
    /// The node that runs it, too.
    Node,
    /// Anything.
    Whole,
    /// The job is created by this batch: insert, otherwise update by id.
    New,
}

impl Extent {
    /// The least that makes one row of the other.
    pub fn between(before: &Standing, after: &Standing) -> Extent {
        match (Standing { node: None, ..*before } == Standing { node: None, ..*after }, before.node == after.node) {
            (true, true) => Extent::Step,
            (true, false) => Extent::Node,
            (false, _) => Extent::Whole,
        }
    }
}

#[derive(Clone, PartialEq, Debug)]
pub struct JobDetail {
    pub job: JobId,
    pub workflow: WorkflowId,
    pub name: Box<str>,
    pub payload: Payload,
}

/// The hot row of a workflow.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorkflowRow {
    pub id: WorkflowId,
    /// Counts from 0; one more at each reset of the workflow.
    pub run: i64,
    pub canceled: bool,
    pub archived: bool,
    /// It has no end: jobs are added as long as it is there, and one that ends is gone, unless it is a
    /// dead letter. Its run is always `ENDLESS_RUN`.
    pub endless: bool,
    /// Nothing of it is handed out for now.
    pub paused: bool,
    /// Whether any of its jobs depends on another.
    pub has_edges: bool,
    /// The requirement of jobs that name none.
    pub default_requirement: RequirementId,
    /// A change of many jobs that is being carried out in parts, from batch to batch.
    pub march: Option<March>,
    /// Bytes of memory reserved for its graph until it is complete.
    pub graph_bytes: i64,
    /// Lanes that are counted against `lanes_max`: all of its own until it is complete, then none.
    pub lanes: i64,
    /// How many of its jobs are in each state, by the state's number.
    pub counts: [i64; STATES],
}

/// A change of so many jobs that it is carried out in parts. After a crash it goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum March {
    /// `done`: how many jobs, of the workflow's jobs in their order, it has behind it.
    Initialize { only_drafts: bool, done: u32 },
    /// `done` as above.
    Reset { failed_only: bool, done: u32 },
    /// All jobs are deleted.
    Delete,
    /// Jobs from this one on are being created: none of them is there for anybody before all are.
    /// After a crash they are removed.
    Create { from: JobId },
    /// What waited for this job alone goes on: it has ended.
    Release { job: JobId },
}

/// The run of endless workflows: no client of torc's API names such a one.
pub const ENDLESS_RUN: i64 = -1;

impl WorkflowRow {
    /// A workflow without jobs.
    pub fn new(id: WorkflowId, default_requirement: RequirementId) -> WorkflowRow {
        WorkflowRow {
            id,
            run: 0,
            canceled: false,
            archived: false,
            endless: false,
            paused: false,
            has_edges: false,
            default_requirement,
            march: None,
            graph_bytes: 0,
            lanes: 0,
            counts: [0; STATES],
        }
    }

    /// An endless one.
    pub fn endless(id: WorkflowId, default_requirement: RequirementId) -> WorkflowRow {
        WorkflowRow { run: ENDLESS_RUN, endless: true, ..WorkflowRow::new(id, default_requirement) }
    }

    /// No job has anything left to do. An endless one never has.
    pub fn is_complete(&self) -> bool {
        let has_end = !self.endless;
        let is_settled =
            || crate::state::STATE_LIST.iter().all(|state| state.is_settled() || self.counts[*state as usize] == 0);
        self.canceled || (has_end && is_settled())
    }

    /// A job as it is now is over for good, and its rows go: in an endless workflow all that ends but dead
    /// letters, once nobody waits for it.
    pub fn is_over(&self, job: &JobRow) -> bool {
        let is_kept = job.flags.has(JobFlags::DEAD_LETTER) || job.flags.has(JobFlags::AWAITED);
        self.endless && job.state.has_ended() && !is_kept
    }
}

/// A lane: written once, by the batch that first needs it.
#[derive(Clone, PartialEq, Debug)]
pub struct LaneRow {
    pub id: LaneId,
    pub workflow: WorkflowId,
    pub requirement: RequirementId,
    pub labels: LabelSet,
    pub scheduler: Option<SchedulerId>,
}

/// What changes of a lane of an endless workflow. One that is not stored has nothing held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneState {
    pub lane: LaneId,
    /// How many of its jobs are claimed or running.
    pub held: i64,
    /// Nothing of it is handed out for now.
    pub paused: bool,
}

/// A compute node that says again and again that it lives, and for how long it is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LeaseRow {
    pub node: NodeId,
    pub workflow: WorkflowId,
    pub lease_ms: i64,
}

/// What numbers are given out from: one for each catalog table, and for jobs and lanes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Sequence {
    Job,
    Lane,
    Row(Table),
}

impl Sequence {
    /// Its name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Sequence::Job => "job",
            Sequence::Lane => "lane",
            Sequence::Row(table) => table.name(),
        }
    }
}

impl Batch {
    /// How many changes it holds: what `batch_max` and the backlog count.
    pub fn len(&self) -> usize {
        self.workflows.len()
            + self.lanes.len()
            + self.lane_states.len()
            + self.requirements.len()
            + self.jobs.len()
            + self.edges_cut.len()
            + self.edges.direct.len()
            + self.edges.barriers.len()
            + self.edges.members.len()
            + self.relations.len()
            + self.leases.len()
            + self.appends.len()
            + self.statements.iter().map(Statement::len).sum::<usize>()
            + self.jobs_deleted.len()
            + self.jobs_over.len()
            + self.workflows_deleted.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.sequences.is_empty()
    }
}

impl Statement {
    pub(crate) fn len(&self) -> usize {
        match self {
            Statement::Insert { rows, .. } => rows.len(),
            Statement::Update { .. } | Statement::Delete { .. } | Statement::DeleteAll { .. } => 1,
        }
    }
}

/// What a committed batch answers: one outcome for each of its statements, in their order.
pub type Outcomes = Vec<StatementOutcome>;
