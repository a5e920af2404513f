//! Asynchronous initializes, and what is new since the last one.

use serde_json::{Value, json};

use crate::world::{World, id, result};

#[tokio::test]
async fn an_asynchronous_initialize_is_a_task() {
    let world = World::start().await;
    let workflow = world.workflow().await;
    world.jobs(workflow, vec![json!({"name": "j"})]).await;
    let path = format!("/workflows/{workflow}/initialize_jobs?async=true");
    let answer = world.send(hyper::Method::POST, &path, Some(json!({}))).await;
    assert_eq!(answer.status, 202);
    let task = answer.json();
    assert_eq!((&task["status"], &task["operation"]), (&json!("succeeded"), &json!("initialize_jobs")));
    assert_eq!(world.get(&format!("/tasks/{}", id(&task))).await, task);
    assert_eq!(world.get(&format!("/workflows/{workflow}/active_task")).await, json!({"task": null}));
    assert_eq!(world.get(&format!("/workflows/{workflow}/is_uninitialized")).await, json!({"is_uninitialized": false}));
}

#[tokio::test]
async fn jobs_whose_input_data_changed_since_the_initialize_go_back() {
    let world = World::start().await;
    let workflow = world.workflow().await;
    let mut data = Vec::new();
    for name in ["same", "other"] {
        let made = json!({"workflow_id": workflow, "name": name, "data": {"n": 1}});
        data.push(id(&world.post("/user_data", made).await));
    }
    let jobs = data.iter().map(|id| json!({"name": format!("reads-{id}"), "input_user_data_ids": [id]})).collect();
    let jobs = world.jobs(workflow, jobs).await;
    world.run(workflow).await;
    let node = world.node(workflow).await;
    world.post(&format!("/workflows/{workflow}/claim_next_jobs"), json!({})).await;
    for job in &jobs {
        world.put(&format!("/jobs/{job}/start_job/1/{node}"), json!({})).await;
        let body = result(workflow, *job, node, "completed");
        world.post(&format!("/jobs/{job}/complete_job/completed/1"), body).await;
    }
    let set = |n: i64| json!({"workflow_id": workflow, "name": "x", "data": {"n": n}});
    world.put(&format!("/user_data/{}", data[0]), set(2)).await;
    world.put(&format!("/user_data/{}", data[0]), set(1)).await;
    let shown = world.put(&format!("/user_data/{}", data[1]), set(2)).await;
    assert_eq!(shown.get("data_before"), None, "it is of the server alone");
    let path = format!("/workflows/{workflow}/process_changed_job_inputs");
    let expected = json!({"reinitialized_jobs": [format!("reads-{}", data[1])]});
    assert_eq!(world.post(&format!("{path}?dry_run=true"), json!({})).await, expected);
    let status = async |job: i64| -> Value { world.get(&format!("/jobs/{job}")).await["status"].clone() };
    assert_eq!(status(jobs[1]).await, "completed");
    assert_eq!(world.post(&path, json!({})).await, expected);
    assert_eq!((status(jobs[0]).await, status(jobs[1]).await), (json!("completed"), json!("uninitialized")));
    world.post(&format!("/workflows/{workflow}/initialize_jobs?only_uninitialized=true"), json!({})).await;
    assert_eq!(world.post(&path, json!({})).await, json!({"reinitialized_jobs": []}));
}

#[tokio::test]
async fn a_posted_result_is_its_jobs_latest() {
    let world = World::start().await;
    let (workflow, jobs) = world.ready_jobs(1).await;
    let node = world.node(workflow).await;
    let made = world.post("/results", result(workflow, jobs[0], node, "completed")).await;
    let listed = world.get(&format!("/results?workflow_id={workflow}")).await;
    assert_eq!(listed["items"], json!([made]));
    let mut changed = result(workflow, jobs[0], node, "failed");
    changed["return_code"] = json!(7);
    let changed = world.put(&format!("/results/{}", id(&made)), changed).await;
    assert_eq!((&changed["return_code"], &changed["status"]), (&json!(7), &json!("failed")));
    assert_eq!(world.delete(&format!("/results/{}", id(&made))).await, changed);
    assert_eq!(world.get(&format!("/results?workflow_id={workflow}")).await["total_count"], 0);
}

#[tokio::test]
async fn a_job_may_name_only_files_of_its_workflow() {
    let world = World::start().await;
    let (workflow, other) = (world.workflow().await, world.workflow().await);
    let file = id(&world.post("/files", json!({"workflow_id": other, "name": "f", "path": "f"})).await);
    let job = json!({"workflow_id": workflow, "name": "j", "command": "c", "input_file_ids": [file]});
    let refused = world.refused(hyper::Method::POST, "/jobs", Some(job)).await;
    assert_eq!(refused, (422, format!("File not found in this workflow with ID: {file}")));
}

#[tokio::test]
async fn a_jobs_command_changes_without_its_name() {
    let world = World::start().await;
    let workflow = world.workflow().await;
    let job = world.jobs(workflow, vec![json!({"name": "j", "command": "old"})]).await[0];
    let body = json!({"workflow_id": workflow, "name": "j", "command": "new"});
    assert_eq!(world.put(&format!("/jobs/{job}"), body).await["command"], "new");
}
