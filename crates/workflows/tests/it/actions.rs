//! What runners are to do at a trigger.

use hyper::Method;
use serde_json::{Value, json};

use crate::world::{World, id, result};

async fn action(world: &World, workflow: i64, trigger: &str, jobs: Option<Vec<i64>>) -> i64 {
    let mut body = json!({
        "workflow_id": workflow,
        "trigger_type": trigger,
        "action_type": "run_commands",
        "action_config": {"commands": ["true"]},
    });
    if let Some(jobs) = jobs {
        body["job_ids"] = json!(jobs);
    }
    id(&world.post(&format!("/workflows/{workflow}/actions"), body).await)
}

async fn pending(world: &World, workflow: i64) -> Vec<i64> {
    let answer = world.get(&format!("/workflows/{workflow}/actions/pending")).await;
    answer.as_array().expect("a list").iter().map(id).collect()
}

async fn claim(world: &World, workflow: i64, action: i64) -> u16 {
    let path = format!("/workflows/{workflow}/actions/{action}/claim");
    world.send(Method::POST, &path, Some(json!({}))).await.status
}

/// Runs every job that is ready, with this return code.
async fn run_ready(world: &World, workflow: i64, run: i64, return_code: i64) {
    let node = world.node(workflow).await;
    let claimed = world.post(&format!("/workflows/{workflow}/claim_next_jobs"), json!({})).await;
    for job in claimed["jobs"].as_array().expect("jobs") {
        let job = id(job);
        world.put(&format!("/jobs/{job}/start_job/{run}/{node}"), json!({})).await;
        let status = if return_code == 0 { "completed" } else { "failed" };
        let mut body = result(workflow, job, node, status);
        body["run_id"] = json!(run);
        body["return_code"] = json!(return_code);
        world.post(&format!("/jobs/{job}/complete_job/{status}/{run}"), body).await;
    }
}

#[tokio::test]
async fn an_action_is_pending_once_its_trigger_has_come() {
    let world = World::start().await;
    let workflow = world.workflow().await;
    let first = world.jobs(workflow, vec![json!({"name": "first"})]).await[0];
    let second = world.jobs(workflow, vec![json!({"name": "second", "depends_on_job_ids": [first]})]).await[0];
    let start = action(&world, workflow, "on_workflow_start", None).await;
    let ready = action(&world, workflow, "on_jobs_ready", Some(vec![second])).await;
    let done = action(&world, workflow, "on_jobs_complete", Some(vec![first, second])).await;
    let end = action(&world, workflow, "on_workflow_complete", None).await;
    assert_eq!(pending(&world, workflow).await, Vec::<i64>::new());
    world.run(workflow).await;
    assert_eq!(pending(&world, workflow).await, [start]);
    assert_eq!((claim(&world, workflow, start).await, claim(&world, workflow, start).await), (200, 409));
    run_ready(&world, workflow, 1, 0).await;
    assert_eq!(pending(&world, workflow).await, [ready]);
    run_ready(&world, workflow, 1, 0).await;
    assert_eq!(pending(&world, workflow).await, [ready, done, end]);
    let path = format!("/workflows/{workflow}/actions/pending?trigger_type=on_workflow_complete&trigger_type=x");
    let of_end = world.get(&path).await;
    assert_eq!(of_end.as_array().expect("a list").iter().map(id).collect::<Vec<_>>(), [end]);
    let shown = world.get(&format!("/workflows/{workflow}/actions")).await;
    let counts: Vec<&Value> = shown.as_array().expect("a list").iter().map(|action| &action["trigger_count"]).collect();
    assert_eq!(counts, [1, 1, 2, 1]);
}

#[tokio::test]
async fn the_end_of_a_workflow_that_a_failure_brought_about_is_noticed() {
    let world = World::start().await;
    let workflow = world.workflow().await;
    let first = world.jobs(workflow, vec![json!({"name": "first"})]).await[0];
    world.jobs(workflow, vec![json!({"name": "second", "depends_on_job_ids": [first]})]).await;
    let end = action(&world, workflow, "on_workflow_complete", None).await;
    world.run(workflow).await;
    run_ready(&world, workflow, 1, 3).await;
    assert_eq!(pending(&world, workflow).await, [end]);
}

#[tokio::test]
async fn an_initialize_arms_again_what_will_happen_again() {
    let world = World::start().await;
    let workflow = world.workflow().await;
    let jobs = world.jobs(workflow, vec![json!({"name": "good"}), json!({"name": "bad"})]).await;
    let start = action(&world, workflow, "on_workflow_start", None).await;
    let good = action(&world, workflow, "on_jobs_ready", Some(vec![jobs[0]])).await;
    let bad = action(&world, workflow, "on_jobs_ready", Some(vec![jobs[1]])).await;
    world.run(workflow).await;
    for action in [start, good, bad] {
        assert_eq!(claim(&world, workflow, action).await, 200);
    }
    let node = world.node(workflow).await;
    let claimed = world.post(&format!("/workflows/{workflow}/claim_next_jobs"), json!({})).await;
    for (job, status) in claimed["jobs"].as_array().expect("jobs").iter().map(id).zip(["completed", "failed"]) {
        world.put(&format!("/jobs/{job}/start_job/1/{node}"), json!({})).await;
        let mut body = result(workflow, job, node, status);
        body["return_code"] = json!(i64::from(status == "failed"));
        world.post(&format!("/jobs/{job}/complete_job/{status}/1"), body).await;
    }
    world.post(&format!("/workflows/{workflow}/reset_status"), json!({})).await;
    world.post(&format!("/workflows/{workflow}/reset_job_status?failed_only=true"), json!({})).await;
    world.post(&format!("/workflows/{workflow}/initialize_jobs?only_uninitialized=true"), json!({})).await;
    assert_eq!(pending(&world, workflow).await, [bad], "only the failed job will be ready again");
    world.post(&format!("/workflows/{workflow}/initialize_jobs"), json!({})).await;
    assert_eq!(pending(&world, workflow).await, [start, good, bad], "a whole one begins from the start");
}

#[tokio::test]
async fn what_an_action_is_given_is_checked() {
    let world = World::start().await;
    let workflow = world.workflow().await;
    let path = format!("/workflows/{workflow}/actions");
    for (kind, config, text) in [
        ("run_commands", json!({"commands": []}), "'commands' array cannot be empty"),
        ("run_commands", json!({"commands": ["a", 1]}), "'commands[1]' must be a string"),
        ("schedule_nodes", json!({"scheduler_id": "1"}), "'scheduler_id' must be an integer"),
        ("schedule_nodes", json!({"start_one_worker_per_node": 1}), "'start_one_worker_per_node' must be a boolean"),
    ] {
        let body = json!({"workflow_id": workflow, "trigger_type": "on_workflow_start", "action_type": kind,
                          "action_config": config});
        let refused = world.refused(Method::POST, &path, Some(body)).await;
        assert_eq!(refused, (422, format!("Invalid action_config: {text}")));
    }
    let nodes = json!({"workflow_id": workflow, "trigger_type": "on_workflow_start", "action_type": "schedule_nodes",
                       "action_config": {"scheduler_id": 1, "num_allocations": 2}});
    let made = id(&world.post(&path, nodes).await);
    let changed = world.put(&format!("{path}/{made}"), json!({"num_allocations": 3})).await;
    assert_eq!(changed["action_config"], json!({"scheduler_id": 1, "num_allocations": 3}));
    world.delete(&format!("{path}/{made}")).await;
    assert_eq!(world.get(&path).await, json!([]));
}
