//! The one binary: the only place where a store meets an engine meets a door.
//!
//! - `args`: the command line; `exit`: how the program ends.
//! - `run`: a workflow file, from one command to its end. `local` is the server inside it.
//! - `serve`, `worker`, `create`: the same apart, over HTTP. `snapshot`: copies of what is served.
//! - `tasks`: the tasks of a server, over HTTP.
//! - `look`: what is in a database or on a server; `db`: looking after one.
//! - `watch`: a worker at work; `progress`, `report`, `table`: what is shown.

mod args;
mod create;
mod db;
mod exit;
mod local;
mod look;
mod progress;
mod report;
mod run;
mod serve;
mod signals;
mod snapshot;
mod table;
mod tasks;
mod watch;
mod worker;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use args::{Cli, Command, RunArgs};
use exit::Exit;
use forebay_server::config::Config;
use serve::Manner;
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
    let task = Task::of(&cli.command)?;
    let filter = cli.log_level.as_deref().unwrap_or(task.log_level());
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log-level {filter:?}: {error}"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(task.threads().unwrap_or_else(threads));
    runtime.enable_all().build()?.block_on(task.carry_out())
}

/// Threads that answer requests: the engine and its writer want a processor, too.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().saturating_sub(1).max(1))
}

/// What is asked for, its configuration read.
enum Task<'a> {
    Serve { config: Box<Config>, manner: Manner },
    Run { args: &'a RunArgs, file: &'a Path },
    Other(&'a Command),
}

impl Task<'_> {
    fn of(command: &Command) -> anyhow::Result<Task<'_>> {
        Ok(match command {
            Command::Serve(args) => Task::Serve { config: Box::new(args.resolve()?), manner: Manner::Ours },
            Command::Run(args) => match &args.file {
                Some(file) => Task::Run { args, file },
                None => {
                    let config = Box::new(args.torc_server.resolve(&args.durability)?);
                    Task::Serve { config, manner: Manner::TorcServer }
                }
            },
            other => Task::Other(other),
        })
    }

    /// What to log if the command line does not say.
    fn log_level(&self) -> &str {
        match self {
            Task::Serve { config, .. } => config.log_level.as_deref().unwrap_or("info"),
            Task::Run { .. } | Task::Other(_) => "error",
        }
    }

    fn threads(&self) -> Option<usize> {
        match self {
            Task::Serve { config, .. } => config.threads,
            Task::Run { .. } | Task::Other(_) => None,
        }
    }

    async fn carry_out(self) -> anyhow::Result<Exit> {
        match self {
            Task::Serve { config, manner } => serve::serve(*config, manner).await,
            Task::Run { args, file } => run::run(args, file).await,
            Task::Other(Command::Worker(args)) => worker::worker(args).await,
            Task::Other(Command::Create(args)) => create::create(args).await,
            Task::Other(Command::Status(args)) => look::status(args).await,
            Task::Other(Command::Jobs(args)) => look::jobs(args).await,
            Task::Other(Command::Results(args)) => look::results(args).await,
            Task::Other(Command::Db(args)) => db::db(args),
            Task::Other(Command::Tasks(args)) => tasks::tasks(args).await,
            Task::Other(Command::Serve(_) | Command::Run(_)) => unreachable!("these are tasks of their own"),
        }
    }
}

/// Whoever read our output has seen enough: `forebay jobs | head`.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe))
}
