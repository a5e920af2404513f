//! The command line: every flag, and the help.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use forebay_server::config::{self, Config, ConfigError, DurabilitySettings, Settings, TorcServer, duration};
use forebay_wire::JobStatus;
use forebay_worker::Access;

use crate::db::DbArgs;
use crate::tasks::TasksArgs;

const EXAMPLES: &str = "\
Examples:
  forebay run diamond.yaml                     run a workflow; again: go on where it was
  forebay run sweep.kdl --max-parallel-jobs 8  eight jobs at a time, whatever they need
  forebay status                               how far the workflows of ./forebay.db are
  forebay results --failed                     which jobs failed, and how

  forebay serve --db jobs.db --http 0.0.0.0:8080
  forebay create diamond.yaml --url http://host:8080
  forebay worker --url http://host:8080 --workflow 1

  torc -s --torc-server-bin forebay run diamond.yaml    torc's own client on it

  forebay serve --db jobs.db --grpc 0.0.0.0:50051       tasks, for taskbroker's workers
  forebay tasks enqueue --application shop --namespace mail --task send --args '[7]'

Exit codes:
    0  all that was asked is done; for a run: every job completed
    1  an error; the message says which
    2  the command line is wrong
    3  a run cannot go on: no ready job fits this machine, or none will become ready
    4  a run came to its end, but some jobs failed, or were canceled or terminated
  130  interrupted; the next run goes on

Logs go to stderr: --log-level or RUST_LOG say how many.";

const RUN_HELP: &str = "\
Examples:
  forebay run diamond.yaml
  forebay run diamond.yaml --num-cpus 4 --memory-gb 16
  forebay run diamond.yaml --retry-failed     failed jobs, and what hangs on them, once more
  forebay run diamond.yaml --fresh            forget the earlier run of this file
  forebay run diamond.yaml --json --quiet     one JSON object on stdout at the end
  forebay run --database jobs.db --port 8080  no FILE: a server, told what torc-server is told

Run the same file again and it goes on where it was: what is done is not repeated. What an earlier
run had begun when it was killed or interrupted is ended and run again; failed jobs stay failed. The
first Ctrl-C stops taking jobs, the second terminates those that run, the third kills them.

Without FILE it is `torc-server run`: it serves --database until SIGTERM, SIGINT or, if asked, the end
of stdin. SIGUSR1 writes a copy of the database to TORC_SERVER_SNAPSHOT_PATH
(torc-server-snapshot.db) and keeps TORC_SERVER_SNAPSHOT_KEEP (5) of them.

Exit codes:
    0  every job completed; a server: stopped, everything is written
    1  an error; the message says which
    2  the command line is wrong
    3  the run cannot go on: no ready job fits this machine, or none will become ready
    4  the run came to its end, but some jobs failed, or were canceled or terminated
  130  interrupted; the next run goes on";

const SERVE_HELP: &str = r#"Examples:
  forebay serve --db jobs.db --http 127.0.0.1:8080
  forebay serve --db jobs.db --grpc 127.0.0.1:50051
  forebay serve --db jobs.db --grpc 127.0.0.1:50051 --push shop=10.0.0.7:50052,10.0.0.8:50052
  forebay serve --db jobs.db --http 127.0.0.1:0 --durability process
  forebay serve --config forebay.toml

A configuration has a key for each flag; flags go before it, and variables (FOREBAY_…) between:
  db = "jobs.db"
  http = "0.0.0.0:8080"
  log_level = "warn"
  durability = { mode = "process", sync_interval = "50ms" }

Prints `listening http=ADDR`, and behind it `grpc=ADDR` with --grpc, once it takes requests. SIGTERM and
SIGINT stop it: it answers what it has taken, writes everything, and exits with 0.

Exit codes:
  0  stopped; everything is written
  1  it could not start, or its store is dead; the message says how many changes were not written
  2  the command line is wrong"#;

const WORKER_HELP: &str = "\
Examples:
  forebay worker --url http://host:8080 --workflow 1
  forebay worker --url http://host:8080 --workflow 1 --num-cpus 16 --label gpu

Exit codes are those of `forebay run`. Jobs that failed count only if they ran here.";

/// A job server, and what runs the jobs.
#[derive(Debug, Parser)]
#[command(name = "forebay", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// What to log to stderr: error, warn, info, debug, trace, or as RUST_LOG has it.
    #[arg(long, short, global = true, value_name = "FILTER", env = "RUST_LOG", hide_env = true)]
    pub log_level: Option<String>,
}

