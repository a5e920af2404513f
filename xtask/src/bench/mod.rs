//! Benchmarks: each measures both sides in one run, in turn, and prints their ratio. Absolute
//! figures are this machine's, today; the ratio is what may be quoted.

mod burst;
pub mod echo;
mod graph;
mod hour;
mod lists;
mod load;
mod neighbour;
mod run;
mod start;
pub mod tasks;
mod torcs;
mod workflows;

use clap::Subcommand;

#[derive(Subcommand)]
pub enum Bench {
    /// `forebay run` of many jobs of `true` beside `xargs -P`; and a chain of them.
    Run {
        #[arg(long, default_value_t = 2000)]
        jobs: usize,
        #[arg(long, default_value_t = 8)]
        parallel: usize,
        /// How often each side runs.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Three requests a job (claim, start, complete) at many ready jobs, beside a bare echo.
    Load {
        #[arg(long, default_value_t = 100_000)]
        ready: usize,
        #[arg(long, default_value_t = 64)]
        runners: usize,
        /// Seconds of each side.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        #[arg(long, default_value = "power")]
        durability: String,
    },
    /// Claims of one workflow while many jobs of another are created, initialized, reset and deleted.
    Neighbour {
        #[arg(long, default_value_t = 100_000)]
        jobs: usize,
        #[arg(long, default_value = "process")]
        durability: String,
        /// A binary that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// The first outcome of a large graph after a start, while others are served; and its memory.
    Graph {
        #[arg(long, default_value_t = 1_000_000)]
        jobs: usize,
        /// A binary that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// Steady work with lists read beside it: the log of the database keeps its bound.
    Hour {
        #[arg(long, default_value_t = 60)]
        minutes: u64,
        #[arg(long, default_value = "process")]
        durability: String,
        /// A binary that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// How soon a server takes claims with many ready jobs in its database, and its memory; and how soon it
    /// listens after a kill.
    Start {
        #[arg(long, default_value_t = 1_000_000)]
        ready: u64,
        /// How long its log is at the kill, in MB.
        #[arg(long, default_value_t = 160)]
        log: u64,
        /// A binary that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// The workflows door beside torc-server and a bare echo of the same requests, in one run.
    Workflows {
        /// Whom to measure beside: `torc` is torc-server 1.0.0, built once; `none` leaves the echo.
        #[arg(long, default_value = "torc")]
        peer: String,
        /// Seconds of each side of each point.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// The most ready jobs of a point.
        #[arg(long, default_value_t = 1_000_000)]
        ready_max: usize,
        /// Only the points with so many runners.
        #[arg(long)]
        runners: Option<usize>,
        /// A binary of Forebay that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// The tasks door beside a bare echo of the same messages over gRPC: workers that pull, one call a
    /// task. Ends with 1 if it is slower than is asked.
    Tasks {
        /// Only these; all without it.
        #[arg(long, value_enum, value_delimiter = ',')]
        parts: Vec<tasks::Part>,
        /// Seconds of each side in each round.
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// The largest backlog that is drained, up to 10 000 000.
        #[arg(long, default_value_t = 1_000_000)]
        backlog_max: u64,
        /// A binary of Forebay that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// Tasks come and are done at a steady rate: the database, its log and the memory keep their size.
    TasksHour {
        #[arg(long, default_value_t = 60.0)]
        minutes: f64,
        #[arg(long, default_value_t = 2000.0)]
        per_second: f64,
        #[arg(long, default_value = "process")]
        durability: String,
        /// A binary of Forebay that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// Runners whose jobs end all at once, and completions at a steady rate, beside a bare echo.
    Burst {
        #[arg(long, default_value_t = 2_000)]
        runners: usize,
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Completions a second.
        #[arg(long, default_value_t = 2_000)]
        rate: usize,
        #[arg(long, default_value_t = 10)]
        seconds: usize,
        #[arg(long, default_value = "process")]
        durability: String,
        /// A binary that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// Lists of the jobs, ready jobs, results and dependents of a workflow of 10 000 jobs.
    Lists {
        /// torc-server 1.0.0 takes part.
        #[arg(long)]
        with_peer: bool,
        /// A binary that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// A workflow like torc's `scale_test`, created and initialized by torc's command line on both servers:
    /// time and memory.
    Scale {
        /// Without the four barriers.
        #[arg(long, default_value_t = 100_000)]
        jobs: usize,
        /// A binary of Forebay that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// A chain of jobs with torc's runner and ours.
    Chain {
        #[arg(long, default_value_t = 10)]
        stages: usize,
        /// On torc-server, too, with its default interval: half a minute a stage.
        #[arg(long)]
        with_peer: bool,
        /// A binary of Forebay that is built already.
        #[arg(long)]
        binary: Option<std::path::PathBuf>,
    },
    /// Lifecycles and submissions: the machine alone, over several numbers of lanes; then through the
    /// engine and SQLite in each mode, beside a bare loop that writes the same rows.
    Engine {
        /// Seconds a point, and a tenth of the ready jobs.
        #[arg(long)]
        quick: bool,
    },
    /// Streams of workers that claim and complete tasks, beside what the store alone carries of that.
    Stream,
    /// Changes a second through the SQLite store beside a bare loop over the same rows.
    Store,
    /// jobq's three measurements in Rust and in Python, beside bare rusqlite, Python's sqlite3, and a
    /// bare write and fdatasync.
    Jobq,
}

impl Bench {
    /// It drives a server from this program, which then is to be as fast as it can.
    pub fn makes_load(&self) -> bool {
        !matches!(self, Bench::Run { .. } | Bench::Engine { .. } | Bench::Store | Bench::Jobq)
    }
}

/// What this program was asked to do, by an optimized build of it.
pub fn optimized() -> anyhow::Result<()> {
    let mut line: Vec<String> =
        ["run", "--quiet", "--locked", "--profile", "sim", "-p", "xtask", "--"].map(String::from).into();
    line.extend(std::env::args().skip(1));
    crate::ci::sh("cargo", &line.iter().map(String::as_str).collect::<Vec<_>>())
}

pub fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Run { jobs, parallel, rounds } => run::run(jobs, parallel, rounds),
        Bench::Load { ready, runners, seconds, durability } => load::run(ready, runners, seconds, &durability),
        Bench::Graph { jobs, binary } => graph::run(jobs, binary),
        Bench::Hour { minutes, durability, binary } => hour::run(minutes, &durability, binary),
        Bench::Neighbour { jobs, durability, binary } => neighbour::run(jobs, &durability, binary),
        Bench::Workflows { peer, seconds, ready_max, runners, binary } => {
            workflows::run(&peer, seconds, ready_max, runners, binary)
        }
        Bench::Tasks { parts, seconds, rounds, backlog_max, binary } => {
            tasks::run(&tasks::Plan { parts, seconds, rounds, backlog_max, binary })
        }
        Bench::TasksHour { minutes, per_second, durability, binary } => {
            tasks::hour::run(minutes, per_second, &durability, binary)
        }
        Bench::Burst { runners, rounds, rate, seconds, durability, binary } => {
            burst::run(burst::Plan { runners, rounds, rate, seconds }, &durability, binary)
        }
        Bench::Lists { with_peer, binary } => lists::run(with_peer, binary),
        Bench::Scale { jobs, binary } => torcs::scale(jobs, binary),
        Bench::Chain { stages, with_peer, binary } => torcs::chain(stages, with_peer, binary),
        Bench::Start { ready, log, binary } => start::run(ready, log * 1_000_000, binary),
        Bench::Engine { quick } => engine(quick),
        Bench::Stream => {
            crate::ci::sh("cargo", &["run", "--release", "--locked", "-p", "forebay-tasks", "--example", "stream_rate"])
        }
        Bench::Store => crate::ci::sh(
            "cargo",
            &["run", "--release", "--locked", "-p", "forebay-store-sqlite", "--example", "commit_rate"],
        ),
        Bench::Jobq => {
            let rust =
                crate::ci::sh("cargo", &["run", "--release", "--locked", "-p", "forebay-jobq", "--example", "bench"]);
            crate::ci::sh(&crate::ci::python_with_module()?, &["python/bench.py"])?;
            rust
        }
    }
}

fn engine(quick: bool) -> anyhow::Result<()> {
    let example = |package: &str, name: &str, options: &[&str]| {
        let run = ["run", "--release", "--locked", "-p", package, "--example", name, "--"];
        crate::ci::sh("cargo", &[&run, options].concat())
    };
    for lanes in ["1", "100", "4096"] {
        example("forebay-sim", "machine_rate", &["--lanes", lanes])?;
    }
    example("forebay-engine", "rate", if quick { &["--quick"] } else { &[] })
}
