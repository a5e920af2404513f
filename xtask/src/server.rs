//! The real binary, as a child.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::ci::sh;

/// Builds the binary, and says where it is.
pub fn build(profile: Profile) -> anyhow::Result<PathBuf> {
    let folder = match profile {
        // As the tests build it, so that after them there is nothing to do.
        Profile::Dev => {
            sh("cargo", &["test", "--workspace", "--all-targets", "--locked", "--no-run"])?;
            "debug"
        }
        Profile::Release => {
            sh("cargo", &["build", "--release", "--locked", "-p", "forebay"])?;
            "release"
        }
    };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let binary = target.join(folder).join("forebay");
    ensure!(binary.exists(), "{} was not built", binary.display());
    Ok(std::path::absolute(binary)?)
}

/// The binary that is given, or one as users have it.
pub fn given_or_built(binary: Option<PathBuf>) -> anyhow::Result<PathBuf> {
    match binary {
        Some(binary) => Ok(std::path::absolute(binary)?),
        None => build(Profile::Release),
    }
}

/// How the binary is built: as the tests have it already, or as users have it.
#[derive(Clone, Copy)]
pub enum Profile {
    Dev,
    Release,
}

/// A server that serves; killed when dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    grpc: Option<SocketAddr>,
}

impl Server {
    /// `forebay serve`, once it listens.
    pub fn start(binary: &Path, db: &Path, durability: &str) -> anyhow::Result<Server> {
        Server::start_with(binary, db, durability, &[])
    }

    /// The same, with more on its command line.
    pub fn start_with(binary: &Path, db: &Path, durability: &str, more: &[&str]) -> anyhow::Result<Server> {
        let mut command = Command::new(binary);
        command.args(["serve", "--http", "127.0.0.1:0", "--durability", durability, "--db"]).arg(db).args(more);
        Server::listen(command)
    }

    /// The same, with the gRPC of the tasks door.
    pub fn start_with_grpc(binary: &Path, db: &Path, durability: &str) -> anyhow::Result<Server> {
        Server::start_with(binary, db, durability, &["--grpc", "127.0.0.1:0"])
    }

    /// torc-server, once it listens.
    pub fn torc(binary: &Path, db: &Path) -> anyhow::Result<Server> {
        let mut command = Command::new(binary);
        command.args(["run", "--host", "127.0.0.1", "--port", "0", "--log-level", "error", "--database"]).arg(db);
        Server::listen(command)
    }

    /// The bare HTTP library.
    pub fn echo() -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("echo");
        Server::listen(command)
    }

    /// The bare gRPC library.
    pub fn echo_of_tasks() -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("echo-tasks");
        Server::listen(command)
    }

    /// Where it listens for gRPC.
    pub fn grpc(&self) -> anyhow::Result<SocketAddr> {
        self.grpc.context("the server does not listen for gRPC")
    }

    fn listen(mut command: Command) -> anyhow::Result<Server> {
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start the server")?;
        let stdout = child.stdout.take().context("its output is piped")?;
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            if let Some(port) = line.strip_prefix("TORC_SERVER_PORT=") {
                let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse()?));
                return Ok(Server { child, address, grpc: None });
            }
            if let Some(listening) = line.strip_prefix("listening ") {
                let at = |name: &str| listening.split_whitespace().find_map(|word| word.strip_prefix(name));
                let grpc = at("grpc=").map(str::parse).transpose()?;
                let address = at("http=").map(str::parse).transpose()?.or(grpc);
                let address = address.context("a server listens somewhere")?;
                return Ok(Server { child, address, grpc });
            }
        }
        bail!("the server ended before it listened: {}", child.wait()?)
    }

    /// Seconds of processor time that it has used.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = stat.rsplit(')').next().context("a stat line")?;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    /// What the kernel says of its memory, such as `VmRSS`, in bytes.
    pub fn memory(&self, what: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(':'));
        let kib: u64 = line.and_then(|line| line.trim().strip_suffix(" kB")).context("a line of status")?.parse()?;
        Ok(kib * 1024)
    }

    /// Ends it as an operator does.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status()?;
        ensure!(asked.success(), "kill: {asked}");
        let ended = self.child.wait()?;
        ensure!(ended.success(), "the server did not end well: {ended}");
        Ok(())
    }

    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already; there is nothing else to do about it here.
        let gone = self.child.kill().and_then(|()| self.child.wait().map(drop));
        if let Err(error) = gone {
            writeln!(std::io::stderr(), "the server did not end: {error}").unwrap_or_default();
        }
    }
}

/// A runtime for clients.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// How long a client waits before it asks a server again that was not there.
pub const AGAIN: Duration = Duration::from_millis(5);
