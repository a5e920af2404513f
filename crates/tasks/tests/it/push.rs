//! Tasks that are pushed, to workers that do as the test says.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use forebay_tasks::proto::taskbroker::worker_service_server::{WorkerService, WorkerServiceServer};
use forebay_tasks::proto::taskbroker::{PushTaskRequest, PushTaskResponse};
use forebay_tasks::push::{self, Pushing, Standing};
use forebay_tasks::{Options, Rules, Secrets};
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use serde_json::json;
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, async_trait};

use crate::world::{Complete, Retry, World};

/// A worker that listens, and does nothing but what the test says.
struct Listening {
    address: SocketAddr,
    pushes: mpsc::UnboundedReceiver<Pushed>,
    /// Of its own: with it its connections are gone. None only while it is dropped.
    runtime: Option<Runtime>,
}

/// A push that waits for its answer.
struct Pushed {
    id: String,
    request: PushTaskRequest,
    signature: Option<String>,
    answer: oneshot::Sender<Result<(), Status>>,
}

struct Told(mpsc::UnboundedSender<Pushed>);

#[async_trait]
impl WorkerService for Told {
    async fn push_task(&self, request: Request<PushTaskRequest>) -> Result<Response<PushTaskResponse>, Status> {
        let signature = request.metadata().get("sentry-signature");
        let signature = signature.map(|value| value.to_str().expect("it is ASCII").to_owned());
        let request = request.into_inner();
        let id = request.task.as_ref().expect("a task").known().expect("an activation").id;
        let (answer, answered) = oneshot::channel();
        self.0.send(Pushed { id, request, signature, answer }).expect("the test is there");
        answered.await.unwrap_or_else(|_| Err(Status::aborted("the test is over")))?;
        Ok(Response::new(PushTaskResponse {}))
    }
}

impl Listening {
    async fn start() -> Listening {
        Listening::at("127.0.0.1:0".parse().expect("an address")).await
    }

    async fn at(address: SocketAddr) -> Listening {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (told, pushes) = mpsc::unbounded_channel();
        let (listens, listening) = oneshot::channel();
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.expect("a port");
            listens.send(listener.local_addr().expect("it has one")).expect("the test waits");
            let server = Server::builder().add_service(WorkerServiceServer::new(Told(told)));
            server.serve_with_incoming(TcpIncoming::from(listener)).await.expect("it serves");
        });
        let address = listening.await.expect("it listens");
        Listening { address, pushes, runtime: Some(runtime) }
    }

    async fn next(&mut self) -> Pushed {
        self.pushes.recv().await.expect("it serves")
    }

    /// The next one, taken; its id.
    async fn take(&mut self) -> String {
        self.next().await.take()
    }

    /// The next one is not taken.
    async fn refuse(&mut self, why: Status) -> String {
        self.next().await.refuse(why)
    }

    /// It and its connections are gone.
    fn die(self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.runtime.take().expect("it is dropped once").shutdown_background();
    }
}

impl Pushed {
    fn take(self) -> String {
        self.answer.send(Ok(())).expect("it waits");
        self.id
    }

    fn refuse(self, why: Status) -> String {
        self.answer.send(Err(why)).expect("it waits");
        self.id
    }
}

fn to(workers: &[SocketAddr]) -> push::Options {
    let mut endpoints = push::Endpoints::default();
    for worker in workers {
        endpoints.add(&format!("app={worker}")).expect("an address");
    }
    push::Options { endpoints, ..push::Options::default() }
}

async fn world(push: push::Options) -> (World, Pushing) {
    with(Options { hold: Duration::ZERO, push, ..Options::default() }).await
}

async fn with(options: Options) -> (World, Pushing) {
    let world = World::with(options).await;
    let pushing = world.door.push("127.0.0.1:7".parse().expect("an address"));
    (world, pushing)
}

/// Looks until it is so.
async fn until(world: &World, is_so: impl Fn(&Standing) -> bool) {
    while !is_so(&world.door.pushed().expect("somebody is pushed to")) {
        tokio::task::yield_now().await;
    }
}

fn busy() -> Status {
    Status::resource_exhausted("worker busy")
}

