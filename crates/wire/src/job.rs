//! Jobs: their model and status, claims, reports and results.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A job. In a request absent fields take the server's defaults; in an answer they are unset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobModel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    pub workflow_id: i64,
    pub name: String,
    pub command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation_script: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<JobStatus>,
    /// When the current attempt began; absent unless it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
    /// Where the current attempt runs; absent unless it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_node_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_compute_nodes: Option<ComputeNodeSchedule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_on_blocking_job_failure: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supports_termination: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depends_on_job_ids: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_file_ids: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_file_ids: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_user_data_ids: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_user_data_ids: Option<Vec<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_requirements_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_handler_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<i64>,
    /// Higher is claimed first; at least 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    /// Absent for a declared job, else `retry` or `spawn`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Only a runner that has all of these claims the job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Ours: the claim that handed it out, which no other claim is; only where `report_and_claim` does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<i64>,
}

/// Compute nodes to schedule when the job is ready (older clients).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ComputeNodeSchedule {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_jobs: Option<i64>,
    pub num_jobs: i64,
    pub scheduler_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_one_worker_per_node: Option<bool>,
}

/// Where a job is in its life, in torc's words. The numbers are torc's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    #[default]
    Uninitialized = 0,
    Blocked = 1,
    Ready = 2,
    Pending = 3,
    Running = 4,
    Completed = 5,
    Failed = 6,
    Canceled = 7,
    Terminated = 8,
    Disabled = 9,
    PendingFailed = 10,
}

impl JobStatus {
    /// Every status, in the order of its number.
    pub const ALL: [Self; 11] = [
        Self::Uninitialized,
        Self::Blocked,
        Self::Ready,
        Self::Pending,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Canceled,
        Self::Terminated,
        Self::Disabled,
        Self::PendingFailed,
    ];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uninitialized => "uninitialized",
            Self::Blocked => "blocked",
            Self::Ready => "ready",
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Terminated => "terminated",
            Self::Disabled => "disabled",
            Self::PendingFailed => "pending_failed",
        }
    }

    /// torc's number of this status.
    pub const fn code(self) -> i64 {
        self as i64
    }

    /// The status of torc's number.
    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }

    /// A status that an attempt can be reported with.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled | Self::Terminated | Self::PendingFailed)
    }

    /// A status that a job does not leave by itself.
    pub const fn is_complete(self) -> bool {
        self.is_terminal() && !matches!(self, Self::PendingFailed)
    }
}

impl std::fmt::Display for JobStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// No job status has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Value not valid: {0}")]
pub struct UnknownJobStatus(pub String);

impl std::str::FromStr for JobStatus {
    type Err = UnknownJobStatus;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|status| status.as_str() == word);
        known.ok_or_else(|| UnknownJobStatus(word.to_owned()))
    }
}

/// Jobs of a workflow by status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobStatusCounts {
    pub uninitialized: i64,
    pub blocked: i64,
    pub ready: i64,
    pub pending: i64,
    pub running: i64,
    pub completed: i64,
    pub failed: i64,
    pub canceled: i64,
    pub terminated: i64,
    pub disabled: i64,
    pub pending_failed: i64,
}

impl JobStatusCounts {
    /// How many jobs have this status.
    pub const fn of(&self, status: JobStatus) -> i64 {
        match status {
            JobStatus::Uninitialized => self.uninitialized,
            JobStatus::Blocked => self.blocked,
            JobStatus::Ready => self.ready,
            JobStatus::Pending => self.pending,
            JobStatus::Running => self.running,
            JobStatus::Completed => self.completed,
            JobStatus::Failed => self.failed,
            JobStatus::Canceled => self.canceled,
            JobStatus::Terminated => self.terminated,
            JobStatus::Disabled => self.disabled,
            JobStatus::PendingFailed => self.pending_failed,
        }
    }

    /// The count of this status, to change it.
    pub const fn of_mut(&mut self, status: JobStatus) -> &mut i64 {
        match status {
            JobStatus::Uninitialized => &mut self.uninitialized,
            JobStatus::Blocked => &mut self.blocked,
            JobStatus::Ready => &mut self.ready,
            JobStatus::Pending => &mut self.pending,
            JobStatus::Running => &mut self.running,
            JobStatus::Completed => &mut self.completed,
            JobStatus::Failed => &mut self.failed,
            JobStatus::Canceled => &mut self.canceled,
            JobStatus::Terminated => &mut self.terminated,
            JobStatus::Disabled => &mut self.disabled,
            JobStatus::PendingFailed => &mut self.pending_failed,
        }
    }

