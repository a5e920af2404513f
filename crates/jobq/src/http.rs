//! The routes of jobq's daemon, over a directory of queues, a file each.
//!
//! Both generations of its routes are here. `/api/v0/job…` is about one queue, which is the file
//! `jobq.sqlite3`; `/api/v0/queue/<q_id>/…` is about the file `<q_id>.sqlite3`. A refusal is
//! `{"error": reason}`: 404 for what is not there, 409 for a conflict, 422 for a body or a query
//! that says nothing, 503 when to try again.

mod openapi;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes};
use hyper::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::{Error, Job, JobQueue, Json, Options, Query, is_queue_name};

pub use openapi::openapi;

/// The queue of the routes that name none.
const DEFAULT: &str = "jobq";
/// What the files of queues end in.
const SUFFIX: &str = ".sqlite3";

/// The bounds of the door, and how its queues are opened.
#[derive(Debug, Clone)]
pub struct DoorOptions {
    /// A longer body is refused, in bytes.
    pub body_max: usize,
    /// At most so many files are kept open; for one more another is closed.
    pub open_max: usize,
    pub queue: Options,
}

impl Default for DoorOptions {
    fn default() -> Self {
        DoorOptions { body_max: 16 * 1024 * 1024, open_max: 256, queue: Options::default() }
    }
}

/// Answers the daemon's routes. Clones share the open files.
#[derive(Clone)]
pub struct Door {
    shared: Arc<Shared>,
}

struct Shared {
    directory: PathBuf,
    options: DoorOptions,
    open: Mutex<HashMap<String, JobQueue>>,
    /// Held while files come and go, on threads that may wait.
    files: Mutex<()>,
}

/// An answer: a status and a JSON body.
struct Reply {
    status: StatusCode,
    body: String,
    allow: Option<&'static str>,
}

/// Why a request was not carried out.
enum Fault {
    NoRoute,
    Method(&'static str),
    NoQueue(String),
    QueueExists(String),
    /// Nothing matches the query.
    NoMatch,
    /// The job is in another state.
    Conflict(i64),
    TooLarge,
    /// The client did not send its body.
    Unread(String),
    Unprocessable(String),
    Io(std::io::Error),
    Queue(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Queue(error)
    }
}

impl Door {
    /// A door to the queues in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(directory: impl Into<PathBuf>, options: DoorOptions) -> std::io::Result<Self> {
        let directory = directory.into();
        std::fs::create_dir_all(&directory)?;
        let (open, files) = (Mutex::default(), Mutex::default());
        Ok(Door { shared: Arc::new(Shared { directory, options, open, files }) })
    }

    /// The path is one that this door answers.
    #[must_use]
    pub fn is_for(path: &str) -> bool {
        path.strip_prefix("/api/v0/")
            .and_then(|rest| rest.split('/').next())
            .is_some_and(|first| matches!(first, "job" | "queue"))
    }

