//! From a workflow file to a workflow on a server, ready to run.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use forebay_spec::{Creation, Workflow};
use forebay_wire::{BASE_PATH, MessageResponse, WorkflowModel};
use forebay_worker::Client;
use serde_json::value::RawValue;

use crate::args::CreateArgs;
use crate::exit::Exit;

/// How long one request of a creation may take: 100 000 jobs are many.
pub const LONG: Duration = Duration::from_secs(600);

/// Where a workflow comes from, so that a later run of the same file finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Absolute path of the file.
    pub path: String,
    /// Hash of what the file means.
    pub hash: String,
}

/// `forebay create`.
pub async fn create(args: &CreateArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.url, &args.access.resolve()?)?;
    let workflow = load(&args.file)?;
    let id = on_server(&client, &workflow, None).await?;
    if args.json {
        println!(
            "{}",
            serde_json::json!({ "workflow": id, "name": workflow.settings.name, "jobs": workflow.jobs.len() })
        );
    } else {
        println!("{id}");
    }
    Ok(Exit::Done)
}

/// Reads a workflow file. What it asks for and does not get is said on stderr.
pub fn load(file: &Path) -> anyhow::Result<Workflow> {
    let here = std::env::current_dir().context("there is no current folder")?;
    let workflow = forebay_spec::load(file, &here)?;
    for notice in &workflow.notices {
        eprintln!("{}:{}: note: {}", file.display(), notice.position.line, notice.message);
    }
    if !workflow.actions.is_empty() {
        bail!("{} has `actions`, which are not carried out yet: leave them out to run it here", file.display());
    }
    check_inputs(&workflow, &here)?;
    Ok(workflow)
}

/// What no job makes must be there before the first one starts.
fn check_inputs(workflow: &Workflow, here: &Path) -> anyhow::Result<()> {
    /// So many are named.
    const NAMED_MAX: usize = 10;
    let given = workflow.files.iter().filter(|file| file.is_input && !file.is_output);
    let missing: Vec<&str> =
        given.filter(|file| !here.join(&file.path).exists()).map(|file| file.path.as_str()).collect();
    let Some(count) = std::num::NonZero::new(missing.len()) else { return Ok(()) };
    let more = if count.get() > NAMED_MAX { ", and more" } else { "" };
    let named = missing.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    bail!("jobs read files that are not there and that no job writes: {named}{more}")
}

/// Creates the workflow and makes its first jobs ready. If that fails, nothing of it stays.
pub async fn on_server(client: &Client, workflow: &Workflow, source: Option<&Source>) -> anyhow::Result<i64> {
    let here = std::env::current_dir().context("there is no current folder")?;
    let user = std::env::var("USER").unwrap_or_else(|_| "unknown".to_owned());
    let mut creation = workflow.create(&user, here);
    let done = async {
        post_all(client, &mut creation, source).await?;
        let id = creation.workflow_id().context("the server did not name the workflow")?;
        start(client, id).await?;
        anyhow::Ok(id)
    };
    let error = match done.await {
        Ok(id) => return Ok(id),
        Err(error) => error,
    };
    let Some(id) = creation.workflow_id() else { return Err(error) };
    match delete(client, id).await {
        Ok(()) => Err(error.context("the workflow was not created")),
        Err(why) => Err(error.context(format!("workflow {id} is half made, and cannot be deleted: {why}"))),
    }
}

async fn post_all(client: &Client, creation: &mut Creation<'_>, source: Option<&Source>) -> anyhow::Result<()> {
    while let Some(request) = creation.next_request() {
        let path = request.path.strip_prefix(BASE_PATH).context("every route is under the base path")?;
        let mut body = String::from_utf8(request.body)?;
        if let (None, Some(source)) = (creation.workflow_id(), source) {
            let mut model: WorkflowModel = serde_json::from_str(&body)?;
            model.source_path = Some(source.path.clone());
            model.source_hash = Some(source.hash.clone());
            body = serde_json::to_string(&model)?;
        }
        let body = RawValue::from_string(body)?;
        let answer: Box<RawValue> =
            client.post_and_wait(path, &body, LONG).await.with_context(|| format!("POST {path}"))?;
        creation.accept(answer.get().as_bytes())?;
    }
    Ok(())
}

/// Begins the workflow's first run. A workflow whose `run_id` is still 0 was never created whole.
async fn start(client: &Client, id: i64) -> anyhow::Result<()> {
    begin_run(client, id).await?;
    initialize(client, id, false).await
}

/// Raises the number of the run.
pub async fn begin_run(client: &Client, id: i64) -> anyhow::Result<()> {
    let path = format!("/workflows/{id}/reset_status");
    let _: WorkflowModel = client.post_empty(&path).await.context("cannot begin a run")?;
    Ok(())
}

/// Makes jobs ready or blocked: all, or those that were not initialized since they were created or
/// reset.
pub async fn initialize(client: &Client, id: i64, only_uninitialized: bool) -> anyhow::Result<()> {
    let path = format!("/workflows/{id}/initialize_jobs?only_uninitialized={only_uninitialized}");
    let nothing = serde_json::json!({});
    let _: MessageResponse = client.post_and_wait(&path, &nothing, LONG).await.context("cannot initialize the jobs")?;
    Ok(())
}

pub async fn delete(client: &Client, id: i64) -> anyhow::Result<()> {
    let _: WorkflowModel = client.delete(&format!("/workflows/{id}"), LONG).await?;
    Ok(())
}
