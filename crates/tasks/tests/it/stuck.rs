//! A store that takes nothing for a while, as with a full disk or one that hangs.

use std::time::{Duration, Instant};

use forebay_tasks::proto::taskbroker::SetTaskStatusRequest;
use hyper::Method;
use serde_json::json;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::world::{Complete, World};

/// What a report is held for.
const HELD: Duration = Duration::from_secs(2);

fn complete(id: &str) -> SetTaskStatusRequest {
    SetTaskStatusRequest { id: id.into(), status: Complete.into(), ..SetTaskStatusRequest::default() }
}

#[tokio::test]
async fn reports_are_held_and_then_to_be_said_again_which_changes_nothing() {
    let world = World::start().await;
    let mut worker = world.worker();
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.task(json!({})).await);
        worker.take().await.expect("a task");
    }
    world.gate.close();
    let begun = Instant::now();
    let one = worker.set(complete(&ids[0]));
    let mut other = world.worker();
    let many = other.set_all(vec![complete(&ids[1]), complete(&ids[2])]);
    let (one, many) = tokio::join!(one, many);
    assert!(begun.elapsed() >= HELD);
    for code in [one.unwrap_err().code(), many.unwrap_err().code()] {
        assert_eq!(code, Code::Unavailable, "26.5.0 drops what it is told with any other code");
    }
    // Held, and answered as soon as the store is back.
    let begun = Instant::now();
    let again = worker.set(complete(&ids[0]));
    let (again, ()) = tokio::join!(again, async { world.gate.open() });
    again.expect("it is taken");
    assert!(begun.elapsed() < HELD, "{:?}", begun.elapsed());
    other.set_all(vec![complete(&ids[1]), complete(&ids[2])]).await.expect("it is taken");
    assert_eq!(world.counts().await, [0; 4], "each once");
}

#[tokio::test]
async fn a_task_that_cannot_be_handed_out_in_time_is_not_found_and_is_there_afterwards() {
    let world = World::start().await;
    let (first, second) = (world.task(json!({})).await, world.task(json!({})).await);
    let mut worker = world.worker();
    assert_eq!(worker.take().await.as_ref(), Some(&first));
    world.gate.close();
    let begun = Instant::now();
    assert_eq!(worker.take().await, None);
    assert!(begun.elapsed() >= HELD);
    world.gate.open();
    worker.report(&first, Complete).await;
    let again = loop {
        if let Some(again) = worker.take().await {
            break again;
        }
    };
    assert_eq!(again, second);
    let shown = world.get(&format!("/tasks/{second}")).await;
    assert_eq!(shown["losses"], 0, "no attempt of it is lost");
}

#[tokio::test]
async fn who_enqueues_is_told_to_try_again_and_nothing_is_doubled() {
    let world = World::with_backlog(4).await;
    world.task(json!({"id": "before"})).await;
    world.gate.close();
    let task = |id: String| json!({"tasks": [{"application": "app", "namespace": "ns", "task": "t", "id": id}]});
    // As many as there is room for wait; one more is refused.
    let enqueue = |number: usize| world.http(Method::POST, "/tasks", Some(task(format!("t{number}"))));
    let all = futures_util::future::join_all((0..20).map(enqueue));
    let (answers, ()) = tokio::join!(all, async {
        while world.engine.counters().overloaded == 0 {
            tokio::task::yield_now().await;
        }
        world.gate.open();
    });
    let refused = answers.iter().filter(|(status, _)| *status == 503).count();
    assert!(refused > 0 && answers.iter().all(|(status, _)| [200, 503].contains(status)), "{answers:?}");
    assert_eq!(world.counts().await, [21 - refused as i64, 0, 0, 0]);
    for number in 0..20 {
        world.post("/tasks", Some(task(format!("t{number}")))).await;
    }
    assert_eq!(world.counts().await, [21, 0, 0, 0]);
}

#[tokio::test]
async fn health_says_when_nothing_gets_into_the_store() {
    let world = World::start().await;
    let mut client = HealthClient::new(world.door.services());
    let service = "sentry_protos.taskbroker.v1.ConsumerService".to_owned();
    let request = HealthCheckRequest { service };
    let mut told = client.watch(request.clone()).await.expect("it is known").into_inner();
    let mut next = async || told.message().await.expect("it goes on").expect("it goes on").status();
    assert_eq!(next().await, ServingStatus::Serving);
    world.gate.close();
    tokio::join!(world.task(json!({})), async {
        assert_eq!(next().await, ServingStatus::NotServing);
        world.gate.open();
    });
    assert_eq!(next().await, ServingStatus::Serving);
    let unknown = HealthCheckRequest { service: "nobody's".to_owned() };
    assert_eq!(client.check(unknown).await.unwrap_err().code(), Code::NotFound);
    world.engine.stop(Duration::from_secs(10)).await;
    assert_eq!(next().await, ServingStatus::NotServing);
}
