//! The engine with real threads, on a store that does what the test says.

mod at_once;
mod lanes;
mod overload;
mod promises;
mod stopping;
mod world;
