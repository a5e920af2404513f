//! The store in files of its own, through its public face.

mod conformance;
mod durable;
mod fill;
mod open;
