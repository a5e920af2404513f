//! Jobs that a running job brings forth.

use hyper::Method;
use serde_json::{Value, json};

use crate::world::{World, id, result};

/// A workflow whose one job runs; their ids, and the node's.
async fn running(world: &World) -> (i64, i64, i64) {
    let (workflow, jobs) = world.ready_jobs(1).await;
    let node = world.node(workflow).await;
    world.post(&format!("/workflows/{workflow}/claim_next_jobs"), json!({})).await;
    world.put(&format!("/jobs/{}/start_job/1/{node}", jobs[0]), json!({})).await;
    (workflow, jobs[0], node)
}

fn request() -> Value {
    json!({
        "lineage": "l",
        "state": {"step": 1},
        "jobs": [
            {"name": "x", "command": "true"},
            {"name": "y", "command": "true", "depends_on": ["x"]},
        ],
    })
}

#[tokio::test]
async fn spawned_jobs_wait_for_their_parent_and_for_each_other() {
    let world = World::start().await;
    let (workflow, parent, node) = running(&world).await;
    let path = format!("/jobs/{parent}/spawn_jobs");
    let spawned = world.post(&path, request()).await;
    assert_eq!(spawned["iteration"], 1);
    assert_eq!(world.post(&path, request()).await, spawned, "the same again changes nothing");
    let ids: Vec<i64> = spawned["spawned_job_ids"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
    let y = world.get(&format!("/jobs/{}", ids[1])).await;
    assert_eq!((&y["status"], &y["origin"]), (&json!("blocked"), &json!("spawn")));
    assert_eq!(y["depends_on_job_ids"], json!([parent, ids[0]]));
    assert_eq!(y["env"], json!({"TORC_ORCHESTRATOR_LINEAGE_ID": "l"}));
    let state = world.get(&format!("/user_data?workflow_id={workflow}")).await;
    assert_eq!(state["items"][0]["name"], "__torc_lineage__l__g000001");
    assert_eq!(state["items"][0]["data"], json!({"generation": 1, "spawn_count": 1, "state": {"step": 1}}));

    world.post(&format!("/jobs/{parent}/complete_job/completed/1"), result(workflow, parent, node, "completed")).await;
    let claimed = world.post(&format!("/workflows/{workflow}/claim_next_jobs"), json!({})).await;
    assert_eq!(claimed["jobs"].as_array().unwrap().iter().map(id).collect::<Vec<_>>(), ids[..1]);
    let (status, text) = world.refused(Method::POST, &path, Some(request())).await;
    assert_eq!(status, 422);
    assert!(text.starts_with("spawn_jobs requires the calling job to be Running"), "{text}");
}

#[tokio::test]
async fn a_spawn_is_all_or_nothing() {
    let world = World::start().await;
    let (workflow, parent, _) = running(&world).await;
    let path = format!("/jobs/{parent}/spawn_jobs");
    for (jobs, text) in [
        (json!([{"name": "x", "command": "c"}, {"name": "x", "command": "c"}]), "duplicate name 'x' in spawn batch"),
        (json!([{"name": "x", "command": "c", "depends_on": ["z"]}]), "spawn job 'x' depends on unknown job 'z'"),
        (
            json!([{"name": "x", "command": "c", "depends_on": ["y"]},
                   {"name": "y", "command": "c", "depends_on": ["x"]}]),
            "spawn jobs dependency graph contains a cycle",
        ),
        (
            json!([{"name": "j0", "command": "c"}, {"name": "x", "command": "c"}]),
            "Inconsistent replay: some but not all jobs already exist",
        ),
        (
            json!([{"name": "x", "command": "c", "resource_requirements": "huge"}]),
            "Unknown resource_requirements 'huge' for spawn job 'x'",
        ),
    ] {
        let refused = world.refused(Method::POST, &path, Some(json!({"jobs": jobs}))).await;
        assert_eq!(refused, (422, text.to_owned()));
    }
    assert_eq!(world.get(&format!("/jobs?workflow_id={workflow}")).await["total_count"], 1);
    let last = world.post(&path, json!({"jobs": [], "state": {"done": true}})).await;
    assert_eq!(last, json!({"spawned_job_ids": [], "iteration": 0}));
    let state = world.get(&format!("/user_data?workflow_id={workflow}")).await;
    assert_eq!(state["items"][0]["name"], "__torc_lineage__j0__final");
}
