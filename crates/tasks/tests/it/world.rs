//! A door with a database of its own, workers and operators.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use forebay_domain::batch::{Batch, Outcomes};
use forebay_domain::command::{Command, Scope};
use forebay_domain::ids::Timestamp;
use forebay_domain::port::{Recovered, Store, StoreError};
use forebay_engine::{Clock, Engine, EngineHandle, Options as EngineOptions, SystemClock};
use forebay_store_sqlite::{Durability, SqliteReader, SqliteStore};
use forebay_tasks::activation::Activation;
use forebay_tasks::connection::Connection;
use forebay_tasks::proto::ours::tasks_client::TasksClient;
use forebay_tasks::proto::ours::{
    Answer, Attempt, EnqueueRequest, Enqueued, FromWorker, Hello, NewTask, Report, Source, ToWorker,
};
use forebay_tasks::proto::taskbroker::consumer_service_client::ConsumerServiceClient;
use forebay_tasks::proto::taskbroker::{
    FetchNextTask, GetTaskRequest, SetBatchActivationStatusRequest, SetTaskStatusRequest, TaskActivationStatus,
};
use forebay_tasks::{Door, Options};
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Response, Status, Streaming};

pub struct World {
    pub door: Door,
    pub engine: EngineHandle,
    pub gate: Gate,
    clock: Arc<Moved>,
    folder: TempDir,
}

/// The system's clock, moved on.
struct Moved {
    clock: SystemClock,
    by_ms: AtomicI64,
}

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        self.clock.now().after(self.by_ms.load(Ordering::SeqCst))
    }
}

/// While it is closed, commits find the store busy.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<AtomicBool>);

impl Gate {
    pub fn close(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

struct GatedStore {
    inner: SqliteStore,
    gate: Gate,
}

impl Store for GatedStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.inner.recover()
    }

    fn commit(&mut self, batch: &Batch) -> Result<Outcomes, StoreError> {
        match self.gate.0.load(Ordering::SeqCst) {
            true => Err(StoreError::Busy("the test says so".into())),
            false => self.inner.commit(batch),
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.inner.sync()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.inner.close()
    }
}

fn process() -> EngineOptions {
    EngineOptions::process(|| Ok(()))
}

impl World {
    /// Workers are not held while there is no task.
    pub async fn start() -> World {
        World::holding(Duration::ZERO).await
    }

    pub async fn holding(hold: Duration) -> World {
        World::with(Options { hold, ..Options::default() }).await
    }

    pub async fn with(options: Options) -> World {
        World::on(tempfile::tempdir().expect("a temporary folder"), options, process()).await
    }

    /// With room for few changes behind a busy store; those beyond wait for a second.
    pub async fn with_backlog(backlog_max: usize) -> World {
        let engine = EngineOptions { backlog_max, hold: Duration::from_secs(1), ..process() };
        World::on(tempfile::tempdir().expect("a temporary folder"), Options::default(), engine).await
    }

    /// Another door to the same tasks.
    pub async fn another_door(&self, options: Options) -> Door {
        Door::open(self.engine.clone(), options).await.expect("a door")
    }

    async fn on(folder: TempDir, options: Options, engine: EngineOptions) -> World {
        let path = folder.path().join("test.db");
        let stored = forebay_store_sqlite::Options { durability: Durability::Process, ..Default::default() };
        let inner = SqliteStore::open(&path, stored).expect("a database");
        let gate = Gate::default();
        let store = GatedStore { inner, gate: gate.clone() };
        let readers = move || SqliteReader::open(&path).map_err(|error| panic!("a reader: {error}"));
        let clock = Arc::new(Moved { clock: SystemClock::new(), by_ms: AtomicI64::new(0) });
        let engine = Engine::start(store, readers, Arc::<Moved>::clone(&clock), engine).expect("an engine");
        let door = Door::open(engine.clone(), options).await.expect("a door");
        World { door, engine, gate, clock, folder }
    }

    /// The same database, served anew.
    pub async fn restart(self) -> World {
        let World { door, engine, folder, .. } = self;
        engine.stop(Duration::from_secs(10)).await;
        drop((door, engine));
        World::on(folder, Options { hold: Duration::ZERO, ..Options::default() }, process()).await
    }

