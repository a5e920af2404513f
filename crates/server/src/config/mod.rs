//! What a server is told by its command line, its environment and its file. Nobody else reads these.

mod durability;
mod push;
mod secured;
mod torc_server;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

pub use durability::{Durability, DurabilitySettings};
pub use push::PushSettings;
pub use secured::{AuthSettings, TlsSettings};
pub use torc_server::TorcServer;

use crate::Options;

/// Where a database is if nobody says.
pub const DB: &str = "forebay.db";

/// How long a stop may take to write what was taken, if nobody says.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// What a server is, once all is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A path, or `:memory:`.
    pub db: PathBuf,
    pub durability: Durability,
    pub stop_timeout: Duration,
    /// Statements of the store that take so long are logged.
    pub slow_statement: Option<Duration>,
    /// What to log, if something says.
    pub log_level: Option<String>,
    /// Threads for requests; as many as there are processors if nobody says.
    pub threads: Option<usize>,
    /// Stop when stdin ends.
    pub stops_with_stdin: bool,
    pub listening: Options,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration {} cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// With the line, and what could stand there.
    #[error("the configuration {}: {why}", path.display())]
    Unknown { path: PathBuf, why: String },
    #[error("{0}")]
    Contradiction(String),
}

/// What one source says. Each field is a flag, an environment variable and a key of the file: that
/// is the order of their weight.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The database, made if it is not there [default: forebay.db].
    #[arg(long, value_name = "FILE", env = "FOREBAY_DB")]
    pub db: Option<PathBuf>,
    /// Where to listen for torc's HTTP API; port 0 picks one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR", env = "FOREBAY_HTTP")]
    pub http: Option<String>,
    /// Where to listen for workers of taskbroker over gRPC; port 0 picks one. Without it nothing listens.
    #[arg(long, value_name = "ADDR", env = "FOREBAY_GRPC")]
    pub grpc: Option<String>,
    /// Secrets, a line each, one of which must sign each call over gRPC, as taskbroker's rpc_secret does.
    #[arg(long, value_name = "FILE", env = "FOREBAY_GRPC_SECRETS")]
    pub grpc_secrets: Option<PathBuf>,
    /// Which tasks are dropped, and what share and bound each namespace has: TOML, read again when it changes.
    #[arg(long, value_name = "FILE", env = "FOREBAY_TASK_RULES")]
    pub task_rules: Option<PathBuf>,
    #[command(flatten)]
    pub push: PushSettings,
    #[command(flatten)]
    pub durability: DurabilitySettings,
    /// How long a stop may take to write what was taken, such as 10s, which is the default.
    #[arg(long, value_name = "TIME", value_parser = duration, env = "FOREBAY_STOP_TIMEOUT")]
    #[serde(deserialize_with = "some_duration")]
    pub stop_timeout: Option<Duration>,
    /// Serve queues of jobs too, a file each in this directory, under /api/v0.
    #[arg(long, value_name = "DIR", env = "FOREBAY_QUEUES")]
    pub queues: Option<PathBuf>,
    /// Log each statement of the store that takes so long, such as 100ms.
    #[arg(long, value_name = "TIME", value_parser = duration, env = "FOREBAY_SLOW_STATEMENT")]
    #[serde(deserialize_with = "some_duration")]
    pub slow_statement: Option<Duration>,
    #[command(flatten)]
    pub auth: AuthSettings,
    #[command(flatten)]
    pub tls: TlsSettings,
    /// A key alone: the flag of this name is every command's.
    #[arg(skip)]
    pub log_level: Option<String>,
}

