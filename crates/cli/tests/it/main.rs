//! The real binary, as people call it.

mod apart;
mod as_torc_server;
mod bench;
mod busy;
mod config;
mod db;
mod disks;
mod examples;
mod going_on;
mod run;
mod scratch;
mod secured;
mod tasks;
#[path = "../../../spec/tests/it/torc_crate.rs"]
mod torc_crate;
