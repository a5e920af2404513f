//! The contract in `proto/`, as Rust.
#![expect(clippy::allow_attributes_without_reason, reason = "it is generated so")]

/// All of it, as it describes itself.
pub(crate) const CONTRACT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.bin"));

/// What taskbroker's workers speak.
pub mod taskbroker {
    tonic::include_proto!("sentry_protos.taskbroker.v1");
}

/// What is ours.
pub mod ours {
    tonic::include_proto!("forebay.tasks.v1");
}