impl Settings {
    /// What a file says. Paths in it are relative to its folder.
    ///
    /// # Errors
    /// If it cannot be read, is no TOML, or has a key or value that means nothing.
    pub fn read(path: &Path) -> Result<Settings, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let mut settings = Settings::parse(&text)
            .map_err(|error| ConfigError::Unknown { path: path.to_owned(), why: error.to_string() })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let Settings { db, queues, grpc_secrets, task_rules, auth, tls, .. } = &mut settings;
        let files = [&mut auth.htpasswd, &mut auth.tokens, &mut tls.cert, &mut tls.key];
        let paths = [db, queues, grpc_secrets, task_rules].into_iter().chain(files);
        for path in paths.flatten() {
            // An absolute path stays as it is.
            *path = folder.join(&path);
        }
        Ok(settings)
    }

    fn parse(text: &str) -> Result<Settings, toml::de::Error> {
        toml::from_str(text)
    }

    /// This source, and below it another one.
    pub fn over(self, below: Settings) -> Settings {
        Settings {
            db: self.db.or(below.db),
            http: self.http.or(below.http),
            grpc: self.grpc.or(below.grpc),
            grpc_secrets: self.grpc_secrets.or(below.grpc_secrets),
            push: self.push.over(below.push),
            task_rules: self.task_rules.or(below.task_rules),
            durability: self.durability.over(below.durability),
            stop_timeout: self.stop_timeout.or(below.stop_timeout),
            queues: self.queues.or(below.queues),
            slow_statement: self.slow_statement.or(below.slow_statement),
            auth: self.auth.over(below.auth),
            tls: self.tls.over(below.tls),
            log_level: self.log_level.or(below.log_level),
        }
    }

    /// With a default for all that no source said.
    ///
    /// # Errors
    /// If what was said does not go together.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let tasks = forebay_tasks::Options { push: self.push.resolve(self.grpc.is_some())?, ..Default::default() };
        Ok(Config {
            db: self.db.unwrap_or_else(|| DB.into()),
            durability: self.durability.resolve()?,
            stop_timeout: self.stop_timeout.unwrap_or(STOP_TIMEOUT),
            slow_statement: self.slow_statement,
            log_level: self.log_level,
            threads: None,
            stops_with_stdin: false,
            listening: Options {
                http: self.http.unwrap_or_else(|| "127.0.0.1:8080".to_owned()),
                grpc: self.grpc,
                tasks,
                grpc_secrets: self.grpc_secrets,
                task_rules: self.task_rules,
                queues: self.queues,
                auth: self.auth.resolve(),
                tls: self.tls.resolve()?,
                ..Options::loopback()
            },
        })
    }
}

/// A time with its unit, such as `250ms`.
///
/// # Errors
/// A text that says how it is to be written.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 250ms, 10s or 1h 30m"))
}

fn some_duration<'de, D: Deserializer<'de>>(source: D) -> Result<Option<Duration>, D::Error> {
    duration(&String::deserialize(source)?).map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Settings::parse(text).expect_err("it means nothing").to_string()
    }

    #[test]
    fn what_nobody_says_has_a_default() {
        let config = Settings::default().resolve().unwrap();
        assert_eq!((config.db.as_path(), config.listening.http.as_str()), (Path::new(DB), "127.0.0.1:8080"));
        assert_eq!(config.durability, Durability::Power { flush_interval: None });
        assert_eq!(Settings::parse("").unwrap(), Settings::default());
    }

    #[test]
    fn a_file_is_below_the_command_line() {
        let file = Settings::parse(
            "db = \"a.db\"\nhttp = \"0.0.0.0:80\"\nstop_timeout = \"250ms\"\n[durability]\nmode = \"process\"\n\
             sync_interval = \"20ms\"",
        );
        let flags = Settings { db: Some("b.db".into()), ..Settings::default() };
        let config = flags.over(file.unwrap()).resolve().unwrap();
        assert_eq!((config.db.as_path(), config.listening.http.as_str()), (Path::new("b.db"), "0.0.0.0:80"));
        assert_eq!(config.stop_timeout, Duration::from_millis(250));
        let sync_interval = Some(Duration::from_millis(20));
        assert_eq!(config.durability, Durability::Process { flush_interval: None, sync_interval });
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let why = refused("db = \"a.db\"\nhtpp = \"x\"\n");
        assert!(why.contains("line 2") && why.contains("htpp") && why.contains("`http`"), "{why}");
        assert!(refused("[durability]\nmod = \"power\"").contains("`mode`"));
    }

    #[test]
    fn a_time_without_its_unit_is_an_error() {
        let why = refused("stop_timeout = \"10\"");
        assert!(why.contains("250ms") && why.contains("line 1"), "{why}");
        refused("stop_timeout = 10");
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
    }

    #[test]
    fn paths_in_a_file_begin_at_its_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("forebay.toml");
        fs::write(&path, "db = \"jobs.db\"\nqueues = \"/queues\"").unwrap();
        let settings = Settings::read(&path).unwrap();
        assert_eq!(settings.db, Some(folder.path().join("jobs.db")));
        assert_eq!(settings.queues.as_deref(), Some(Path::new("/queues")));
        let missing = Settings::read(&folder.path().join("other")).unwrap_err();
        assert!(missing.to_string().contains("cannot be read"));
    }
}
