//! The gRPC listener: workers of taskbroker, and producers of ours.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use forebay_tasks::connection::Connection;
use forebay_tasks::{Door as Tasks, Secrets};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::tls::Tls;
use crate::{StartError, accept, told_to_stop};

/// A listener for gRPC. Dropped, it breaks its connections off.
pub(crate) struct Grpc {
    address: SocketAddr,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
}

/// How often a connection that says nothing is asked whether its client is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Connections that are taken and not yet begun.
const TAKEN_MAX: usize = 16;

impl Grpc {
    /// Listens, and serves until it is to stop.
    pub async fn start(
        at: &str,
        tls: Option<Tls>,
        tasks: Tasks,
        connections_max: usize,
        stopping: watch::Receiver<bool>,
    ) -> Result<Grpc, StartError> {
        let bad = |source| StartError::Listen { address: at.to_owned(), source };
        let listener = TcpListener::bind(at).await.map_err(bad)?;
        let address = listener.local_addr().map_err(bad)?;
        let permits = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        let (taken, wires) = mpsc::channel(TAKEN_MAX);
        let (services, door) = (tasks.services(), tasks.clone());
        tokio::spawn(take(listener, tls, tasks, permits, taken, stopping.clone()));
        let stopped = async move {
            let mut stopping = stopping;
            told_to_stop(&mut stopping).await;
            // Streams do not end by themselves.
            door.stop();
        };
        let mut server = tonic::transport::Server::builder().http2_keepalive_interval(Some(KEEP_ALIVE));
        let server = server.add_routes(services);
        let serving = tokio::spawn(server.serve_with_incoming_shutdown(ReceiverStream::new(wires), stopped));
        tracing::info!(%address, "listening for gRPC");
        Ok(Grpc { address, serving })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns when it was told to stop and every request is answered.
    pub async fn ended(&mut self) {
        match (&mut self.serving).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the gRPC listener did not end well"),
            Err(error) => tracing::error!(%error, "the gRPC listener ended before it was stopped"),
        }
    }
}

impl Drop for Grpc {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The secrets of a file, a line each; empty lines and those that begin with `#` are passed over.
pub(crate) fn secrets(path: &Path) -> Result<Secrets, StartError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|source| StartError::Secrets { path: path.to_owned(), source })?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let secrets = Secrets::new(lines.map(Box::from));
    if secrets.is_empty() { Err(StartError::NoSecret { path: path.to_owned() }) } else { Ok(secrets) }
}

/// Takes connections until it is told to stop.
async fn take(
    listener: TcpListener,
    tls: Option<Tls>,
    tasks: Tasks,
    permits: Arc<Semaphore>,
    taken: mpsc::Sender<io::Result<Wire>>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = told_to_stop(&mut stopping) => return,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (tls, tasks, taken) = (tls.clone(), tasks.clone(), taken.clone());
                // Who is slow to secure his connection holds nobody up.
                tokio::spawn(async move { begin(stream, tls, tasks, permit, taken).await });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                // Out of file handles: it takes a moment until there are some again.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn begin(
    stream: TcpStream,
    tls: Option<Tls>,
    tasks: Tasks,
    permit: OwnedSemaphorePermit,
    taken: mpsc::Sender<io::Result<Wire>>,
) {
    let stream: Box<dyn Stream> = match tls {
        None => Box::new(stream),
        Some(tls) => match tls.secure(stream).await {
            Ok(stream) => Box::new(stream),
            Err(error) => return tracing::debug!(%error, "a connection could not be secured"),
        },
    };
    let wire = Wire { stream, connection: tasks.connection(), _permit: permit };
    if taken.send(Ok(wire)).await.is_err() {
        tracing::debug!("a connection came when the server stopped");
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A stream that its requests know.
struct Wire {
    stream: Box<dyn Stream>,
    connection: Connection,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Wire {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        self.connection.clone()
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