    /// Answers one request. Within a tokio runtime, whose threads for blocking calls it uses.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let reply = match self.route(request).await {
            Ok(reply) => reply,
            Err(fault) => fault.reply(),
        };
        reply.respond()
    }

    /// Closes the open files, when their calls in progress are answered.
    pub fn close(&self) {
        let queues: Vec<JobQueue> = self.shared.lock().drain().map(|(_, queue)| queue).collect();
        queues.iter().for_each(JobQueue::close);
    }

    async fn route<B>(&self, request: Request<B>) -> Result<Reply, Fault>
    where
        B: Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let call = Call { door: self, method: parts.method, body: read(body, self.shared.options.body_max).await? };
        let path = parts.uri.path().strip_prefix("/api/v0/").ok_or(Fault::NoRoute)?;
        let segments: Vec<&str> = path.split('/').collect();
        match segments.as_slice() {
            ["job"] => call.jobs(DEFAULT, &[Method::GET, Method::POST]).await,
            ["job", "create"] => call.create(DEFAULT).await,
            ["job", "poll"] => call.poll(DEFAULT).await,
            ["job", id] => call.job(DEFAULT, id).await,
            ["job", id, "state"] => call.cas(DEFAULT, id).await,
            ["job", id, "event"] => call.append(DEFAULT, id).await,
            ["queue"] => call.queues().await,
            ["queue", queue] => call.drop_queue(queue).await,
            ["queue", queue, "job"] if call.method == Method::POST => call.create(queue).await,
            ["queue", queue, "job"] => call.jobs(queue, &[Method::GET]).await,
            ["queue", queue, "query_jobs"] => call.jobs(queue, &[Method::POST]).await,
            ["queue", queue, "poll_job"] => call.poll(queue).await,
            ["queue", queue, "job", id] => call.job(queue, id).await,
            ["queue", queue, "job", id, "state"] => call.cas(queue, id).await,
            ["queue", queue, "job", id, "event"] => call.append(queue, id).await,
            _ => Err(Fault::NoRoute),
        }
    }

    /// The queue of this name. The default one is made when it is first asked for.
    async fn queue(&self, name: &str) -> Result<JobQueue, Fault> {
        if let Some(queue) = self.shared.lock().get(name) {
            return Ok(queue.clone());
        }
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        blocking(move || {
            let _files = shared.files();
            let is_there = is_queue_name(&name) && shared.path(&name).exists();
            if name != DEFAULT && !is_there {
                return Err(Fault::NoQueue(name));
            }
            shared.open(&name)
        })
        .await
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("directory", &self.shared.directory).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, JobQueue>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}{SUFFIX}"))
    }

    fn files(&self) -> MutexGuard<'_, ()> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a queue's file, unless it is open. While [`files`](Shared::files) is held.
    fn open(&self, name: &str) -> Result<JobQueue, Fault> {
        if let Some(queue) = self.lock().get(name) {
            return Ok(queue.clone());
        }
        let queue = JobQueue::open_with(self.path(name), self.options.queue.clone())?;
        let mut open = self.lock();
        if open.len() >= self.options.open_max
            && let Some(other) = open.keys().next().cloned()
        {
            // Calls in progress keep it open until they are answered.
            open.remove(&other);
        }
        open.insert(name.to_owned(), queue.clone());
        Ok(queue)
    }

    fn names(&self) -> Result<Vec<String>, Fault> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.directory).map_err(Fault::Io)? {
            let file = entry.map_err(Fault::Io)?.file_name();
            let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX));
            names.extend(name.filter(|name| is_queue_name(name)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    fn create(&self, name: Option<String>) -> Result<String, Fault> {
        let _files = self.files();
        let name = match name {
            Some(name) if is_queue_name(&name) => name,
            Some(name) => return Err(Error::Name(name).into()),
            // The daemon's queues have numbers.
            None => {
                let taken = self.names()?;
                let numbers = taken.iter().filter_map(|name| name.parse::<u64>().ok());
                (numbers.max().unwrap_or(0) + 1).to_string()
            }
        };
        // Whoever makes the file has made the queue.
        match std::fs::File::create_new(self.path(&name)) {
            Ok(_) => self.open(&name).map(|_| name),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Err(Fault::QueueExists(name)),
            Err(error) => Err(Fault::Io(error)),
        }
    }

    fn remove(&self, name: &str) -> Result<(), Fault> {
        // Nobody opens it anew before its files are gone.
        let _files = self.files();
        if !is_queue_name(name) || !self.path(name).exists() {
            return Err(Fault::NoQueue(name.to_owned()));
        }
        let open = self.lock().remove(name);
        if let Some(queue) = open {
            queue.close();
        }
        for suffix in ["", "-wal", "-shm", "-journal"] {
            match std::fs::remove_file(self.directory.join(format!("{name}{SUFFIX}{suffix}"))) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Fault::Io(error)),
            }
        }
        Ok(())
    }
}

/// One request.
struct Call<'a> {
    door: &'a Door,
    method: Method,
    body: Bytes,
}

