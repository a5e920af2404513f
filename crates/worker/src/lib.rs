//! Claims jobs of a workflow, runs their processes, reports how they ended.
//!
//! [`Worker::run`] works on one workflow of one server until there is nothing left to do. The
//! processes are started by a [`launcher`], a small process of its own; a program that uses this
//! crate calls [`launcher::launch_if_asked`] first in its `main`. What an earlier worker left
//! behind, killed as it was, is ended by [`settle`], or by [`settle_and_give_back`] when the
//! server did not die with it.
//!
//! ```no_run
//! # async fn example() -> Result<(), forebay_worker::Error> {
//! use forebay_worker::{Options, Stop, Worker};
//! let (stopper, stop) = Stop::channel();
//! let summary = Worker::run(Options::new("http://127.0.0.1:8080", 1), stop, |event| println!("{event:?}")).await?;
//! println!("{:?}", summary.end);
//! # drop(stopper);
//! # Ok(())
//! # }
//! ```

use std::path::Path;

mod aside;
mod client;
mod detect;
pub mod launcher;
mod ledger;
mod options;
mod outcome;
mod processes;
mod session;
mod sys;

use launcher::journal::Remains;

pub use client::{Access, CallError, Client, ClientError};
pub use detect::{Amount, machine};
pub use launcher::journal::{SettleError, Settled, settle};
pub use options::{End, Event, Logs, Named, OnInterrupt, Options, Outcome, Stop, Stopper, Summary, Unfit};
pub use processes::{LaunchError, LauncherProgram};
pub use session::Error;

/// [`settle`]s the journal of an earlier worker of a server that may be elsewhere, and gives back
/// to the server what it believes to run on that worker's node. Until the server knows, the
/// journal keeps what it says.
///
/// # Errors
/// As [`settle`], and if the server cannot be reached.
pub async fn settle_and_give_back(journal: &Path, client: &Client) -> Result<Vec<Settled>, SettleError> {
    let path = journal.to_owned();
    let ended = tokio::task::spawn_blocking(move || Remains::end(&path)).await;
    let ended = ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
    let Some(remains) = ended? else { return Ok(Vec::new()) };
    if let Some((workflow_id, compute_node_id)) = remains.node {
        aside::give_back(client, workflow_id, compute_node_id).await.map_err(SettleError::GiveBack)?;
    }
    let settled = remains.settled.clone();
    remains.forget()?;
    Ok(settled)
}

/// Runs the jobs of a workflow.
#[derive(Debug)]
pub struct Worker;

impl Worker {
    /// Works on a workflow until it is complete, canceled or stuck, or `stop` says so, and calls
    /// `events` with what happens meanwhile. The journal must have been [settled](settle).
    ///
    /// # Errors
    /// If the worker cannot begin, or its launcher dies. Jobs that failed are no error.
    pub async fn run(options: Options, stop: Stop, mut events: impl FnMut(Event) + Send) -> Result<Summary, Error> {
        session::run(options, stop, &mut events).await
    }
}
