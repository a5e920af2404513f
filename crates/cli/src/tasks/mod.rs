//! `forebay tasks`: tasks are enqueued on a server and looked after there.

mod args;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::anyhow;
use forebay_worker::{CallError, Client};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use args::TasksArgs;
use args::{EnqueueArgs, ListArgs, State, TasksCommand};

use crate::exit::Exit;
use crate::table::Table;

/// Where the paths of the tasks door begin.
const BASE: &str = "/tasks/v1";

/// Tasks of one request.
const PART: u64 = 1_000;

#[derive(Debug, Deserialize)]
struct Enqueued {
    tasks: Vec<EnqueuedTask>,
}

#[derive(Debug, Deserialize)]
struct EnqueuedTask {
    id: String,
    was_there: bool,
    #[serde(default)]
    dropped: bool,
}

#[derive(Debug, Serialize, Deserialize)]
struct Task {
    id: String,
    application: String,
    namespace: String,
    task: String,
    state: String,
    priority: i64,
    failures: u16,
    losses: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
}

#[derive(Debug, Deserialize)]
struct Tasks {
    tasks: Vec<Task>,
    /// With those that are not shown.
    total: u64,
}

#[derive(Debug, Deserialize)]
struct Applications {
    applications: Vec<Application>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Application {
    name: String,
    paused: bool,
    waiting: i64,
    pending: i64,
    processing: i64,
    delayed: i64,
    dead_letters: i64,
}

#[derive(Debug, Deserialize)]
struct Namespaces {
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Namespace {
    name: String,
    paused: bool,
    processing: i64,
}

pub async fn tasks(args: &TasksArgs) -> anyhow::Result<Exit> {
    let client = Client::below(&args.url, BASE, &args.access.resolve()?)?;
    match &args.command {
        TasksCommand::Enqueue(args) => enqueue(&client, args).await?,
        TasksCommand::Applications { json } => applications(&client, *json).await?,
        TasksCommand::List(args) => {
            let ListArgs { application, namespace, state, limit, offset, json } = args;
            let found = list(&client, application, namespace.as_deref(), *state, *offset, *limit).await?;
            show(&found, *offset, *json)?;
        }
        TasksCommand::Status { id, json } => status(&client, id, *json).await?,
        TasksCommand::Cancel { ids } => {
            let mut refused = Refused::default();
            for id in ids {
                let canceled: Result<Value, CallError> =
                    client.post_empty(&format!("/tasks/{}/cancel", segment(id))).await;
                refused.note(id, canceled)?;
            }
            refused.result()?;
        }
        TasksCommand::Requeue { ids } => {
            let mut refused = Refused::default();
            for id in ids {
                if let Some(task) = refused.note(id, requeue(&client, id).await)? {
                    say(&task.id)?;
                }
            }
            refused.result()?;
        }
        TasksCommand::Namespaces { application, json } => namespaces(&client, application, *json).await?,
        TasksCommand::Pause { application, namespace } => {
            pause(&client, application, namespace.as_deref(), "pause").await?;
        }
        TasksCommand::Resume { application, namespace } => {
            pause(&client, application, namespace.as_deref(), "resume").await?;
        }
        TasksCommand::DeadLetters { application, requeue: false, namespace, json } => {
            let dead = Some(State::DeadLetter);
            let found = list(&client, application, namespace.as_deref(), dead, 0, PART).await?;
            show(&found, 0, *json)?;
        }
        TasksCommand::DeadLetters { application, requeue: true, namespace, .. } => {
            send_back(&client, application, namespace.as_deref()).await?;
        }
    }
    Ok(Exit::Done)
}

async fn enqueue(client: &Client, args: &EnqueueArgs) -> anyhow::Result<()> {
    let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
    let task = json!({
        "id": args.id,
        "application": args.application,
        "namespace": args.namespace,
        "task": args.task,
        "args": args.args,
        "kwargs": args.kwargs,
        "processing_deadline": seconds(args.deadline),
        "max_attempts": args.max_attempts,
        "retry_delay": seconds(args.retry_delay),
        "at_most_once": args.at_most_once,
        "dead_letter": args.dead_letter,
        "priority": args.priority,
        "delay_ms": ms(args.delay),
        "expires_ms": ms(args.expires),
        "depends_on": args.depends_on,
        "met_if_gone": args.met_if_gone,
    });
    let (mut left, mut dropped, mut there) = (args.count, 0, 0);
    while left > 0 {
        let part = left.min(PART);
        let body = json!({"tasks": vec![&task; usize::try_from(part)?]});
        let enqueued: Enqueued = client.post("/tasks", &body).await?;
        let mut taken = enqueued.tasks.iter().filter(|task| !task.dropped);
        if !args.quiet {
            taken.try_for_each(|task| say(&task.id))?;
        }
        dropped += enqueued.tasks.iter().filter(|task| task.dropped).count();
        there += enqueued.tasks.iter().filter(|task| task.was_there).count();
        left -= part;
    }
    if dropped > 0 {
        eprintln!("{dropped} of {} were not enqueued: the server's rules drop them", args.count);
    }
    if there > 0 {
        eprintln!("a task of this id is there: nothing was enqueued");
    }
    Ok(())
}

async fn applications(client: &Client, json: bool) -> anyhow::Result<()> {
    let Applications { applications } = client.get("/applications").await?;
    if json {
        return Ok(say(&serde_json::to_string_pretty(&applications)?)?);
    }
    let mut table = Table::new(["application", "waiting", "pending", "processing", "delayed", "dead letters", ""]);
    for one in applications {
        let paused = if one.paused { "paused" } else { "" };
        let counts =
            [one.waiting, one.pending, one.processing, one.delayed, one.dead_letters].map(|count| count.to_string());
        let [waiting, pending, processing, delayed, dead] = counts;
        table.row([one.name, waiting, pending, processing, delayed, dead, paused.to_owned()]);
    }
    Ok(table.write(&mut io::stdout().lock())?)
}

async fn namespaces(client: &Client, application: &str, json: bool) -> anyhow::Result<()> {
    let path = format!("/applications/{}/namespaces", segment(application));
    let Namespaces { namespaces } = client.get(&path).await?;
    if json {
        return Ok(say(&serde_json::to_string_pretty(&namespaces)?)?);
    }
    let mut table = Table::new(["namespace", "processing", ""]);
    for one in namespaces {
        let paused = if one.paused { "paused" } else { "" };
        table.row([one.name, one.processing.to_string(), paused.to_owned()]);
    }
    Ok(table.write(&mut io::stdout().lock())?)
}

async fn list(
    client: &Client,
    application: &str,
    namespace: Option<&str>,
    state: Option<State>,
    offset: u64,
    limit: u64,
) -> Result<Tasks, CallError> {
    let mut path = format!("/tasks?application={}&offset={offset}&limit={limit}", segment(application));
    if let Some(namespace) = namespace {
        path += &format!("&namespace={}", segment(namespace));
    }
    if let Some(state) = state {
        path += &format!("&state={}", state.word());
    }
    client.get(&path).await
}

fn show(Tasks { tasks, total }: &Tasks, offset: u64, json: bool) -> anyhow::Result<()> {
    let end = offset.saturating_add(u64::try_from(tasks.len())?);
    if end < *total {
        eprintln!("{} of {total} tasks are shown; `forebay tasks list … --offset {end}` goes on", tasks.len());
    }
    if json {
        return Ok(say(&serde_json::to_string_pretty(tasks)?)?);
    }
    let mut table = Table::new(["id", "namespace", "task", "state", "priority", "failures", "losses"]);
    for task in tasks {
        let numbers = [task.priority.to_string(), task.failures.to_string(), task.losses.to_string()];
        let [priority, failures, losses] = numbers;
        let [id, namespace, name] = [&task.id, &task.namespace, &task.task].map(String::clone);
        table.row([id, namespace, name, task.state.clone(), priority, failures, losses]);
    }
    Ok(table.write(&mut io::stdout().lock())?)
}

async fn status(client: &Client, id: &str, json: bool) -> anyhow::Result<()> {
    let task: Task = client.get(&format!("/tasks/{}", segment(id))).await?;
    let value = serde_json::to_value(&task)?;
    if json {
        return Ok(say(&serde_json::to_string_pretty(&value)?)?);
    }
    for (name, value) in value.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        say(&format!("{name}: {value}"))?;
    }
    Ok(())
}

async fn requeue(client: &Client, id: &str) -> Result<Task, CallError> {
    client.post_empty(&format!("/tasks/{}/requeue", segment(id))).await
}

async fn pause(client: &Client, application: &str, namespace: Option<&str>, verb: &str) -> Result<(), CallError> {
    let within = namespace.map(|namespace| format!("/namespaces/{}", segment(namespace))).unwrap_or_default();
    let _paused: Value = client.post_empty(&format!("/applications/{}{within}/{verb}", segment(application))).await?;
    Ok(())
}

/// Those that are there now: who comes meanwhile because it failed again waits for the next time.
async fn send_back(client: &Client, application: &str, namespace: Option<&str>) -> anyhow::Result<()> {
    let mut ids = Vec::new();
    loop {
        let offset = u64::try_from(ids.len())?;
        let found = list(client, application, namespace, Some(State::DeadLetter), offset, PART).await?;
        if found.tasks.is_empty() {
            break;
        }
        ids.extend(found.tasks.into_iter().map(|task| task.id));
    }
    for id in ids {
        match requeue(client, &id).await {
            Ok(task) => say(&task.id)?,
            // Somebody else sent it back.
            Err(CallError::Refused { status: 404 | 409, .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

/// Of several tasks, those to which something was not done; the others do not wait for that.
#[derive(Default)]
struct Refused<'a>(Vec<(&'a str, String)>);

impl<'a> Refused<'a> {
    /// What became of one. An error is one for all of them.
    fn note<T>(&mut self, id: &'a str, done: Result<T, CallError>) -> Result<Option<T>, CallError> {
        match done {
            Ok(done) => Ok(Some(done)),
            Err(CallError::Refused { status: 404 | 409, message }) => {
                self.0.push((id, message));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn result(self) -> anyhow::Result<()> {
        match &self.0[..] {
            [] => Ok(()),
            refused => {
                let lines: Vec<String> = refused.iter().map(|(id, why)| format!("{id}: {why}")).collect();
                Err(anyhow!(lines.join("\n")))
            }
        }
    }
}

/// A text as a part of a path or a query.
fn segment(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}
