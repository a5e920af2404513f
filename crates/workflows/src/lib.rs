//! The workflows door: torc's HTTP API over the engine.
