//! Workers of tasks while the database cannot be written: what they say is taken later, in its order and
//! once, and until then they are told to say it again.

use std::fs;
use std::time::{Duration, Instant};

use forebay_tasks::activation::{Activation, Known};
use forebay_tasks::proto::ours::tasks_client::TasksClient;
use forebay_tasks::proto::ours::{EnqueueRequest, NewTask};
use forebay_tasks::proto::taskbroker::TaskActivationStatus::{self, Complete, Retry};
use forebay_tasks::proto::taskbroker::consumer_service_client::ConsumerServiceClient;
use forebay_tasks::proto::taskbroker::{FetchNextTask, GetTaskRequest, RetryState, SetTaskStatusRequest};
use prost::Message;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::disks::Disk;
use crate::scratch::{Scratch, Served};

/// Each has one task in its hands, and another one waits for it.
const WORKERS: usize = 50;

/// What workers of another application say of their tasks, one after the other.
const FLAKY: [[TaskActivationStatus; 2]; 2] = [[Retry, Retry], [Retry, Complete]];

/// Of a third one: more than what room there may be in files that are there.
const LARGE: usize = 20;

#[test]
fn reports_wait_for_a_database_that_another_process_has_locked() {
    let scratch = Scratch::new();
    let path = scratch.at("jobs.db");
    let lock = || {
        let db = rusqlite::Connection::open(&path).expect("the database is there");
        db.execute_batch("BEGIN IMMEDIATE").expect("nobody writes at the moment");
        db
    };
    reports_wait(&scratch, "jobs.db", lock, drop);
}

#[test]
fn reports_wait_for_room_on_a_full_disk() {
    let scratch = Scratch::new();
    let Some(disk) = Disk::mount(&scratch, 16) else { return };
    reports_wait(&scratch, "disk/jobs.db", || disk.fill(), |ballast| fs::remove_file(ballast).expect("it is there"));
}

