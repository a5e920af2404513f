//! The listener: where it listens, how many it serves, how it stops.

mod grpc;
mod secured;

use std::sync::Arc;
use std::time::Duration;

use forebay_engine::{Engine, EngineHandle, SystemClock};
use forebay_server::{Options, Server};
use forebay_store_sqlite::{SqliteReader, SqliteStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);
const PING: &str = "GET /torc-service/v1/ping HTTP/1.1\r\nhost: x\r\n\r\n";

fn engine() -> (EngineHandle, TempDir) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("test.db");
    let store = SqliteStore::open(&path, forebay_store_sqlite::Options::default()).expect("a new database");
    let readers = move || SqliteReader::open(&path).map_err(|error| panic!("a reader: {error}"));
    let options = forebay_engine::Options::power();
    (Engine::start(store, readers, Arc::new(SystemClock::new()), options).expect("an engine"), folder)
}

async fn send(stream: &mut TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).await.expect("it is sent");
}

/// What comes next on a connection; empty if it was closed.
async fn receive(stream: &mut TcpStream) -> String {
    let mut buffer = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("an answer in time");
    String::from_utf8_lossy(&buffer[..read.unwrap_or(0)]).into_owned()
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let (engine, _folder) = engine();
    let first = Server::start(Options::loopback(), engine.clone()).await.expect("a server");
    let options = Options { http: first.address().to_string(), ..Options::loopback() };
    let error = Server::start(options, engine).await.expect_err("the address is taken");
    assert_eq!(error.to_string(), format!("cannot listen on {}", first.address()));
}

#[tokio::test]
async fn queues_are_served_beside_workflows_and_only_if_asked_for() {
    let (engine, folder) = engine();
    let body = r#"{"payload":{"msg":"hi"},"state":["CREATED"]}"#;
    let create = format!(
        "POST /api/v0/job/create HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let with = Options { queues: Some(folder.path().join("queues")), ..Options::loopback() };
    let mut statuses = Vec::new();
    for options in [with, Options::loopback()] {
        let server = Server::start(options, engine.clone()).await.expect("a server");
        let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
        for request in [create.as_str(), PING] {
            send(&mut stream, request).await;
            statuses.push(receive(&mut stream).await[9..12].to_owned());
        }
        assert!(server.stop(PATIENCE).await);
    }
    assert_eq!(statuses, ["200", "200", "404", "200"]);
    assert!(folder.path().join("queues/jobq.sqlite3").exists());
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_stop() {
    let (engine, _folder) = engine();
    let server = Server::start(Options::loopback(), engine).await.expect("a server");
    let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
    send(&mut stream, PING).await;
    assert!(receive(&mut stream).await.starts_with("HTTP/1.1 200"));
    let address = server.address();
    assert!(server.stop(PATIENCE).await);
    assert_eq!(receive(&mut stream).await, "");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_request_that_does_not_end_in_time_is_broken_off() {
    let (engine, _folder) = engine();
    let server = Server::start(Options::loopback(), engine).await.expect("a server");
    let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
    // Its body never comes.
    send(
        &mut stream,
        "POST /torc-service/v1/workflows HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n",
    )
    .await;
    assert!(receive(&mut stream).await.starts_with("HTTP/1.1 100"));
    assert!(!server.stop(Duration::from_millis(20)).await);
    assert_eq!(receive(&mut stream).await, "");
}

#[tokio::test]
async fn one_connection_too_many_waits_until_another_ends() {
    let (engine, _folder) = engine();
    let options = Options { connections_max: 1, ..Options::loopback() };
    let server = Server::start(options, engine).await.expect("a server");
    let mut first = TcpStream::connect(server.address()).await.expect("a connection");
    send(&mut first, PING).await;
    assert!(receive(&mut first).await.starts_with("HTTP/1.1 200"));
    let mut second = TcpStream::connect(server.address()).await.expect("a connection");
    send(&mut second, PING).await;
    // The first is still served.
    send(&mut first, PING).await;
    assert!(receive(&mut first).await.starts_with("HTTP/1.1 200"));
    drop(first);
    assert!(receive(&mut second).await.starts_with("HTTP/1.1 200"));
    assert!(server.stop(PATIENCE).await);
}

#[tokio::test]
async fn metrics_tell_what_was_done_and_what_is_held() {
    let (engine, _folder) = engine();
    let server = Server::start(Options::loopback(), engine).await.expect("a server");
    let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
    let create = r#"{"name":"w","user":"u"}"#;
    let post = format!(
        "POST /torc-service/v1/workflows HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{create}",
        create.len()
    );
    for (request, status) in [(PING, "200"), (&post, "200"), ("GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n", "404")] {
        send(&mut stream, request).await;
        assert_eq!(&receive(&mut stream).await[9..12], status);
    }
    send(&mut stream, "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let mut page = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut page)).await.expect("in time").expect("text");
    let has = |line: &str| assert!(page.lines().any(|found| found == line), "{line} is not in:\n{page}");
    has("content-type: text/plain; version=0.0.4; charset=utf-8");
    has("forebay_http_requests_total{door=\"workflows\",code=\"2xx\"} 2");
    has("forebay_http_requests_total{door=\"workflows\",code=\"4xx\"} 1");
    has("forebay_http_requests_in_flight 0");
    has("forebay_transactions_total 1");
    has("forebay_commit_seconds_count 1");
    has("# TYPE forebay_commit_seconds histogram");
    has("forebay_workflows_in_memory 1");
    has("forebay_lanes_behind 0");
    has("forebay_jobs{state=\"ready\"} 0");
    has("forebay_mailbox_commands 0");
    assert!(server.stop(PATIENCE).await);
}
