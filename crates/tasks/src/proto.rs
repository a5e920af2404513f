//! The contract in `proto/`, as Rust.
#![expect(clippy::allow_attributes_without_reason, reason = "it is generated so")]

pub use forebay::tasks::v1 as ours;
pub use sentry_protos::taskbroker::v1 as taskbroker;

/// All of it, as it describes itself.
pub(crate) const CONTRACT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/contract.bin"));

// As the packages are, one of which names the other's types.
mod sentry_protos {
    pub mod taskbroker {
        /// What taskbroker's workers speak.
        pub mod v1 {
            tonic::include_proto!("sentry_protos.taskbroker.v1");
        }
    }
}

mod forebay {
    pub mod tasks {
        /// What is ours.
        pub mod v1 {
            tonic::include_proto!("forebay.tasks.v1");
        }
    }
}
