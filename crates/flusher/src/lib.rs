//! Group commit: gather, commit, release, retry.
//!
//! Many callers, one transaction, one fsync. Two ways in, for two kinds of owner:
//!
//! - [`Writer`]: a machine on its own thread closes a batch and hands it over; a dedicated thread
//!   commits it and reports. One batch is in flight at a time; the next gathers meanwhile, and
//!   [`Cadence`] says when it may go.
//! - [`Group`]: callers bring their operations themselves. The first leads: it commits what has
//!   gathered, on its own thread, and answers the others. One caller alone pays no hand-off.
//!
//! A failure is sorted by what to do about it ([`Failure`]): `Busy` keeps the batch whole and in
//! order and tries again after a pause ([`Backoff`]); `Broken` ends it. [`BackgroundSync`] makes
//! commits without fsync durable within an interval.
//!
//! Nothing here knows what a batch holds.

mod backoff;
mod cadence;
mod failure;
mod group;
mod ledger;
mod seat;
mod sync;
mod writer;

pub use backoff::Backoff;
pub use cadence::{Cadence, CadenceOptions, Flush};
pub use failure::{Cause, Failure, Refused};
pub use group::{Group, GroupOptions};
pub use ledger::Ledger;
pub use seat::Submission;
pub use sync::BackgroundSync;
pub use writer::{NotIdle, Report, Sink, Stopped, Syncing, Writer};