impl Call<'_> {
    async fn jobs(&self, queue: &str, methods: &[Method]) -> Result<Reply, Fault> {
        if !methods.contains(&self.method) {
            // Where jobs are listed with GET, they are made or queried with POST.
            let allow = if methods.contains(&Method::GET) { "GET, POST" } else { "POST" };
            return Err(Fault::Method(allow));
        }
        let body = if self.body.is_empty() { Fields::default() } else { self.fields()? };
        let limit = body.limit()?;
        let query = body.query()?.unwrap_or_default();
        let queue = self.door.queue(queue).await?;
        let jobs = blocking(move || Ok(queue.query(query, limit)?)).await?;
        Reply::ok(&Jobs { jobs })
    }

    async fn create(&self, queue: &str) -> Result<Reply, Fault> {
        self.only(&Method::POST, "POST")?;
        let body = self.fields()?;
        // The README says `job` where the daemon read `payload`.
        let payload = match body.get("payload")? {
            Some(payload) => payload,
            None => body.get("job")?.ok_or_else(|| Fault::missing("payload"))?,
        };
        let state = body.get("state")?;
        let queue = self.door.queue(queue).await?;
        Reply::ok(&queue.in_async().create(payload, state).await?)
    }

    async fn poll(&self, queue: &str) -> Result<Reply, Fault> {
        self.only(&Method::POST, "POST")?;
        let body = self.fields()?;
        let query = body.query()?.ok_or_else(|| Fault::missing("query"))?;
        let state = body.get("state")?.ok_or_else(|| Fault::missing("state"))?;
        let queue = self.door.queue(queue).await?;
        let job = queue.in_async().poll(query, state).await?;
        Reply::ok(&job.ok_or(Fault::NoMatch)?)
    }

    async fn job(&self, queue: &str, id: &str) -> Result<Reply, Fault> {
        let id = id_of(id)?;
        if self.method == Method::DELETE {
            let queue = self.door.queue(queue).await?;
            // As the library: what is not there is deleted.
            queue.in_async().delete(id).await?;
            return Reply::ok(&json!({}));
        }
        self.only(&Method::GET, "GET, DELETE")?;
        let queue = self.door.queue(queue).await?;
        Reply::ok(&blocking(move || Ok(queue.get(id)?)).await?)
    }

    async fn cas(&self, queue: &str, id: &str) -> Result<Reply, Fault> {
        self.only(&Method::POST, "POST")?;
        let id = id_of(id)?;
        let body = self.fields()?;
        let old = body.get("old")?.ok_or_else(|| Fault::missing("old"))?;
        let new = body.get("new")?.ok_or_else(|| Fault::missing("new"))?;
        let queue = self.door.queue(queue).await?;
        if let Some(job) = queue.in_async().cas_state(id, old, new).await? {
            return Reply::ok(&job);
        }
        // Not there, or in another state?
        blocking(move || Ok(queue.get(id)?)).await?;
        Err(Fault::Conflict(id))
    }

    async fn append(&self, queue: &str, id: &str) -> Result<Reply, Fault> {
        self.only(&Method::POST, "POST")?;
        let id = id_of(id)?;
        let event = Json::parse(self.text()?)?;
        let queue = self.door.queue(queue).await?;
        Reply::ok(&queue.in_async().append_event(id, event).await?)
    }

    async fn queues(&self) -> Result<Reply, Fault> {
        let shared = Arc::clone(&self.door.shared);
        if self.method == Method::GET {
            let names = blocking(move || shared.names()).await?;
            let queues: Vec<Value> = names.iter().map(|name| json!({"id": name})).collect();
            return Reply::ok(&json!({"queues": queues}));
        }
        self.only(&Method::POST, "GET, POST")?;
        let body = if self.body.is_empty() { Fields::default() } else { self.fields()? };
        let name = match body.get("id")? {
            Some(id) => match id.to::<Value>()? {
                Value::String(id) => Some(id),
                Value::Number(id) => Some(id.to_string()),
                Value::Null => None,
                _ => return Err(Fault::Unprocessable("a queue's id is a name or a number".into())),
            },
            None => None,
        };
        let name = blocking(move || shared.create(name)).await?;
        Reply::ok(&json!({"id": name}))
    }

    async fn drop_queue(&self, queue: &str) -> Result<Reply, Fault> {
        self.only(&Method::DELETE, "DELETE")?;
        let (shared, queue) = (Arc::clone(&self.door.shared), queue.to_owned());
        blocking(move || shared.remove(&queue)).await?;
        Reply::ok(&json!({}))
    }

    fn only(&self, method: &Method, allow: &'static str) -> Result<(), Fault> {
        if self.method == *method { Ok(()) } else { Err(Fault::Method(allow)) }
    }

    fn text(&self) -> Result<&str, Fault> {
        std::str::from_utf8(&self.body).map_err(|error| Fault::Unprocessable(error.to_string()))
    }

    fn fields(&self) -> Result<Fields<'_>, Fault> {
        serde_json::from_str(self.text()?)
            .map(Fields)
            .map_err(|error| Fault::Unprocessable(format!("the body is a JSON object: {error}")))
    }
}

