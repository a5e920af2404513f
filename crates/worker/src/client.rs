//! Requests to the server, over HTTP/1.1 connections that are kept open, secured or not.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use forebay_wire::{BASE_PATH, ErrorResponse};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// How long an answer may take that is not waited for on purpose.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Why no server can be spoken to like this.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{url:?} is not the address of a server: {why}")]
    BadUrl { url: String, why: String },
    /// They hold what no header can.
    #[error("the credentials cannot be sent: they have line breaks or signs that are none")]
    BadCredentials,
    #[error("{} has no certificate in PEM", path.display())]
    BadCa { path: PathBuf, source: pem::Error },
    #[error("this machine has no certificates that it trusts")]
    NoRoots(#[source] std::io::Error),
}

/// What it takes to come in at a server.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Value of the `Authorization` header, such as `Bearer …` or `Basic …`.
    pub authorization: Option<String>,
    /// Certificates in PEM, one of which vouches for a server with TLS; by default those that this machine
    /// trusts.
    pub ca: Option<PathBuf>,
}

impl Access {
    /// The header of these credentials: `user:password`, or a token, which has no colon.
    pub fn authorization_of(credentials: &str) -> String {
        if credentials.contains(':') {
            format!("Basic {}", BASE64.encode(credentials))
        } else {
            format!("Bearer {credentials}")
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not what is secret.
        let authorization = self.authorization.as_ref().map(|_| "…");
        f.debug_struct("Access").field("authorization", &authorization).field("ca", &self.ca).finish()
    }
}

/// What a request came to that did not succeed, by what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Ask again later: the server is away, or busy, or broken for now. `reached` says whether
    /// it may have carried the request out.
    #[error("{why}")]
    Away { why: String, reached: bool },
    /// Asking again is no use.
    #[error("{message} (HTTP {status})")]
    Refused { status: u16, message: String },
}

impl CallError {
    /// An answer that is none: the request was carried out, and we do not know with what result.
    fn garbled(why: impl std::fmt::Display) -> Self {
        Self::Away { why: format!("unreadable answer: {why}"), reached: true }
    }
}

/// A server that we speak to. Cheap to clone: clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    /// With the base path, without a slash at its end.
    base: String,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the server at `url`, with or without the base path.
    ///
    /// # Errors
    /// If that is no such address, or what is to secure the connection or to be shown cannot be used.
    pub fn new(url: &str, access: &Access) -> Result<Self, ClientError> {
        Self::below(url, BASE_PATH, access)
    }

    /// The same, for an API of the server whose paths begin with `base_path`.
    ///
    /// # Errors
    /// As above.
    pub fn below(url: &str, base_path: &str, access: &Access) -> Result<Self, ClientError> {
        let bad = |why: &dyn fmt::Display| ClientError::BadUrl { url: url.to_owned(), why: why.to_string() };
        let trimmed = url.trim_end_matches('/');
        let uri: Uri = trimmed.parse().map_err(|e: hyper::http::uri::InvalidUri| bad(&e))?;
        let roots = match (uri.scheme_str(), uri.authority()) {
            (Some("http"), Some(_)) => TlsRoots::None,
            (Some("https"), Some(_)) => access.ca.clone().map_or(TlsRoots::Machine, TlsRoots::File),
            _ => return Err(bad(&"it must start with http:// or https://")),
        };
        let base = if trimmed.ends_with(base_path) { trimmed.to_owned() } else { format!("{trimmed}{base_path}") };
        let authorization = access.authorization.as_deref().map(|text| {
            let mut value = HeaderValue::from_str(text).map_err(|_| ClientError::BadCredentials)?;
            value.set_sensitive(true);
            Ok(value)
        });
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(ANSWER_MAX));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(roots.config()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        // A request is repeated by us, who know which ones may be, not by the pool.
        let pool = Pool::builder(TokioExecutor::new()).retry_canceled_requests(false).build(connector);
        Ok(Self { pool, base, authorization: authorization.transpose()? })
    }

    /// The address of the API, as torc's `TORC_API_URL` has it.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Method::GET, path, Bytes::new(), ANSWER_MAX).await
    }

    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        self.post_and_wait(path, body, Duration::ZERO).await
    }

    /// A request that says everything in its path.
    pub async fn post_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Method::POST, path, Bytes::new(), ANSWER_MAX).await
    }

    /// The same.
    pub async fn put_empty<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Method::PUT, path, Bytes::new(), ANSWER_MAX).await
    }

    /// A request whose answer the server may hold back for `wait`.
    pub async fn post_and_wait<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        wait: Duration,
    ) -> Result<T, CallError> {
        self.call(Method::POST, path, encode(body), ANSWER_MAX + wait).await
    }

    pub async fn put<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        self.call(Method::PUT, path, encode(body), ANSWER_MAX).await
    }

    /// A deletion, which the server may take `wait` for.
    pub async fn delete<T: DeserializeOwned>(&self, path: &str, wait: Duration) -> Result<T, CallError> {
        self.call(Method::DELETE, path, Bytes::new(), ANSWER_MAX + wait).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, CallError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let request = request.body(Full::new(body)).expect("the base was parsed and paths are ours");
        let answer = async {
            let response = self.pool.request(request).await.map_err(|e| {
                let why = innermost(&e);
                CallError::Away { why, reached: !e.is_connect() }
            })?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(CallError::garbled)?;
            Ok((status, body.to_bytes()))
        };
        let late = |_| CallError::Away { why: "no answer in time".to_owned(), reached: true };
        let (status, body) = tokio::time::timeout(limit, answer).await.map_err(late)??;
        read(status, &body)
    }
}