/// `block` makes the store busy until `free` has what it gave.
fn reports_wait<B>(scratch: &Scratch, db: &str, block: impl FnOnce() -> B, free: impl FnOnce(B)) {
    let mut server = Served::start(scratch, &["--db", db, "--grpc", "127.0.0.1:0", "--durability", "process"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let crew = runtime.block_on(async {
        let grpc = server.grpc.clone().expect("it listens for workers");
        let mut crew = Crew::connect(&grpc).await;
        crew.enqueue((0..2 * WORKERS).map(|n| task("shop", n, 10)).collect()).await;
        for n in 0..WORKERS {
            assert_eq!(crew.take("shop").await.expect("there are enough"), id("shop", n));
        }
        crew.enqueue(FLAKY.iter().enumerate().map(|(n, _)| task("flaky", n, 10)).collect()).await;
        for n in 0..FLAKY.len() {
            assert_eq!(crew.take("flaky").await.expect("there are enough"), id("flaky", n));
        }
        crew.enqueue(vec![task("other", 0, 10)]).await;
        crew
    });
    let blocked = block();
    // The next batch fits in no room that may be left.
    let mut producer = crew.clone();
    let enqueued = runtime.spawn(async move {
        producer.enqueue((1..LARGE).map(|n| task("other", n, 100_000)).collect()).await;
    });
    server.hear("the store is busy");
    runtime.block_on(async {
        // What is said again adds nothing.
        for round in 0..2 {
            let done = (0..WORKERS).map(|n| (id("shop", n), Complete, Some("shop")));
            let flaky = (0..).zip(FLAKY).map(|(n, said)| (id("flaky", n), said[round], None));
            let reports = done.chain(flaky).map(|(id, status, next)| {
                let mut crew = crew.clone();
                tokio::spawn(async move {
                    let since = Instant::now();
                    (crew.report(&id, status, next).await.map_err(|status| status.code()), since.elapsed())
                })
            });
            for report in reports.collect::<Vec<_>>() {
                let (answer, took) = report.await.expect("it does not panic");
                assert_eq!(answer, Err(Code::Unavailable));
                assert!(took >= Duration::from_secs(2), "{took:?}: it may be that there is room soon");
            }
        }
        assert_eq!(crew.clone().take("shop").await.map_err(|status| status.code()), Err(Code::NotFound));
        assert!(!enqueued.is_finished(), "what is not in the database is not answered for");
    });
    free(blocked);
    runtime.block_on(async {
        let mut crew = crew;
        for n in 0..WORKERS {
            // What was handed out to those who left comes back with the commit, which may be after the first.
            let next = match crew.report(&id("shop", n), Complete, Some("shop")).await.expect("it is taken") {
                Some(next) => next,
                None => crew.take("shop").await.expect("it came back"),
            };
            assert_eq!(next, id("shop", WORKERS + n), "in their order, each once");
        }
        for n in WORKERS..2 * WORKERS {
            assert_eq!(crew.report(&id("shop", n), Complete, Some("shop")).await.expect("it is taken"), None);
        }
        // What was said first is what became of it, once.
        for (n, said) in (0..).zip(FLAKY) {
            assert_eq!(crew.report(&id("flaky", n), said[1], None).await.expect("it is taken"), None);
        }
        for _ in FLAKY {
            let again = crew.take_task("flaky").await.expect("both are tried again");
            let Known { id, retry_state, .. } = again.known().expect("an activation");
            assert_eq!(retry_state.map(|state| state.attempts), Some(1), "{id}");
            assert_eq!(crew.report(&id, Complete, None).await.expect("it is taken"), None);
        }
        enqueued.await.expect("it was taken");
    });
    let applications = scratch.forebay(&["tasks", "applications", "--json", "--url", &server.url]).exits(0).json();
    let counts = |n: usize| ["pending", "processing", "delayed"].map(|what| applications[n][what].as_u64());
    // In the order of their names: flaky, other, shop.
    let all = [[Some(0); 3], [Some(LARGE as u64), Some(0), Some(0)], [Some(0); 3]];
    assert_eq!([counts(0), counts(1), counts(2)], all, "{applications}");
    assert_eq!(server.end("TERM").code, 0);
    scratch.forebay(&["db", "check", "--db", db]).exits(0);
}

/// Workers and producers on one connection.
#[derive(Clone)]
struct Crew {
    workers: ConsumerServiceClient<Channel>,
    producers: TasksClient<Channel>,
}

impl Crew {
    async fn connect(grpc: &str) -> Crew {
        let endpoint = Endpoint::from_shared(grpc.to_owned()).expect("an address");
        let channel = endpoint.connect().await.expect("it listens");
        Crew { workers: ConsumerServiceClient::new(channel.clone()), producers: TasksClient::new(channel) }
    }

    async fn enqueue(&mut self, tasks: Vec<NewTask>) {
        let count = tasks.len();
        let enqueued = self.producers.enqueue(EnqueueRequest { tasks }).await.expect("they are taken");
        assert_eq!(enqueued.into_inner().tasks.iter().filter(|task| !task.was_there).count(), count);
    }

    async fn take(&mut self, application: &str) -> Result<String, Status> {
        Ok(self.take_task(application).await?.id().expect("an activation").to_owned())
    }

    async fn take_task(&mut self, application: &str) -> Result<Activation, Status> {
        let request = GetTaskRequest { namespace: None, application: Some(application.to_owned()) };
        let task = self.workers.get_task(request).await?.into_inner().task;
        Ok(task.expect("what is not there is not found"))
    }

    /// Says what became of a task, and takes the next one of an application, if there is one.
    async fn report(
        &mut self,
        id: &str,
        status: TaskActivationStatus,
        next: Option<&str>,
    ) -> Result<Option<String>, Status> {
        let next = next.map(|name| FetchNextTask { namespace: None, application: Some(name.to_owned()) });
        let request = SetTaskStatusRequest {
            id: id.to_owned(),
            status: status.into(),
            fetch_next_task: next,
            ..SetTaskStatusRequest::default()
        };
        let next = self.workers.set_task_status(request).await?.into_inner().task;
        Ok(next.map(|task| task.id().expect("an activation").to_owned()))
    }
}

fn id(application: &str, n: usize) -> String {
    format!("{application}-{n:04}")
}

fn task(application: &str, n: usize, size: usize) -> NewTask {
    let known = Known {
        id: id(application, n),
        namespace: "n".to_owned(),
        taskname: "t".to_owned(),
        application: Some(application.to_owned()),
        processing_deadline_duration: 600,
        retry_state: Some(RetryState { max_attempts: 5, ..RetryState::default() }),
        parameters_bytes: vec![1; size],
        ..Known::default()
    };
    let activation = Some(Activation::from_bytes(known.encode_to_vec()));
    NewTask { activation, ..NewTask::default() }
}
