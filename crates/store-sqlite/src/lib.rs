//! Remembers batches in SQLite.
