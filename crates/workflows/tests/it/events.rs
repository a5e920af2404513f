//! The stream of what happens in a workflow.

use http_body_util::BodyExt;
use hyper::header::HeaderMap;
use serde_json::{Value, json};

use crate::world::{World, result};

/// The next event of a stream: its id, its name and what it says.
async fn next(stream: &mut Stream) -> (i64, String, Value) {
    loop {
        if let Some(end) = stream.text.find("\n\n") {
            let frame: String = stream.text.drain(..end + 2).collect();
            let field =
                |name: &str| frame.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned));
            // Others are comments.
            if let (Some(kind), Some(data)) = (field("event"), field("data")) {
                let id = field("id").and_then(|id| id.parse().ok()).unwrap_or(0);
                return (id, kind, serde_json::from_str(&data).expect("an event is JSON"));
            }
            continue;
        }
        let frame = stream.body.frame().await.expect("the stream goes on").expect("a frame");
        stream.text.push_str(std::str::from_utf8(&frame.into_data().expect("data")).expect("text"));
    }
}

struct Stream {
    body: hyper::body::Incoming,
    text: String,
}

async fn listen(world: &World, workflow: i64, last: Option<i64>) -> Stream {
    let mut headers = HeaderMap::new();
    if let Some(last) = last {
        headers.insert("last-event-id", last.to_string().parse().expect("a number"));
    }
    let (head, body) = world.stream(&format!("/workflows/{workflow}/events/stream"), headers).await.into_parts();
    assert_eq!(head.headers["content-type"], "text/event-stream");
    let mut stream = Stream { body, text: String::new() };
    // Its first piece says that the server listens for it from now on.
    let first = stream.body.frame().await.expect("the stream begins").expect("a frame");
    stream.text.push_str(std::str::from_utf8(&first.into_data().expect("data")).expect("text"));
    stream
}

#[tokio::test]
async fn what_becomes_of_jobs_is_told_and_told_again_to_who_comes_back() {
    let world = World::start().await;
    let workflow = world.workflow().await;
    let first = world.jobs(workflow, vec![json!({"name": "first"})]).await[0];
    let second = world.jobs(workflow, vec![json!({"name": "second", "depends_on_job_ids": [first]})]).await[0];
    let mut stream = listen(&world, workflow, None).await;
    world.run(workflow).await;
    assert_eq!(next(&mut stream).await.1, "workflow_reinitialized");
    let node = world.node(workflow).await;
    assert_eq!(next(&mut stream).await.1, "compute_node_started");
    world.post(&format!("/workflows/{workflow}/claim_next_jobs"), json!({})).await;
    let run = world.get(&format!("/workflows/{workflow}")).await["run_id"].as_i64().unwrap();
    world.put(&format!("/jobs/{first}/start_job/{run}/{node}"), json!({})).await;
    let (started, kind, event) = next(&mut stream).await;
    assert_eq!((kind.as_str(), &event["workflow_id"]), ("job_started", &json!(workflow)));
    assert_eq!(event["data"], json!({"job_id": first, "job_name": "first", "compute_node_id": node, "run_id": run}));
    let mut body = result(workflow, first, node, "failed");
    body["run_id"] = json!(run);
    body["return_code"] = json!(5);
    world.post(&format!("/jobs/{first}/complete_job/failed/{run}"), body).await;
    let (_, kind, event) = next(&mut stream).await;
    assert_eq!((kind.as_str(), &event["severity"]), ("job_failed", &json!("error")));
    assert_eq!(event["data"], json!({"job_id": first, "job_name": "first", "status": "failed", "return_code": 5}));
    let (_, kind, event) = next(&mut stream).await;
    assert_eq!((kind.as_str(), &event["severity"]), ("job_canceled", &json!("warning")));
    let said = json!({"job_id": second, "job_name": "second", "status": "canceled", "return_code": -1});
    assert_eq!(event["data"], said);
    drop(stream);
    let mut again = listen(&world, workflow, Some(started)).await;
    assert_eq!(next(&mut again).await.1, "job_failed");
    assert_eq!(next(&mut again).await.1, "job_canceled");
    let mut stranger = listen(&world, workflow, Some(1)).await;
    assert_eq!(next(&mut stranger).await.1, "warning", "what came after the first is not known any more");
}

#[tokio::test]
async fn each_of_many_jobs_that_are_canceled_at_once_is_told_of() {
    const MANY: usize = 5_000;
    let world = World::start().await;
    let workflow = world.workflow().await;
    let first = world.jobs(workflow, vec![json!({"name": "first"})]).await[0];
    let waits = |n| json!({"name": format!("w{n}"), "depends_on_job_ids": [first]});
    let jobs = world.jobs(workflow, (0..MANY).map(waits).collect()).await;
    world.run(workflow).await;
    let node = world.node(workflow).await;
    world.claim(workflow, 1).await;
    world.put(&format!("/jobs/{first}/start_job/1/{node}"), json!({})).await;
    let mut stream = listen(&world, workflow, None).await;
    let complete = format!("/jobs/{first}/complete_job/failed/1");
    world.post(&complete, result(workflow, first, node, "failed")).await;
    let mut told = std::collections::BTreeSet::new();
    while told.len() < MANY {
        let (_, kind, event) = next(&mut stream).await;
        match kind.as_str() {
            "job_canceled" => assert!(told.insert(event["data"]["job_id"].as_i64().expect("an id")), "{event}"),
            other => assert_eq!((other, &event["data"]["job_id"]), ("job_failed", &json!(first))),
        }
    }
    assert_eq!(told, jobs.into_iter().collect());
    let results = world.get(&format!("/results?workflow_id={workflow}&status=canceled&limit=1")).await;
    assert_eq!(results["total_count"], MANY);
    world.post(&format!("/jobs/{first}/retry/1?max_retries=3"), json!({})).await;
    let left = world.get(&format!("/results?workflow_id={workflow}&all_runs=true&limit=1")).await;
    assert_eq!(left["total_count"], 1, "what waits again has no outcome");
}