/// The fields of a body, each still as text, so that documents keep their keys' order.
#[derive(Default)]
struct Fields<'a>(HashMap<String, &'a RawValue>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Result<Option<Json>, Fault> {
        Ok(self.0.get(name).map(|raw| Json::parse(raw.get())).transpose()?)
    }

    fn query(&self) -> Result<Option<Query>, Fault> {
        let Some(query) = self.get("query")? else { return Ok(None) };
        let query: Value = query.to()?;
        Ok(Some(Query::from_value(&query).map_err(Error::from)?))
    }

    fn limit(&self) -> Result<Option<u64>, Fault> {
        match self.get("limit")? {
            Some(limit) => limit.to().map_err(|_| Fault::Unprocessable("limit is a number of jobs, or null".into())),
            None => Ok(None),
        }
    }
}

fn id_of(text: &str) -> Result<i64, Fault> {
    text.parse().map_err(|_| Fault::Unprocessable(format!("{text:?} is not the id of a job")))
}

async fn read<B>(body: B, max: usize) -> Result<Bytes, Fault>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Fault::TooLarge),
        Err(error) => Err(Fault::Unread(error.to_string())),
    }
}

/// Runs what reads files on a thread that may wait for them.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and its callers with it.
            Err(_) => Err(Error::Closed.into()),
        },
    }
}

#[derive(Serialize)]
struct Jobs {
    jobs: Vec<Job>,
}

impl Reply {
    fn ok(body: &impl Serialize) -> Result<Self, Fault> {
        let body =
            serde_json::to_string(body).map_err(|error| Error::NotJson(format!("a stored document: {error}")))?;
        Ok(Reply { status: StatusCode::OK, body, allow: None })
    }

    fn respond(self) -> Response<Full<Bytes>> {
        let mut response = Response::builder().status(self.status).header(CONTENT_TYPE, "application/json");
        if let Some(allow) = self.allow {
            response = response.header(ALLOW, allow);
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response = response.header(RETRY_AFTER, "1");
        }
        response.body(Full::new(Bytes::from(self.body))).expect("these headers are plain")
    }
}

impl Fault {
    fn missing(field: &str) -> Self {
        Fault::Unprocessable(format!("the body has no {field}"))
    }

    fn reply(self) -> Reply {
        let mut allow = None;
        let (status, reason) = match self {
            Fault::NoRoute => (StatusCode::NOT_FOUND, "there is nothing here".to_owned()),
            Fault::Method(methods) => {
                allow = Some(methods);
                (StatusCode::METHOD_NOT_ALLOWED, format!("this takes {methods}"))
            }
            Fault::NoQueue(name) => (StatusCode::NOT_FOUND, format!("there is no queue {name:?}")),
            Fault::QueueExists(name) => (StatusCode::CONFLICT, format!("there is a queue {name:?} already")),
            Fault::NoMatch => (StatusCode::NOT_FOUND, "no job matches".to_owned()),
            Fault::Conflict(id) => (StatusCode::CONFLICT, format!("the state of job {id} is another")),
            Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the body is too long".to_owned()),
            Fault::Unread(reason) => (StatusCode::BAD_REQUEST, reason),
            Fault::Unprocessable(reason) => (StatusCode::UNPROCESSABLE_ENTITY, reason),
            Fault::Io(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            Fault::Queue(error) => (status_of(&error), error.to_string()),
        };
        Reply { status, body: json!({"error": reason}).to_string(), allow }
    }
}

fn status_of(error: &Error) -> StatusCode {
    match error {
        Error::NoJob(_) | Error::NoQueue(_) => StatusCode::NOT_FOUND,
        Error::LeaseEnded(_) => StatusCode::CONFLICT,
        Error::Query(_) | Error::NotJson(_) | Error::Name(_) | Error::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Busy(_) | Error::Overloaded | Error::Closed => StatusCode::SERVICE_UNAVAILABLE,
        Error::Format(_) | Error::Broken(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
