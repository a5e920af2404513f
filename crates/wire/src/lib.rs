//! Serde types of torc's API and of our additions to it.
