//! Listeners: they take connections and hang the doors on them.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use forebay_engine::EngineHandle;
use forebay_workflows::Door;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

/// What to listen on, and within which bounds. Plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Port 0 picks a free one.
    pub http: SocketAddr,
    /// Connections that are served at a time; one more waits until another ends.
    pub connections_max: usize,
    pub workflows: forebay_workflows::Options,
}

impl Options {
    /// The loopback interface, with a free port.
    pub fn loopback() -> Options {
        Options {
            http: SocketAddr::from(([127, 0, 0, 1], 0)),
            connections_max: 16_384,
            workflows: forebay_workflows::Options::default(),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct StartError {
    pub address: SocketAddr,
    #[source]
    pub source: io::Error,
}

/// A server that listens. Dropped without [`stop`](Server::stop), it breaks its connections off.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    listener: JoinHandle<JoinSet<()>>,
}

impl Server {
    /// Listens, and serves until it is stopped. Within a tokio runtime.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub async fn start(options: Options, engine: EngineHandle) -> Result<Server, StartError> {
        let bad = |source| StartError { address: options.http, source };
        let listener = TcpListener::bind(options.http).await.map_err(bad)?;
        let address = listener.local_addr().map_err(bad)?;
        let (stopping, watched) = watch::channel(false);
        let door = Door::new(engine, options.workflows);
        let permits = Arc::new(Semaphore::new(options.connections_max.min(Semaphore::MAX_PERMITS)));
        let listener = tokio::spawn(listen(listener, door, permits, watched));
        Ok(Server { address, stopping, listener })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, lets each finish its request, and after `timeout` breaks off
    /// those that have not; whether all had. A claim that waits ends when its engine stops, so
    /// stop both at the same time.
    pub async fn stop(mut self, timeout: Duration) -> bool {
        self.stopping.send_replace(true);
        let finished = tokio::time::timeout(timeout, async {
            match (&mut self.listener).await {
                Ok(mut connections) => while connections.join_next().await.is_some() {},
                Err(error) => tracing::error!(%error, "the listener ended before it was stopped"),
            }
        });
        finished.await.is_ok()
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
    door: Door,
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
                connections.spawn(serve(stream, door.clone(), stopping.clone(), permit));
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

/// Serves one connection. When its client leaves, the request that is being answered is dropped,
/// which undoes a claim that waits.
async fn serve(stream: TcpStream, door: Door, mut stopping: watch::Receiver<bool>, _permit: OwnedSemaphorePermit) {
    let service = service_fn(move |request: Request<Incoming>| {
        let door = door.clone();
        async move { Ok::<_, Infallible>(door.answer(request).await) }
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
