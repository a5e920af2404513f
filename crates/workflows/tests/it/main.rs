//! The door over real HTTP: a server on the loopback interface, the engine, a database.

mod actions;
mod as_torc;
mod claims;
mod diamond;
mod events;
mod later;
mod leases;
mod openapi;
mod refusals;
mod resources;
mod spawn;
mod tasks;
mod world;
