//! The door over an engine and a database; streams over connections, all else without a network between.

mod enqueue;
mod operators;
mod push;
mod rules;
mod strangers;
mod streams;
mod stuck;
mod waiting;
mod workers;
mod world;
