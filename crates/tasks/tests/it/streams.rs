//! What workers see on their streams, over connections of gRPC.

use forebay_tasks::proto::ours::{FromWorker, Report, Source, ToWorker};
use forebay_tasks::push::{self, Endpoints};
use forebay_tasks::{Options, Rules};
use futures_util::FutureExt;
use serde_json::json;
use tonic::Code;

use crate::world::{Complete, Failure, Retry, Stream, World, report};

/// Nothing was passed over.
const NONE: [u32; 0] = [];

/// Whose tasks are taken.
fn of(application: &str, namespace: Option<&str>) -> Source {
    Source { application: Some(application.into()), namespace: namespace.map(Into::into) }
}

#[tokio::test]
async fn each_task_is_sent_once_by_priority_and_no_more_than_there_is_credit() {
    let world = World::start().await;
    for (id, priority) in [("a", 0), ("b", 0), ("c", 5), ("d", 0), ("e", 2)] {
        world.task(json!({"id": id, "priority": priority})).await;
    }
    let mut stream = world.stream(vec![of("app", None)], 3).await;
    let first = stream.take(3).await;
    assert_eq!(first.ids(), ["c", "e", "a"]);
    // Only what is said of attempts is answered: if there were credit left, an attempt came before.
    assert_eq!(stream.settle(vec![report(&first[0], Complete), report(&first[1], Complete)]).await, NONE);
    assert_eq!(world.counts().await, [2, 1, 0, 0]);
    stream.say(FromWorker { credit: 1, ..Default::default() }).await;
    assert_eq!(stream.take(1).await.ids(), ["b"]);
    stream.say(FromWorker { credit: 7, ..Default::default() }).await;
    assert_eq!(stream.take(1).await.ids(), ["d"]);
    assert_eq!(world.counts().await, [0, 3, 0, 0]);
}

#[tokio::test]
async fn two_streams_share_what_there_is_and_no_task_goes_to_both() {
    let world = World::start().await;
    let (mut one, mut other) = (world.stream(Vec::new(), 20).await, world.stream(Vec::new(), 20).await);
    let mut ids = Vec::new();
    for _ in 0..40 {
        ids.push(world.task(json!({})).await);
    }
    let mut taken = [one.take(20).await.ids(), other.take(20).await.ids()].concat();
    taken.sort();
    ids.sort();
    assert_eq!(taken, ids);
}

#[tokio::test]
async fn a_stream_that_waits_gets_a_task_as_it_comes_and_of_an_application_as_it_comes() {
    let world = World::start().await;
    for sources in [vec![of("app", None)], vec![of("other", None), of("app", Some("ns"))], Vec::new()] {
        let mut stream = world.stream(sources, 5).await;
        let id = world.task(json!({})).await;
        assert_eq!(stream.take(1).await.ids(), [id]);
    }
}

#[tokio::test]
async fn sources_are_served_in_turn() {
    let world = World::start().await;
    for namespace in ["a", "b", "c"] {
        for number in 0..4 {
            world.task(json!({"id": format!("{namespace}{number}"), "namespace": namespace})).await;
        }
    }
    let sources = vec![of("app", Some("a")), of("app", Some("c"))];
    let mut stream = world.stream(sources, 2).await;
    let mut ids = stream.take(2).await.ids();
    for credit in [1, 1, 4] {
        stream.say(FromWorker { credit, ..Default::default() }).await;
        ids.extend(stream.take(credit as usize).await.ids());
    }
    let firsts: Vec<char> = ids.iter().filter_map(|id| id.chars().next()).collect();
    for two in firsts[..4].chunks(2) {
        assert!(two.contains(&'a') && two.contains(&'c'), "{ids:?}");
    }
    assert_eq!(world.counts().await, [4, 8, 0, 0]);
}

#[tokio::test]
async fn a_stream_of_any_application_takes_from_each_by_its_weight() {
    let world = World::start().await;
    for application in ["a", "b"] {
        let task = json!({"application": application, "namespace": "ns", "task": "t"});
        world.post("/tasks", Some(json!({"tasks": vec![task; 40]}))).await;
    }
    let rules = Rules::parse("[[application]]\nname = 'b'\nweight = 3").unwrap();
    world.door.set_rules(rules).await.unwrap();
    let mut stream = world.stream(Vec::new(), 4).await;
    let mut of_b = 0;
    for _ in 0..5 {
        for attempt in &*stream.take(4).await {
            let task = attempt.activation.as_ref().unwrap().known().unwrap();
            of_b += u32::from(task.application.as_deref() == Some("b"));
        }
        stream.say(FromWorker { credit: 4, ..Default::default() }).await;
    }
    assert!((14..=16).contains(&of_b), "{of_b} of 20");
}

