//! Listeners: they take connections and hang the doors on them. What they are told is in [`config`].

pub mod auth;
pub mod config;
pub mod tls;

mod browse;
mod grpc;
mod metrics;
mod openapi;
mod progress;
mod rules;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::EngineHandle;
use forebay_jobq::http::{Door as Queues, DoorOptions as QueuesOptions};
use forebay_tasks::Door as Tasks;
use forebay_tasks::push::Pushing;
use forebay_workflows::Door as Workflows;
use http_body_util::{Either, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::auth::Gate;
use crate::grpc::Grpc;
use crate::metrics::{Door, Requests};
use crate::rules::RulesFile;
use crate::tls::Tls;

/// What to listen on, and within which bounds. Plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// A name or an address, and a port; 0 picks a free one.
    pub http: String,
    /// The same, for gRPC: where workers of taskbroker find the tasks door. Without it there is no such
    /// listener; over HTTP the door is there.
    pub grpc: Option<String>,
    /// Connections that are served at a time; one more waits until another ends.
    pub connections_max: usize,
    pub workflows: forebay_workflows::Options,
    pub tasks: forebay_tasks::Options,
    /// Secrets, a line each, one of which must sign each call over gRPC; without it none need be signed.
    pub grpc_secrets: Option<PathBuf>,
    /// Which tasks are dropped, and what share each namespace has: a file that is followed.
    pub task_rules: Option<PathBuf>,
    /// Who may come in.
    pub auth: auth::Options,
    /// Without it, connections are not secured.
    pub tls: Option<tls::Options>,
    /// The directory of the queues door, a file for each queue; without it there is no such door.
    pub queues: Option<PathBuf>,
}

