//! What an acknowledged change survives, as it is asked for.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, duration, some_duration};

const HELP: &str = "\
What an acknowledged change survives [default: power]:
  power    kill -9 and power loss
  process  kill -9; power loss takes at most the last --sync-interval";

/// What an acknowledged change survives. Times that are not there take the engine's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// kill -9 and power loss.
    Power { flush_interval: Option<Duration> },
    /// kill -9; power loss takes at most what came after the last sync.
    Process { flush_interval: Option<Duration>, sync_interval: Option<Duration> },
}

/// What one source says about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DurabilitySettings {
    /// What an acknowledged change survives: power or process [default: power].
    #[arg(long = "durability", value_name = "MODE", long_help = HELP, env = "FOREBAY_DURABILITY")]
    pub mode: Option<Mode>,
    /// With --durability process: how often to sync, such as 100ms.
    #[arg(long, value_name = "TIME", value_parser = duration, env = "FOREBAY_SYNC_INTERVAL")]
    #[serde(deserialize_with = "some_duration")]
    pub sync_interval: Option<Duration>,
    /// The least time between two commits, such as 1ms.
    #[arg(long, value_name = "TIME", value_parser = duration, env = "FOREBAY_FLUSH_INTERVAL")]
    #[serde(deserialize_with = "some_duration")]
    pub flush_interval: Option<Duration>,
}

/// The word for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Mode {
    Power,
    Process,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Mode, String> {
        match word {
            "power" => Ok(Mode::Power),
            "process" => Ok(Mode::Process),
            "memory" => Err("this mode is not there yet: use power or process".to_owned()),
            _ => Err("one of power, process".to_owned()),
        }
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(word: String) -> Result<Mode, String> {
        word.parse()
    }
}

impl DurabilitySettings {
    /// This source, and below it another one.
    pub(super) fn over(self, below: DurabilitySettings) -> DurabilitySettings {
        DurabilitySettings {
            mode: self.mode.or(below.mode),
            sync_interval: self.sync_interval.or(below.sync_interval),
            flush_interval: self.flush_interval.or(below.flush_interval),
        }
    }

    /// With the default.
    ///
    /// # Errors
    /// If what was said does not go together.
    pub fn resolve(self) -> Result<Durability, ConfigError> {
        let DurabilitySettings { mode, sync_interval, flush_interval } = self;
        match mode.unwrap_or(Mode::Power) {
            Mode::Power if sync_interval.is_some() => Err(ConfigError::Contradiction(
                "--sync-interval goes with --durability process: in power every commit is synced".to_owned(),
            )),
            Mode::Power => Ok(Durability::Power { flush_interval }),
            Mode::Process => Ok(Durability::Process { flush_interval, sync_interval }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_interval_means_nothing_where_each_commit_is_synced() {
        let sync_interval = Some(Duration::from_millis(1));
        let asked = DurabilitySettings { sync_interval, ..DurabilitySettings::default() };
        assert!(asked.clone().resolve().unwrap_err().to_string().contains("--durability process"));
        let process = DurabilitySettings { mode: Some(Mode::Process), ..asked };
        assert_eq!(process.resolve().unwrap(), Durability::Process { flush_interval: None, sync_interval });
    }
}
