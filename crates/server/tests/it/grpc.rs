//! The gRPC listener, over the wire: secured, and with workers that tasks are pushed to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_server::{Options, Server};
use forebay_tasks::activation::Activation;
use forebay_tasks::proto::ours::EnqueueRequest;
use forebay_tasks::proto::ours::NewTask;
use forebay_tasks::proto::ours::tasks_client::TasksClient;
use forebay_tasks::proto::taskbroker::consumer_service_client::ConsumerServiceClient;
use forebay_tasks::proto::taskbroker::worker_service_server::{WorkerService, WorkerServiceServer};
use forebay_tasks::proto::taskbroker::{
    GetTaskRequest, PushTaskRequest, PushTaskResponse, SetTaskStatusRequest, TaskActivationStatus,
};
use forebay_tasks::push;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, async_trait};
use tower::service_fn;

use crate::secured::tls_options;
use crate::{PATIENCE, engine, receive, send};

fn listening() -> Options {
    let tasks = forebay_tasks::Options { hold: Duration::ZERO, ..forebay_tasks::Options::default() };
    Options { grpc: Some("127.0.0.1:0".to_owned()), tasks, ..Options::loopback() }
}

/// A channel over TLS, as a client has it that trusts the certificate.
async fn secured(address: SocketAddr) -> Channel {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls_options().cert).expect("a certificate")).expect("it is one");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("they are known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let connect = service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").expect("a name");
            io::Result::Ok(TokioIo::new(connector.connect(name, stream).await?))
        }
    });
    Endpoint::from_static("http://localhost").connect_with_connector(connect).await.expect("it is secured")
}

#[tokio::test]
async fn a_secured_listener_serves_who_comes_over_tls_and_nobody_else() {
    let (engine, _folder) = engine();
    let server = Server::start(Options { tls: Some(tls_options()), ..listening() }, engine).await.expect("a server");
    let address = server.grpc_address().expect("it listens");
    let mut client = ConsumerServiceClient::new(secured(address).await);
    let nothing = client.get_task(GetTaskRequest::default()).await.unwrap_err();
    assert_eq!((nothing.code(), nothing.message()), (Code::NotFound, "No pending activations"));
    let bare = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    let refused = ConsumerServiceClient::new(bare).get_task(GetTaskRequest::default()).await.unwrap_err();
    assert_ne!(refused.code(), Code::NotFound, "{refused}");
    drop(client);
    assert!(server.stop(PATIENCE).await);
}

/// A worker that takes all, and tells the test.
struct Taking(mpsc::UnboundedSender<PushTaskRequest>);

#[async_trait]
impl WorkerService for Taking {
    async fn push_task(&self, request: Request<PushTaskRequest>) -> Result<Response<PushTaskResponse>, Status> {
        self.0.send(request.into_inner()).expect("the test is there");
        Ok(Response::new(PushTaskResponse {}))
    }
}

#[tokio::test]
async fn what_is_pushed_says_where_to_report_and_metrics_tell_of_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let worker = listener.local_addr().expect("it has one");
    let (taken, mut takes) = mpsc::unbounded_channel();
    let workers = tonic::transport::Server::builder().add_service(WorkerServiceServer::new(Taking(taken)));
    let workers = tokio::spawn(workers.serve_with_incoming(TcpIncoming::from(listener)));

    let (engine, _folder) = engine();
    let mut options = listening();
    options.tasks.push.endpoints.add(&format!("app={worker}")).expect("an address");
    let server = Server::start(options, engine).await.expect("a server");
    let address = server.grpc_address().expect("it listens");
    let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
    // The id "7", of the application "app".
    let activation = Activation::from_bytes(*b"\x0a\x017\x12\x02ns\x1a\x01t\x62\x03app");
    let task = NewTask { activation: Some(activation), ..NewTask::default() };
    let mut enqueue = TasksClient::new(channel);
    enqueue.enqueue(EnqueueRequest { tasks: vec![task] }).await.expect("it is taken");
    let pushed = tokio::time::timeout(PATIENCE, takes.recv()).await.expect("in time").expect("it serves");
    #[expect(deprecated, reason = "old workers read it")]
    let callback = pushed.callback_url;
    assert_eq!(callback, address.to_string());

    let reports = Endpoint::from_shared(format!("http://{callback}")).expect("an address").connect_lazy();
    let status = TaskActivationStatus::Complete.into();
    let report = SetTaskStatusRequest { id: "7".to_owned(), status, ..SetTaskStatusRequest::default() };
    ConsumerServiceClient::new(reports).set_task_status(report).await.expect("it is taken");
    let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
    send(&mut stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut page = String::new();
    loop {
        let more = receive(&mut stream).await;
        if more.is_empty() {
            break;
        }
        page += &more;
    }
    for line in [
        "forebay_push_in_flight 0",
        "forebay_pushes_total{result=\"taken\"} 1",
        "forebay_push_endpoints{state=\"ready\"} 1",
        "forebay_push_endpoints{state=\"away\"} 0",
        "forebay_push_unmapped_applications 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in:\n{page}");
    }
    assert!(server.stop(PATIENCE).await);
    workers.abort();
}

#[tokio::test]
async fn a_worker_that_is_not_there_keeps_nobody_from_starting_and_stopping() {
    let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("it has one");
    let (engine, _folder) = engine();
    let mut endpoints = push::Endpoints::default();
    endpoints.add(&format!("app={gone},nowhere.invalid:1")).expect("addresses");
    let mut options = listening();
    options.tasks.push.endpoints = endpoints;
    let server = Server::start(options, engine).await.expect("a server");
    assert!(server.stop(PATIENCE).await);
}
