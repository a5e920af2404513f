//! What torc-server answers to odd requests, word for word where its clients may see it.

use hyper::Method;
use serde_json::{Value, json};

use crate::world::{World, id};

#[tokio::test]
async fn no_run_begins_while_a_scheduler_may_still_send_a_node() {
    let world = World::start().await;
    let w = world.workflow().await;
    let asked = |status| {
        json!({"workflow_id": w, "scheduler_id": 7, "scheduler_config_id": 1, "scheduler_type": "slurm",
               "status": status})
    };
    let node = id(&world.post("/scheduled_compute_nodes", asked("pending")).await);
    let reset = format!("/workflows/{w}/reset_status");
    let text = "Cannot reset workflow status: scheduled compute nodes are currently pending or active".to_owned();
    assert_eq!(world.refused(Method::POST, &reset, None).await, (422, text.clone()));
    world.put(&format!("/scheduled_compute_nodes/{node}"), asked("active")).await;
    assert_eq!(world.refused(Method::POST, &reset, None).await, (422, text));
    assert_eq!(world.post(&format!("{reset}?force=true"), json!({})).await["run_id"], 1);
    world.put(&format!("/scheduled_compute_nodes/{node}"), asked("complete")).await;
    assert_eq!(world.post(&reset, json!({})).await["run_id"], 2);
    world.stop().await;
}

#[tokio::test]
async fn a_parameter_that_cannot_be_read_says_why_in_torcs_words() {
    let world = World::start().await;
    let w = world.workflow().await;
    let status = "unknown variant `x`, expected one of `uninitialized`, `blocked`, `ready`, `pending`, `running`, \
                  `completed`, `failed`, `canceled`, `terminated`, `disabled`, `pending_failed`";
    for (path, why) in [
        ("compute_nodes?is_active=x", "is_active: provided string was not `true` or `false`"),
        ("resource_requirements?num_cpus=x", "num_cpus: invalid digit found in string"),
        ("resource_requirements?num_cpus=", "num_cpus: cannot parse integer from empty string"),
        ("results?status=x", &format!("status: {status}")),
        ("jobs?status=x", &format!("status: {status}")),
    ] {
        let refused = world.refused(Method::GET, &format!("/{path}&workflow_id={w}"), None).await;
        assert_eq!(refused, (400, format!("Failed to deserialize query string: {why}")));
    }
    let refused = world.refused(Method::PUT, "/jobs/1/manage_status_change/x/1", None).await;
    assert_eq!(refused, (400, format!("Invalid URL: {status}")));
    world.stop().await;
}

#[tokio::test]
async fn a_path_that_ends_with_an_empty_part_leads_nowhere() {
    let world = World::start().await;
    let within = world.refused(Method::POST, "/jobs//retry/1", None).await;
    assert_eq!(within, (400, "Invalid URL: Cannot parse `` to a `i64`".to_owned()));
    for path in ["/files/", "/workflows/1/", "/", "//files"] {
        let answered = world.send(Method::GET, path, None).await;
        assert_eq!((answered.status, answered.bytes.len()), (404, 0), "{path}");
    }
    world.stop().await;
}

#[tokio::test]
async fn dependencies_are_listed_from_either_end() {
    let world = World::start().await;
    let w = world.workflow().await;
    let first = world.jobs(w, vec![json!({"name": "first"})]).await[0];
    let others = (0..4).map(|n| json!({"name": format!("j{n}"), "depends_on_job_ids": [first]})).collect();
    world.jobs(w, others).await;
    let names = async |query: &str| -> Vec<Value> {
        let list = world.get(&format!("/workflows/{w}/job_dependencies?{query}")).await;
        assert_eq!(list["total_count"], 4);
        list["items"].as_array().expect("items").iter().map(|item| item["job_name"].clone()).collect()
    };
    assert_eq!(names("").await, ["j0", "j1", "j2", "j3"]);
    assert_eq!(names("reverse_sort=true").await, ["j3", "j2", "j1", "j0"]);
    assert_eq!(names("reverse_sort=true&offset=1&limit=2").await, ["j2", "j1"]);
    assert_eq!(names("reverse_sort=true&offset=3&limit=2").await, ["j0"]);
    assert_eq!(names("reverse_sort=true&offset=9").await, [] as [&str; 0]);
    world.stop().await;
}

#[tokio::test]
async fn a_new_job_is_held_against_its_workflow_first_and_then_against_what_it_names() {
    let world = World::start().await;
    let w = world.workflow().await;
    let job = |workflow: i64| {
        json!({"workflow_id": workflow, "name": "j", "command": "true", "failure_handler_id": 7,
               "input_file_ids": [7]})
    };
    let refused = world.refused(Method::POST, "/jobs", Some(job(9))).await;
    assert_eq!(refused, (404, "Workflow not found with ID: 9".to_owned()));
    let file = json!({"workflow_id": w, "name": "f", "path": "f"});
    let mut good = job(w);
    good["input_file_ids"] = json!([id(&world.post("/files", file).await)]);
    let refused = world.refused(Method::POST, "/jobs", Some(good.clone())).await;
    assert_eq!(refused, (422, "Failure handler not found in this workflow with ID: 7".to_owned()));
    let handler = json!({"workflow_id": w, "name": "h", "rules": "[]"});
    good["failure_handler_id"] = json!(id(&world.post("/failure_handlers", handler).await));
    world.post("/jobs", good).await;
    world.stop().await;
}

#[tokio::test]
async fn a_claim_below_zero_takes_nothing() {
    let world = World::start().await;
    let (w, _) = world.ready_jobs(1).await;
    assert_eq!(world.claim(w, -1).await, [] as [Value; 0]);
    assert_eq!(world.claim(w, 1).await.len(), 1);
    world.stop().await;
}

#[tokio::test]
async fn an_action_is_looked_for_in_its_workflow() {
    let world = World::start().await;
    let w = world.workflow().await;
    let action = json!({"workflow_id": w, "trigger_type": "on_workflow_start", "action_type": "run_commands",
                        "action_config": {"commands": ["true"]}});
    let action = id(&world.post(&format!("/workflows/{w}/actions"), action).await);
    for (method, path) in [(Method::DELETE, ""), (Method::PUT, ""), (Method::POST, "/claim")] {
        let path = format!("/workflows/99/actions/{action}{path}");
        let refused = world.refused(method, &path, Some(json!({"a": 1}))).await;
        assert_eq!(refused, (404, "Workflow not found with ID: 99".to_owned()), "{path}");
    }
    let gone = world.delete(&format!("/workflows/{w}/actions/{action}")).await;
    assert_eq!(gone, json!({"message": "Workflow action deleted successfully"}));
    world.stop().await;
}

#[tokio::test]
async fn allocations_are_not_serialized_unless_asked() {
    let world = World::start().await;
    let w = world.workflow().await;
    let scheduler = json!({"workflow_id": w, "name": "s", "account": "a", "nodes": 1, "walltime": "01:00:00"});
    let made = world.post("/slurm_schedulers", scheduler).await;
    assert_eq!(made["serialize_allocations"], false);
    assert_eq!(world.get(&format!("/slurm_schedulers/{}", id(&made))).await["serialize_allocations"], false);
    world.stop().await;
}
