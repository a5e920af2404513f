//! The workflows door: torc's HTTP API over the engine.
//!
//! A request is read, becomes a command or a read of the engine, and its answer is rendered; what
//! may become of a job is decided in `forebay_domain` alone. Additions to torc's API are marked as
//! ours where their route stands (`routes`).
//!
//! - [`Door`]: answers requests, whoever listens for them.
//! - `routes`: which request goes where, and the handlers.
//! - `http`, `fault`: bodies, parameters, refusals.
//! - `rows`, `list`, `job`: catalog rows, lists and jobs on the wire.
//! - `openapi`: what the door answers to, written down.
//! - `kept`, `tasks`, `events`: what the door itself remembers, within bounds.

mod events;
mod fault;
mod http;
mod job;
mod kept;
mod list;
mod openapi;
mod routes;
mod rows;
mod tasks;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_domain::command::Scope;
use forebay_domain::port::{Reader, StoreError};
use forebay_engine::EngineHandle;
use hyper::body::{Body as HttpBody, Bytes};
use hyper::{Request, Response};

use crate::events::Hub;
use crate::fault::Fault;
pub use crate::http::{Body, bare};
use crate::kept::Kept;
pub use crate::openapi::openapi_json;
use crate::tasks::Tasks;

/// Bounds of the door. Plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a request's body.
    pub body_max: u64,
    /// Bytes of a body of `bulk_jobs`, `bulk_files` or `bulk_user_data`.
    pub bulk_body_max: u64,
    /// Bytes of a body of `batch_complete_jobs` or `report_and_claim`.
    pub report_body_max: u64,
    /// The longest that a claim waits for a job, in milliseconds.
    pub wait_max_ms: i64,
    /// The longest lease of a compute node, in milliseconds.
    pub lease_max_ms: i64,
    /// How long an asynchronous initialize is waited for before its task is answered as running,
    /// in milliseconds.
    pub task_wait_ms: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            body_max: 2 << 20,
            bulk_body_max: 200 << 20,
            report_body_max: 64 << 20,
            wait_max_ms: 600_000,
            lease_max_ms: 24 * 3_600_000,
            task_wait_ms: 5_000,
        }
    }
}

/// Who sent a request, if that is known: an extension of it, set by whoever looked at its credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User(Arc<str>);

impl User {
    pub fn new(name: &str) -> User {
        User(name.into())
    }

    pub fn name(&self) -> &str {
        &self.0
    }
}

/// Answers the requests of torc's API. Clones are the same door.
#[derive(Clone)]
pub struct Door {
    shared: Arc<Shared>,
}

struct Shared {
    engine: EngineHandle,
    options: Options,
    kept: Kept,
    tasks: Tasks,
    hub: Hub,
    spans: AtomicU64,
}

impl Door {
    pub fn new(engine: EngineHandle, options: Options) -> Door {
        let now = engine.now();
        // Any number that differs between runs of the server.
        let spans = AtomicU64::new(now.0.unsigned_abs() << 20);
        let (kept, tasks, hub) = (Kept::new(), Tasks::default(), Hub::new(now));
        Door { shared: Arc::new(Shared { engine, options, kept, tasks, hub, spans }) }
    }

    /// Answers one request. Dropped before it is ready, a claim that it waits for is undone; so are
    /// the claims of an answer whose body is dropped before it is read.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: std::fmt::Display,
    {
        routes::answer(self, request).await
    }

    pub(crate) fn engine(&self) -> &EngineHandle {
        &self.shared.engine
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    pub(crate) fn kept(&self) -> &Kept {
        &self.shared.kept
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.shared.tasks
    }

    pub(crate) fn hub(&self) -> &Hub {
        &self.shared.hub
    }

    /// A number that names a request in logs.
    pub(crate) fn next_span(&self) -> u64 {
        self.shared.spans.fetch_add(1, Ordering::Relaxed)
    }

    /// Lets a reader look at what is committed: enough for all but states of jobs and their results,
    /// since nobody is told of anything else before.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut dyn Reader) -> Result<T, Unseen> + Send + 'static,
    ) -> Result<T, Fault> {
        self.engine().read(seeing(look)).await?
    }

    /// Lets a reader look at states of jobs or their results, as far as anybody was told of them.
    pub(crate) async fn look_of<T: Send + 'static>(
        &self,
        scope: Scope,
        look: impl FnOnce(&mut dyn Reader) -> Result<T, Unseen> + Send + 'static,
    ) -> Result<T, Fault> {
        self.engine().read_of(scope, seeing(look)).await?
    }
}

/// A look whose fault is a thing that was seen, not an error of the store.
fn seeing<T>(
    look: impl FnOnce(&mut dyn Reader) -> Result<T, Unseen>,
) -> impl FnOnce(&mut dyn Reader) -> Result<Result<T, Fault>, StoreError> {
    |reader| match look(reader) {
        Ok(seen) => Ok(Ok(seen)),
        Err(Unseen::Fault(fault)) => Ok(Err(fault)),
        Err(Unseen::Store(error)) => Err(error),
    }
}

/// Why a look found nothing to answer with.
pub(crate) enum Unseen {
    Fault(Fault),
    Store(StoreError),
}

impl From<Fault> for Unseen {
    fn from(fault: Fault) -> Unseen {
        Unseen::Fault(fault)
    }
}

impl From<StoreError> for Unseen {
    fn from(error: StoreError) -> Unseen {
        Unseen::Store(error)
    }
}
