//! The actor that owns the domain: waits for commands, the writer, pages and deadlines.
//!
//! One engine thread owns the [`Machine`](forebay_domain::machine::Machine). It takes what waits in
//! its inbox, applies it, and hands the batch of changes to the writer thread (`forebay-flusher`).
//! Answers stand in the outbox until the batch that justifies them is committed. Reader threads
//! fetch pages for the machine and lists for the doors. The engine decides nothing about jobs; it
//! decides when to flush, what to refuse while overloaded, and how to stop.
//!
//! ```text
//! door ──Command──▶ inbox ──▶ engine thread ──Batch──▶ writer thread ──▶ store
//!   ▲                            │   ▲  ▲                   │
//!   └────answer, committed───────┘   │  └────outcomes───────┘
//!                                    └──rows── page readers    (doors have readers of their own)
//! ```

mod actor;
mod clock;
mod counters;
mod engine;
mod error;
mod feed;
mod handle;
mod inbox;
mod options;
mod outbox;
mod readers;
mod sink;

pub use clock::{Clock, SystemClock};
pub use counters::{Counters, Distribution, Distributions, Latencies};
pub use engine::Engine;
pub use error::{Ended, Error, StartError};
pub use feed::Changed;
pub use forebay_domain::ids::WorkflowId;
pub use forebay_domain::machine::{Progress, Stats};
pub use handle::{EngineHandle, Undelivered};
pub use options::{Durability, Options};
