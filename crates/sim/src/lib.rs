//! Seeded simulator, auditor, reference store, and the conformance suite for stores.

pub mod conformance;
pub mod random;
pub mod store;

pub use store::{CommitFault, MemoryReader, MemoryStore};
