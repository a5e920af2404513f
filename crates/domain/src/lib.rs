//! What a job may do: states, lanes, windows, claims, the graph, batches. No I/O, no clock.
