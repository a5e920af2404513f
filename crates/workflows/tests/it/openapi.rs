//! The OpenAPI document and the door say the same.

use std::collections::{BTreeMap, BTreeSet};

use hyper::Method;
use serde_json::{Value, json};

use crate::world::World;

/// How many of torc's operations wait for the second half: what `docs/from-torc.md` says.
const WAITING: usize = 28;

/// The operations of torc 1.0.0, methods before each path.
const TORC: &[&str] = &[
    "GET /access_check/{workflow_id}/{user_name}",
    "GET POST /access_groups",
    "DELETE GET /access_groups/{id}",
    "GET POST /access_groups/{id}/members",
    "DELETE /access_groups/{id}/members/{user_name}",
    "GET /admin/api-events/stream",
    "GET /admin/api-stats",
    "GET /admin/audit-log",
    "POST /admin/reload-auth",
    "POST /admin/sql",
    "POST /bulk_files",
    "POST /bulk_jobs",
    "POST /bulk_user_data",
    "DELETE GET POST /compute_nodes",
    "DELETE GET PUT /compute_nodes/{id}",
    "DELETE GET POST /events",
    "DELETE GET PUT /events/{id}",
    "POST /failure_handlers",
    "DELETE GET /failure_handlers/{id}",
    "DELETE GET POST /files",
    "DELETE GET PUT /files/{id}",
    "DELETE GET POST /jobs",
    "DELETE GET PUT /jobs/{id}",
    "POST /jobs/{id}/complete_job/{status}/{run_id}",
    "PUT /jobs/{id}/manage_status_change/{status}/{run_id}",
    "POST /jobs/{id}/retry/{run_id}",
    "POST /jobs/{id}/spawn_jobs",
    "PUT /jobs/{id}/start_job/{run_id}/{compute_node_id}",
    "DELETE GET POST /local_schedulers",
    "DELETE GET PUT /local_schedulers/{id}",
    "GET /ping",
    "DELETE GET POST /resource_requirements",
    "DELETE GET PUT /resource_requirements/{id}",
    "DELETE GET POST /results",
    "DELETE GET PUT /results/{id}",
    "POST /ro_crate_entities",
    "DELETE GET PUT /ro_crate_entities/{id}",
    "DELETE GET POST /scheduled_compute_nodes",
    "DELETE GET PUT /scheduled_compute_nodes/{id}",
    "DELETE GET POST /slurm_schedulers",
    "DELETE GET PUT /slurm_schedulers/{id}",
    "GET POST /slurm_stats",
    "GET /tasks/{id}",
    "DELETE GET POST /user_data",
    "DELETE GET PUT /user_data/{id}",
    "GET /users/{user_name}/groups",
    "GET /version",
    "GET POST /workflows",
    "DELETE GET PUT /workflows/{id}",
    "GET /workflows/{id}/access_groups",
    "DELETE POST /workflows/{id}/access_groups/{group_id}",
    "GET POST /workflows/{id}/actions",
    "GET /workflows/{id}/actions/pending",
    "DELETE PUT /workflows/{id}/actions/{action_id}",
    "POST /workflows/{id}/actions/{action_id}/claim",
    "GET /workflows/{id}/active_task",
    "POST /workflows/{id}/archive",
    "POST /workflows/{id}/batch_complete_jobs",
    "PUT /workflows/{id}/cancel",
    "POST /workflows/{id}/claim_jobs_based_on_resources/{limit}",
    "POST /workflows/{id}/claim_next_jobs",
    "GET /workflows/{id}/events/stream",
    "GET /workflows/{id}/failure_handlers",
    "POST /workflows/{id}/initialize_jobs",
    "GET /workflows/{id}/is_complete",
    "GET /workflows/{id}/is_uninitialized",
    "GET /workflows/{id}/job_dependencies",
    "GET /workflows/{id}/job_file_relationships",
    "GET /workflows/{id}/job_ids",
    "GET /workflows/{id}/job_user_data_relationships",
    "GET /workflows/{id}/missing_user_data",
    "POST /workflows/{id}/process_changed_job_inputs",
    "GET /workflows/{id}/ready_job_requirements",
    "GET POST /workflows/{id}/remote_workers",
    "DELETE /workflows/{id}/remote_workers/{worker}",
    "GET /workflows/{id}/required_existing_files",
    "POST /workflows/{id}/reset_job_status",
    "POST /workflows/{id}/reset_status",
    "DELETE GET /workflows/{id}/ro_crate_entities",
    "GET /workflows/{id}/running_jobs",
    "GET /workflows/{id}/slurm_job_correlations",
    "GET /workflows/{id}/status",
];

