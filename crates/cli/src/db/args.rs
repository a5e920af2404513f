//! The command line of `forebay db`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use forebay_server::config::DB;

const EXAMPLES: &str = "\
Examples:
  forebay db check                      is ./forebay.db whole, and do its rows agree?
  forebay db backup today.db            a copy of one moment, also while it is served
  forebay db plans --scans              statements that would read a whole table; none is good
  forebay db indexes --db jobs.db       what takes the room, and what uses it
  forebay db vacuum                     give back the room of what was deleted
  forebay db migrate --down             back to the schema before, for an older forebay

check, plans, indexes and backup work beside a server; the others want the database for themselves.

Exit codes:
  0  done; for check: nothing is wrong
  1  an error, or check or plans found something; the message says what
  2  the command line is wrong";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DbArgs {
    #[command(subcommand)]
    pub command: DbCommand,
    /// The database.
    #[arg(long, value_name = "PATH", default_value = DB, global = true)]
    pub db: PathBuf,
}

#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Look through the whole database: its pages, and whether its rows agree with each other.
    Check {
        /// A JSON array of what is wrong, instead of a line each.
        #[arg(long)]
        json: bool,
    },
    /// Show how SQLite carries out each statement that the program prepares.
    Plans {
        /// Only statements that read a whole table; with any of them the exit code is 1.
        #[arg(long)]
        scans: bool,
        /// A JSON array instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// List tables and indexes: their size, and how many statements use them.
    Indexes {
        /// A JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Let SQLite look at what is in the tables, if that helps it to use the indexes.
    Optimize,
    /// Write the database anew, without the room of what was deleted. Needs room for a second one.
    Vacuum,
    /// Copy the database as it is at this moment into a new file.
    Backup {
        /// Where the copy goes; there must be nothing yet.
        #[arg(value_name = "FILE")]
        to: PathBuf,
    },
    /// Bring the schema to this program's version, or back to an earlier one.
    Migrate {
        /// One version back, or with --to several. What the older version does not know is lost: make
        /// a backup before.
        #[arg(long)]
        down: bool,
        /// Which version; 0 is an empty database.
        #[arg(long, value_name = "VERSION", requires = "down")]
        to: Option<u32>,
    },
}
