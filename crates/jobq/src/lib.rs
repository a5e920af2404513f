//! A durable job queue in one SQLite file, in the format of jobq.
//!
//! ```
//! use forebay_jobq::{JobQueue, Query};
//! use serde_json::json;
//!
//! # fn main() -> Result<(), forebay_jobq::Error> {
//! let queue = JobQueue::open(":memory:")?;
//! let job = queue.create(json!({"msg": "hello"}), json!(["created"]))?;
//! let taken = queue.poll(Query::tag("created"), json!(["assigned", "host-1"]))?;
//! assert_eq!(taken.map(|taken| taken.id), Some(job.id));
//! assert!(queue.cas_state(job.id, json!(["assigned", "host-1"]), json!(["done"]))?.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! A [`JobQueue`] is a handle: clone it and use it from any thread. Each call answers when what it
//! did is committed; calls made at the same time share a commit. Other processes may have the same
//! file open, through this library or through Python's jobq.
//!
//! [`JobQueue::in_async`] gives the same calls to async callers of any runtime. With the feature
//! `http`, the module `http` answers the routes of jobq's daemon.

mod async_queue;
mod bell;
mod conn;
mod error;
#[cfg(feature = "http")]
pub mod http;
mod job;
mod json;
mod ledger;
mod op;
mod query;
mod queue;
mod readers;
mod table;

pub use async_queue::AsyncJobQueue;
pub use error::Error;
pub use job::{CreateOptions, DEAD, Job, Leased};
pub use json::Json;
pub use query::{Query, QueryError};
pub use queue::{Clock, Durability, JobQueue, Options, is_queue_name, system_clock};