impl Options {
    /// The loopback interface, with a free port.
    pub fn loopback() -> Options {
        Options {
            http: "127.0.0.1:0".to_owned(),
            grpc: None,
            connections_max: 16_384,
            workflows: forebay_workflows::Options::default(),
            tasks: forebay_tasks::Options::default(),
            grpc_secrets: None,
            task_rules: None,
            auth: auth::Options::default(),
            tls: None,
            queues: None,
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Listen { address: String, source: io::Error },
    #[error("the directory of queues {} cannot be made", directory.display())]
    Queues { directory: PathBuf, source: io::Error },
    #[error("the secrets {} cannot be read", path.display())]
    Secrets { path: PathBuf, source: io::Error },
    #[error("there is no secret in {}", path.display())]
    NoSecret { path: PathBuf },
    #[error("the rules for tasks {} cannot be read", path.display())]
    Rules { path: PathBuf, source: io::Error },
    #[error("the rules for tasks {}: {source}", path.display())]
    BadRules { path: PathBuf, source: forebay_tasks::BadRules },
    #[error("the tasks cannot be read")]
    Tasks(#[source] forebay_engine::Error),
    #[error(transparent)]
    Auth(#[from] auth::AuthError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// What answers requests. Clones are the same doors.
#[derive(Clone)]
struct Doors {
    engine: EngineHandle,
    gate: Gate,
    workflows: Workflows,
    tasks: Tasks,
    queues: Option<Queues>,
    requests: Arc<Requests>,
    /// What all of them answer to, written down.
    openapi: Bytes,
}

impl Doors {
    async fn answer(&self, mut request: Request<Incoming>) -> Response<Either<Full<Bytes>, forebay_workflows::Body>> {
        match self.gate.user(request.headers()).await {
            Ok(Some(user)) => drop(request.extensions_mut().insert(user)),
            Ok(None) => {}
            Err(auth::Unauthorized) => return auth::unauthorized().map(Either::Left),
        }
        if let Some(response) = browse::answer(request.method(), request.uri().path(), &self.openapi) {
            return response.map(Either::Left);
        }
        if request.uri().path() == metrics::PATH {
            return metrics::answer(request.method(), &self.engine, &self.tasks, &self.requests)
                .await
                .map(Either::Left);
        }
        let begun = self.requests.begin();
        let (door, response) = match &self.queues {
            Some(queues) if Queues::is_for(request.uri().path()) => {
                (Door::Queues, queues.answer(request).await.map(Either::Left))
            }
            _ if Tasks::is_for(request.uri().path()) => {
                (Door::Tasks, self.tasks.answer(request).await.map(Either::Left))
            }
            _ => (Door::Workflows, self.workflows.answer(request).await.map(Either::Right)),
        };
        begun.answered(door, response.status());
        response
    }
}

/// A server that listens. Dropped without [`stop`](Server::stop), it breaks its connections off.
pub struct Server {
    address: SocketAddr,
    queues: Option<Queues>,
    stopping: watch::Sender<bool>,
    listener: JoinHandle<JoinSet<()>>,
    grpc: Option<Grpc>,
    pushing: Option<Pushing>,
}

impl Server {
    /// Listens, and serves until it is stopped. Within a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be listened on, the directory of queues cannot be made, or a file of
    /// users or certificates cannot be used.
    pub async fn start(options: Options, engine: EngineHandle) -> Result<Server, StartError> {
        let gate = Gate::new(&options.auth)?;
        let tls = options.tls.as_ref().map(|tls| Tls::new(tls, b"http/1.1")).transpose()?;
        let bad = |source| StartError::Listen { address: options.http.clone(), source };
        let listener = TcpListener::bind(&options.http).await.map_err(bad)?;
        let address = listener.local_addr().map_err(bad)?;
        let (stopping, watched) = watch::channel(false);
        let mut tasks = options.tasks;
        if let Some(path) = &options.grpc_secrets {
            tasks.secrets = grpc::secrets(path)?;
        }
        let tasks = Tasks::open(engine.clone(), tasks).await.map_err(StartError::Tasks)?;
        if let Some(path) = options.task_rules {
            let unread = |source| StartError::Rules { path: path.clone(), source };
            let file = RulesFile::open(path.clone()).map_err(unread)?;
            let rules = file.rules().map_err(|source| StartError::BadRules { path, source })?;
            // Before anybody can take a task.
            tasks.set_rules(rules).await.map_err(StartError::Tasks)?;
            tokio::spawn(file.follow(tasks.clone(), watched.clone()));
        }
        let grpc = match options.grpc {
            Some(at) => {
                let tls = options.tls.as_ref().map(|tls| Tls::new(tls, b"h2")).transpose()?;
                Some(Grpc::start(&at, tls, tasks.clone(), options.connections_max, watched.clone()).await?)
            }
            None => None,
        };
        // Workers report to where gRPC listens.
        let pushing = grpc.as_ref().map(|grpc| tasks.push(grpc.address()));
        let queues = match options.queues {
            Some(directory) => {
                let opened = Queues::new(&directory, QueuesOptions::default());
                Some(opened.map_err(|source| StartError::Queues { directory, source })?)
            }
            None => None,
        };
        let doors = Doors {
            engine: engine.clone(),
            gate,
            workflows: Workflows::new(engine.clone(), options.workflows),
            tasks,
            queues: queues.clone(),
            requests: Arc::default(),
            openapi: openapi::document(queues.is_some()),
        };
        let permits = Arc::new(Semaphore::new(options.connections_max.min(Semaphore::MAX_PERMITS)));
        tokio::spawn(progress::tell(engine, watched.clone()));
        let listener = tokio::spawn(listen(listener, tls, doors, permits, watched));
        tracing::info!(%address, "listening");
        Ok(Server { address, queues, stopping, listener, grpc, pushing })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for gRPC, if it does.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc.as_ref().map(Grpc::address)
    }

    /// Takes no more connections, lets each finish its request, and after `timeout` breaks off
    /// those that have not; whether all had. A claim that waits ends when its engine stops, so
    /// stop both at the same time.
    pub async fn stop(mut self, timeout: Duration) -> bool {
        self.stopping.send_replace(true);
        let pushing = self.pushing.take();
        let pushed = async {
            if let Some(pushing) = pushing {
                pushing.stop().await;
            }
        };
        let answered = async {
            match (&mut self.listener).await {
                Ok(mut connections) => while connections.join_next().await.is_some() {},
                Err(error) => tracing::error!(%error, "the listener ended before it was stopped"),
            }
            if let Some(grpc) = &mut self.grpc {
                grpc.ended().await;
            }
        };
        let finished = tokio::time::timeout(timeout, async { tokio::join!(pushed, answered) });
        let all = finished.await.is_ok();
        if let Some(queues) = self.queues.take() {
            queues.close();
        }
        all
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Takes connections until it is told to stop; those that are open then.
async fn listen(
    listener: TcpListener,
    tls: Option<Tls>,
    doors: Doors,
    permits: Arc<Semaphore>,
    mut stopping: watch::Receiver<bool>,
) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    loop {
        let taken = tokio::select! {
            taken = accept(&listener, &permits) => taken,
            () = told_to_stop(&mut stopping) => return connections,
        };
        while connections.try_join_next().is_some() {}
        match taken {
            Ok((stream, permit)) => {
                connections.spawn(serve(stream, tls.clone(), doors.clone(), stopping.clone(), permit));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                // Out of file handles: it takes a moment until there are some again.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Returns when the server is to stop, or is gone.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}

async fn accept(listener: &TcpListener, permits: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    // Answers are small and their callers wait for them.
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

/// Serves one connection, once it is secured if it shall be.
async fn serve(
    stream: TcpStream,
    tls: Option<Tls>,
    doors: Doors,
    stopping: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
) {
    match tls {
        None => speak(stream, doors, stopping).await,
        Some(tls) => match tls.secure(stream).await {
            Ok(stream) => speak(stream, doors, stopping).await,
            Err(error) => tracing::debug!(%error, "a connection could not be secured"),
        },
    }
}

/// Answers the requests of a connection. When its client leaves, the one that is being answered is
/// dropped, which undoes a claim that waits.
async fn speak<S>(stream: S, doors: Doors, mut stopping: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let doors = doors.clone();
        async move { Ok::<_, Infallible>(doors.answer(request).await) }
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_stop(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}
