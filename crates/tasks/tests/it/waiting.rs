//! Tasks that wait for others.

use std::time::Duration;

use forebay_tasks::activation::{Activation, Known};
use forebay_tasks::proto::ours::NewTask;
use hyper::Method;
use prost::Message;
use serde_json::{Value, json};
use tonic::Code;

use crate::world::{Complete, Failure, World};

fn task(id: &str, depends_on: &[&str]) -> Value {
    json!({"application": "app", "namespace": "ns", "task": "t", "id": id, "depends_on": depends_on})
}

/// (waiting, pending, processing, dead letters)
async fn counts(world: &World) -> [i64; 4] {
    let all = world.get("/applications").await;
    ["waiting", "pending", "processing", "dead_letters"].map(|word| all["applications"][0][word].as_i64().unwrap())
}

async fn come_to(world: &World, expected: [i64; 4]) {
    while counts(world).await != expected {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_task_waits_until_all_that_it_depends_on_is_completed() {
    let world = World::holding(Duration::from_secs(60)).await;
    let tasks = [task("a", &[]), task("b", &[]), task("c", &["a", "b"]), task("d", &["c"])];
    world.post("/tasks", Some(json!({"tasks": tasks}))).await;
    assert_eq!(counts(&world).await, [2, 2, 0, 0]);
    assert_eq!(world.get("/tasks?application=app&state=waiting").await["total"], json!(2));
    let mut worker = world.worker();
    for expected in ["a", "b", "c", "d"] {
        assert_eq!(worker.take().await.as_deref(), Some(expected));
        let left = counts(&world).await;
        assert_eq!(
            left[1] + left[0],
            4 - 1 - ["a", "b", "c", "d"].iter().position(|id| *id == expected).unwrap() as i64
        );
        worker.report(expected, Complete).await;
    }
    come_to(&world, [0; 4]).await;
}

#[tokio::test]
async fn a_task_that_comes_over_grpc_may_wait_too() {
    let world = World::start().await;
    let new = |id: &str, depends_on: &[&str], met_if_gone| {
        let named = Known { id: id.into(), application: Some("app".into()), ..Known::default() };
        NewTask {
            activation: Some(Activation::from_bytes(named.encode_to_vec())),
            depends_on: depends_on.iter().map(|id| (*id).to_owned()).collect(),
            met_if_gone,
            ..NewTask::default()
        }
    };
    let tasks = vec![new("a", &[], false), new("b", &["a"], false), new("c", &["b", "nobody"], true)];
    world.enqueue(tasks).await.expect("they are taken");
    assert_eq!(counts(&world).await, [2, 1, 0, 0]);
    let refused = world.enqueue(vec![new("x", &["nobody"], false)]).await.unwrap_err();
    let why = "there is no task \"nobody\" to wait for: it never was, or has ended";
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, why));
    let mut worker = world.worker();
    for id in ["a", "b", "c"] {
        come_to(&world, [i64::from(id == "a") + i64::from(id < "c"), 1, 0, 0]).await;
        assert_eq!(worker.take().await.as_deref(), Some(id));
        worker.report(id, Complete).await;
    }
    come_to(&world, [0; 4]).await;
}

#[tokio::test]
async fn a_task_waits_over_a_restart() {
    let world = World::start().await;
    world.task(json!({"id": "a"})).await;
    let own = world.task(json!({"id": ""})).await;
    world.task(task("b", &["a", &own])).await;
    assert_eq!(world.worker().take().await.as_deref(), Some("a"));
    let world = world.restart().await;
    assert_eq!(counts(&world).await, [1, 1, 1, 0]);
    let mut worker = world.worker();
    worker.report("a", Complete).await;
    assert_eq!(worker.take().await.as_deref(), Some(own.as_str()));
    let world = world.restart().await;
    let mut worker = world.worker();
    worker.report(&own, Complete).await;
    come_to(&world, [0, 1, 0, 0]).await;
    assert_eq!(worker.take().await.as_deref(), Some("b"));
}

#[tokio::test]
async fn a_task_ends_with_one_that_it_depends_on_and_that_does_not_succeed() {
    let world = World::start().await;
    let kept = |id: &str, on: &[&str]| {
        let mut kept = task(id, on);
        kept["dead_letter"] = json!(true);
        kept
    };
    let tasks = [task("a", &[]), task("b", &["a"]), kept("c", &["b"]), task("x", &[]), task("y", &["x", "a"])];
    world.post("/tasks", Some(json!({"tasks": tasks}))).await;
    let mut worker = world.worker();
    assert_eq!(worker.take().await.as_deref(), Some("a"));
    worker.report("a", Failure).await;
    come_to(&world, [0, 1, 0, 1]).await;
    assert_eq!(world.get("/tasks/c").await["state"], json!("dead_letter"));
    // Who waits for a dead letter would wait for ever.
    let (status, body) = world.http(Method::POST, "/tasks", Some(json!({"tasks": [task("z", &["c"])]}))).await;
    assert_eq!((status, body["error"].as_str().unwrap().contains("without success")), (409, true), "{body}");
    world.post("/tasks", Some(json!({"tasks": [task("z", &["x"])]}))).await;
    world.post("/tasks/x/cancel", None).await;
    come_to(&world, [0, 0, 0, 1]).await;
}

#[tokio::test]
async fn what_is_not_there_is_waited_for_by_nobody() {
    let world = World::start().await;
    world.task(json!({"id": "done"})).await;
    let mut worker = world.worker();
    assert_eq!(worker.take().await.as_deref(), Some("done"));
    worker.report("done", Complete).await;
    for (depends_on, status) in [(["done"], 409), (["nobody"], 409), (["self"], 422)] {
        let refused = world.http(Method::POST, "/tasks", Some(json!({"tasks": [task("self", &depends_on)]}))).await;
        assert_eq!(refused.0, status, "{refused:?}");
    }
    let mut met = task("self", &["done", "nobody"]);
    met["met_if_gone"] = json!(true);
    world.post("/tasks", Some(json!({"tasks": [met]}))).await;
    assert_eq!(worker.take().await.as_deref(), Some("self"));
    let many: Vec<Value> = (0..2).map(|_| task("", &["a"; 501])).collect();
    assert_eq!(world.http(Method::POST, "/tasks", Some(json!({"tasks": many}))).await.0, 422);
}