impl Cli {
    /// Reads the command line. What is wrong with it ends the program, with exit code 2.
    pub fn read() -> Cli {
        let cli = Cli::parse();
        let contradiction = match &cli.command {
            Command::Run(args) => match &args.file {
                Some(_) => args.durability.clone().resolve().err(),
                None => args.torc_server.resolve(&args.durability).err(),
            },
            Command::Serve(_) | Command::Worker(_) | Command::Create(_) => None,
            Command::Status(_) | Command::Jobs(_) | Command::Results(_) | Command::Db(_) | Command::Tasks(_) => None,
        };
        if let Some(error) = contradiction {
            Cli::command().error(ErrorKind::ArgumentConflict, error).exit();
        }
        cli
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a workflow file here, or go on with it: server and worker in one process.
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),
    /// Serve a database over HTTP.
    #[command(after_help = SERVE_HELP)]
    Serve(Box<ServeArgs>),
    /// Run jobs of a workflow of a server.
    #[command(after_help = WORKER_HELP)]
    Worker(WorkerArgs),
    /// Create a workflow on a server from a file, ready for workers; prints its number.
    Create(CreateArgs),
    /// Show how far workflows are.
    Status(StatusArgs),
    /// List the jobs of a workflow.
    Jobs(JobsArgs),
    /// List how the attempts of a workflow's jobs ended.
    Results(ResultsArgs),
    /// Look after a database: check it, copy it, put it in order.
    Db(DbArgs),
    /// Enqueue tasks for taskbroker's workers, and look after them.
    Tasks(TasksArgs),
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// The workflow: YAML, JSON, JSON5 or KDL, by the name's end.
    #[arg(conflicts_with = "torc_server")]
    pub file: Option<PathBuf>,
    /// The database, made if it is not there.
    #[arg(long, value_name = "PATH", default_value = config::DB, conflicts_with = "torc_server")]
    pub db: PathBuf,
    #[command(flatten)]
    pub running: RunningArgs,
    #[command(flatten)]
    pub durability: DurabilitySettings,
    /// Forget what an earlier run of this file left in the database, and begin anew.
    #[arg(long, conflicts_with = "torc_server")]
    pub fresh: bool,
    /// Run failed and canceled jobs again, with all that hangs on them.
    #[arg(long, conflicts_with_all = ["fresh", "torc_server"])]
    pub retry_failed: bool,
    #[command(flatten)]
    pub display: DisplayArgs,
    #[command(flatten)]
    pub torc_server: TorcServer,
}

/// How jobs are run.
#[derive(Debug, Args)]
pub struct RunningArgs {
    /// Where the jobs' output goes.
    #[arg(long, value_name = "DIR", default_value = "forebay_output")]
    pub output: PathBuf,
    /// Run so many jobs at a time, whatever they need.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_parallel_jobs: Option<u32>,
    /// CPUs to pack jobs on, instead of those that are detected.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub num_cpus: Option<i64>,
    /// Memory to pack jobs on, in GiB, instead of what is detected.
    #[arg(long, value_name = "X", value_parser = positive)]
    pub memory_gb: Option<f64>,
    /// GPUs to pack jobs on, instead of those that are detected.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    pub num_gpus: Option<i64>,
    /// Take jobs with labels, all of them among these, and only such; may be given several times.
    #[arg(long = "label", value_name = "LABEL", value_parser = label)]
    pub labels: Vec<String>,
    /// What the first Ctrl-C does to running jobs; the second terminates them in any case.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnInterrupt::Wait)]
    pub on_interrupt: OnInterrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnInterrupt {
    /// Wait until they end.
    Wait,
    /// Terminate them.
    Terminate,
}

/// What is shown, and how.
#[derive(Debug, Args)]
pub struct DisplayArgs {
    /// No progress; at the end only what went wrong.
    #[arg(long, short)]
    pub quiet: bool,
    /// One JSON object on stdout at the end, in the place of the summary.
    #[arg(long)]
    pub json: bool,
    /// What happens as JSON, a line each, on stdout.
    #[arg(long)]
    pub events: bool,
}

#[derive(Debug, Args)]
pub struct ServeArgs {
    /// A file that says what the flags do not, in TOML.
    #[arg(long, value_name = "FILE", env = "FOREBAY_CONFIG")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: Settings,
}

impl ServeArgs {
    /// With what its file says, and the defaults.
    pub fn resolve(&self) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map(Settings::read).transpose()?;
        self.settings.clone().over(file.unwrap_or_default()).resolve()
    }
}

