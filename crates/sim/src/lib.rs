//! Seeded simulator, auditor, reference store, and the conformance suite for stores.