    pub fn worker(&self) -> Worker {
        let client = ConsumerServiceClient::new(self.door.services());
        Worker { client, connection: self.door.connection() }
    }

    /// Time passes, and the engine sees it.
    pub async fn pass(&self, ms: i64) {
        self.clock.by_ms.fetch_add(ms, Ordering::SeqCst);
        // What has come due is seen to in this turn; what must be read for that, before the next answer
        // of the same engine would come: so it is looked at again.
        for _ in 0..2 {
            self.engine.call(Command::Flush(Scope::Everything)).await.expect("it is flushed");
        }
    }

    /// Returns when a commit found the store busy.
    pub async fn is_busy(&self) {
        while self.engine.counters().busy == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// A worker's stream, over a connection of its own.
    pub async fn stream(&self, sources: Vec<Source>, credit: u32) -> Stream {
        let mut stream = Stream::connect(self).await;
        stream.say(FromWorker { hello: Some(Hello { sources }), credit, ..Default::default() }).await;
        stream
    }

    pub async fn enqueue(&self, tasks: Vec<NewTask>) -> Result<Vec<Enqueued>, Status> {
        let mut client = TasksClient::new(self.door.services());
        Ok(client.enqueue(EnqueueRequest { tasks }).await?.into_inner().tasks)
    }

    /// Over HTTP: the status, and the body.
    pub async fn http(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default()));
        let request = Request::builder().method(method).uri(format!("/tasks/v1{path}")).body(body).expect("a request");
        let response = self.door.answer(request).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).expect("it is JSON"))
    }

    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.http(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub async fn post(&self, path: &str, body: Option<Value>) -> Value {
        let (status, body) = self.http(Method::POST, path, body).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// Enqueues a task of the application `app`, with what `more` says; its id.
    pub async fn task(&self, more: Value) -> String {
        let mut task = json!({"application": "app", "namespace": "ns", "task": "t"});
        task.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let answer = self.post("/tasks", Some(json!({"tasks": [task]}))).await;
        answer["tasks"][0]["id"].as_str().expect("an id").to_owned()
    }

    /// (pending, processing, delayed, dead letters) of the application `app`.
    pub async fn counts(&self) -> [i64; 4] {
        let all = self.get("/applications").await;
        let apps = all["applications"].as_array().expect("a list");
        let app = apps.iter().find(|one| one["name"] == "app").expect("it is there");
        ["pending", "processing", "delayed", "dead_letters"].map(|word| app[word].as_i64().expect("a number"))
    }
}

/// A worker that has a stream.
pub struct Stream {
    /// Gone once it has said all.
    to: Option<mpsc::Sender<FromWorker>>,
    from: Opening,
    number: u64,
}

/// It is answered only once the worker has said something.
enum Opening {
    Asked(JoinHandle<Result<Response<Streaming<ToWorker>>, Status>>),
    Open(Box<Streaming<ToWorker>>),
}

impl Stream {
    async fn connect(world: &World) -> Stream {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("it listens");
        let address = incoming.local_addr().expect("it has an address");
        let server = Server::builder().add_routes(world.door.services());
        tokio::spawn(server.serve_with_incoming(incoming));
        let mut client = TasksClient::connect(format!("http://{address}")).await.expect("a connection");
        let (to, said) = mpsc::channel(16);
        let said = stream::unfold(said, async |mut said| Some((said.recv().await?, said)));
        let asked = tokio::spawn(async move { client.work(said).await });
        Stream { to: Some(to), from: Opening::Asked(asked), number: 0 }
    }

    /// Says this, and answers with what the stream ends.
    pub async fn refused(world: &World, messages: Vec<FromWorker>) -> Status {
        let mut stream = Stream::connect(world).await;
        for message in messages {
            stream.say(message).await;
        }
        stream.hear().await.expect_err("it is refused")
    }

    pub async fn say(&mut self, message: FromWorker) {
        self.to.as_ref().expect("it has more to say").send(message).await.expect("it is sent");
    }

    pub fn has_said_all(&mut self) {
        self.to = None;
    }

    /// What comes next; none at the end.
    pub async fn hear(&mut self) -> Result<Option<ToWorker>, Status> {
        if let Opening::Asked(asked) = &mut self.from {
            self.from = Opening::Open(Box::new(asked.await.expect("it does not panic")?.into_inner()));
        }
        let Opening::Open(from) = &mut self.from else { unreachable!("it was just opened") };
        from.message().await
    }

    /// The next attempts, of which there must be so many.
    pub async fn take(&mut self, many: usize) -> Attempts {
        let mut attempts = Vec::new();
        while attempts.len() < many {
            let message = self.hear().await.expect("it is served").expect("it goes on");
            assert!(message.answers.is_empty(), "nothing was asked: {message:?}");
            attempts.extend(message.attempts);
        }
        assert_eq!(attempts.len(), many, "more than was there, or was asked for");
        Attempts(attempts)
    }

    /// Says this; the answer, before which no attempt comes.
    pub async fn ask(&mut self, message: FromWorker) -> Answer {
        self.number += 1;
        self.say(FromWorker { number: self.number, ..message }).await;
        let message = self.hear().await.expect("it is served").expect("it goes on");
        assert!(message.attempts.is_empty(), "there is no credit, or no task: {message:?}");
        let [answer] = &message.answers[..] else { panic!("{message:?}") };
        assert_eq!(answer.number, self.number);
        answer.clone()
    }

    /// Reports; which of that was passed over.
    pub async fn settle(&mut self, reports: Vec<Report>) -> Vec<u32> {
        self.ask(FromWorker { reports, ..Default::default() }).await.stale_reports
    }
}

pub struct Attempts(Vec<Attempt>);

impl Attempts {
    pub fn ids(&self) -> Vec<String> {
        let id = |attempt: &Attempt| {
            let activation = attempt.activation.as_ref().expect("an attempt has a task");
            activation.known().expect("an activation").id
        };
        self.0.iter().map(id).collect()
    }
}

impl Deref for Attempts {
    type Target = [Attempt];

    fn deref(&self) -> &[Attempt] {
        &self.0
    }
}

pub fn report(attempt: &Attempt, status: TaskActivationStatus) -> Report {
    Report { lease: attempt.lease.clone(), status: status.into(), ..Default::default() }
}

/// A worker on a connection of its own.
pub struct Worker {
    client: ConsumerServiceClient<Routes>,
    connection: Connection,
}

pub use TaskActivationStatus::{Complete, Failure, Retry};

impl Worker {
    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.extensions_mut().insert(self.connection.clone());
        request
    }

    pub async fn ask(&mut self, application: Option<&str>, namespace: Option<&str>) -> Result<Activation, Status> {
        let (application, namespace) = (application.map(str::to_owned), namespace.map(str::to_owned));
        let request = self.request(GetTaskRequest { application, namespace });
        let response = self.client.get_task(request).await?.into_inner();
        Ok(response.task.expect("what is not there is not found"))
    }

    /// The id of the next task of the application `app`.
    pub async fn take(&mut self) -> Option<String> {
        match self.ask(Some("app"), None).await {
            Ok(task) => Some(task.known().expect("an activation").id),
            Err(status) => {
                assert_eq!((status.code(), status.message()), (Code::NotFound, "No pending activations"));
                None
            }
        }
    }

    pub async fn report(&mut self, id: &str, status: TaskActivationStatus) {
        let next = self.set(SetTaskStatusRequest { id: id.into(), status: status.into(), ..Default::default() });
        assert_eq!(next.await.expect("it is taken"), None);
    }

    /// Reports, and takes the next one of `app`.
    pub async fn report_and_take(&mut self, id: &str, status: TaskActivationStatus) -> Option<String> {
        let fetch_next_task = Some(FetchNextTask { namespace: None, application: Some("app".into()) });
        let (id, status) = (id.to_owned(), status.into());
        let next = self.set(SetTaskStatusRequest { id, status, fetch_next_task, ..Default::default() }).await;
        next.expect("it is taken").map(|task| task.known().expect("an activation").id)
    }

    pub async fn set(&mut self, message: SetTaskStatusRequest) -> Result<Option<Activation>, Status> {
        let request = self.request(message);
        Ok(self.client.set_task_status(request).await?.into_inner().task)
    }

    pub async fn set_all(&mut self, updates: Vec<SetTaskStatusRequest>) -> Result<(), Status> {
        let request = self.request(SetBatchActivationStatusRequest { updates });
        self.client.set_batch_activation_status(request).await.map(drop)
    }
}