#[tokio::test]
async fn a_task_is_pushed_as_it_comes_and_says_where_to_report() {
    let mut worker = Listening::start().await;
    let (world, _pushing) = world(to(&[worker.address])).await;
    let id = world.task(json!({"args": [7]})).await;
    let pushed = worker.next().await;
    assert_eq!(pushed.id, id);
    #[expect(deprecated, reason = "old workers read it")]
    let callback = pushed.request.callback_url.clone();
    assert_eq!((callback.as_str(), &pushed.signature), ("127.0.0.1:7", &None));
    pushed.take();
    assert_eq!(world.counts().await, [0, 1, 0, 0]);
    // 26.5.0 asks for the next one with its report: it is pushed, not handed out.
    let other = world.task(json!({})).await;
    assert_eq!(world.worker().report_and_take(&id, Complete).await, None);
    assert_eq!(worker.take().await, other);
    until(&world, |now| now.taken == 2 && now.in_flight == 0 && now.ready == 1).await;
}

#[tokio::test]
async fn what_is_pushed_is_not_pulled_and_what_is_not_pushed_is() {
    let worker = Listening::start().await;
    let (world, _pushing) = world(to(&[worker.address])).await;
    let mut puller = world.worker();
    for asks in [Some("app"), None] {
        let status = puller.ask(asks, None).await.unwrap_err();
        let denied = (Code::PermissionDenied, "Cannot call while broker is in PUSH mode");
        assert_eq!((status.code(), status.message()), denied, "there is no other application");
    }
    let id = world.task(json!({"application": "other"})).await;
    until(&world, |now| now.unmapped == 1).await;
    assert_eq!(puller.ask(None, None).await.unwrap().known().unwrap().id, id);
    assert_eq!(puller.ask(Some("other"), None).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(puller.ask(Some("app"), None).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_busy_worker_is_left_alone_for_longer_and_longer_and_no_attempt_counts() {
    let mut worker = Listening::start().await;
    let (world, _pushing) = world(to(&[worker.address])).await;
    let id = world.task(json!({})).await;
    for pause in [100, 200] {
        assert_eq!(worker.refuse(busy()).await, id);
        let refused = Instant::now();
        until(&world, |now| now.full == 1).await;
        let again = worker.next().await;
        assert!(refused.elapsed() >= Duration::from_millis(pause), "{:?}", refused.elapsed());
        assert_eq!(again.refuse(busy()), id);
    }
    assert_eq!(worker.take().await, id);
    let shown = world.get(&format!("/tasks/{id}")).await;
    assert_eq!((&shown["failures"], &shown["losses"]), (&json!(0), &json!(0)), "{shown}");
}

#[tokio::test]
async fn what_one_worker_does_not_take_another_gets_at_once() {
    for why in [busy(), Status::internal("it raised"), Status::unauthenticated("Authentication failed")] {
        let (mut first, mut second) = (Listening::start().await, Listening::start().await);
        let (world, _pushing) = world(to(&[first.address, second.address])).await;
        until(&world, |now| now.ready == 2).await;
        let id = world.task(json!({})).await;
        let pushed = tokio::select! {
            pushed = first.next() => pushed,
            pushed = second.next() => pushed,
        };
        let refused = Instant::now();
        assert_eq!(pushed.refuse(why), id);
        let taken = tokio::select! {
            taken = first.take() => taken,
            taken = second.take() => taken,
        };
        assert_eq!(taken, id);
        assert!(refused.elapsed() < Duration::from_secs(1), "{:?}", refused.elapsed());
    }
}

#[tokio::test]
async fn a_worker_that_is_not_there_is_tried_again_and_holds_nobody_up() {
    let away = Listening::start().await.die();
    let mut worker = Listening::start().await;
    let (world, _pushing) = world(to(&[away, worker.address])).await;
    let mut ids = BTreeSet::new();
    for _ in 0..5 {
        ids.insert(world.task(json!({})).await);
    }
    let mut taken = BTreeSet::new();
    for _ in 0..5 {
        taken.insert(worker.take().await);
    }
    assert_eq!(taken, ids);
    until(&world, |now| now.away == 1 && now.ready == 1).await;
    let mut back = Listening::at(away).await;
    until(&world, |now| now.ready == 2).await;
    worker.die();
    let id = world.task(json!({})).await;
    assert_eq!(back.take().await, id, "whoever was asked first");
}

#[tokio::test]
async fn what_a_worker_that_dies_was_being_sent_goes_to_another_unless_it_may_run_once_only() {
    for at_most_once in [false, true] {
        let mut dies = Listening::start().await;
        let (world, _pushing) = world(to(&[dies.address])).await;
        let id = world.task(json!({"at_most_once": at_most_once, "processing_deadline": 60})).await;
        // It has no answer until its worker is gone.
        let pushed = dies.next().await;
        assert_eq!(pushed.id, id);
        let address = dies.die();
        until(&world, |now| (now.failed, now.in_flight) == (1, 0)).await;
        drop(pushed);
        if at_most_once {
            assert_eq!(world.counts().await, [0, 1, 0, 0]);
        } else {
            assert_eq!(Listening::at(address).await.take().await, id);
        }
    }
}

#[tokio::test]
async fn what_waits_for_room_at_a_worker_is_not_lost_meanwhile() {
    let mut worker = Listening::start().await;
    let push = to(&[worker.address]);
    let grace = Duration::from_millis(400);
    let (world, _pushing) = with(Options { hold: Duration::ZERO, push, grace, ..Options::default() }).await;
    let id = world.task(json!({"processing_deadline": 0})).await;
    let pushed = worker.next().await;
    let applied = world.engine.counters().commands;
    // Each time that half of its time is over.
    let renewals = async {
        while world.engine.counters().commands < applied + 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewals).await.expect("it is renewed");
    let shown = world.get(&format!("/tasks/{id}")).await;
    assert_eq!((&shown["state"], &shown["losses"]), (&json!("processing"), &json!(0)), "{shown}");
    pushed.take();
    world.worker().report(&id, Complete).await;
    assert_eq!(world.counts().await, [0; 4]);
}

#[tokio::test]
async fn a_worker_that_answers_too_late_keeps_what_it_may_have() {
    let mut worker = Listening::start().await;
    let push = push::Options { timeout: Duration::from_millis(50), ..to(&[worker.address]) };
    let (world, _pushing) = world(push).await;
    let id = world.task(json!({"processing_deadline": 60})).await;
    let pushed = worker.next().await;
    until(&world, |now| now.failed == 1).await;
    assert_eq!(world.counts().await, [0, 1, 0, 0]);
    drop(pushed);
    world.worker().report(&id, Complete).await;
    assert_eq!(world.counts().await, [0; 4]);
}

#[tokio::test]
async fn who_lost_an_attempt_is_not_listened_to_and_who_has_it_is() {
    let (mut first, mut second) = (Listening::start().await, Listening::start().await);
    let push = to(&[first.address, second.address]);
    let grace = Duration::from_secs(1);
    let (world, _pushing) = with(Options { hold: Duration::ZERO, push, grace, ..Options::default() }).await;
    until(&world, |now| now.ready == 2).await;
    // Each reports something that nobody else got: so it is known who speaks.
    let [mut late, mut other] = [world.worker(), world.worker()];
    for _ in 0..2 {
        world.task(json!({"processing_deadline": 60})).await;
    }
    // A worker is sent one until it has taken that.
    let (one, two) = tokio::join!(first.next(), second.next());
    late.report(&one.take(), Complete).await;
    other.report(&two.take(), Complete).await;
    let id = world.task(json!({"processing_deadline": 0})).await;
    // It is lost by one after the other, until both have had it.
    let mut last = 0;
    let mut had = [false, false];
    while had != [true, true] {
        let taken = tokio::select! {
            taken = first.take() => { last = 0; taken }
            taken = second.take() => { last = 1; taken }
        };
        had[last] = true;
        assert_eq!(taken, id);
    }
    let [has_it, lost_it] = if last == 0 { [&mut late, &mut other] } else { [&mut other, &mut late] };
    lost_it.report(&id, Complete).await;
    assert_eq!(world.counts().await.iter().sum::<i64>(), 1, "it is not over");
    has_it.report(&id, Complete).await;
    assert_eq!(world.counts().await, [0; 4]);
}

#[tokio::test]
async fn a_retry_is_pushed_as_another_attempt() {
    let mut worker = Listening::start().await;
    let (world, _pushing) = world(to(&[worker.address])).await;
    let first = world.task(json!({"max_attempts": 2, "dead_letter": true})).await;
    assert_eq!(worker.take().await, first);
    world.worker().report(&first, Retry).await;
    let second = worker.take().await;
    assert_ne!(second, first);
    world.worker().report(&second, Retry).await;
    assert_eq!(world.counts().await, [0, 0, 0, 1]);
}

#[tokio::test]
async fn a_task_that_is_refused_again_and_again_makes_way_for_others() {
    let mut worker = Listening::start().await;
    let (world, _pushing) = world(to(&[worker.address])).await;
    let bad = world.task(json!({"priority": 1, "processing_deadline": 60})).await;
    let good = world.task(json!({})).await;
    for _ in 0..5 {
        assert_eq!(worker.refuse(Status::internal("Exception deserializing request!")).await, bad);
    }
    assert_eq!(worker.take().await, good);
    until(&world, |now| (now.refused, now.taken) == (5, 1)).await;
    assert_eq!(world.counts().await, [0, 2, 0, 0], "its time runs out");
}

#[tokio::test]
async fn a_worker_is_sent_more_at_a_time_only_while_it_takes_them_quickly() {
    let mut worker = Listening::start().await;
    let quick = Duration::from_secs(3600);
    let push = push::Options { in_flight_max: 3, quick, ..to(&[worker.address]) };
    let (world, _pushing) = world(push).await;
    let tasks = json!({"application": "app", "namespace": "ns", "task": "t"});
    world.post("/tasks", Some(json!({"tasks": vec![tasks; 20]}))).await;
    let first = worker.next().await;
    assert_eq!(world.counts().await, [19, 1, 0, 0], "one at first");
    first.take();
    for _ in 0..8 {
        worker.take().await;
    }
    let waiting = [worker.next().await, worker.next().await, worker.next().await];
    assert_eq!(world.counts().await, [8, 12, 0, 0]);
    assert_eq!(world.door.pushed().expect("some").in_flight, 3);
    drop(waiting);
}

#[tokio::test]
async fn what_the_rules_drop_is_pushed_to_nobody() {
    let mut worker = Listening::start().await;
    let (world, _pushing) = world(to(&[worker.address])).await;
    let first = world.task(json!({"id": "first"})).await;
    let holds = worker.next().await;
    for (id, task, priority) in [("a", "spam", 9), ("b", "keep", 0), ("c", "spam", 9), ("d", "spam", 0)] {
        world.task(json!({"id": id, "task": task, "priority": priority, "dead_letter": true})).await;
    }
    let rules = Rules::parse("[[drop]]\napplication = 'app'\ntask = 'spam'").expect("rules");
    world.door.set_rules(rules).await.expect("they are taken");
    // What comes from now on is not even enqueued.
    world.task(json!({"id": "e", "task": "spam"})).await;
    // What a worker has already it finishes.
    assert_eq!(holds.take(), first);
    assert_eq!(worker.take().await, "b");
    while world.counts().await != [0, 2, 0, 0] {
        tokio::task::yield_now().await;
    }
    assert_eq!((world.door.dropped().at_enqueue, world.door.dropped().waiting), (1, 3));
    // A rule that is gone drops nothing, and a worker that had only such tasks before it is still served.
    world.door.set_rules(Rules::default()).await.expect("they are taken");
    let again = world.task(json!({"id": "f", "task": "spam"})).await;
    assert_eq!(worker.take().await, again);
}

#[tokio::test]
async fn pushes_are_signed_by_the_first_secret() {
    let mut worker = Listening::start().await;
    let secrets = Secrets::new(["new".into(), "old".into()]);
    let push = to(&[worker.address]);
    let world = World::with(Options { push, ..Options::default() }).await;
    world.task(json!({"args": ["é"]})).await;
    // The same database, by a door that knows secrets.
    let door = world.another_door(Options { push: to(&[worker.address]), secrets, ..Options::default() }).await;
    let _pushing = door.push("127.0.0.1:7".parse().expect("an address"));
    let pushed = worker.next().await;
    let mut mac = Hmac::<Sha256>::new_from_slice(b"new").expect("any length");
    mac.update(b"/sentry_protos.taskbroker.v1.WorkerService/PushTask:");
    mac.update(&pushed.request.encode_to_vec());
    let expected: String = mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(pushed.signature, Some(expected));
}

#[tokio::test]
async fn a_stop_is_prompt_and_leaves_what_is_on_its_way_with_the_worker() {
    let mut worker = Listening::start().await;
    let (world, pushing) = world(to(&[worker.address])).await;
    let id = world.task(json!({"processing_deadline": 60})).await;
    let pushed = worker.next().await;
    let begun = Instant::now();
    pushing.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    world.task(json!({})).await;
    assert_eq!(world.counts().await, [1, 1, 0, 0], "nothing more is taken, nothing is given back");
    drop(pushed);
    world.worker().report(&id, Complete).await;
    assert_eq!(world.counts().await, [1, 0, 0, 0]);
}
