//! Additions to torc's API. A client of torc does not need them.
//!
//! `POST /workflows/{id}/report_and_claim` reports ended attempts, claims the next jobs, starts
//! them if asked, and may wait for jobs to become ready: one request where torc's own protocol
//! takes four.
//!
//! `POST /workflows/{id}/heartbeat` says that a compute node lives: it begins, renews or ends the
//! node's lease. Once a lease has ended, what its node held is ready again, as new attempts.

use serde::{Deserialize, Serialize};

use crate::{ComputeNodesResources, JobCompletionEntry, JobCompletionError, JobModel};

/// Body of `POST /workflows/{id}/report_and_claim`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ReportAndClaimRequest {
    #[serde(default)]
    pub completions: Vec<JobCompletionEntry>,
    /// Absent: only report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<ClaimRequest>,
}

/// What to claim. The reports of the same request are applied first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ClaimRequest {
    /// The most jobs to claim.
    pub limit: i64,
    /// What is free. Absent: claim by order, as `claim_next_jobs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ComputeNodesResources>,
    /// The runner's labels for a claim by order; a claim by resources has them in `resources`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Vec<String>>,
    /// Do not fall back to jobs of other schedulers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strict_scheduler_match: Option<bool>,
    /// A compute node's id: the claimed jobs are started on it in the same step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_on: Option<i64>,
    /// The node of `start_on` has a lease: without one, or when it ends while the claim waits, the
    /// whole request is refused with 410.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leased: Option<bool>,
    /// Wait this long for a job, if there is none and the workflow is not complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<i64>,
}

/// Answer of `POST /workflows/{id}/report_and_claim`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ReportAndClaimResponse {
    /// Ids of the jobs whose reports were accepted.
    pub completed: Vec<i64>,
    /// The reports that were refused.
    pub errors: Vec<JobCompletionError>,
    /// The claimed jobs: running if `start_on` was given, else pending.
    pub jobs: Vec<JobModel>,
    /// Why nothing was claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub is_complete: bool,
    pub is_canceled: bool,
}

/// Body of `POST /workflows/{id}/heartbeat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HeartbeatRequest {
    pub compute_node_id: i64,
    /// How long the node is believed to live without another heartbeat, in milliseconds. With 0 it
    /// says goodbye: what it holds is ready again, as new attempts.
    pub lease_ms: i64,
    /// The lease begins. Without this a node that has none, or none any more, is refused with 410.
    #[serde(default)]
    pub begin: bool,
}

/// Answer of `POST /workflows/{id}/heartbeat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct HeartbeatResponse {
    /// How long the node is believed to live from now on, in milliseconds: as asked for, or the most
    /// that the server grants.
    pub lease_ms: i64,
}
