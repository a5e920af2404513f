//! The queue seen by its callers.

mod jobq;
