//! Finds torc's crate, whose example files the tests read. Nothing of it is copied here: cargo
//! unpacks it when it is first asked for. Other crates' tests include this file by its path.

use std::path::PathBuf;
use std::process::Command;

/// The folder of torc 1.0.0's crate, with `examples/` and `tests/` in it.
///
/// # Panics
/// If cargo cannot get the crate.
pub fn torc_crate() -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../spec/tests/torc-examples/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked", "--manifest-path", manifest])
        .output()
        .expect("cargo can be started");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let torc = packages.iter().find(|package| package["name"] == "torc").expect("torc is a dependency");
    let manifest = torc["manifest_path"].as_str().expect("a path");
    PathBuf::from(manifest).parent().expect("a manifest lies in a folder").to_owned()
}