    /// All jobs.
    pub fn total(&self) -> i64 {
        JobStatus::ALL.into_iter().map(|status| self.of(status)).sum()
    }
}

/// Body of `POST /bulk_jobs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobsModel {
    pub jobs: Vec<JobModel>,
}

/// Answer of `POST /bulk_jobs`, in the order of the request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CreateJobsResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Vec<JobModel>>,
}

/// What a runner has free: body of `POST /workflows/{id}/claim_jobs_based_on_resources/{limit}`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ComputeNodesResources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    pub num_cpus: i64,
    pub memory_gb: f64,
    pub num_gpus: i64,
    pub num_nodes: i64,
    /// ISO 8601 duration: longer jobs are not claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_config_id: Option<i64>,
    /// The runner's labels; absent takes unlabeled jobs only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

/// Answer of a claim by resources; `reason` says why nothing was claimed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClaimJobsBasedOnResources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Vec<JobModel>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Answer of a claim by order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClaimNextJobsResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Vec<JobModel>>,
}

/// How one attempt of a job ended. `job_name` is filled in on reads and ignored on writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ResultModel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    pub job_id: i64,
    pub workflow_id: i64,
    pub run_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt_id: Option<i64>,
    pub compute_node_id: i64,
    pub return_code: i64,
    pub exec_time_minutes: f64,
    /// RFC 3339.
    pub completion_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_memory_bytes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_cpu_percent: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_cpu_percent: Option<f64>,
    pub status: JobStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_name: Option<String>,
}

/// One report of a batch.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobCompletionEntry {
    pub job_id: i64,
    pub status: JobStatus,
    pub run_id: i64,
    pub result: ResultModel,
    /// Ours: the claim that the attempt comes from. If the job is not held by it, the report is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<i64>,
}

/// Body of `POST /workflows/{id}/batch_complete_jobs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BatchCompleteJobsRequest {
    pub completions: Vec<JobCompletionEntry>,
}

/// Why one report of a batch was refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobCompletionError {
    pub job_id: i64,
    pub message: String,
}

/// Answer of `POST /workflows/{id}/batch_complete_jobs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BatchCompleteJobsResponse {
    pub completed: Vec<i64>,
    pub errors: Vec<JobCompletionError>,
}

/// A job that runs now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RunningJobModel {
    pub job_id: i64,
    pub job_name: String,
    pub compute_node_name: String,
    pub scheduler_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler_job_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<String>,
}

/// One edge of the dependency graph.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobDependencyModel {
    pub job_id: i64,
    pub job_name: String,
    pub depends_on_job_id: i64,
    pub depends_on_job_name: String,
    pub workflow_id: i64,
}

/// Who writes and who reads a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobFileRelationshipModel {
    pub file_id: i64,
    pub file_name: String,
    pub file_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_job_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_job_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_job_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_job_name: Option<String>,
    pub workflow_id: i64,
}

/// Who writes and who reads a piece of user data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobUserDataRelationshipModel {
    pub user_data_id: i64,
    pub user_data_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_job_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer_job_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_job_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_job_name: Option<String>,
    pub workflow_id: i64,
}

/// Answer of `GET /workflows/{id}/job_ids`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ListJobIdsResponse {
    pub job_ids: Vec<i64>,
    pub count: i64,
}

/// One job to spawn. `depends_on` names jobs of the workflow or of the same request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SpawnJobModel {
    pub name: String,
    pub command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_requirements: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_on_blocking_job_failure: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
}

/// Body of `POST /jobs/{id}/spawn_jobs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SpawnJobsRequest {
    /// Defaults to the name of the calling job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lineage: Option<String>,
    pub jobs: Vec<SpawnJobModel>,
    /// Kept with this generation, or as the final state when `jobs` is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Value>,
}

/// Answer of `POST /jobs/{id}/spawn_jobs`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SpawnJobsResponse {
    pub spawned_job_ids: Vec<i64>,
    pub iteration: i64,
}
