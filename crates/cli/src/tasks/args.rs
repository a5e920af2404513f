//! The command line of `forebay tasks`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use forebay_server::config::duration;
use serde_json::{Map, Value};

use crate::args::AccessArgs;

const EXAMPLES: &str = "\
Examples:
  forebay tasks enqueue --application shop --namespace mail --task send --args '[7]'
  forebay tasks enqueue --application shop --namespace mail --task send --delay 90s --max-attempts 3
  forebay tasks enqueue --application shop --namespace mail --task thank --depends-on 4f0c…
  forebay tasks applications            how many tasks of each wait, are processed, are dead letters
  forebay tasks list shop --state pending
  forebay tasks status 4f0c…            by its id
  forebay tasks dead-letters shop --requeue

A task that has ended is gone, unless it is a dead letter.

Exit codes:
  0  done
  1  an error; the message says what
  2  the command line is wrong";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TasksArgs {
    #[command(subcommand)]
    pub command: TasksCommand,
    /// Address of the server.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", global = true)]
    pub url: String,
    #[command(flatten)]
    pub access: AccessArgs,
}

#[derive(Debug, Subcommand)]
pub enum TasksCommand {
    /// Enqueue a task; prints its id.
    Enqueue(Box<EnqueueArgs>),
    /// Show the applications, with how many tasks they have.
    Applications {
        /// A JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Show the namespaces of an application.
    Namespaces {
        application: String,
        /// A JSON array instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// List tasks of an application in the order of their coming.
    List(ListArgs),
    /// Show a task.
    Status {
        /// Its id.
        id: String,
        /// A JSON object instead of lines.
        #[arg(long)]
        json: bool,
    },
    /// Remove tasks that have not ended; who does one is not listened to any more.
    Cancel {
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Let dead letters, or tasks that somebody has lost, be done again; prints their new ids.
    Requeue {
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Hand out nothing more of an application, or of one of its namespaces.
    Pause {
        application: String,
        /// Only of this namespace.
        #[arg(long)]
        namespace: Option<String>,
    },
    /// Hand out tasks of an application, or of a namespace that was paused, again.
    Resume {
        application: String,
        /// Only of this namespace.
        #[arg(long)]
        namespace: Option<String>,
    },
    /// List the dead letters of an application, or send them back.
    DeadLetters {
        application: String,
        /// Send them back: all, or those of the namespace.
        #[arg(long)]
        requeue: bool,
        /// Only of this namespace.
        #[arg(long)]
        namespace: Option<String>,
        /// A JSON array instead of a table.
        #[arg(long, conflicts_with = "requeue")]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub struct EnqueueArgs {
    /// Whose task it is.
    #[arg(long)]
    pub application: String,
    #[arg(long)]
    pub namespace: String,
    /// Its name, as the application registered it.
    #[arg(long)]
    pub task: String,
    /// Its arguments, as a JSON array.
    #[arg(long, value_name = "JSON", default_value = "[]", value_parser = clap::builder::ValueParser::new(array))]
    pub args: Value,
    /// Its arguments by name, as a JSON object.
    #[arg(long, value_name = "JSON", default_value = "{}", value_parser = clap::builder::ValueParser::new(object))]
    pub kwargs: Value,
    /// An id: a task of the application that has it already is not enqueued again.
    #[arg(long, conflicts_with = "count")]
    pub id: Option<String>,
    /// So many of them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u64,
    /// Higher goes first.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub priority: u32,
    /// Not before so long, such as 90s.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub delay: Option<Duration>,
    /// Not begun within so long, it ends.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub expires: Option<Duration>,
    /// Not before this task is completed; may be said several times.
    #[arg(long, value_name = "ID")]
    pub depends_on: Vec<String>,
    /// What is not there of these counts as completed.
    #[arg(long, requires = "depends_on")]
    pub met_if_gone: bool,
    /// How long an attempt may take, in whole seconds, such as 30s [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub deadline: Option<Duration>,
    /// So many attempts may fail; 0: any number [default: 1].
    #[arg(long, value_name = "N")]
    pub max_attempts: Option<u32>,
    /// How long it waits after a failed attempt, in whole seconds.
    #[arg(long, value_name = "TIME", value_parser = whole_seconds)]
    pub retry_delay: Option<Duration>,
    /// An attempt that was lost is the last one.
    #[arg(long)]
    pub at_most_once: bool,
    /// Without success at its end, it is kept as a dead letter.
    #[arg(long)]
    pub dead_letter: bool,
    /// Print nothing.
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    pub application: String,
    /// Only of this namespace.
    #[arg(long)]
    pub namespace: Option<String>,
    /// Only in this state.
    #[arg(long, value_enum)]
    pub state: Option<State>,
    /// At most so many.
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: u64,
    /// Without the first so many.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub offset: u64,
    /// A JSON array instead of a table.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum State {
    Waiting,
    Pending,
    Processing,
    Delayed,
    DeadLetter,
}

impl State {
    /// As the server has it.
    pub fn word(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Pending => "pending",
            State::Processing => "processing",
            State::Delayed => "delayed",
            State::DeadLetter => "dead_letter",
        }
    }
}

fn array(text: &str) -> Result<Value, String> {
    serde_json::from_str::<Vec<Value>>(text).map(Value::Array).map_err(|error| format!("no JSON array: {error}"))
}

fn object(text: &str) -> Result<Value, String> {
    let object = serde_json::from_str::<Map<String, Value>>(text);
    object.map(Value::Object).map_err(|error| format!("no JSON object: {error}"))
}

/// As taskbroker's wire has it.
fn whole_seconds(text: &str) -> Result<Duration, String> {
    let time = duration(text)?;
    if time.subsec_nanos() == 0 { Ok(time) } else { Err(format!("{text} is not a number of whole seconds")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_wire_is_whole_seconds() {
        assert_eq!(whole_seconds("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(whole_seconds("1500ms").unwrap_err(), "1500ms is not a number of whole seconds");
        assert!(whole_seconds("soon").is_err());
    }

    #[test]
    fn arguments_are_an_array_and_an_object() {
        assert_eq!(array("[1, \"a\"]").unwrap(), serde_json::json!([1, "a"]));
        assert!(array("{}").is_err() && array("1").is_err());
        assert_eq!(object("{\"a\": 1}").unwrap(), serde_json::json!({"a": 1}));
        assert!(object("[]").is_err());
    }
}
