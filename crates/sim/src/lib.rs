//! Seeded simulator, auditor, reference store, and the conformance suite for stores.
//!
//! [`play`] plays the history that a seed names: clients and a network, a machine driven as the
//! engine drives it, a store, crashes and other faults. An auditor, who hears what is said and sees
//! what is committed, and an oracle, who follows the machine step by step with everything in
//! memory, say what goes wrong.

mod audit;
mod clients;
pub mod commands;
pub mod conformance;
mod counting;
mod oracle;
mod plan;
mod random;
mod store;
mod world;

pub use counting::Counting;
pub use plan::{Options, Sabotage};
pub use store::{CommitFault, Db, MemoryReader, MemoryStore};
pub use world::{Failure, Summary, play};
