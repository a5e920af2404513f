//! What must hold before a change is good.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};

/// Runs a command and stops at its failure.
pub fn sh(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let line = format!("{program} {}", args.join(" "));
    println!("── {line}");
    let start = Instant::now();
    let status = Command::new(program).args(args).status().with_context(|| format!("cannot start `{line}`"))?;
    ensure!(status.success(), "`{line}` failed: {status}");
    println!("── {line}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

pub fn run() -> anyhow::Result<()> {
    let cargo = |args: &[&str]| sh("cargo", args);
    cargo(&["fmt", "--all", "--check"])?;
    cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])?;
    // The spec's and the command line's tests read torc's own example files from its crate.
    cargo(&["test", "--workspace", "--all-targets", "--locked"])?;
    cargo(&["test", "--workspace", "--doc", "--locked"])?;
    python()?;
    crate::compat::run(crate::compat::Part::Quick, false)?;
    crate::sim::run("0..30000")?;
    crate::crash::run(&crate::crash::Plan::of(4), crate::server::Profile::Dev)?;
    crate::schema::run(2, 1, crate::server::Profile::Dev)?;
    println!("all good");
    Ok(())
}

/// Tests the Python module.
fn python() -> anyhow::Result<()> {
    let python = python_with_module()?;
    sh(&python, &["-m", "pytest", "--quiet", "python/tests"])
}

/// Builds the Python module into an environment of its own; the interpreter of that.
pub fn python_with_module() -> anyhow::Result<String> {
    let python = python_environment("python")?;
    sh(&python, &["-m", "pip", "install", "--quiet", "./python[test]"])?;
    Ok(python)
}

/// A Python environment of this name within the build's folder; its interpreter.
pub fn python_environment(name: &str) -> anyhow::Result<String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let environment = target.join(name);
    let folder = environment.to_string_lossy();
    if sh("python3", &["-m", "venv", &folder]).is_err() {
        // Debian has it apart.
        sh("apt-get", &["install", "-y", "python3-venv"])?;
        sh("python3", &["-m", "venv", &folder])?;
    }
    let python = environment.join("bin").join("python");
    Ok(python.to_string_lossy().into_owned())
}