#[tokio::test]
async fn what_is_pushed_is_not_sent_on_a_stream() {
    let mut endpoints = Endpoints::default();
    // Nobody is there.
    endpoints.add("pushed=localhost:1").unwrap();
    let push = push::Options { endpoints, ..Default::default() };
    let world = World::with(Options { push, ..Options::default() }).await;
    world.task(json!({"id": "hidden", "application": "pushed"})).await;
    let refused = Stream::refused(
        &world,
        vec![FromWorker {
            hello: Some(forebay_tasks::proto::ours::Hello { sources: vec![of("pushed", None)] }),
            ..Default::default()
        }],
    );
    assert_eq!(refused.await.code(), Code::FailedPrecondition);
    let mut stream = world.stream(Vec::new(), 9).await;
    world.task(json!({"id": "seen"})).await;
    assert_eq!(stream.take(1).await.ids(), ["seen"]);
}

#[tokio::test]
async fn an_attempt_ends_as_it_is_reported() {
    let world = World::start().await;
    for id in ["done", "failed", "again", "later", "last"] {
        world.task(json!({"id": id, "max_attempts": 3, "dead_letter": id == "last"})).await;
    }
    let mut stream = world.stream(vec![of("app", None)], 5).await;
    let taken = stream.take(5).await;
    let later = Report { delay_ms: Some(3_600_000), ..report(&taken[3], Retry) };
    let last = Report { max_attempts: Some(1), ..report(&taken[4], Retry) };
    let reports = vec![report(&taken[0], Complete), report(&taken[1], Failure), report(&taken[2], Retry), later, last];
    assert_eq!(stream.settle(reports).await, NONE);
    assert_eq!(world.counts().await, [1, 0, 1, 1]);
    stream.say(FromWorker { credit: 1, ..Default::default() }).await;
    let again = &stream.take(1).await[0];
    let known = again.activation.as_ref().unwrap().known().unwrap();
    assert_eq!((known.id != "again", known.retry_state.unwrap().attempts), (true, 1));
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_ends_and_what_is_reported_by_it_is_passed_over() {
    let world = World::start().await;
    for id in ["kept", "lost"] {
        world.task(json!({"id": id, "processing_deadline": 10})).await;
    }
    let mut stream = world.stream(vec![of("app", None)], 2).await;
    let taken = stream.take(2).await;
    // With three seconds of grace.
    let left_ms = taken[0].lease_ms.unwrap();
    assert!((12_000..=13_000).contains(&left_ms), "{left_ms}");
    world.pass(8_000).await;
    let renewed = vec![taken[0].lease.clone()];
    let answer = stream.ask(FromWorker { renewed, ..Default::default() }).await;
    assert!(answer.stale_renewed.is_empty());
    world.pass(8_000).await;
    assert_eq!(world.counts().await, [1, 1, 0, 0]);
    let mut other = world.stream(vec![of("app", None)], 1).await;
    let again = other.take(1).await;
    assert_eq!(again.ids(), ["lost"], "a lost attempt keeps its id");
    // Whoever had it before has nothing to say of it any more.
    let leases = || taken.iter().map(|attempt| attempt.lease.clone()).collect();
    let reports = vec![report(&taken[1], Failure)];
    let message = FromWorker { reports, renewed: leases(), ..Default::default() };
    let answer = stream.ask(message).await;
    assert_eq!((answer.stale_reports, answer.stale_renewed), (vec![0], vec![1]));
    let answer = stream.ask(FromWorker { put_back: vec![taken[1].lease.clone()], ..Default::default() }).await;
    assert_eq!(answer.stale_put_back, [0]);
    assert_eq!(world.counts().await, [0, 2, 0, 0]);
    assert_eq!(other.settle(vec![report(&again[0], Complete)]).await, NONE);
    assert_eq!(stream.settle(vec![report(&taken[0], Complete)]).await, NONE);
    assert_eq!(world.counts().await, [0; 4]);
    assert_eq!(stream.settle(vec![report(&taken[0], Complete)]).await, [0], "it was said before");
}

#[tokio::test]
async fn a_task_that_is_put_back_is_pending_as_if_nobody_had_taken_it() {
    let world = World::start().await;
    world.task(json!({"id": "once", "at_most_once": true})).await;
    let mut stream = world.stream(vec![of("app", None)], 1).await;
    let taken = stream.take(1).await;
    let answer = stream.ask(FromWorker { put_back: vec![taken[0].lease.clone()], ..Default::default() }).await;
    assert!(answer.stale_put_back.is_empty());
    assert_eq!(world.counts().await, [1, 0, 0, 0]);
    stream.say(FromWorker { credit: 1, ..Default::default() }).await;
    let again = stream.take(1).await;
    assert_eq!(again.ids(), ["once"]);
    assert_ne!(again[0].lease, taken[0].lease);
    assert_eq!(stream.settle(vec![report(&taken[0], Complete)]).await, [0]);
    assert_eq!(stream.settle(vec![report(&again[0], Complete)]).await, NONE);
    assert_eq!(world.counts().await, [0; 4]);
}

#[tokio::test]
async fn who_lost_its_stream_may_report_on_another_one_also_after_a_restart() {
    let world = World::start().await;
    for id in ["a", "b", "c"] {
        world.task(json!({"id": id})).await;
    }
    let mut stream = world.stream(vec![of("app", None)], 3).await;
    let taken = stream.take(3).await;
    drop(stream);
    let mut stream = world.stream(vec![of("app", None)], 0).await;
    assert_eq!(stream.settle(vec![report(&taken[0], Complete)]).await, NONE);
    assert_eq!(world.counts().await, [0, 2, 0, 0], "a lost stream takes nothing from its worker");
    let world = world.restart().await;
    let mut stream = world.stream(vec![of("app", None)], 3).await;
    assert_eq!(stream.settle(vec![report(&taken[0], Complete), report(&taken[1], Complete)]).await, [0]);
    assert_eq!(world.counts().await, [0, 1, 0, 0]);
    world.pass(20_000).await;
    assert_eq!(stream.take(1).await.ids(), ["c"], "its deadline is over");
}

#[tokio::test]
async fn while_the_store_is_busy_nothing_is_answered_and_then_all_is_once() {
    let world = World::start().await;
    for _ in 0..6 {
        world.task(json!({})).await;
    }
    let mut stream = world.stream(vec![of("app", None)], 5).await;
    let taken = stream.take(5).await;
    world.gate.close();
    for (number, attempt) in (1..).zip(&*taken) {
        let reports = vec![report(attempt, Complete)];
        stream.say(FromWorker { number, reports, credit: 1, ..Default::default() }).await;
    }
    world.is_busy().await;
    let (mut answered, mut attempts) = (Vec::new(), 0);
    {
        let mut hearing = std::pin::pin!(stream.hear());
        assert!(hearing.as_mut().now_or_never().is_none());
        world.gate.open();
        let message = hearing.await.unwrap().unwrap();
        answered.extend(message.answers);
        attempts += message.attempts.len();
    }
    while answered.len() < 5 || attempts < 1 {
        let message = stream.hear().await.unwrap().unwrap();
        answered.extend(message.answers);
        attempts += message.attempts.len();
    }
    assert!(answered.iter().all(|answer| answer.stale_reports.is_empty()));
    answered.sort_by_key(|answer| answer.number);
    assert_eq!(answered.iter().map(|answer| answer.number).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!((attempts, world.counts().await), (1, [0, 1, 0, 0]));
}

#[tokio::test]
async fn a_stream_that_stops_answers_what_was_said_and_says_why() {
    let world = World::start().await;
    world.task(json!({"id": "a"})).await;
    let mut busy = world.stream(vec![of("app", None)], 1).await;
    let mut idle = world.stream(vec![of("app", None)], 1).await;
    let taken = busy.take(1).await;
    busy.say(FromWorker { number: 1, reports: vec![report(&taken[0], Complete)], ..Default::default() }).await;
    assert_eq!(busy.hear().await.unwrap().unwrap().answers[0].number, 1);
    world.door.stop();
    for mut stream in [busy, idle] {
        assert_eq!(stream.hear().await.unwrap_err().code(), Code::Unavailable);
    }
    // It may come again, and hears it again.
    idle = world.stream(vec![of("app", None)], 1).await;
    assert_eq!(idle.hear().await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_worker_that_has_said_all_is_answered_before_its_stream_ends() {
    let world = World::start().await;
    world.task(json!({"id": "a"})).await;
    let mut stream = world.stream(vec![of("app", None)], 1).await;
    let taken = stream.take(1).await;
    stream.say(FromWorker { number: 9, reports: vec![report(&taken[0], Complete)], ..Default::default() }).await;
    stream.has_said_all();
    assert_eq!(stream.hear().await.unwrap().unwrap().answers[0].number, 9);
    assert_eq!(stream.hear().await.unwrap(), None);
    assert_eq!(world.counts().await, [0; 4]);
}

#[tokio::test]
async fn what_cannot_be_meant_ends_a_stream_with_its_reason() {
    let world = World::start().await;
    world.task(json!({"id": "a"})).await;
    let hello = || FromWorker { hello: Some(Default::default()), ..Default::default() };
    let report = Report { lease: vec![0; 32], status: 99, ..Default::default() };
    let only_namespace = Source { application: None, namespace: Some("ns".into()) };
    let sources = |sources: Vec<Source>| FromWorker {
        hello: Some(forebay_tasks::proto::ours::Hello { sources }),
        ..Default::default()
    };
    for (messages, why) in [
        (vec![FromWorker::default()], "a worker says hello first"),
        (vec![hello(), hello()], "a worker says hello once"),
        (vec![sources(vec![only_namespace])], "a namespace is one of an application, which is not named"),
        (vec![sources(vec![of("x", None); 65])], "a worker takes from 64 sources at most, not 65"),
        (vec![hello(), FromWorker { credit: 16_385, ..Default::default() }], "the credit may be 16384 at most"),
        (vec![hello(), FromWorker { renewed: vec![vec![1]], ..Default::default() }], "a lease is not one of ours"),
        (
            vec![hello(), FromWorker { put_back: vec![vec![0; 32]; 10_001], ..Default::default() }],
            "a message says 10000 things of attempts at most, not 10001",
        ),
        (
            vec![hello(), FromWorker { reports: vec![report], ..Default::default() }],
            "Unable to deserialize status: unknown enumeration value 99",
        ),
    ] {
        let refused = Stream::refused(&world, messages).await;
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, why));
    }
    // A lease of nothing that is there is no reason to end.
    let mut stream = world.stream(Vec::new(), 0).await;
    let answer = stream.ask(FromWorker { renewed: vec![vec![0x7F; 32], vec![0; 32]], ..Default::default() }).await;
    assert_eq!(answer.stale_renewed.len(), 2);
    assert_eq!(world.counts().await, [1, 0, 0, 0]);
}

#[tokio::test]
async fn of_a_paused_application_nothing_is_sent() {
    let world = World::start().await;
    world.task(json!({"id": "a"})).await;
    world.post("/applications/app/pause", None).await;
    let mut stream = world.stream(vec![of("app", None)], 1).await;
    // It was heard, so it waits.
    assert_eq!(stream.ask(FromWorker { renewed: vec![vec![0; 32]], ..Default::default() }).await.number, 1);
    assert_eq!(world.counts().await, [1, 0, 0, 0]);
    world.post("/applications/app/resume", None).await;
    assert_eq!(stream.take(1).await.ids(), ["a"]);
}

#[tokio::test]
async fn what_the_rules_drop_is_not_sent_and_takes_no_credit() {
    let world = World::start().await;
    for (id, task) in [("a", "spam"), ("b", "keep"), ("c", "spam"), ("d", "spam"), ("e", "keep")] {
        world.task(json!({"id": id, "task": task, "dead_letter": true})).await;
    }
    let rule = async |text: &str| {
        let rules = Rules::parse(text).expect("rules");
        world.door.set_rules(rules).await.expect("they are taken");
    };
    rule("[[drop]]\napplication = 'app'\ntask = 'spam'").await;
    let mut stream = world.stream(vec![of("app", None)], 2).await;
    let taken = stream.take(2).await;
    assert_eq!(taken.ids(), ["b", "e"]);
    while world.counts().await != [0, 2, 0, 0] {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.door.dropped().waiting, 3);
    // What it has already it finishes, and it does not hear of what it does not get.
    rule("[[drop]]\nnamespace = 'ns'").await;
    assert_eq!(stream.settle(vec![report(&taken[0], Complete)]).await, NONE);
    rule("").await;
    world.task(json!({"id": "f", "task": "spam"})).await;
    rule("[[drop]]\ntask = 'spam'").await;
    stream.say(FromWorker { credit: 1, ..Default::default() }).await;
    while world.door.dropped().waiting != 4 {
        tokio::task::yield_now().await;
    }
    assert_eq!(stream.settle(vec![report(&taken[1], Complete)]).await, NONE);
    rule("").await;
    world.task(json!({"id": "g", "task": "spam"})).await;
    assert_eq!(stream.take(1).await.ids(), ["g"]);
    assert_eq!(world.counts().await, [0, 1, 0, 0]);
}

#[tokio::test]
async fn a_large_claim_comes_in_messages_that_a_client_takes() {
    let world = World::start().await;
    let text = "x".repeat(600_000);
    for _ in 0..8 {
        world.task(json!({"args": [text]})).await;
    }
    let mut stream = world.stream(vec![of("app", None)], 8).await;
    let mut taken = 0;
    while taken < 8 {
        let ToWorker { attempts, .. } = stream.hear().await.unwrap().unwrap();
        taken += attempts.len();
        assert!(attempts.len() <= 2);
    }
}
