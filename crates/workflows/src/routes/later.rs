//! Routes of torc's API that are not there yet: they say so, by their names.

use hyper::{Method, StatusCode};

use crate::fault::Fault;

/// The name of a route that is not there yet.
fn name(method: &Method, segments: &[&str]) -> Option<&'static str> {
    let (get, post) = (method == Method::GET, method == Method::POST);
    let (put, delete) = (method == Method::PUT, method == Method::DELETE);
    Some(match segments {
        ["access_check", _, _] if get => "check_workflow_access",
        ["access_groups"] if get => "list_access_groups",
        ["access_groups"] if post => "create_access_group",
        ["access_groups", _] if get => "get_access_group",
        ["access_groups", _] if delete => "delete_access_group",
        ["access_groups", _, "members"] if get => "list_group_members",
        ["access_groups", _, "members"] if post => "add_user_to_group",
        ["access_groups", _, "members", _] if delete => "remove_user_from_group",
        ["users", _, "groups"] if get => "list_user_groups",
        ["workflows", _, "access_groups"] if get => "list_workflow_groups",
        ["workflows", _, "access_groups", _] if post => "add_workflow_to_group",
        ["workflows", _, "access_groups", _] if delete => "remove_workflow_from_group",
        ["admin", "audit-log"] if get => "list_admin_audit_log",
        ["admin", "reload-auth"] if post => "reload_auth",
        ["admin", "sql"] if post => "admin_sql",
        ["admin", "api-events", "stream"] if get => "stream_api_events",
        ["admin", "api-stats"] if get => "get_api_stats",
        ["ro_crate_entities"] if post => "create_ro_crate_entity",
        ["ro_crate_entities", _] if get => "get_ro_crate_entity",
        ["ro_crate_entities", _] if put => "update_ro_crate_entity",
        ["ro_crate_entities", _] if delete => "delete_ro_crate_entity",
        ["workflows", _, "ro_crate_entities"] if get => "list_ro_crate_entities",
        ["workflows", _, "ro_crate_entities"] if delete => "delete_ro_crate_entities",
        ["slurm_stats"] if get => "list_slurm_stats",
        ["slurm_stats"] if post => "create_slurm_stats",
        ["workflows", _, "remote_workers"] if post => "create_remote_workers",
        ["workflows", _, "remote_workers", _] if delete => "delete_remote_worker",
        // torc itself answers that it is not implemented.
        ["workflows", _, "ready_job_requirements"] if get => "get_ready_job_requirements",
        _ => return None,
    })
}

/// What a route that is nowhere else answers.
pub(super) fn refuse(method: &Method, segments: &[&str]) -> Fault {
    match name(method, segments) {
        Some(name) => Fault::new(StatusCode::NOT_IMPLEMENTED, format!("{name} is not implemented yet")),
        None => Fault::no_route(),
    }
}
