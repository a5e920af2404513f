//! The project's own commands.

mod arrows;
mod bench;
mod book;
mod ci;
mod compat;
mod crash;
mod http;
mod schema;
mod server;
mod sim;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands: what CI runs, benchmarks, long proofs.")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format, clippy, all tests, the borders between crates, a short simulation, a few kills.
    Ci,
    /// torc's own command line and Python client against our server, and taskbroker's workers.
    Compat {
        /// `client` needs no build of torc.
        #[arg(long, value_enum, default_value = "all")]
        part: compat::Part,
        /// Every test of taskbroker's workers in every way: pull and push, children spawned and by a fork
        /// server, with secrets and without. CI has the most telling ones.
        #[arg(long)]
        all: bool,
    },
    /// Simulated histories by seed, e.g. `cargo xtask sim 0..1000000`.
    Sim {
        /// From (with) .. to (without).
        #[arg(default_value = "0..30000")]
        seeds: String,
    },
    /// kill -9 of a server under load, at random moments, in each durability mode; then an audit of
    /// every answer it gave.
    Crash {
        /// How many kills in each mode.
        #[arg(long, default_value_t = 50)]
        kills: u32,
        /// How many runners there are. A few of them also create jobs.
        #[arg(long, default_value_t = 16)]
        runners: u64,
        /// In which modes.
        #[arg(long, value_delimiter = ',', default_value = "power,process,memory")]
        durability: Vec<String>,
        /// Where the random moments come from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// The power of a disk is cut at recorded syncs, what it had not synced is dropped, reordered or
    /// torn, and what is left is audited.
    PowerCuts {
        /// How many in each durability mode.
        #[arg(long, default_value_t = 1000)]
        cuts: u32,
        /// How many histories on disks that fail by chance, in each durability mode.
        #[arg(long, default_value_t = 1000)]
        faults: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Schemathesis on the server's OpenAPI document: no 5xx, and no answer but those it says.
    Schema {
        /// How many requests are made for each operation, besides those at the edges of its schema.
        #[arg(long, default_value_t = 50)]
        cases: u32,
        /// Where they come from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Measures; see `cargo xtask bench --help`.
    Bench {
        #[command(subcommand)]
        what: bench::Bench,
    },
    /// Answers requests as large as the server's with nothing behind: what the HTTP library costs.
    #[command(hide = true)]
    Echo,
    /// The same over gRPC, for the tasks door.
    #[command(hide = true)]
    EchoTasks,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Ci => ci::run(),
        Command::Compat { part, all } => compat::run(part, all),
        Command::Sim { seeds } => sim::run(&seeds),
        Command::Crash { kills, runners, durability: durabilities, seed } => {
            crash::run(&crash::Plan { durabilities, kills, runners, seed }, server::Profile::Release)
        }
        Command::PowerCuts { cuts, faults, seed } => crash::power_cuts(cuts, faults, seed),
        Command::Schema { cases, seed } => schema::run(cases, seed, server::Profile::Dev),
        Command::Bench { what } if what.makes_load() && cfg!(debug_assertions) => bench::optimized(),
        Command::Bench { what } => bench::run(what),
        Command::Echo => bench::echo::serve(),
        Command::EchoTasks => bench::tasks::echo::serve(),
    }
}
