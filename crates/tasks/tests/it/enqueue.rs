//! How tasks come.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use forebay_tasks::activation::{Activation, Known};
use forebay_tasks::proto::ours::NewTask;
use hyper::Method;
use prost::Message;
use serde_json::json;
use tonic::Code;

use crate::world::{Complete, World};

fn activation(id: &str) -> Activation {
    let known = Known {
        id: id.into(),
        namespace: "ns".into(),
        taskname: "t".into(),
        application: Some("app".into()),
        processing_deadline_duration: 10,
        ..Known::default()
    };
    let mut bytes = known.encode_to_vec();
    // A field that this program does not know.
    prost::encoding::string::encode(99, &"of tomorrow".to_owned(), &mut bytes);
    Activation::from_bytes(bytes)
}

fn new(id: &str) -> NewTask {
    NewTask { activation: Some(activation(id)), ..NewTask::default() }
}

#[tokio::test]
async fn a_task_comes_out_as_the_bytes_that_went_in() {
    let world = World::start().await;
    let enqueued = world.enqueue(vec![new("a")]).await.unwrap();
    assert_eq!((enqueued[0].id.as_str(), enqueued[0].was_there), ("a", false));
    assert_eq!(world.worker().ask(Some("app"), None).await.unwrap(), activation("a"));
}

#[tokio::test]
async fn an_id_is_enqueued_once_as_long_as_its_task_is_there() {
    let world = World::start().await;
    let both = world.enqueue(vec![new("a"), new("a"), new("b")]).await.unwrap();
    assert_eq!(both.iter().map(|one| one.was_there).collect::<Vec<_>>(), [false, true, false]);
    let (one, other) = tokio::join!(world.enqueue(vec![new("c")]), world.enqueue(vec![new("c"), new("a")]));
    let there = [one.unwrap(), other.unwrap()].concat();
    assert_eq!(there.iter().filter(|one| one.id == "c" && !one.was_there).count(), 1);
    assert_eq!(world.counts().await, [3, 0, 0, 0]);
    let mut worker = world.worker();
    assert_eq!(worker.take().await.as_deref(), Some("a"));
    assert!(world.enqueue(vec![new("a")]).await.unwrap()[0].was_there);
    worker.report("a", Complete).await;
    assert!(!world.enqueue(vec![new("a")]).await.unwrap()[0].was_there);
}

#[tokio::test]
async fn a_task_without_an_id_gets_one_that_finds_it() {
    let world = World::start().await;
    let enqueued = world.enqueue(vec![new(""), new("")]).await.unwrap();
    assert_ne!(enqueued[0].id, enqueued[1].id);
    let shown = world.get(&format!("/tasks/{}", enqueued[1].id)).await;
    assert_eq!((&shown["id"], &shown["state"]), (&json!(enqueued[1].id), &json!("pending")));
    assert_eq!(world.worker().take().await, Some(enqueued[0].id.clone()));
}

#[tokio::test]
async fn a_task_that_names_no_application_is_the_default_ones() {
    let world = World::start().await;
    let bare = Activation::from_bytes(Known { id: "x".into(), ..Known::default() }.encode_to_vec());
    world.enqueue(vec![NewTask { activation: Some(bare), ..NewTask::default() }]).await.unwrap();
    assert_eq!(world.worker().ask(Some("default"), None).await.unwrap().known().unwrap().id, "x");
}

#[tokio::test]
async fn a_delay_is_waited_for_and_an_expired_task_is_gone() {
    let world = World::start().await;
    world.task(json!({"id": "later", "delay_ms": 3_600_000})).await;
    world.task(json!({"id": "never", "expires_ms": 0})).await;
    world.task(json!({"id": "kept", "expires_ms": 0, "dead_letter": true})).await;
    // Timers fire by themselves: nobody takes what has expired meanwhile.
    while world.counts().await != [0, 0, 1, 1] {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.worker().take().await, None);
    let soon = world.task(json!({"id": "soon", "delay_ms": 1})).await;
    let mut worker = world.worker();
    let taken = loop {
        if let Some(taken) = worker.take().await {
            break taken;
        }
    };
    assert_eq!(taken, soon);
}

#[tokio::test]
async fn what_is_no_task_is_refused_and_nothing_of_its_request_is_done() {
    let world = World::start().await;
    // An id, parameters and a header that are no texts: the last two only workers read.
    for bytes in [&[0x0A, 1, 0xFF][..], &[0x22, 1, 0xFF], &[0x2A, 3, 0x0A, 1, 0xFF]] {
        let garbled = NewTask { activation: Some(Activation::from_bytes(bytes)), ..NewTask::default() };
        let refused = world.enqueue(vec![new("a"), garbled]).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    assert_eq!(world.enqueue(Vec::new()).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(world.enqueue(vec![new(""); 1_001]).await.unwrap_err().code(), Code::InvalidArgument);
    for body in [
        json!({}),
        json!({"tasks": [{"namespace": "n"}]}),
        json!({"tasks": [{"activation": "?"}]}),
        json!({"tasks": [{"namespace": "n", "task": "t", "args": 5}]}),
        json!({"tasks": [{"namespace": "n", "task": "t", "wrong": 5}]}),
        json!({"tasks": [{"activation": BASE64.encode([0xFF, 0xFF])}]}),
    ] {
        let (status, said) = world.http(Method::POST, "/tasks", Some(body.clone())).await;
        assert_eq!(status, 422, "{body}: {said}");
    }
    assert_eq!(world.get("/applications").await, json!({"applications": []}));
}