/// What it takes to come in at a server.
#[derive(Debug, Args)]
pub struct AccessArgs {
    /// A file with `user:password`, or with a token. The variable FOREBAY_CREDENTIALS may hold the same.
    #[arg(long = "credentials", value_name = "FILE", env = "FOREBAY_CREDENTIALS_FILE", global = true)]
    pub credentials_file: Option<PathBuf>,
    /// A file of certificates in PEM, one of which vouches for a server with TLS, instead of those that
    /// this machine trusts.
    #[arg(long, value_name = "FILE", env = "FOREBAY_CA", global = true)]
    pub ca: Option<PathBuf>,
}

impl AccessArgs {
    /// With what the file or the variable says. The file goes first.
    pub fn resolve(&self) -> anyhow::Result<Access> {
        let credentials = match &self.credentials_file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                Some(text.with_context(|| format!("the credentials {} cannot be read", path.display()))?)
            }
            None => std::env::var("FOREBAY_CREDENTIALS").ok(),
        };
        let credentials = credentials.as_deref().map(str::trim).filter(|credentials| !credentials.is_empty());
        if let (None, Some(path)) = (credentials, &self.credentials_file) {
            bail!("the credentials {} are empty", path.display());
        }
        Ok(Access { authorization: credentials.map(Access::authorization_of), ca: self.ca.clone() })
    }
}

#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// Address of the server.
    #[arg(long)]
    pub url: String,
    #[command(flatten)]
    pub access: AccessArgs,
    /// The workflow, by its number; otherwise the newest that has something left to do.
    #[arg(long, value_name = "ID")]
    pub workflow: Option<i64>,
    #[command(flatten)]
    pub running: RunningArgs,
    /// Leave when there was nothing to take for so long, such as 90s; without it, when the workflow
    /// is complete or cannot go on here.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub idle_max: Option<Duration>,
    /// How long this machine is ours, such as 4h; jobs are terminated in time before.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub time_limit: Option<Duration>,
    /// The server gives what this worker holds to others when it has not heard of it for so long; 0:
    /// never. It hears of it four times as often.
    #[arg(long, value_name = "TIME", value_parser = lease, default_value = "30s")]
    pub lease: Duration,
    /// Terminate jobs that run longer than their resource requirements say.
    #[arg(long)]
    pub enforce_runtime: bool,
    #[command(flatten)]
    pub display: DisplayArgs,
}

#[derive(Debug, Args)]
pub struct CreateArgs {
    /// The workflow: YAML, JSON, JSON5 or KDL, by the name's end.
    pub file: PathBuf,
    /// Address of the server.
    #[arg(long)]
    pub url: String,
    #[command(flatten)]
    pub access: AccessArgs,
    /// Print a JSON object instead of the number.
    #[arg(long)]
    pub json: bool,
}

/// Where to look.
#[derive(Debug, Args)]
pub struct PlaceArgs {
    /// A database; it may be in use meanwhile.
    #[arg(long, value_name = "PATH", default_value = config::DB, conflicts_with = "url")]
    pub db: PathBuf,
    /// A server, instead of a database.
    #[arg(long)]
    pub url: Option<String>,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One workflow, by its number; otherwise all.
    pub workflow: Option<i64>,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// A JSON array instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct JobsArgs {
    /// The workflow, by its number; otherwise the newest.
    pub workflow: Option<i64>,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Only jobs in this state, such as failed.
    #[arg(long, value_name = "STATE", value_parser = clap::builder::ValueParser::new(status))]
    pub status: Option<JobStatus>,
    /// A JSON array instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ResultsArgs {
    /// The workflow, by its number; otherwise the newest.
    pub workflow: Option<i64>,
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Only what did not complete.
    #[arg(long)]
    pub failed: bool,
    /// Every attempt, not only the latest of each job.
    #[arg(long)]
    pub all_attempts: bool,
    /// A JSON array instead of a table.
    #[arg(long)]
    pub json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err("must be above 0".to_owned()) }
}

/// None at all, or long enough that heartbeats are no load.
fn lease(text: &str) -> Result<Duration, String> {
    const MIN: Duration = Duration::from_millis(100);
    let lease = if text == "0" { Duration::ZERO } else { duration(text)? };
    if lease.is_zero() || lease >= MIN { Ok(lease) } else { Err("must be 0, or at least 100ms".to_owned()) }
}

fn label(text: &str) -> Result<String, String> {
    forebay_wire::check_label(text).map(|()| text.to_owned()).map_err(|error| error.to_string())
}

fn status(text: &str) -> Result<JobStatus, String> {
    text.parse().map_err(|_| {
        let known: Vec<&str> = JobStatus::ALL.iter().map(|status| status.as_str()).collect();
        format!("one of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn memory_must_be_something() {
        assert_eq!(positive("1.5"), Ok(1.5));
        for bad in ["0", "-1", "inf", "NaN", "much"] {
            assert!(positive(bad).is_err(), "{bad}");
        }
    }
}
