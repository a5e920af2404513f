//! The queue seen by its callers.

mod audit;
mod extras;
mod files;
mod jobq;
