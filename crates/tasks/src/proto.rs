//! The contract in `proto/`, as Rust.
#![expect(clippy::allow_attributes_without_reason, reason = "it is generated so")]

/// What taskbroker's workers speak.
pub mod taskbroker {
    tonic::include_proto!("sentry_protos.taskbroker.v1");
}

/// What is ours.
pub mod ours {
    tonic::include_proto!("forebay.tasks.v1");
}
