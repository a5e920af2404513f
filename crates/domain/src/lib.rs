//! What a job may do: states, lanes, windows, claims, the graph, batches. No I/O, no clock.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod batch;
pub mod catalog;
pub mod claim;
pub mod command;
pub mod graph;
pub mod ids;
pub mod job;
pub mod lane;
pub mod limits;
pub mod machine;
pub mod plan;
pub mod policy;
pub mod port;
pub mod share;
pub mod state;
pub mod window;
