//! A job as its callers see it.

use serde::Serialize;

use crate::Json;

/// One job, as it was when the call that returned it was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Job {
    pub id: i64,
    /// What the user gave.
    pub payload: Json,
    /// What happened to the job, an array of `[name, {…}]`, oldest first.
    pub events: Json,
    /// The state, of any shape; a tagged array such as `["assigned", "host-1"]` is advised.
    pub state: Json,
    /// When it last changed, in seconds since 1970.
    pub modified: i64,
}

/// A job on lease: it goes back when the lease ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Leased {
    pub job: Job,
    /// How often the job was leased, this time included. A report of an earlier attempt is refused.
    pub attempt: i64,
    /// When the lease ends, in milliseconds since 1970.
    pub until_ms: i64,
}

/// How a job is created, beside its payload and state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CreateOptions {
    /// Jobs of a higher priority are polled first, whatever their age.
    pub priority: i64,
    /// The job is not polled before so many milliseconds have passed.
    pub delay_ms: i64,
    /// How often the job may come back from an ended lease before it is dead; none is for ever.
    pub retries: Option<u32>,
}

impl CreateOptions {
    pub(crate) fn is_plain(&self) -> bool {
        *self == CreateOptions::default()
    }
}

/// The state of a job whose last lease ended with no retries left.
pub const DEAD: &str = r#"["dead"]"#;
