//! Workflows: their model, their settings, their status.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::job::JobStatusCounts;

/// A workflow. `run_id`, `is_canceled`, `is_archived` and `timestamp` are the server's:
/// values supplied by a client are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkflowModel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    pub name: String,
    pub user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_node_expiration_buffer_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_node_wait_for_new_jobs_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_node_ignore_workflow_completion: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_node_wait_for_healthy_database_minutes: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_node_min_time_for_new_jobs_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_monitor_config: Option<ResourceMonitorConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slurm_defaults: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_pending_failed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_ro_crate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_config: Option<ExecutionConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_canceled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_archived: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_jobs: Option<DynamicJobsConfig>,
    /// Names of the groups that share this workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_groups: Option<Vec<String>>,
    /// Absolute directory that the workflow was submitted from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub submission_directory: Option<String>,
    /// Ours: absolute path of the file that `forebay run` made it from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
    /// Ours: hash of that file's expanded content, set once all of the workflow is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_hash: Option<String>,
}

/// Settings of jobs that are spawned by jobs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DynamicJobsConfig {
    /// The most `spawn_jobs` calls of one lineage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_iterations: Option<i64>,
}

/// Which of a job's output streams go to files, and to how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StdioMode {
    /// Two files, `.o` and `.e`.
    #[default]
    Separate,
    /// One file, `.log`.
    Combined,
    /// Only stderr is kept.
    NoStdout,
    /// Only stdout is kept.
    NoStderr,
    /// Nothing is kept.
    None,
}

/// How a job's output is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StdioConfig {
    #[serde(default)]
    pub mode: StdioMode,
    /// Delete the files of a job that completed with success.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delete_on_success: Option<bool>,
}

/// Who starts and ends the processes of jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ExecutionMode {
    /// The runner, with signals.
    #[default]
    Direct,
    /// `srun`, inside a Slurm allocation.
    Slurm,
    /// `Slurm` if `SLURM_JOB_ID` is set, else `Direct`.
    Auto,
}

/// How jobs are run. Absent fields take the defaults named by the constants.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ExecutionConfig {
    #[serde(default)]
    pub mode: ExecutionMode,
    /// Seconds before the end of the allocation at which SIGKILL is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigkill_headroom_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub staggered_start: Option<bool>,
    /// Kill jobs that exceed their resource requirements (direct mode).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_resources: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub termination_signal: Option<String>,
    /// Seconds before SIGKILL at which the termination signal is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigterm_lead_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srun_termination_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srun_mpi: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_cpu_bind: Option<bool>,
    /// The workflow's default for jobs without an override.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdio: Option<StdioConfig>,
    /// By job name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_stdio_overrides: Option<BTreeMap<String, StdioConfig>>,
}

impl ExecutionConfig {
    /// Default of `sigterm_lead_seconds`.
    pub const SIGTERM_LEAD_SECONDS: i64 = 30;
    /// Default of `sigkill_headroom_seconds`.
    pub const SIGKILL_HEADROOM_SECONDS: i64 = 60;
    /// Default of `timeout_exit_code`, Slurm's own.
    pub const TIMEOUT_EXIT_CODE: i32 = 152;
    /// Default of `oom_exit_code`: 128 + SIGKILL.
    pub const OOM_EXIT_CODE: i32 = 137;
    /// Default of `termination_signal`.
    pub const TERMINATION_SIGNAL: &'static str = "SIGTERM";

    /// How the output of the job of this name is kept: its override, else the workflow's
    /// setting, else the default.
    pub fn stdio_of(&self, job_name: &str) -> StdioConfig {
        let overrides = self.job_stdio_overrides.as_ref();
        overrides.and_then(|by_name| by_name.get(job_name)).or(self.stdio.as_ref()).cloned().unwrap_or_default()
    }
}

/// How finely resource use is recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum MonitorGranularity {
    #[default]
    Summary,
    TimeSeries,
}

/// Resource monitoring of each job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct JobMonitorConfig {
    pub enabled: bool,
    pub granularity: MonitorGranularity,
}

/// Resource monitoring of the compute node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ComputeNodeMonitorConfig {
    pub enabled: bool,
    pub granularity: MonitorGranularity,
    pub cpu: bool,
    pub memory: bool,
}

impl Default for ComputeNodeMonitorConfig {
    fn default() -> Self {
        Self { enabled: false, granularity: MonitorGranularity::Summary, cpu: true, memory: true }
    }
}

