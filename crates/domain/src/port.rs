//! The port to the store: what the engine asks of it. Blocking, small, core and alloc only.

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::batch::{Batch, LaneRow, LaneState, LeaseRow, Outcomes, Sequence, WorkflowRow};
use crate::catalog::{Paging, Query, Row, Table};
use crate::claim::Needs;
use crate::graph::Edges;
use crate::ids::{Epoch, JobId, LaneId, Lsn, NodeId, RequirementId, Timestamp, WorkflowId};
use crate::job::{JobRow, Payload, RelationKind};
use crate::lane::OrderKey;
use crate::state::{JobState, STATES};

/// Why a store did not do what it was asked. Sorted by what the engine does next.
#[derive(Debug)]
pub enum StoreError {
    /// Locked, a full disk, I/O before the commit: the same again may work.
    Busy(Box<dyn core::error::Error + Send + Sync>),
    /// Corrupt, read-only, a failed sync: stop, and recover at the next start.
    Broken(Box<dyn core::error::Error + Send + Sync>),
}

impl core::fmt::Display for StoreError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            StoreError::Busy(cause) => write!(f, "the store is busy: {cause}"),
            StoreError::Broken(cause) => write!(f, "the store is broken: {cause}"),
        }
    }
}

impl core::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            StoreError::Busy(cause) | StoreError::Broken(cause) => Some(&**cause),
        }
    }
}

/// The write side. One thread owns it.
pub trait Store {
    /// Reads what a server needs to start, and makes its new boot epoch durable.
    fn recover(&mut self) -> Result<Recovered, StoreError>;

    /// Applies a batch in one transaction. `Ok` means durable as the store's mode has it. The same
    /// lsn again changes nothing and is `Ok`.
    fn commit(&mut self, batch: &Batch) -> Result<Outcomes, StoreError>;

    /// Makes durable against power loss what was committed before.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// The last thing at a stop: fold the log into the database, where there is one.
    fn close(&mut self) -> Result<(), StoreError>;
}

/// What a start begins with.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Recovered {
    /// The last committed batch.
    pub lsn: Lsn,
    /// This start's boot epoch: one more than the last one's.
    pub epoch: Epoch,
    /// High-water marks; 1 for a sequence that is not listed.
    pub sequences: Vec<(Sequence, i64)>,
    /// Workflows with a march that did not end.
    pub marching: Vec<WorkflowId>,
    /// Bytes of memory reserved for the graphs of all workflows.
    pub graph_bytes: i64,
    /// Lanes of all workflows that are not complete.
    pub lanes: i64,
    pub leases: Vec<LeaseRow>,
}

/// When something happens to a job by itself, and to which one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment {
    pub at: Timestamp,
    pub job: JobId,
}

/// What the machine asks of a reader. Each is answered from one snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Read {
    /// Ready jobs of a lane strictly after a key, in the lane's order.
    Page { lane: LaneId, after: Option<OrderKey>, limit: u32, payload_max: u32 },
    /// The moments at which something happens to jobs by itself, strictly after one, soonest first.
    Due { after: Option<Moment>, limit: u32 },
    /// A workflow's hot row, its requirements and its lanes.
    Workflow(WorkflowId),
    /// All jobs of a workflow in the order of their ids, and all edges between them.
    Graph(WorkflowId),
    /// The hot rows of these jobs; those that are not there are left out.
    Jobs(Vec<JobId>),
    /// The jobs that a compute node holds.
    Held(NodeId),
    /// Jobs of an endless workflow that wait for this one, strictly after one, in the order of their ids.
    Dependents { job: JobId, after: Option<JobId>, limit: u32 },
    /// The payloads of these jobs, whatever their size.
    Payloads(Vec<JobId>),
}

/// What a reader answers, each the twin of what was asked.
#[derive(Clone, PartialEq, Debug)]
pub enum Rows {
    /// `payload` is absent where it is larger than was asked for. Fewer rows than the limit: there
    /// are no more.
    Page(Vec<(JobRow, Option<Payload>)>),
    /// Fewer than the limit: there are no more.
    Due(Vec<Moment>),
    Workflow(Option<Box<WorkflowRows>>),
    Graph(Box<GraphRows>),
    Jobs(Vec<JobRow>),
    Held(Vec<JobId>),
    Dependents(Dependents),
    Payloads(Vec<(JobId, Payload)>),
}