const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::DELETE, Method::PATCH];

fn document() -> Value {
    serde_json::from_slice(&forebay_workflows::openapi_json()).expect("it is JSON")
}

/// The operations on each path.
fn described(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let paths = document["paths"].as_object().expect("it has paths");
    let methods = |item: &Value| item.as_object().expect("an item").keys().map(|key| key.to_uppercase()).collect();
    paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

/// A path with something in the place of each parameter.
fn filled(path: &str) -> String {
    let fill = |part: &str| match part {
        "{status}" => "completed".to_owned(),
        _ if part.starts_with('{') => "1".to_owned(),
        _ => part.to_owned(),
    };
    path.split('/').map(fill).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn every_route_of_the_door_is_described_and_nothing_else_is() {
    let world = World::start().await;
    let described = described(&document());
    let mut torcs: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for line in TORC {
        let (methods, path) = line.rsplit_once(' ').expect("methods and a path");
        torcs.insert(path, methods.split(' ').collect());
    }
    let paths: BTreeSet<&str> = described.keys().map(String::as_str).chain(torcs.keys().copied()).collect();
    let mut waiting = 0;
    for path in paths {
        for method in METHODS {
            let answered = world.send(method.clone(), &filled(path), None).await;
            // Of what is there, something is refused with a text; of what is not there yet, with 501.
            let is_there = !(answered.status == 405
                || answered.status == 501
                || answered.status == 404 && answered.bytes.is_empty());
            if answered.status == 501 {
                assert!(
                    torcs[path].contains(method.as_str()) && answered.message().ends_with(" is not implemented yet")
                );
                waiting += 1;
            }
            assert!(answered.status < 500 || answered.status == 501, "{method} {path}: {}", answered.status);
            let is_described = described.get(path).is_some_and(|methods| methods.contains(method.as_str()));
            assert_eq!(is_there, is_described, "{method} {path}: add it to, or take it from, openapi/operations.rs");
        }
    }
    assert_eq!(waiting, WAITING, "routes that answer 501: docs/from-torc.md has their number");
    assert_eq!(torcs.values().map(BTreeSet::len).sum::<usize>(), 137);
    world.stop().await;
}

#[test]
fn no_5xx_is_described() {
    for item in document()["paths"].as_object().expect("it has paths").values() {
        for operation in item.as_object().expect("an item").values() {
            let answers = operation["responses"].as_object().expect("answers");
            assert!(answers.keys().all(|status| !status.starts_with('5')), "{operation}");
        }
    }
}

#[test]
fn what_torc_does_not_have_is_marked_as_ours() {
    let torcs = |path: &str, method: &str| {
        TORC.iter().any(|line| {
            let (methods, known) = line.rsplit_once(' ').expect("methods and a path");
            known == path && methods.split(' ').any(|known| known.eq_ignore_ascii_case(method))
        })
    };
    for (path, item) in document()["paths"].as_object().expect("it has paths") {
        for (method, operation) in item.as_object().expect("an item") {
            assert_eq!(operation["x-forebay"] == json!(true), !torcs(path, method), "{method} {path}");
        }
    }
}

#[test]
fn what_the_document_refers_to_is_in_it_and_each_operation_has_a_name_of_its_own() {
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    found.insert(reference.clone());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
    }
    let mut ids = BTreeSet::new();
    for item in document["paths"].as_object().expect("it has paths").values() {
        for operation in item.as_object().expect("an item").values() {
            assert!(ids.insert(operation["operationId"].as_str().expect("an id").to_owned()), "{operation}");
        }
    }
    assert_eq!(document["openapi"], "3.1.0");
}