/// Resource monitoring. `jobs` and `compute_node` are written as `null` when absent, as torc
/// writes them. `enabled` and `granularity` are the older form of `jobs`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct ResourceMonitorConfig {
    pub enabled: bool,
    pub granularity: MonitorGranularity,
    pub sample_interval_seconds: i32,
    pub flush_interval_seconds: i32,
    pub generate_plots: bool,
    pub jobs: Option<JobMonitorConfig>,
    pub compute_node: Option<ComputeNodeMonitorConfig>,
}

impl Default for ResourceMonitorConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            granularity: MonitorGranularity::Summary,
            sample_interval_seconds: 10,
            flush_interval_seconds: 300,
            generate_plots: false,
            jobs: None,
            compute_node: None,
        }
    }
}

/// Answer of `GET /workflows/{id}/status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkflowStatusResponse {
    pub workflow_id: i64,
    pub workflow_name: String,
    pub workflow_user: String,
    pub total_jobs: i64,
    pub jobs_by_status: JobStatusCounts,
    pub total_exec_time_minutes: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub walltime_seconds: Option<f64>,
    pub active_compute_nodes: i64,
    pub pending_scheduled_nodes: i64,
    pub active_scheduled_nodes: i64,
    pub is_complete: bool,
    pub is_canceled: bool,
    pub runtime_blocked_ready_jobs: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest_ready_runtime_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_allocation_remaining_seconds: Option<i64>,
    /// Ready jobs by label set (joined with commas) that no active runner serves.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unserved_ready_labels: BTreeMap<String, i64>,
}

/// Answer of `GET /workflows/{id}/is_complete`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct IsCompleteResponse {
    pub is_canceled: bool,
    pub is_complete: bool,
}

/// Answer of `GET /workflows/{id}/is_uninitialized`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct IsUninitializedResponse {
    pub is_uninitialized: bool,
}

/// Body of `POST /workflows/{id}/archive`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ArchiveWorkflowRequest {
    pub is_archived: bool,
}

/// Answer of `POST /workflows/{id}/reset_job_status`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ResetJobStatusResponse {
    pub workflow_id: i64,
    pub updated_count: i64,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset_type: Option<String>,
}

/// What the ready jobs of a workflow need in sum; maxima where named so.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GetReadyJobRequirementsResponse {
    pub num_jobs: i64,
    pub num_cpus: i64,
    pub num_gpus: i64,
    pub memory_gb: f64,
    pub max_num_nodes: i64,
    pub max_runtime: String,
}

/// Ids of files that must exist before the workflow starts and do not.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ListRequiredExistingFilesResponse {
    pub files: Vec<i64>,
}

/// Ids of user data that must have a value before the workflow starts and have none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ListMissingUserDataResponse {
    pub user_data: Vec<i64>,
}

/// Names of the jobs that run again because an input changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ProcessChangedJobInputsResponse {
    pub reinitialized_jobs: Vec<String>,
}

/// State of a server-side task, such as an asynchronous initialize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum TaskStatus {
    Queued,
    Running,
    Succeeded,
    Failed,
}

/// A server-side task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TaskModel {
    pub id: i64,
    pub workflow_id: i64,
    pub operation: String,
    pub status: TaskStatus,
    pub created_at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Answer of `GET /workflows/{id}/active_task`; `task` is `null` when there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ActiveTaskResponse {
    pub task: Option<TaskModel>,
}

/// Something that happens when a workflow gets to a point.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WorkflowActionModel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    pub workflow_id: i64,
    pub trigger_type: String,
    pub action_type: String,
    pub action_config: Value,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job_ids: Option<Vec<i64>>,
    #[serde(default)]
    pub trigger_count: i64,
    #[serde(default = "one")]
    pub required_triggers: i64,
    #[serde(default)]
    pub executed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub executed_by: Option<i64>,
    #[serde(default)]
    pub persistent: bool,
    #[serde(default)]
    pub is_recovery: bool,
}

const fn one() -> i64 {
    1
}

/// Body of `POST /workflows/{id}/actions/{action_id}/claim`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClaimActionRequest {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute_node_id: Option<i64>,
}

/// Answer of a granted action claim, as the server writes it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClaimActionResponse {
    pub action_id: i64,
    #[serde(default, alias = "success")]
    pub claimed: bool,
}

/// A machine that runs a workflow's jobs over SSH.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RemoteWorkerModel {
    pub worker: String,
    pub workflow_id: i64,
}

/// An entity of a workflow's RO-Crate.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct RoCrateEntityModel {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<i64>,
    pub workflow_id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_id: Option<i64>,
    pub entity_id: String,
    pub entity_type: String,
    pub metadata: BTreeMap<String, Value>,
}

/// Answer of the deletion of all RO-Crate entities of a workflow.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeleteRoCrateEntitiesResponse {
    pub message: String,
    pub deleted_count: i64,
}