/// Who waits for a job.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dependents {
    /// The job itself, if it is there.
    pub of: Option<JobRow>,
    /// Each with all that it waits for, that job too, and in which states these are. Fewer than the limit:
    /// there are no more.
    pub rows: Vec<(JobRow, Vec<(JobId, JobState)>)>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct WorkflowRows {
    pub row: WorkflowRow,
    pub requirements: Vec<(RequirementId, Needs)>,
    /// Each lane, and whether any job of it is ready.
    pub lanes: Vec<(LaneRow, bool)>,
    /// Of those lanes that have one.
    pub lane_states: Vec<LaneState>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub struct GraphRows {
    /// In the order of their ids.
    pub jobs: Vec<JobRow>,
    /// Those that are stored.
    pub edges: Edges,
    /// Edges that files and user data imply (who reads depends on who writes), stored or not, none
    /// from a job to itself, each once.
    pub implied: Vec<(JobId, JobId)>,
}

/// The read side. Each reader thread owns one; it sees what is committed.
pub trait Reader {
    /// Answers from one snapshot, with the lsn of the last batch in it.
    fn read(&mut self, what: &Read) -> Result<(Lsn, Rows), StoreError>;

    /// One catalog row.
    fn get(&mut self, table: Table, id: i64) -> Result<Option<Row>, StoreError>;

    /// A part of a list, and how long the whole list is.
    fn list(&mut self, query: &Query) -> Result<(Vec<Row>, u64), StoreError>;

    /// The hot row of a workflow, unless it is endless.
    fn workflow(&mut self, id: WorkflowId) -> Result<Option<WorkflowRow>, StoreError>;

    /// Hot rows of these workflows, endless ones too, in the order asked for; those that are not there are
    /// left out.
    fn workflows(&mut self, ids: &[WorkflowId]) -> Result<Vec<WorkflowRow>, StoreError>;

    /// How many jobs of all workflows are in each state, by the state's number. It looks at each
    /// workflow: for operators, every few seconds.
    fn totals(&mut self) -> Result<[i64; STATES], StoreError>;

    /// A job, unless it is of an endless workflow.
    fn job(&mut self, id: JobId) -> Result<Option<JobView>, StoreError>;

    /// A job of an endless workflow; of several of a name the first.
    fn task(&mut self, by: &TaskName) -> Result<Option<JobView>, StoreError>;

    /// The same for several, in their order.
    fn tasks(&mut self, by: &[TaskName]) -> Result<Vec<Option<JobView>>, StoreError> {
        by.iter().map(|by| self.task(by)).collect()
    }

    fn jobs(&mut self, query: &JobQuery) -> Result<(Vec<JobView>, u64), StoreError>;

    /// Dependencies of a workflow, (job, depends on), ordered so, and how many there are in all.
    fn dependencies(&mut self, workflow: WorkflowId, paging: Paging) -> Result<(Vec<Dependency>, u64), StoreError>;

    /// What each of these jobs depends on.
    fn prerequisites(&mut self, jobs: &[JobId]) -> Result<Vec<(JobId, JobId)>, StoreError>;

    /// Which catalog rows a workflow's jobs are tied to.
    fn relations(&mut self, workflow: WorkflowId) -> Result<Vec<(JobId, RelationKind, i64)>, StoreError>;

    /// The latest result of each job (that of its own which its hot row names), with the same filters
    /// and order as a list of `Table::Result`.
    fn latest_results(&mut self, query: &Query) -> Result<(Vec<Row>, u64), StoreError>;

    /// The names of these jobs, in the order asked for; those that are not there are left out.
    fn job_names(&mut self, ids: &[JobId]) -> Result<Vec<(JobId, Box<str>)>, StoreError>;
}

/// How a job of an endless workflow is looked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TaskName {
    Job(JobId),
    Named { workflow: WorkflowId, name: Box<str> },
}

/// A job as a list shows it.
#[derive(Clone, PartialEq, Debug)]
pub struct JobView {
    pub row: JobRow,
    pub name: Box<str>,
    pub payload: Payload,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dependency {
    pub job: JobId,
    pub job_name: Box<str>,
    pub depends_on: JobId,
    pub depends_on_name: Box<str>,
}

/// A list of a workflow's jobs. Every condition that is given holds.
#[derive(Clone, PartialEq, Debug)]
pub struct JobQuery {
    pub workflow: WorkflowId,
    pub state: Option<JobState>,
    /// A substring of the name, without regard to ASCII case.
    pub name: Option<Box<str>>,
    /// A substring, without regard to ASCII case, of the text at `$.command` of the payload, which is
    /// JSON in the workflows door.
    pub command: Option<Box<str>>,
    pub node: Option<NodeId>,
    /// Jobs that depend on this one.
    pub upstream: Option<JobId>,
    /// Jobs that read this file.
    pub needs_file: Option<i64>,
    /// Jobs of these lanes.
    pub lanes: Option<Vec<LaneId>>,
    pub offset: u64,
    pub limit: u64,
    pub sort: JobSort,
    pub reverse: bool,
}

impl JobQuery {
    /// A part of all jobs of a workflow, by id.
    pub const fn of(workflow: WorkflowId, offset: u64, limit: u64) -> JobQuery {
        JobQuery {
            workflow,
            state: None,
            name: None,
            command: None,
            node: None,
            upstream: None,
            needs_file: None,
            lanes: None,
            offset,
            limit,
            sort: JobSort::Id,
            reverse: false,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum JobSort {
    #[default]
    Id,
    Name,
    State,
    Priority,
}
