//! What worker and launcher say to each other: one JSON value a line, over a socket pair.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Worker to launcher.
#[derive(Debug, Serialize, Deserialize)]
pub enum Command {
    /// First, once.
    Open(Open),
    /// The server knows the worker by this: for the journal.
    Registered {
        workflow_id: i64,
        compute_node_id: i64,
    },
    Start(Start),
    /// Send a signal to a process group, if it still runs.
    Signal {
        key: u64,
        signal: i32,
    },
    /// These attempts are reported: strike them from the journal.
    Settled(Vec<Attempt>),
}

/// What holds for all processes of a launcher.
#[derive(Debug, Serialize, Deserialize)]
pub struct Open {
    pub journal: PathBuf,
    /// Set as `FOREBAY_WORKER` in every process, so that strays are recognised.
    pub mark: String,
    /// Environment of every process, over the launcher's own.
    pub env: Vec<(String, String)>,
    pub sample_ms: u64,
}

/// An attempt of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Attempt {
    pub job_id: i64,
    pub run_id: i64,
    pub attempt_id: i64,
}

/// A shell command to run in a process group of its own.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    /// The worker's name for this process.
    pub key: u64,
    /// What it is in the journal; absent for a recovery script, which no one takes up again.
    pub attempt: Option<Attempt>,
    pub command: String,
    /// Over [`Open::env`], which wins where both have a name.
    pub env: Vec<(String, String)>,
    pub output: Output,
    /// Kill it if its processes together have more than this resident.
    pub memory_max_bytes: Option<u64>,
}

/// Where the output of a process goes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// `None` is nowhere.
    pub stdout: Option<PathBuf>,
    /// The same path as `stdout` is the same file. `None` is nowhere.
    pub stderr: Option<PathBuf>,
}

/// Launcher to worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum Notice {
    /// The journal is ours and commands are carried out.
    Opened,
    /// There will be nothing more: the journal or the shell cannot be had.
    Refused(String),
    Started {
        key: u64,
        pid: i32,
    },
    /// The process could not be started.
    NotStarted {
        key: u64,
        error: String,
        /// It could not be started anywhere; else it is this machine that cannot start it now.
        never: bool,
    },
    Ended(Ended),
}

/// How a process ended, and what it used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    pub key: u64,
    /// The exit code, or 128 + the signal that killed it.
    pub code: i32,
    pub wall_us: u64,
    pub cpu_us: u64,
    /// The most memory that its processes had together.
    pub peak_bytes: u64,
    /// Mean of the samples; absent if it ended before the first.
    pub mean_bytes: Option<u64>,
    /// Of one processor, in percent.
    pub peak_cpu_percent: f64,
    /// It was killed for more memory than it may have.
    pub over_memory: bool,
}
