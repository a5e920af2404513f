//! The store in files of its own, through its public face.

mod conformance;
mod durable;
mod fill;
mod names;
mod open;
mod power;
#[path = "../power_cuts/mod.rs"]
mod power_cuts;
mod tend;
