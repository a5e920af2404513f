//! torc's REST API as serde types, and our additions to it.
//!
//! Struct and field names are torc's. A field that torc leaves out of its JSON when it is unset
//! is left out here too. Numbers keep their kind: integers are `i64`, floats are `f64` and are
//! written with a point, as strict clients ask.
//!
//! - [`workflow`], [`job`], [`catalog`]: the types, all re-exported here.
//! - [`ours`]: requests that torc does not have.
//! - [`units`]: memory strings and ISO 8601 durations.

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod catalog;
pub mod job;
pub mod ours;
pub mod units;
pub mod workflow;

pub use catalog::*;
pub use job::*;
pub use workflow::*;

/// Where the API starts on its host.
pub const BASE_PATH: &str = "/torc-service/v1";

/// Version of the API that we speak. A client whose major version differs refuses to go on.
pub const API_VERSION: &str = "0.23.0";

/// Version of torc whose API this is.
pub const TORC_VERSION: &str = "1.0.0";

/// The most entries of one bulk request, and of one page of a list.
pub const RECORDS_MAX: i64 = 100_000;

/// One page of a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ListResponse<T> {
    pub items: Vec<T>,
    pub offset: i64,
    pub max_limit: i64,
    pub count: i64,
    pub total_count: i64,
    pub has_more: bool,
}

impl<T> ListResponse<T> {
    /// The page of `items` that starts at `offset` of a list of `total_count`.
    pub fn page(items: Vec<T>, offset: i64, total_count: i64) -> Self {
        let count = i64::try_from(items.len()).expect("a page has at most RECORDS_MAX items");
        Self {
            items,
            offset,
            max_limit: RECORDS_MAX,
            count,
            total_count,
            has_more: offset.saturating_add(count) < total_count,
        }
    }
}

/// One page of a list of the access-group routes, whose envelope differs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AccessListResponse<T> {
    pub items: Vec<T>,
    pub offset: i64,
    pub limit: i64,
    pub total_count: i64,
    pub has_more: bool,
}

/// torc's name of the page of this item.
pub type ListWorkflowsResponse = ListResponse<WorkflowModel>;
/// torc's name of the page of this item.
pub type ListJobsResponse = ListResponse<JobModel>;
/// torc's name of the page of this item.
pub type ListJobDependenciesResponse = ListResponse<JobDependencyModel>;
/// torc's name of the page of this item.
pub type ListJobFileRelationshipsResponse = ListResponse<JobFileRelationshipModel>;
/// torc's name of the page of this item.
pub type ListJobUserDataRelationshipsResponse = ListResponse<JobUserDataRelationshipModel>;
/// torc's name of the page of this item.
pub type ListResultsResponse = ListResponse<ResultModel>;
/// torc's name of the page of this item.
pub type ListFilesResponse = ListResponse<FileModel>;
/// torc's name of the page of this item.
pub type ListUserDataResponse = ListResponse<UserDataModel>;
/// torc's name of the page of this item.
pub type ListResourceRequirementsResponse = ListResponse<ResourceRequirementsModel>;
/// torc's name of the page of this item.
pub type ListFailureHandlersResponse = ListResponse<FailureHandlerModel>;
/// torc's name of the page of this item.
pub type ListComputeNodesResponse = ListResponse<ComputeNodeModel>;
/// torc's name of the page of this item.
pub type ListScheduledComputeNodesResponse = ListResponse<ScheduledComputeNodesModel>;
/// torc's name of the page of this item.
pub type ListLocalSchedulersResponse = ListResponse<LocalSchedulerModel>;
/// torc's name of the page of this item.
pub type ListSlurmSchedulersResponse = ListResponse<SlurmSchedulerModel>;
/// torc's name of the page of this item.
pub type ListSlurmStatsResponse = ListResponse<SlurmStatsModel>;
/// torc's name of the page of this item.
pub type SlurmJobCorrelationsResponse = ListResponse<SlurmJobCorrelationModel>;
/// torc's name of the page of this item.
pub type ListEventsResponse = ListResponse<EventModel>;
/// torc's name of the page of this item.
pub type ListRoCrateEntitiesResponse = ListResponse<RoCrateEntityModel>;
/// torc's name of the page of this item.
pub type ListAdminAuditLogResponse = ListResponse<AdminAuditLogEntry>;
/// torc's name of the page of this item.
pub type RunningJobsResponse = ListResponse<RunningJobModel>;
/// torc's name of the page of this item.
pub type ListAccessGroupsResponse = AccessListResponse<AccessGroupModel>;
/// torc's name of the page of this item.
pub type ListUserGroupMembershipsResponse = AccessListResponse<UserGroupMembershipModel>;

/// Body of every refusal. torc puts `{"message": …}` into `error`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ErrorResponse {
    pub error: Value,
    #[serde(rename = "errorNum", skip_serializing_if = "Option::is_none")]
    pub error_num: Option<i64>,
    #[serde(rename = "errorMessage", skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
}

impl ErrorResponse {
    /// A refusal with this text, in torc's usual shape.
    pub fn message(text: impl Into<String>) -> Self {
        Self { error: serde_json::json!({ "message": text.into() }), ..Self::default() }
    }

    /// The text for people, wherever the server put it.
    pub fn text(&self) -> String {
        let found = match &self.error {
            Value::String(text) => Some(text.as_str()),
            Value::Object(fields) => fields.get("message").and_then(Value::as_str),
            _ => None,
        };
        let found = found.or(self.error_message.as_deref());
        found.map_or_else(|| self.error.to_string(), str::to_owned)
    }
}

