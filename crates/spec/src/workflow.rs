//! An expanded, checked workflow: what a file means.

use std::collections::BTreeMap;

use forebay_wire::{DynamicJobsConfig, ExecutionConfig, FailureHandlerRule, ResourceMonitorConfig, StdioConfig};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::diagnostic::Position;

/// What a workflow file means, with everything expanded and every reference found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Workflow {
    #[serde(flatten)]
    pub settings: Settings,
    pub env: BTreeMap<String, String>,
    pub files: Vec<File>,
    pub user_data: Vec<UserData>,
    pub resource_requirements: Vec<ResourceRequirements>,
    pub failure_handlers: Vec<FailureHandler>,
    pub slurm_schedulers: Vec<SlurmScheduler>,
    /// In the order of creation: after what they name in `depends_on`, else as in the file.
    pub jobs: Vec<Job>,
    /// Where the levels of `jobs` end: a job depends only on jobs of earlier levels.
    pub level_ends: Vec<usize>,
    pub actions: Vec<Action>,
    /// What the file asks for and does not get.
    #[serde(skip)]
    pub notices: Vec<Notice>,
}

/// The settings of a workflow as a whole; absent ones take the server's defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Settings {
    pub name: String,
    pub user: Option<String>,
    pub description: Option<String>,
    pub compute_node_wait_for_new_jobs_seconds: Option<i64>,
    pub compute_node_ignore_workflow_completion: Option<bool>,
    pub compute_node_wait_for_healthy_database_minutes: Option<i64>,
    pub slurm_defaults: Option<BTreeMap<String, Value>>,
    pub resource_monitor: Option<ResourceMonitorConfig>,
    pub dynamic_jobs: Option<DynamicJobsConfig>,
    pub use_pending_failed: Option<bool>,
    pub enable_ro_crate: Option<bool>,
    pub project: Option<String>,
    pub metadata: Option<BTreeMap<String, Value>>,
    /// With the jobs' own stdio settings in `job_stdio_overrides`.
    pub execution_config: Option<ExecutionConfig>,
    pub access_groups: Option<Vec<String>>,
}

/// A file that jobs read or write.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct File {
    pub name: String,
    pub path: String,
    pub identifier: Option<String>,
    /// Seconds since 1970, if the workflow file says so.
    pub st_mtime: Option<f64>,
    /// Whether a job reads it.
    pub is_input: bool,
    /// Whether a job writes it.
    pub is_output: bool,
}

/// A JSON value that jobs read or write.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct UserData {
    pub name: String,
    pub is_ephemeral: Option<bool>,
    pub data: Option<Value>,
}

/// What a job needs to run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ResourceRequirements {
    pub name: String,
    pub num_cpus: i64,
    pub num_gpus: i64,
    pub num_nodes: i64,
    /// A memory string that can be read.
    pub memory: String,
    /// An ISO 8601 duration that can be read.
    pub runtime: String,
}

/// What happens when a job fails.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FailureHandler {
    pub name: String,
    pub rules: Vec<FailureHandlerRule>,
}

/// A Slurm scheduler's settings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlurmScheduler {
    pub name: String,
    pub account: String,
    pub gres: Option<String>,
    pub mem: Option<String>,
    pub nodes: i64,
    pub ntasks_per_node: Option<i64>,
    pub partition: Option<String>,
    pub qos: Option<String>,
    pub tmp: Option<String>,
    pub walltime: String,
    pub extra: Option<String>,
    pub serialize_allocations: Option<bool>,
}

/// A job. What it refers to is given by index into the workflow's lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Job {
    pub name: String,
    pub command: String,
    pub invocation_script: Option<String>,
    pub env: BTreeMap<String, String>,
    pub cancel_on_blocking_job_failure: bool,
    pub resource_requirements: Option<usize>,
    pub failure_handler: Option<usize>,
    pub scheduler: Option<usize>,
    /// Jobs, all before this one, without what files and user data imply.
    pub depends_on: Vec<u32>,
    pub input_files: Vec<u32>,
    pub output_files: Vec<u32>,
    pub input_user_data: Vec<u32>,
    pub output_user_data: Vec<u32>,
    pub stdio: Option<StdioConfig>,
    pub priority: Option<i64>,
    pub labels: Vec<String>,
}

/// What is to happen when a workflow gets to a point.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Action {
    pub trigger_type: String,
    pub action_type: String,
    /// The jobs that it is about, by index, if it is about jobs.
    pub jobs: Option<Vec<u32>>,
    pub commands: Vec<String>,
    pub scheduler_type: Option<String>,
    /// A Slurm scheduler, by index.
    pub scheduler: Option<usize>,
    pub num_allocations: Option<i64>,
    pub start_one_worker_per_node: Option<bool>,
    pub max_parallel_jobs: Option<i32>,
    pub persistent: bool,
}

/// Something that the file asks for and that is not carried out yet, or has no effect here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub position: Position,
    pub message: String,
}

impl Workflow {
    /// A SHA-256 of what the workflow means, in hexadecimal. Formatting, comments and the format
    /// of the file do not change it; the order of jobs, files and the like does.
    pub fn content_hash(&self) -> String {
        let mut hasher = Hasher(Sha256::new_with_prefix(b"forebay workflow 1\n"));
        serde_json::to_writer(&mut hasher, self).expect("a workflow is plain data, and hashing does not fail");
        let digest = hasher.0.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

struct Hasher(Sha256);

impl std::io::Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
