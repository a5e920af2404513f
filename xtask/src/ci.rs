//! What must hold before a change is good.

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
    crate::sim::run("0..30000")?;
    crate::crash::run(4, 1, crate::server::Profile::Dev)?;
    println!("all good");
    Ok(())
}
