//! The one binary: the only place where a store meets an engine meets a door.
//!
//! - `args`: the command line; `exit`: how the program ends.
//! - `run`: a workflow file, from one command to its end. `local` is the server inside it.
//! - `serve`, `worker`, `create`: the same apart, over HTTP.
//! - `look`: what is in a database or on a server.
//! - `watch`: a worker at work; `progress`, `report`, `table`: what is shown.

mod args;
mod create;
mod exit;
mod local;
mod look;
mod progress;
mod report;
mod run;
mod serve;
mod signals;
mod table;
mod watch;
mod worker;

use std::io::{self, Write};
use std::process::ExitCode;

use args::{Cli, Command};
use exit::Exit;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // First: a launcher has no threads and little memory.
    if let Some(code) = forebay_worker::launcher::launch_if_asked() {
        return code;
    }
    let cli = Cli::read();
    match begin(&cli) {
        Ok(exit) => exit.into(),
        Err(error) if is_broken_pipe(&error) => Exit::Done.into(),
        Err(error) => {
            // If stderr is gone there is nobody to tell.
            writeln!(io::stderr(), "forebay: {error:#}").unwrap_or_default();
            Exit::Error.into()
        }
    }
}

fn begin(cli: &Cli) -> anyhow::Result<Exit> {
    let quietly = match cli.command {
        Command::Serve(_) => "info",
        _ => "error",
    };
    let filter = cli.log_level.as_deref().unwrap_or(quietly);
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log-level {filter:?}: {error}"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(obey(cli))
}

async fn obey(cli: &Cli) -> anyhow::Result<Exit> {
    match &cli.command {
        Command::Run(args) => run::run(args).await,
        Command::Serve(args) => serve::serve(args).await,
        Command::Worker(args) => worker::worker(args).await,
        Command::Create(args) => create::create(args).await,
        Command::Status(args) => look::status(args).await,
        Command::Jobs(args) => look::jobs(args).await,
        Command::Results(args) => look::results(args).await,
    }
}

/// Whoever read our output has seen enough: `forebay jobs | head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe))
}
