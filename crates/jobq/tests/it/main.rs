//! The queue seen by its callers.

mod extras;
mod files;
mod jobq;
