//! The tasks door: workers of taskbroker over gRPC, and what is ours beside that. It decodes, asks the
//! engine and encodes; which task is next, and what becomes of one, the engine says.
//!
//! The tasks of an application are the jobs of one endless workflow, those of a namespace one of its
//! lanes. A job's name is the id that its producer gave it.

pub mod activation;
pub mod connection;
pub mod proto;
pub mod push;

mod applications;
mod claims;
mod consumer;
mod enqueue;
mod fault;
mod grants;
mod health;
mod http;
mod ident;
mod manage;
mod ours;
mod reports;
mod rules;
mod rulings;
mod signatures;
mod stream;
mod turns;
mod waiting;

pub use crate::rules::{BadRules, Rules};
pub use crate::rulings::Dropped;
pub use crate::signatures::Secrets;

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::middleware::from_fn_with_state;
use bytes::Bytes;
use forebay_domain::ids::Timestamp;
use forebay_engine::{EngineHandle, Error};
use http_body_util::Full;
use hyper::{Request, Response};
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};

use crate::applications::Applications;
use crate::connection::Connection;
use crate::enqueue::Names;
use crate::grants::Grants;
use crate::proto::ours::tasks_server::TasksServer;
use crate::proto::taskbroker::consumer_service_server::ConsumerServiceServer;
use crate::push::Pushes;
use crate::rulings::Rulings;
use crate::signatures::Guard;
use crate::turns::Turns;

/// The bounds of the door. Plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Whose tasks those are that name no application.
    pub default_application: String,
    /// What signs the calls of workers; without any a call needs no signature.
    pub secrets: Secrets,
    /// Whose tasks are pushed, and where; the others' are pulled.
    pub push: push::Options,
    /// How long a GetTask waits for a task; 0: not at all.
    pub hold: Duration,
    /// What is added to a task's processing deadline.
    pub grace: Duration,
    /// An attempt that is lost is followed by another one, until so many were.
    pub losses_max: u16,
    /// Applications that there may be.
    pub applications_max: usize,
    /// Attempts of which it is remembered who has them.
    pub grants_max: usize,
    /// A longer message is refused, in bytes.
    pub message_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            default_application: "default".to_owned(),
            secrets: Secrets::default(),
            push: push::Options::default(),
            hold: Duration::from_secs(2),
            grace: Duration::from_secs(3),
            losses_max: 5,
            applications_max: 4_096,
            grants_max: 1 << 20,
            // What taskbroker's Python client takes.
            message_max: 10 << 20,
        }
    }
}

/// Answers workers and producers. Clones are the same door.
#[derive(Clone)]
pub struct Door {
    shared: Arc<Shared>,
}

struct Shared {
    engine: EngineHandle,
    options: Options,
    applications: Applications,
    grants: Grants,
    names: Names,
    rulings: Rulings,
    turns: Turns,
    stopping: watch::Sender<bool>,
    pushes: Pushes,
}

impl Door {
    /// A door to the tasks that the engine has.
    ///
    /// # Errors
    /// If they cannot be read.
    pub async fn open(engine: EngineHandle, options: Options) -> Result<Door, Error> {
        let applications = Applications::load(&engine, options.applications_max).await?;
        let (grants, names) = (Grants::new(options.grants_max), Names::default());
        let stopping = watch::Sender::new(false);
        let (rulings, turns) = (Rulings::default(), Turns::default());
        let shared = Arc::new_cyclic(|shared| {
            let pushes = Pushes::new(&options.push, || Connection::new(Weak::clone(shared)));
            Shared { engine, options, applications, grants, names, rulings, turns, stopping, pushes }
        });
        Ok(Door { shared })
    }

    /// The gRPC services. Their requests carry the [`Connection`] that they came on.
    #[must_use]
    pub fn services(&self) -> Routes {
        let most = self.options().message_max;
        let consumer = ConsumerServiceServer::new(self.clone());
        let ours = TasksServer::new(self.clone());
        let routes = Routes::new(consumer.max_decoding_message_size(most).max_encoding_message_size(usize::MAX))
            .add_service(ours.max_decoding_message_size(most))
            .add_service(self.health())
            .add_service(reflection());
        let secrets = self.options().secrets.clone();
        if secrets.is_empty() {
            return routes;
        }
        let guard = Guard { secrets, message_max: most };
        let checked = routes.into_axum_router().layer(from_fn_with_state(guard, signatures::check));
        Routes::from(checked)
    }

    /// A connection that was taken: who gets an attempt on it, holds that until it is closed.
    #[must_use]
    pub fn connection(&self) -> Connection {
        Connection::new(Arc::downgrade(&self.shared))
    }

    /// Ends the streams of workers, each once all that was said on it is answered.
    pub fn stop(&self) {
        self.shared.stopping.send_replace(true);
    }

    /// Returns when the door stops.
    fn stopping(&self) -> impl Future<Output = ()> + use<> {
        let mut stopping = self.shared.stopping.subscribe();
        async move { drop(stopping.wait_for(|stopping| *stopping).await) }
    }

    /// The path is one that this door answers over HTTP.
    #[must_use]
    pub fn is_for(path: &str) -> bool {
        path.starts_with(http::BASE)
    }

    /// Answers one request over HTTP.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: hyper::body::Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        http::answer(self, request).await
    }

    fn engine(&self) -> &EngineHandle {
        &self.shared.engine
    }

    fn options(&self) -> &Options {
        &self.shared.options
    }

    fn applications(&self) -> &Applications {
        &self.shared.applications
    }

    fn grants(&self) -> &Grants {
        &self.shared.grants
    }

    fn pushes(&self) -> &Pushes {
        &self.shared.pushes
    }

    fn names(&self) -> &Names {
        &self.shared.names
    }

    fn rulings(&self) -> &Rulings {
        &self.shared.rulings
    }

    fn turns(&self) -> &Turns {
        &self.shared.turns
    }

    /// The moment until which a request for a task that came now may wait, if it may.
    fn until(&self) -> Option<Timestamp> {
        let hold = i64::try_from(self.options().hold.as_millis()).unwrap_or(i64::MAX);
        (hold > 0).then(|| self.engine().now().after(hold))
    }
}

/// Tells tools like `grpcurl` what there is.
fn reflection() -> ServerReflectionServer<impl ServerReflection> {
    let described = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::CONTRACT)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    // Workers serve the other one.
    let served = [
        ConsumerServiceServer::<Door>::NAME,
        TasksServer::<Door>::NAME,
        tonic_health::pb::health_server::SERVICE_NAME,
        tonic_reflection::pb::v1::server_reflection_server::SERVICE_NAME,
    ];
    let described = served.into_iter().fold(described, |described, name| described.with_service_name(name));
    described.build_v1().expect("the contract was compiled")
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door").field("options", self.options()).finish_non_exhaustive()
    }
}
