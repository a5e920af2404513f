//! The door over an engine and a database, without a network between.

mod enqueue;
mod operators;
mod workers;
mod world;
