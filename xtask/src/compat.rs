//! The tools of others against our server, unmodified: torc's command line and its Python client, the
//! workers of taskbroker.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::ci::sh;

/// The version whose tools are driven.
const TORC: &str = "1.0.0";

/// The client from PyPI.
const TORC_CLIENT: &str = "torc-client==0.35.0";

/// Both generations of taskbroker's client, from PyPI: the higher number is the older one.
const TASKBROKER_CLIENTS: [&str; 2] = ["26.5.0", "0.20.30"];

/// How much is driven.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// What CI has: torc's command line and Python client, taskbroker's workers.
    Quick,
    /// taskbroker's workers.
    Tasks,
    /// All, with restarts while torc's runners work, and odd requests to torc-server and to ours.
    All,
}

/// Runs the suites in `compat/` and `compat-tasks/`; taskbroker's workers in `all` ways.
pub fn run(part: Part, all: bool) -> anyhow::Result<()> {
    sh("cargo", &["build", "--locked", "-p", "forebay"])?;
    if part != Part::Tasks {
        torcs(part)?;
    }
    let suites = TASKBROKER_CLIENTS.map(|version| Ok((version, taskbrokers(version, all)?)));
    let suites = suites.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    // Side by side: they mostly wait.
    let begun = suites.into_iter().map(|(version, mut suite)| {
        let suite = suite.stdout(Stdio::piped()).spawn().context("cannot start pytest")?;
        Ok((version, suite))
    });
    let begun = begun.collect::<anyhow::Result<Vec<_>>>()?.into_iter();
    // None is left behind when another one fails.
    let ended = begun.map(|(version, suite)| (version, suite.wait_with_output())).collect::<Vec<_>>();
    let mut failed = Vec::new();
    for (version, ended) in ended {
        let ended = ended?;
        println!("── taskbroker-client {version}\n{}", String::from_utf8_lossy(&ended.stdout));
        if !ended.status.success() {
            failed.push(format!("taskbroker-client {version}: {}", ended.status));
        }
    }
    ensure!(failed.is_empty(), "the suite failed: {}", failed.join(", "));
    Ok(())
}

/// The suite with this version of the client.
fn taskbrokers(version: &str, all: bool) -> anyhow::Result<Command> {
    let python = crate::ci::python_environment(&format!("compat/taskbroker-{version}"))?;
    let client = format!("taskbroker-client=={version}");
    // The newer one's command line needs click, and does not say so.
    sh(&python, &["-m", "pip", "install", "--quiet", &client, "click", "pytest"])?;
    let mut command = Command::new(&python);
    command.args(["-m", "pytest", "--quiet", "compat-tasks"]).env("FOREBAY", target().join("debug").join("forebay"));
    if all {
        command.arg("--all");
    }
    Ok(command)
}

fn torcs(part: Part) -> anyhow::Result<()> {
    let target = target();
    let python = environment()?;
    let mut command = Command::new(&python);
    command.args(["-m", "pytest", "--quiet", "compat"]).env("FOREBAY", target.join("debug").join("forebay"));
    command.env("TORC", torc()?).env("TORC_EXAMPLES", crate_folder()?.join("examples"));
    if part == Part::All {
        command.env("TORC_SERVER", torc_server()?);
    } else {
        command.args(["--ignore", "compat/test_restarts.py", "--ignore", "compat/test_beside_torc_server.py"]);
    }
    let status = command.status().context("cannot start pytest")?;
    ensure!(status.success(), "the suite failed: {status}");
    Ok(())
}

fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    std::path::absolute(&target).unwrap_or(target)
}

/// A Python with torc's client.
fn environment() -> anyhow::Result<String> {
    let python = crate::ci::python_environment("compat/python")?;
    sh(&python, &["-m", "pip", "install", "--quiet", TORC_CLIENT, "pytest"])?;
    Ok(python)
}

/// torc's command line, unoptimized; built once.
pub fn torc() -> anyhow::Result<PathBuf> {
    install("torc", &["--profile", "dev"], &[("CARGO_PROFILE_DEV_DEBUG", "0")])
}

/// torc-server, as its users have it; built once.
pub fn torc_server() -> anyhow::Result<PathBuf> {
    let features = ["--no-default-features", "--features", "server-bin", "--bin", "torc-server"];
    // Its crate ships a setting that makes its queries look for a database while they are compiled.
    install("torc-server", &features, &[("SQLX_OFFLINE", "true")])
}

fn install(binary: &str, options: &[&str], variables: &[(&str, &str)]) -> anyhow::Result<PathBuf> {
    let root = target().join("compat").join(binary);
    let path = root.join("bin").join(binary);
    if !path.exists() {
        openssl()?;
        println!("── building {binary} {TORC}, once");
        let mut command = Command::new("cargo");
        command.args(["install", "torc", "--locked", "--version", TORC, "--root"]).arg(&root).args(options);
        command.env("CARGO_TARGET_DIR", target().join("compat").join("build")).envs(variables.iter().copied());
        let status = command.status().context("cannot start cargo")?;
        ensure!(status.success(), "{binary} was not built: {status}");
    }
    Ok(path)
}

/// torc's tools are linked with it; Debian has its headers apart.
fn openssl() -> anyhow::Result<()> {
    if sh("pkg-config", &["--exists", "openssl"]).is_err() {
        sh("apt-get", &["update"])?;
        sh("apt-get", &["install", "-y", "libssl-dev", "pkg-config"])?;
    }
    Ok(())
}

/// Where cargo has unpacked torc's crate.
fn crate_folder() -> anyhow::Result<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registry = home.context("cargo has a home")?.join("registry").join("src");
    for index in std::fs::read_dir(&registry).with_context(|| format!("{} is not there", registry.display()))? {
        let folder = index?.path().join(format!("torc-{TORC}"));
        if folder.exists() {
            return Ok(folder);
        }
    }
    anyhow::bail!("torc {TORC} is not in {}", registry.display())
}
