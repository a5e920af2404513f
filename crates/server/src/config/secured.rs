//! Who may come in, and how connections are secured, as it is asked for.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, duration, some_duration};
use crate::{auth, tls};

/// What one source says about credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// Users, as `htpasswd -B` writes them: who shows a wrong password is refused.
    #[arg(long = "auth-file", id = "auth_file", value_name = "FILE", env = "FOREBAY_AUTH_FILE")]
    pub htpasswd: Option<PathBuf>,
    /// Bearer tokens: lines of a name, a colon, and the token's SHA-256.
    #[arg(long = "auth-tokens", id = "auth_tokens", value_name = "FILE", env = "FOREBAY_AUTH_TOKENS")]
    pub tokens: Option<PathBuf>,
    /// Refuse who shows no credentials; otherwise he is anonymous.
    #[arg(
        long = "require-auth",
        id = "require_auth",
        num_args = 0,
        default_missing_value = "true",
        env = "FOREBAY_REQUIRE_AUTH"
    )]
    pub required: Option<bool>,
    /// How long a password that was right is not looked at again, such as 60s, which is the default.
    #[arg(long = "auth-cache", id = "auth_cache", value_name = "TIME", value_parser = duration, env = "FOREBAY_AUTH_CACHE")]
    #[serde(deserialize_with = "some_duration")]
    pub cached_for: Option<Duration>,
}

impl AuthSettings {
    /// This source, and below it another one.
    pub(super) fn over(self, below: AuthSettings) -> AuthSettings {
        AuthSettings {
            htpasswd: self.htpasswd.or(below.htpasswd),
            tokens: self.tokens.or(below.tokens),
            required: self.required.or(below.required),
            cached_for: self.cached_for.or(below.cached_for),
        }
    }

    pub(super) fn resolve(self) -> auth::Options {
        let AuthSettings { htpasswd, tokens, required, cached_for } = self;
        let default = auth::Options::default();
        auth::Options {
            htpasswd,
            tokens,
            required: required.unwrap_or(default.required),
            cached_for: cached_for.unwrap_or(default.cached_for),
        }
    }
}

/// What one source says about TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsSettings {
    /// Secure connections: the certificate, and those that vouch for it, in PEM.
    #[arg(long = "tls-cert", id = "tls_cert", value_name = "FILE", env = "FOREBAY_TLS_CERT")]
    pub cert: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long = "tls-key", id = "tls_key", value_name = "FILE", env = "FOREBAY_TLS_KEY")]
    pub key: Option<PathBuf>,
}

impl TlsSettings {
    /// This source, and below it another one.
    pub(super) fn over(self, below: TlsSettings) -> TlsSettings {
        TlsSettings { cert: self.cert.or(below.cert), key: self.key.or(below.key) }
    }

    pub(super) fn resolve(self) -> Result<Option<tls::Options>, ConfigError> {
        match (self.cert, self.key) {
            (None, None) => Ok(None),
            (Some(cert), Some(key)) => Ok(Some(tls::Options { cert, key })),
            (Some(_), None) | (None, Some(_)) => Err(ConfigError::Contradiction(
                "a certificate and a key go together: --tls-cert and --tls-key".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_without_its_key_is_an_error() {
        let half = TlsSettings { cert: Some("a.pem".into()), key: None };
        assert!(half.clone().resolve().unwrap_err().to_string().contains("--tls-key"));
        let whole = half.over(TlsSettings { cert: Some("b.pem".into()), key: Some("b.key".into()) });
        let expected = tls::Options { cert: "a.pem".into(), key: "b.key".into() };
        assert_eq!(whole.resolve().unwrap(), Some(expected));
        assert_eq!(TlsSettings::default().resolve().unwrap(), None);
    }
}
