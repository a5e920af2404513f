//! Credentials and TLS, over the wire.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay_server::{Options, Server, auth, tls};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::{PATIENCE, PING, engine, receive, send};

/// Of `localhost`, signed by itself, made for this test alone.
const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

fn ada(folder: &Path) -> auth::Options {
    let htpasswd = folder.join("users");
    let hash = bcrypt::hash("secret", 4).expect("the cost is allowed");
    fs::write(&htpasswd, format!("ada:{hash}\n")).expect("it is written");
    auth::Options { htpasswd: Some(htpasswd), required: true, ..auth::Options::default() }
}

fn create_as(authorization: &str) -> String {
    let body = r#"{"name":"w","user":"somebody"}"#;
    format!(
        "POST /torc-service/v1/workflows HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{authorization}\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn who_is_not_known_is_refused_everywhere_and_who_is_owns_what_he_creates() {
    let (engine, folder) = engine();
    let options = Options { auth: ada(folder.path()), ..Options::loopback() };
    let server = Server::start(options, engine).await.expect("a server");
    let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
    for path in ["/torc-service/v1/ping", "/metrics", "/nowhere"] {
        send(&mut stream, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        let refused = receive(&mut stream).await;
        assert!(refused.starts_with("HTTP/1.1 401"), "{path}: {refused}");
        assert!(refused.contains("www-authenticate: Basic realm=\"Torc\"") && refused.ends_with("Unauthorized"));
    }
    send(&mut stream, &create_as("authorization: Basic YWRhOndyb25n\r\n")).await;
    assert!(receive(&mut stream).await.starts_with("HTTP/1.1 401"));
    // A refused request's body may end its connection.
    let mut stream = TcpStream::connect(server.address()).await.expect("a connection");
    send(&mut stream, &create_as("authorization: Basic YWRhOnNlY3JldA==\r\n")).await;
    let created = receive(&mut stream).await;
    assert!(created.starts_with("HTTP/1.1 200") && created.contains(r#""user":"ada""#), "{created}");
    for request in ["POST /torc-service/v1/workflows/1/reset_status", "GET /torc-service/v1/events?workflow_id=1"] {
        let ada = "authorization: Basic YWRhOnNlY3JldA==\r\n";
        send(&mut stream, &format!("{request} HTTP/1.1\r\nhost: x\r\n{ada}content-length: 0\r\n\r\n")).await;
        let answered = receive(&mut stream).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        assert!(
            request.starts_with("POST") || answered.contains(r#""user":"ada""#),
            "what was done has its doer: {answered}"
        );
    }
    assert!(server.stop(PATIENCE).await);
}

pub fn tls_options() -> tls::Options {
    let at = |name: &str| PathBuf::from(FIXTURES).join(name);
    tls::Options { cert: at("localhost.pem"), key: at("localhost.key") }
}

#[tokio::test]
async fn a_secured_connection_is_served_and_a_bare_one_is_not() {
    let (engine, _folder) = engine();
    let options = Options { tls: Some(tls_options()), ..Options::loopback() };
    let server = Server::start(options, engine).await.expect("a server");

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(tls_options().cert).expect("a certificate")).expect("it is one");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("they are known")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(server.address()).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("it is secured");
    stream.write_all(PING.as_bytes()).await.expect("it is sent");
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");

    let mut bare = TcpStream::connect(server.address()).await.expect("a connection");
    send(&mut bare, PING).await;
    assert!(!receive(&mut bare).await.contains("HTTP"));
    assert!(server.stop(PATIENCE).await);
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let (engine, _folder) = engine();
    let swapped = tls::Options { cert: tls_options().key, ..tls_options() };
    let missing = tls::Options { key: "none.pem".into(), ..tls_options() };
    for (tls, wanted) in [(swapped, "localhost.key has no certificate"), (missing, "none.pem has no private key")] {
        let options = Options { tls: Some(tls), ..Options::loopback() };
        let error = Server::start(options, engine.clone()).await.expect_err("there is none");
        assert!(error.to_string().contains(wanted), "{error}");
    }
}
