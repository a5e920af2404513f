//! The contract in `proto/` into Rust, without `protoc`.

use std::error::Error;
use std::path::{Path, PathBuf};

use prost::Message;

const FILES: [&str; 2] = ["sentry_protos/taskbroker/v1/taskbroker.proto", "forebay/tasks/v1/tasks.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = Path::new("../../proto");
    for file in FILES {
        println!("cargo:rerun-if-changed={}", folder.join(file).display());
    }
    let described = protox::compile(FILES, [folder])?;
    // For reflection.
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo says where output goes")?);
    std::fs::write(out.join("contract.bin"), described.encode_to_vec())?;
    tonic_prost_build::configure()
        // An activation goes through as the bytes that it came as.
        .extern_path(".sentry_protos.taskbroker.v1.TaskActivation", "crate::activation::Activation")
        .compile_fds(described)?;
    Ok(())
}
