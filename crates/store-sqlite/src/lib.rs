//! Remembers batches in SQLite: one writer, and readers beside it.
//!
//! The database is in WAL mode: a reader sees what was committed when its read began, and neither
//! waits for the writer nor makes it wait.

mod apply;
mod catalog;
mod encode;
mod error;
mod fold;
mod jobs;
mod names;
mod place;
mod reader;
mod schema;
mod slow;
mod sql;
mod store;
pub mod tend;

use std::time::Duration;

pub use error::OpenError;
pub use reader::{SqliteReader, SqliteReaders};
pub use schema::SCHEMA_VERSION;
pub use store::{SqliteStore, Syncer};

/// What a commit survives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Power loss: each commit is an fsync.
    #[default]
    Power,
    /// The end of the process. Power loss takes what was committed since the last sync.
    Process,
}

/// How a database is used.
#[derive(Clone, PartialEq, Debug)]
pub struct Options {
    pub durability: Durability,
    /// Pages that the writer keeps in memory, in KiB.
    pub cache_kib: u32,
    /// Pages that each reader keeps in memory, in KiB.
    pub reader_cache_kib: u32,
    /// How long a commit waits for a lock before it is `Busy`.
    pub busy_timeout: Duration,
    /// A log of this many pages is folded into the database beside the commits, as far as readers let.
    pub checkpoint_pages: u32,
    /// With a log of this many pages, the writer waits for old readers (at most `reader_wait`), so
    /// that the log begins anew; if they do not let go, again after a quarter more. A page is 4 KiB.
    pub log_pages_max: u32,
    pub reader_wait: Duration,
    /// The names of so many tasks that are over stay in their index, so that many of them can go from one
    /// page; while they go as many gather again.
    pub gone_names: usize,
    /// Statements that take so long are logged; it costs a little of each.
    pub slow_statement: Option<Duration>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::default(),
            cache_kib: 16 * 1024,
            reader_cache_kib: 16 * 1024,
            busy_timeout: Duration::from_millis(100),
            checkpoint_pages: 4_000,
            log_pages_max: 40_000,
            reader_wait: Duration::from_secs(2),
            gone_names: 65_536,
            slow_statement: None,
        }
    }
}
