//! What operators see and do.

use hyper::Method;
use serde_json::json;

use crate::world::{Complete, Failure, World};

#[tokio::test]
async fn tasks_are_listed_by_namespace_and_state() {
    let world = World::start().await;
    for (id, namespace) in [("a", "x"), ("b", "y"), ("c", "x")] {
        world.task(json!({"id": id, "namespace": namespace})).await;
    }
    world.worker().take().await.expect("a");
    let ids = async |path: &str| {
        let list = world.get(path).await;
        let ids = list["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap().to_owned());
        (ids.collect::<Vec<_>>().join(" "), list["total"].as_u64().unwrap())
    };
    assert_eq!(ids("/tasks?application=app").await, ("a b c".to_owned(), 3));
    assert_eq!(ids("/tasks?application=app&limit=1&offset=1").await, ("b".to_owned(), 3));
    assert_eq!(ids("/tasks?application=app&namespace=x&state=pending").await, ("c".to_owned(), 1));
    assert_eq!(ids("/tasks?application=app&state=processing").await, ("a".to_owned(), 1));
    assert_eq!(ids("/tasks?application=app&namespace=nobody").await, (String::new(), 0));
    for (path, status) in [
        ("/tasks", 422),
        ("/tasks?application=other", 404),
        ("/tasks?application=app&state=gone", 422),
        ("/tasks?application=app&limit=x", 422),
        ("/tasks/nobody", 404),
        ("/nowhere", 404),
    ] {
        assert_eq!(world.http(Method::GET, path, None).await.0, status, "{path}");
    }
    assert_eq!(world.http(Method::DELETE, "/applications", None).await.0, 405);
}

#[tokio::test]
async fn a_canceled_task_is_gone_and_who_does_it_is_not_listened_to() {
    let world = World::start().await;
    world.task(json!({"id": "a b"})).await;
    world.task(json!({"id": "c"})).await;
    let mut worker = world.worker();
    assert_eq!(worker.take().await.as_deref(), Some("a b"));
    world.post("/tasks/a%20b/cancel", None).await;
    world.post("/tasks/c/cancel", None).await;
    worker.report("a b", Failure).await;
    assert_eq!(world.counts().await, [0; 4]);
    assert_eq!(world.http(Method::POST, "/tasks/c/cancel", None).await.0, 404);
}

#[tokio::test]
async fn a_dead_letter_that_is_sent_back_begins_anew() {
    let world = World::start().await;
    world.task(json!({"id": "a", "max_attempts": 1, "dead_letter": true})).await;
    let mut worker = world.worker();
    worker.take().await.expect("a task");
    worker.report("a", Failure).await;
    assert_eq!(world.counts().await, [0, 0, 0, 1]);
    let again = world.post("/tasks/a/requeue", None).await;
    assert_eq!((&again["state"], &again["failures"], &again["id"]), (&json!("pending"), &json!(0), &json!("a")));
    let twice = world.http(Method::POST, "/tasks/a/requeue", None).await;
    assert_eq!(twice, (409, json!({"error": "the task is pending"})));
    assert_eq!(worker.take().await.as_deref(), Some("a"));
    worker.report("a", Complete).await;
    assert_eq!(world.counts().await, [0; 4]);
}

#[tokio::test]
async fn of_a_paused_application_nothing_is_handed_out() {
    let world = World::start().await;
    world.task(json!({"id": "a"})).await;
    world.post("/applications/app/pause", None).await;
    let mut worker = world.worker();
    assert_eq!(worker.take().await, None);
    let world = world.restart().await;
    assert_eq!(world.get("/applications").await["applications"][0]["paused"], json!(true));
    let mut worker = world.worker();
    assert_eq!(worker.take().await, None);
    world.post("/applications/app/resume", None).await;
    assert_eq!(worker.take().await.as_deref(), Some("a"));
    assert_eq!(world.http(Method::POST, "/applications/other/pause", None).await.0, 404);
}

#[tokio::test]
async fn of_a_paused_namespace_nothing_is_handed_out() {
    let world = World::start().await;
    world.task(json!({"id": "a", "namespace": "x y"})).await;
    world.task(json!({"id": "b", "namespace": "z"})).await;
    world.post("/applications/app/namespaces/x%20y/pause", None).await;
    let world = world.restart().await;
    let mut worker = world.worker();
    assert_eq!(worker.take().await.as_deref(), Some("b"));
    assert_eq!(worker.take().await, None);
    let shown = world.get("/applications/app/namespaces").await;
    let expected = [("x y", true, 0), ("z", false, 1)];
    let expected = expected.map(|(name, paused, n)| json!({"name": name, "paused": paused, "processing": n}));
    assert_eq!(shown["namespaces"], json!(expected));
    world.post("/applications/app/namespaces/x%20y/resume", None).await;
    assert_eq!(worker.take().await.as_deref(), Some("a"));
    for (path, status) in [("app/namespaces/nobody/pause", 404), ("other/namespaces/z/pause", 404)] {
        assert_eq!(world.http(Method::POST, &format!("/applications/{path}"), None).await.0, status, "{path}");
    }
}
