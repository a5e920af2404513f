//! The project's own commands: ci, bench, compat.

fn main() {}
