//! Compute nodes that say that they live.

use hyper::Method;
use serde_json::{Value, json};

use crate::world::{World, result};

const MINUTE: i64 = 60_000;

impl World {
    /// Says that a node lives.
    async fn beat(&self, workflow: i64, node: i64, lease_ms: i64, begin: bool) -> Value {
        let body = json!({"compute_node_id": node, "lease_ms": lease_ms, "begin": begin});
        self.post(&format!("/workflows/{workflow}/heartbeat"), body).await
    }

    /// A node with a lease, and the job that it runs.
    async fn leased(&self, workflow: i64) -> (i64, Value) {
        let node = self.node(workflow).await;
        self.beat(workflow, node, MINUTE, true).await;
        let claimed = self.post(&format!("/workflows/{workflow}/report_and_claim"), claim(node)).await;
        (node, claimed["jobs"][0].clone())
    }
}

fn claim(node: i64) -> Value {
    json!({"claim": {"limit": 1, "start_on": node, "leased": true}})
}

#[tokio::test]
async fn what_a_node_held_that_is_not_heard_of_is_handed_out_again_as_a_new_attempt() {
    let world = World::start().await;
    let (w, jobs) = world.ready_jobs(1).await;
    let (node, job) = world.leased(w).await;
    assert_eq!((&job["id"], &job["compute_node_id"]), (&json!(jobs[0]), &json!(node)));
    assert_eq!(world.beat(w, node, MINUTE, false).await, json!({"lease_ms": MINUTE}));
    // It says no more after this.
    world.beat(w, node, 1, false).await;
    let claimed = world.post(&format!("/workflows/{w}/claim_next_jobs?wait_ms=600000"), json!({})).await;
    assert_eq!((&claimed["jobs"][0]["id"], &claimed["jobs"][0]["attempt_id"]), (&job["id"], &json!(2)));

    let heartbeat = json!({"compute_node_id": node, "lease_ms": MINUTE});
    let (status, text) = world.refused(Method::POST, &format!("/workflows/{w}/heartbeat"), Some(heartbeat)).await;
    assert_eq!((status, text), (410, format!("compute node {node} has no lease, or none any more")));
    // Nothing of a request is done whose claim has no lease.
    let report =
        json!({"job_id": jobs[0], "status": "completed", "run_id": 1, "result": result(w, jobs[0], node, "completed")});
    let both = json!({"completions": [report.clone()], "claim": claim(node)["claim"]});
    let path = format!("/workflows/{w}/report_and_claim");
    assert_eq!(world.refused(Method::POST, &path, Some(both)).await.0, 410);
    let late = world.post(&path, json!({"completions": [report]})).await;
    let message = late["errors"][0]["message"].as_str().expect("it is late");
    assert!(message.starts_with("Attempt ID mismatch"), "{message}");
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_says_goodbye_gives_back_what_it_has() {
    let world = World::start().await;
    let (w, _) = world.ready_jobs(1).await;
    let (node, _) = world.leased(w).await;
    let path = format!("/workflows/{w}/claim_next_jobs?wait_ms=600000");
    let wait = world.post(&path, json!({}));
    let (claimed, ended) = tokio::join!(wait, world.beat(w, node, 0, false));
    assert_eq!((&claimed["jobs"][0]["attempt_id"], ended), (&json!(2), json!({"lease_ms": 0})));
    world.stop().await;
}

#[tokio::test]
async fn a_waiting_claim_ends_with_the_lease_of_its_node() {
    let world = World::start().await;
    let w = world.workflow().await;
    world.jobs(w, vec![json!({"name": "draft"})]).await;
    let node = world.node(w).await;
    world.beat(w, node, MINUTE, true).await;
    let mut waits = claim(node);
    waits["claim"]["wait_ms"] = json!(600_000);
    let path = format!("/workflows/{w}/report_and_claim");
    // However the two overtake each other.
    let (refused, _) = tokio::join!(world.refused(Method::POST, &path, Some(waits)), world.beat(w, node, 1, false));
    assert_eq!(refused.0, 410);
    world.stop().await;
}

#[tokio::test]
async fn a_lease_is_a_nodes_of_the_workflow_and_not_for_ever() {
    let world = World::start().await;
    let (w, other) = (world.workflow().await, world.workflow().await);
    let node = world.node(other).await;
    let path = format!("/workflows/{w}/heartbeat");
    let beat = |node: i64, lease: i64| json!({"compute_node_id": node, "lease_ms": lease, "begin": true});
    for (body, status) in [(beat(node, MINUTE), 404), (beat(99_999, MINUTE), 404), (beat(node, -1), 422)] {
        assert_eq!(world.refused(Method::POST, &path, Some(body)).await.0, status);
    }
    let own = world.node(w).await;
    assert_eq!(
        world.refused(Method::POST, &path, Some(json!({"compute_node_id": own, "lease_ms": MINUTE}))).await.0,
        410
    );
    assert_eq!(world.beat(w, own, i64::MAX, true).await, json!({"lease_ms": 24 * 60 * MINUTE}));
    // The first time may be told twice: its answer may be lost.
    world.beat(w, own, MINUTE, true).await;
    let no_node = json!({"claim": {"limit": 1, "leased": true}});
    let claim = world.refused(Method::POST, &format!("/workflows/{w}/report_and_claim"), Some(no_node)).await;
    assert_eq!(claim.0, 422);
    world.stop().await;
}

#[tokio::test]
async fn a_report_that_names_its_claim_is_refused_when_another_claim_has_the_job() {
    let world = World::start().await;
    let (w, jobs) = world.ready_jobs(1).await;
    let path = format!("/workflows/{w}/report_and_claim");
    let take = async || world.post(&path, json!({"claim": {"limit": 1}})).await["jobs"][0]["grant"].clone();
    let first = take().await;
    world.ok(Method::PUT, &format!("/jobs/{}/manage_status_change/ready/1", jobs[0]), None).await;
    let second = take().await;
    assert!(first.is_i64() && first != second, "{first} {second}");
    let report = |grant: &Value| {
        let result = result(w, jobs[0], 0, "completed");
        json!({"completions": [{"job_id": jobs[0], "status": "completed", "run_id": 1, "result": result, "grant": grant}]})
    };
    let refused = world.post(&path, report(&first)).await;
    let message = refused["errors"][0]["message"].as_str().expect("another claim has it");
    assert!(message.starts_with("Claim mismatch"), "{message}");
    assert_eq!(world.post(&path, report(&second)).await["completed"], json!([jobs[0]]));
    world.stop().await;
}
