//! The actor that owns the domain: waits for commands, the writer, pages and deadlines.
