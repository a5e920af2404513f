//! The door over an engine and a database; streams over connections, all else without a network between.

mod enqueue;
mod operators;
mod streams;
mod workers;
mod world;