/// An answer that is only a message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MessageResponse {
    pub message: String,
}

/// Answer of `GET /ping`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PingResponse {
    pub status: String,
}

/// Answer of `GET /version`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VersionResponse {
    pub version: String,
    pub api_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git_hash: Option<String>,
}

/// Answer of a deletion of many.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeleteCountResponse {
    pub count: i64,
}

/// A routing label that torc would refuse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("label must be non-empty with no comma and no leading or trailing whitespace, got {0:?}")]
pub struct BadLabel(pub String);

/// Whether `label` can be a routing label: not empty, no comma, no space around it.
pub fn check_label(label: &str) -> Result<(), BadLabel> {
    if label.is_empty() || label.trim() != label || label.contains(',') {
        return Err(BadLabel(label.to_owned()));
    }
    Ok(())
}

/// Whether `name` can be the name of an environment variable.
pub fn is_env_name(name: &str) -> bool {
    let mut chars = name.chars();
    let starts = chars.next().is_some_and(|c| c == '_' || c.is_ascii_alphabetic());
    starts && chars.all(|c| c == '_' || c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unset_field_is_left_out() {
        let job = JobModel {
            workflow_id: 7,
            name: "a".into(),
            command: "true".into(),
            status: Some(JobStatus::PendingFailed),
            ..JobModel::default()
        };
        assert_eq!(
            serde_json::to_value(job).unwrap(),
            json!({"workflow_id": 7, "name": "a", "command": "true", "status": "pending_failed"})
        );
    }

    #[test]
    fn null_and_absent_are_the_same_in_a_request() {
        let body = json!({"workflow_id": 7, "name": "a", "command": "true", "env": null, "id": null, "later": 1});
        let job: JobModel = serde_json::from_value(body).unwrap();
        assert_eq!((job.env, job.id, job.workflow_id), (None, None, 7));
    }

    #[test]
    fn resource_requirements_take_torcs_defaults() {
        let body = json!({"workflow_id": 7, "name": "small"});
        let needs: ResourceRequirementsModel = serde_json::from_value(body).unwrap();
        assert_eq!((needs.num_cpus, needs.num_gpus, needs.num_nodes), (1, 0, 1));
        assert_eq!((needs.memory.as_str(), needs.runtime.as_str()), ("1m", "PT1M"));
    }

    #[test]
    fn a_monitor_config_writes_null_scopes_and_reads_a_partial_one() {
        let config: ResourceMonitorConfig = serde_json::from_value(json!({"enabled": true})).unwrap();
        let written = serde_json::to_value(config).unwrap();
        assert_eq!(written["sample_interval_seconds"], 10);
        assert_eq!(written["jobs"], Value::Null);
        assert!(written.as_object().unwrap().contains_key("compute_node"));
    }

    #[test]
    fn an_unknown_field_of_the_execution_config_is_refused() {
        let config = serde_json::from_value::<ExecutionConfig>(json!({"mode": "direct", "sped": 1}));
        assert!(config.unwrap_err().to_string().contains("sped"));
    }

    #[test]
    fn floats_keep_their_point() {
        let free = ComputeNodesResources { num_cpus: 8, memory_gb: 8.0, ..ComputeNodesResources::default() };
        let text = serde_json::to_string(&free).unwrap();
        assert!(text.contains(r#""memory_gb":8.0"#), "{text}");
    }

    #[test]
    fn a_page_knows_whether_more_follow() {
        assert!(ListResponse::page(vec![1, 2], 0, 3).has_more);
        assert!(!ListResponse::page(vec![3], 2, 3).has_more);
        let empty = serde_json::to_value(ListResponse::<i64>::page(vec![], 0, 0)).unwrap();
        assert_eq!(
            empty,
            json!({"items": [], "offset": 0, "max_limit": 100_000, "count": 0, "total_count": 0, "has_more": false})
        );
    }

    #[test]
    fn every_status_has_its_word_and_number() {
        for (code, status) in JobStatus::ALL.into_iter().enumerate() {
            assert_eq!(status.code(), i64::try_from(code).unwrap());
            assert_eq!(JobStatus::from_code(status.code()), Some(status));
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), json!(status.as_str()));
        }
        assert_eq!(JobStatus::from_code(11), None);
        assert_eq!("done".parse::<JobStatus>(), Err(UnknownJobStatus("done".into())));
    }

    #[test]
    fn an_errors_text_is_found_in_each_of_its_shapes() {
        let text = |error: Value| ErrorResponse { error, ..ErrorResponse::default() }.text();
        assert_eq!(text(json!({"message": "no"})), "no");
        assert_eq!(text(json!({"error": "Forbidden", "message": "not yours"})), "not yours");
        assert_eq!(text(json!("plain")), "plain");
        assert_eq!(ErrorResponse::message("gone").text(), "gone");
    }

    #[test]
    fn labels_and_environment_names_are_checked() {
        assert!(check_label("gpu").is_ok());
        for bad in ["", " gpu", "gpu ", "a,b"] {
            assert_eq!(check_label(bad), Err(BadLabel(bad.to_owned())));
        }
        assert!(is_env_name("_A1") && !is_env_name("1A") && !is_env_name("") && !is_env_name("A-B"));
    }
}
