//! What an acknowledged change survives, as it is asked for.

use std::time::Duration;

use serde::Deserialize;

use super::{ConfigError, duration, some_duration};

const HELP: &str = "\
What an acknowledged change survives [default: power]:
  power    kill -9 and power loss
  process  kill -9; power loss takes at most the last --sync-interval
  memory   claims, starts and outcomes are answered at once: what a kill or power loss takes of
           the last --flush-interval is done again. All else as in power";

/// What an acknowledged change survives. Times that are not there take the engine's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// kill -9 and power loss.
    Power { flush_interval: Option<Duration> },
    /// kill -9; power loss takes at most what came after the last sync.
    Process { flush_interval: Option<Duration>, sync_interval: Option<Duration> },
    /// kill -9 and power loss; but claims, starts and outcomes that came after the last flush.
    Memory { flush_interval: Option<Duration>, read_flush_min: Option<Duration> },
}

/// What one source says about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DurabilitySettings {
    /// What an acknowledged change survives: power, process or memory [default: power].
    #[arg(long = "durability", value_name = "MODE", long_help = HELP, env = "FOREBAY_DURABILITY")]
    pub mode: Option<Mode>,
    /// With --durability process: how often to sync, such as 100ms.
    #[arg(long, value_name = "TIME", value_parser = duration, env = "FOREBAY_SYNC_INTERVAL")]
    #[serde(deserialize_with = "some_duration")]
    pub sync_interval: Option<Duration>,
    /// With --durability memory: the least time between two commits that somebody waits for (and fewer
    /// than 1024 callers), such as 5ms.
    #[arg(long, value_name = "TIME", value_parser = duration, env = "FOREBAY_READ_FLUSH_MIN")]
    #[serde(deserialize_with = "some_duration")]
    pub read_flush_min: Option<Duration>,
    /// The least time between two commits, while fewer than 1024 callers wait, such as 1ms.
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
    Memory,
}

impl std::str::FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Mode, String> {
        match word {
            "power" => Ok(Mode::Power),
            "process" => Ok(Mode::Process),
            "memory" => Ok(Mode::Memory),
            _ => Err("one of power, process, memory".to_owned()),
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
            read_flush_min: self.read_flush_min.or(below.read_flush_min),
            flush_interval: self.flush_interval.or(below.flush_interval),
        }
    }

    /// With the default.
    ///
    /// # Errors
    /// If what was said does not go together.
    pub fn resolve(self) -> Result<Durability, ConfigError> {
        let DurabilitySettings { mode, sync_interval, read_flush_min, flush_interval } = self;
        let mode = mode.unwrap_or(Mode::Power);
        if sync_interval.is_some() && mode != Mode::Process {
            let why = "--sync-interval goes with --durability process: in power and memory every commit is synced";
            return Err(ConfigError::Contradiction(why.to_owned()));
        }
        if read_flush_min.is_some() && mode != Mode::Memory {
            let why = "--read-flush-min goes with --durability memory: otherwise what was answered is committed";
            return Err(ConfigError::Contradiction(why.to_owned()));
        }
        Ok(match mode {
            Mode::Power => Durability::Power { flush_interval },
            Mode::Process => Durability::Process { flush_interval, sync_interval },
            Mode::Memory => Durability::Memory { flush_interval, read_flush_min },
        })
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

    #[test]
    fn reads_wait_for_a_flush_only_in_memory() {
        let read_flush_min = Some(Duration::from_millis(1));
        let asked = DurabilitySettings { read_flush_min, ..DurabilitySettings::default() };
        assert!(asked.clone().resolve().unwrap_err().to_string().contains("--durability memory"));
        let memory = DurabilitySettings { mode: Some(Mode::Memory), ..asked };
        assert_eq!(memory.resolve().unwrap(), Durability::Memory { flush_interval: None, read_flush_min });
    }
}