/// Who vouches for the server.
enum TlsRoots {
    /// Nobody: connections are not secured.
    None,
    /// Whom this machine trusts.
    Machine,
    File(PathBuf),
}

impl TlsRoots {
    fn config(self) -> Result<ClientConfig, ClientError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what TLS 1.2 and 1.3 need");
        let config = match self {
            TlsRoots::None => config.with_root_certificates(RootCertStore::empty()),
            TlsRoots::Machine => config.with_native_roots().map_err(ClientError::NoRoots)?,
            TlsRoots::File(path) => {
                let mut roots = RootCertStore::empty();
                let bad = |source| ClientError::BadCa { path: path.clone(), source };
                for certificate in CertificateDer::pem_file_iter(&path).map_err(bad)? {
                    roots.add(certificate.map_err(bad)?).map_err(|_| bad(pem::Error::NoItemsFound))?;
                }
                if roots.is_empty() {
                    return Err(bad(pem::Error::NoItemsFound));
                }
                config.with_root_certificates(roots)
            }
        };
        Ok(config.with_no_client_auth())
    }
}

fn encode(body: &impl Serialize) -> Bytes {
    serde_json::to_vec(body).expect("wire types have text keys").into()
}

fn read<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, CallError> {
    if status.is_success() {
        return serde_json::from_slice(body).map_err(CallError::garbled);
    }
    let said = serde_json::from_slice::<ErrorResponse>(body).map(|error| error.text());
    let message = said.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned());
    if status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status) {
        return Err(CallError::Away { why: format!("{message} (HTTP {status})"), reached: false });
    }
    Err(CallError::Refused { status: status.as_u16(), message })
}

/// The last error of the chain, which names the cause.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str, authorization: Option<&str>) -> Result<Client, ClientError> {
        Client::new(url, &Access { authorization: authorization.map(str::to_owned), ca: None })
    }

    #[test]
    fn the_base_path_is_added_once() {
        for url in ["http://h:1", "http://h:1/", "http://h:1/torc-service/v1", "http://h:1/torc-service/v1/"] {
            assert_eq!(client(url, None).unwrap().base(), "http://h:1/torc-service/v1");
        }
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for url in ["h:80", "", "ftp://h", "https:/h"] {
            assert!(matches!(client(url, None), Err(ClientError::BadUrl { .. })), "{url}");
        }
        assert!(matches!(client("http://h", Some("Bearer a\nb")), Err(ClientError::BadCredentials)));
    }

    #[test]
    fn who_vouches_for_the_server_must_be_readable() {
        let access = Access { ca: Some("/dev/null".into()), ..Access::default() };
        assert!(matches!(Client::new("https://h", &access), Err(ClientError::BadCa { .. })));
        assert!(Client::new("http://h", &access).is_ok(), "nobody needs to");
    }

    #[test]
    fn credentials_are_a_name_and_a_password_or_a_token_and_are_not_shown() {
        assert_eq!(Access::authorization_of("ada:secret"), "Basic YWRhOnNlY3JldA==");
        assert_eq!(Access::authorization_of("0123"), "Bearer 0123");
        let access = Access { authorization: Some("Bearer 0123".into()), ca: None };
        assert!(!format!("{access:?} {:?}", Client::new("http://h", &access).unwrap()).contains("0123"));
    }

    #[test]
    fn answers_are_sorted_by_what_to_do_next() {
        let read = |status: u16, body: &str| read::<i64>(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        assert_eq!(read(200, "7"), Ok(7));
        let refused = CallError::Refused { status: 422, message: "no such run".into() };
        assert_eq!(read(422, r#"{"error":{"message":"no such run"}}"#), Err(refused));
        assert_eq!(read(401, "Unauthorized"), Err(CallError::Refused { status: 401, message: "Unauthorized".into() }));
        for status in [429, 500, 503] {
            assert!(matches!(read(status, "later"), Err(CallError::Away { reached: false, .. })));
        }
        assert!(matches!(read(200, "<html>"), Err(CallError::Away { reached: true, .. })));
    }
}
