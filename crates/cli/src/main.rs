//! The one binary: the only place where a store meets an engine meets a door.

fn main() {}
