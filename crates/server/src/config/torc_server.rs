//! torc-server's command line: what `torc-server run` is told, said to us.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use super::{AuthSettings, Config, ConfigError, DurabilitySettings, STOP_TIMEOUT, TlsSettings};
use crate::Options;

const HEADING: &str = "Without FILE: torc-server's run";

/// What `torc-server run` is told, as far as there is something behind it here.
#[derive(Debug, Clone, Default, PartialEq, clap::Args)]
#[group(id = "torc_server", multiple = true, conflicts_with_all = ["RunningArgs", "DisplayArgs"])]
#[command(next_help_heading = HEADING)]
pub struct TorcServer {
    /// The database: a path, or `:memory:`; otherwise DATABASE_URL says, as sqlite:PATH.
    #[arg(long, short, value_name = "PATH")]
    pub database: Option<OsString>,
    /// Where to listen: a name or an address [default: 0.0.0.0].
    #[arg(long, short = 'H', visible_alias = "url", visible_short_alias = 'u')]
    pub host: Option<String>,
    /// The port; 0 picks one, which is printed as TORC_SERVER_PORT=N [default: 8080].
    #[arg(long, short)]
    pub port: Option<u16>,
    /// Threads for requests; as many as there are processors if absent.
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub threads: Option<u16>,
    /// An upper bound, and kept: jobs are unblocked at once.
    #[arg(long, short, value_name = "SECONDS", value_parser = seconds, env = "TORC_COMPLETION_CHECK_INTERVAL_SECS")]
    pub completion_check_interval_secs: Option<f64>,
    /// Stop when stdin ends.
    #[arg(long)]
    pub shutdown_on_stdin_eof: bool,
    /// Secure connections, with --tls-cert and --tls-key.
    #[arg(long)]
    pub https: bool,
    /// The certificate, and those that vouch for it, in PEM.
    #[arg(long, value_name = "FILE", env = "TORC_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// The certificate's key, in PEM.
    #[arg(long, value_name = "FILE", env = "TORC_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// Users, as `htpasswd -B` writes them.
    #[arg(long, value_name = "FILE", env = "TORC_AUTH_FILE")]
    pub auth_file: Option<PathBuf>,
    /// Refuse who shows no credentials; otherwise he is anonymous.
    #[arg(long)]
    pub require_auth: bool,
    /// How long a password that was right is not looked at again [default: 60].
    #[arg(long, value_name = "SECONDS", env = "TORC_CREDENTIAL_CACHE_TTL_SECS")]
    pub credential_cache_ttl_secs: Option<u64>,
}

impl TorcServer {
    /// With torc-server's defaults, and `DATABASE_URL` where no database was named.
    ///
    /// # Errors
    /// If nothing names a database, or what was said does not go together.
    pub fn resolve(&self, durability: &DurabilitySettings) -> Result<Config, ConfigError> {
        let named = self.database.clone().or_else(|| env::var_os("DATABASE_URL"));
        let named = named.ok_or_else(|| {
            ConfigError::Contradiction(
                "nothing to run: name a workflow's FILE, or be a server with --database PATH or DATABASE_URL"
                    .to_owned(),
            )
        })?;
        let host = self.host.as_deref().unwrap_or("0.0.0.0");
        let port = self.port.unwrap_or(8080);
        // A certificate alone, as a variable may name one, does not ask for it; torc's flag does.
        let tls = TlsSettings { cert: self.tls_cert.clone(), key: self.tls_key.clone() };
        if self.https && tls.cert.is_none() {
            return Err(ConfigError::Contradiction("--https needs --tls-cert and --tls-key".to_owned()));
        }
        let auth = AuthSettings {
            htpasswd: self.auth_file.clone(),
            tokens: None,
            required: Some(self.require_auth),
            cached_for: self.credential_cache_ttl_secs.map(Duration::from_secs),
        };
        let is_bare_v6 = host.contains(':') && !host.starts_with('[');
        Ok(Config {
            slow_statement: None,
            db: database(&named),
            durability: durability.clone().resolve()?,
            stop_timeout: STOP_TIMEOUT,
            log_level: None,
            threads: self.threads.map(usize::from),
            stops_with_stdin: self.shutdown_on_stdin_eof,
            listening: Options {
                http: if is_bare_v6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
                auth: auth.resolve(),
                tls: if self.https { tls.resolve()? } else { None },
                ..Options::loopback()
            },
        })
    }
}

/// The path in `sqlite:PATH`, `sqlite://PATH?mode=rwc`, or a path as it is.
fn database(named: &OsStr) -> PathBuf {
    let Some(rest) = named.to_str().and_then(|text| text.strip_prefix("sqlite:")) else { return named.into() };
    let rest = rest.strip_prefix("//").unwrap_or(rest);
    rest.split_once('?').map_or(rest, |(path, _)| path).into()
}

fn seconds(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number >= 0.0 && number.is_finite() { Ok(number) } else { Err("must be at least 0".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_named_as_torc_names_it() {
        for (named, path) in [
            ("jobs.db", "jobs.db"),
            (":memory:", ":memory:"),
            ("sqlite:jobs.db", "jobs.db"),
            ("sqlite:///var/jobs.db?mode=rwc", "/var/jobs.db"),
            ("sqlite::memory:", ":memory:"),
        ] {
            assert_eq!(database(named.as_ref()), PathBuf::from(path));
        }
    }

    #[test]
    fn it_listens_where_torc_server_would() {
        let listens = |host: Option<&str>, port| {
            let asked =
                TorcServer { database: Some("a".into()), host: host.map(Into::into), port, ..TorcServer::default() };
            asked.resolve(&DurabilitySettings::default()).unwrap().listening.http
        };
        assert_eq!(listens(None, None), "0.0.0.0:8080");
        assert_eq!(listens(Some("127.0.0.1"), Some(0)), "127.0.0.1:0");
        assert_eq!(listens(Some("::1"), Some(1)), "[::1]:1");
    }
}
