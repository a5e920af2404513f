//! Claims jobs of a workflow, runs their processes, reports how they ended.
//!
//! [`Worker::run`] works on one workflow of one server until there is nothing left to do. The
//! processes are started by a [`launcher`], a small process of its own; a program that uses this
//! crate calls [`launcher::launch_if_asked`] first in its `main`. What an earlier worker left
//! behind, killed as it was, is ended by [`settle`].
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

pub use client::{BadUrl, CallError, Client};
pub use detect::{Amount, machine};
pub use launcher::journal::{SettleError, Settled, settle};
pub use options::{End, Event, Logs, Named, OnInterrupt, Options, Outcome, Stop, Stopper, Summary, Unfit};
pub use processes::{LaunchError, LauncherProgram};
pub use session::Error;

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
