//! TLS by rustls: a certificate and its key from PEM files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig, crypto::ring};
use tokio_rustls::server::TlsStream;

/// How long a client may take until its connection is secured.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Where the certificate is. Plain values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The server's certificate and those that vouch for it, in this order.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} has no {what} in PEM", path.display())]
    Unreadable { path: PathBuf, what: &'static str, source: pem::Error },
    #[error("the key {} and the certificate {} do not fit", key.display(), cert.display())]
    Unfit { cert: PathBuf, key: PathBuf, source: rustls::Error },
}

/// Secures connections.
#[derive(Clone)]
pub(crate) struct Tls(TlsAcceptor);

impl Tls {
    /// Reads the files. Connections speak this protocol, by its ALPN name.
    pub fn new(options: &Options, protocol: &[u8]) -> Result<Tls, TlsError> {
        let unreadable = |path: &PathBuf, what| {
            let path = path.clone();
            move |source| TlsError::Unreadable { path, what, source }
        };
        let chain = CertificateDer::pem_file_iter(&options.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .and_then(|chain| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
            .map_err(unreadable(&options.cert, "certificate"))?;
        let key = PrivateKeyDer::from_pem_file(&options.key).map_err(unreadable(&options.key, "private key"))?;
        let unfit = |source| TlsError::Unfit { cert: options.cert.clone(), key: options.key.clone(), source };
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unfit)?;
        let mut config = config.with_no_client_auth().with_single_cert(chain, key).map_err(unfit)?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Tls(TlsAcceptor::from(Arc::new(config))))
    }

    /// A connection once it is secured.
    pub async fn secure(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long");
        tokio::time::timeout(HANDSHAKE_MAX, self.0.accept(stream)).await.map_err(late)?
    }
}
