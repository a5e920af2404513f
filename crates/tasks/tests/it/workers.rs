//! What workers see.

use std::time::Duration;

use forebay_tasks::proto::taskbroker::SetTaskStatusRequest;
use serde_json::json;
use tonic::Code;

use crate::world::{Complete, Failure, Retry, World};

#[tokio::test]
async fn tasks_come_by_priority_and_then_in_the_order_of_their_coming() {
    let world = World::start().await;
    let mut ids = Vec::new();
    for priority in [0, 0, 5, 0] {
        ids.push(world.task(json!({"priority": priority})).await);
    }
    let mut worker = world.worker();
    let mut taken = vec![worker.take().await.expect("a task")];
    while let Some(next) = worker.report_and_take(&taken[taken.len() - 1], Complete).await {
        taken.push(next);
    }
    assert_eq!(taken, [&ids[2], &ids[0], &ids[1], &ids[3]].map(String::clone));
    assert_eq!(world.counts().await, [0; 4]);
}

#[tokio::test]
async fn a_namespace_with_many_tasks_does_not_hold_up_another() {
    let world = World::start().await;
    for (id, namespace, priority) in [("a1", "a", 9), ("a2", "a", 9), ("a3", "a", 9), ("b1", "b", 0), ("b2", "b", 0)] {
        world.task(json!({"id": id, "namespace": namespace, "priority": priority})).await;
    }
    let mut worker = world.worker();
    let mut taken = Vec::new();
    while let Some(task) = worker.take().await {
        taken.push(task);
    }
    assert_eq!(taken, ["a1", "b1", "a2", "b2", "a3"]);
}

#[tokio::test]
async fn a_worker_takes_of_its_application_and_namespace_only() {
    let world = World::start().await;
    let mine = world.task(json!({"namespace": "a"})).await;
    let other = world.task(json!({"namespace": "b"})).await;
    let mut worker = world.worker();
    for nothing in [(Some("app"), Some("c")), (Some("nobody"), None), (None, Some("a"))] {
        let status = worker.ask(nothing.0, nothing.1).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, "No pending activations"));
    }
    let task = worker.ask(Some("app"), Some("b")).await.unwrap().known().unwrap();
    assert_eq!((task.id, task.namespace.as_str()), (other, "b"));
    assert_eq!(worker.ask(None, None).await.unwrap().known().unwrap().id, mine);
}

#[tokio::test]
async fn a_worker_that_waits_gets_a_task_as_it_comes() {
    let world = World::holding(Duration::from_secs(60)).await;
    for asks in [Some("app"), None] {
        let mut worker = world.worker();
        let waiting = async { worker.ask(asks, None).await.unwrap().known().unwrap().id };
        // The application is there only from the first of them on.
        let (taken, id) = tokio::join!(waiting, world.task(json!({})));
        assert_eq!(taken, id);
    }
}

#[tokio::test]
async fn an_attempt_that_fails_is_followed_by_another_one_of_another_id() {
    let world = World::start().await;
    let first = world.task(json!({"id": "mine", "max_attempts": 3, "dead_letter": true})).await;
    assert_eq!(first, "mine");
    let mut worker = world.worker();
    assert_eq!(worker.take().await.unwrap(), "mine");
    let second = worker.report_and_take("mine", Retry).await.expect("again");
    assert_ne!(second, "mine");
    // What is said of the first one counts no more, whoever says it.
    worker.report("mine", Complete).await;
    world.worker().report("mine", Complete).await;
    assert_eq!(world.counts().await, [0, 1, 0, 0]);
    let third = worker.report_and_take(&second, Retry).await.expect("again");
    assert_eq!(worker.report_and_take(&third, Retry).await, None, "it may fail three times");
    assert_eq!(world.counts().await, [0, 0, 0, 1]);
    let dead = world.get("/tasks?application=app&state=dead_letter").await;
    assert_eq!((&dead["total"], &dead["tasks"][0]["failures"]), (&json!(1), &json!(3)));
}

#[tokio::test]
async fn a_failure_ends_a_task_and_a_worker_may_say_how_it_is_retried() {
    let world = World::start().await;
    let mut worker = world.worker();
    world.task(json!({"id": "a", "max_attempts": 9})).await;
    worker.take().await.expect("a task");
    worker.report("a", Failure).await;
    assert_eq!(world.counts().await, [0; 4], "it is discarded");
    world.task(json!({"id": "b", "max_attempts": 9})).await;
    worker.take().await.expect("a task");
    let retry = SetTaskStatusRequest {
        id: "b".into(),
        status: Retry.into(),
        max_attempts: Some(4),
        delay_on_retry: Some(3_600),
        ..Default::default()
    };
    assert_eq!(worker.set(retry.clone()).await.unwrap(), None);
    assert_eq!(world.counts().await, [0, 0, 1, 0]);
    world.task(json!({"id": "c", "max_attempts": 9})).await;
    worker.take().await.expect("a task");
    let last = SetTaskStatusRequest { id: "c".into(), max_attempts: Some(1), delay_on_retry: None, ..retry };
    assert_eq!(worker.set(last).await.unwrap(), None);
    assert_eq!(world.counts().await, [0, 0, 1, 0], "one attempt was all");
}

#[tokio::test]
async fn a_report_is_taken_from_another_connection_and_after_a_restart() {
    let world = World::start().await;
    for id in ["a", "b", "c"] {
        world.task(json!({"id": id, "max_attempts": 3})).await;
    }
    let mut worker = world.worker();
    for _ in 0..3 {
        worker.take().await.expect("a task");
    }
    let second_try = worker.report_and_take("c", Retry).await.expect("again");
    world.worker().report("a", Complete).await;
    assert_eq!(world.counts().await, [0, 2, 0, 0]);
    drop(worker);
    let world = world.restart().await;
    assert_eq!(world.counts().await, [0, 2, 0, 0]);
    let mut worker = world.worker();
    worker.report("b", Complete).await;
    worker.report("c", Complete).await;
    assert_eq!(world.counts().await, [0, 1, 0, 0], "that attempt of c was over");
    worker.report(&second_try, Complete).await;
    assert_eq!(world.counts().await, [0; 4]);
}

#[tokio::test]
async fn many_reports_are_looked_at_before_one_is_taken() {
    let world = World::start().await;
    for id in ["a", "b", "c"] {
        world.task(json!({"id": id, "max_attempts": 2})).await;
    }
    let mut worker = world.worker();
    for _ in 0..3 {
        worker.take().await.expect("a task");
    }
    let update = |id: &str, status: i32| SetTaskStatusRequest { id: id.into(), status, ..Default::default() };
    let refused = worker.set_all(vec![update("a", 5), update("b", 99)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("Unable to deserialize status"), "{refused}");
    let refused = worker.set_all(vec![update("a", 5), update("b", 2)]).await.unwrap_err();
    let text = "Invalid status, expects 3 (Failure), 4 (Retry), or 5 (Complete), but got: Processing";
    assert_eq!(refused.message(), text);
    assert_eq!(world.counts().await, [0, 3, 0, 0]);
    worker.set_all(Vec::new()).await.unwrap();
    worker.set_all(vec![update("a", 5), update("b", 3), update("c", 4), update("nobody's", 5)]).await.unwrap();
    assert_eq!(world.counts().await, [1, 0, 0, 0], "c is retried");
}
