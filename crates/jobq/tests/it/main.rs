//! The queue seen by its callers.

mod async_calls;
mod audit;
mod extras;
mod files;
mod http;
mod jobq;
