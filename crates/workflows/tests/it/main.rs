//! The door over real HTTP: a server on the loopback interface, the engine, a database.

mod claims;
mod diamond;
mod openapi;
mod refusals;
mod resources;
mod world;
