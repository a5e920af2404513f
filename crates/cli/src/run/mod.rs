//! `forebay run`: a workflow file from one command to its end, server and worker in one process.

mod plan;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use forebay_engine::Ended;
use forebay_server::config::STOP_TIMEOUT;
use forebay_wire::WorkflowStatusResponse;
use forebay_worker::{Access, Client, Options, settle};

use crate::args::{self, RunArgs, RunningArgs};
use crate::create::{self, Source};
use crate::exit::Exit;
use crate::local::Local;
use crate::progress::Progress;
use crate::report::Report;
use crate::table::jobs;
use crate::watch::{self, Watched};
use plan::{Plan, Wish, plan};

pub async fn run(args: &RunArgs, file: &Path) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let workflow = create::load(file)?;
    let source = Source { path: absolute(file)?, hash: workflow.content_hash() };
    // The database's lock first: whoever holds it may own what the journal names.
    let durability = args.durability.clone().resolve()?;
    let local = Local::start(&args.db, durability, None, forebay_server::Options::loopback()).await?;
    let journal = journal_of(&args.db);
    let settled = settle(&journal).context("an earlier worker's jobs cannot be ended")?;
    let killed = settled.iter().filter(|attempt| attempt.was_alive).count();

    let client = Client::new(local.url(), &Access::default())?;
    let progress = Arc::new(Progress::new(&args.display));
    if killed > 0 {
        progress.say(&format!("ended {} that an earlier run had left running", count(killed)));
    }
    let wish = Wish { fresh: args.fresh, retry_failed: args.retry_failed };
    let ran = match plan(&client, &workflow, &source, wish).await {
        Ok(plan) => work(args, &local, &client, &progress, journal, &plan, began).await,
        Err(error) => Err(error),
    };
    progress.finish();
    let ended = local.stop(STOP_TIMEOUT).await;
    let report = match (ran, ended) {
        (ran, Ended::Stopped) => ran?,
        (_, ended) => bail!("the database {}: {ended}", args.db.display()),
    };
    report.print(&args.display)?;
    Ok(report.exit)
}

async fn work(
    args: &RunArgs,
    local: &Local,
    client: &Client,
    progress: &Arc<Progress>,
    journal: PathBuf,
    plan: &Plan,
    began: Instant,
) -> anyhow::Result<Report> {
    let id = plan.workflow_id;
    let status: WorkflowStatusResponse = client.get(&format!("/workflows/{id}/status?times=false")).await?;
    announce(progress, plan, &status);
    let summary = if status.is_complete {
        None
    } else {
        let mut options = worker_options(local.url(), id, &args.running);
        options.journal = Some(journal);
        match watch::worker(options, client, progress, local.stopped()).await? {
            Watched::Ended(summary) => Some(summary),
            Watched::StoreEnded => bail!("the store ended"),
        }
    };
    let mut report = Report::gather(client, id, summary.as_deref(), &args.running.output, began.elapsed()).await?;
    let counts = &report.jobs_by_status;
    if report.exit == Exit::SomeFailed && counts.failed + counts.terminated + counts.canceled > 0 {
        report.why.get_or_insert_with(|| "to run again what did not complete: --retry-failed".to_owned());
    }
    Ok(report)
}

fn announce(progress: &Progress, plan: &Plan, status: &WorkflowStatusResponse) {
    let Plan { workflow_id, goes_on, taken_back, retried } = *plan;
    let name = &status.workflow_name;
    if !goes_on {
        progress.say(&format!("workflow {workflow_id} ({name}): {}", jobs(status.total_jobs)));
        return;
    }
    let done = status.jobs_by_status.completed;
    let mut text = format!("workflow {workflow_id} ({name}) goes on: {done} of {} done", jobs(status.total_jobs));
    if taken_back > 0 {
        text += &format!(", {} run again that were cut short", count(taken_back));
    }
    if retried > 0 {
        text += &format!(", {} run again that did not complete or hang on such", jobs(retried));
    }
    progress.say(&text);
}

/// How a worker is told what the command line says.
pub fn worker_options(url: &str, workflow: i64, args: &RunningArgs) -> Options {
    Options {
        output_folder: args.output.clone(),
        num_cpus: args.num_cpus,
        memory_gb: args.memory_gb,
        num_gpus: args.num_gpus,
        max_parallel_jobs: args.max_parallel_jobs,
        labels: args.labels.clone(),
        on_interrupt: match args.on_interrupt {
            args::OnInterrupt::Wait => forebay_worker::OnInterrupt::Wait,
            args::OnInterrupt::Terminate => forebay_worker::OnInterrupt::Terminate,
        },
        ..Options::new(url, workflow)
    }
}

/// The journal stands beside the database, whose lock also guards it. Were it in the output folder,
/// a run with another `--output` would not end what an earlier one left running.
fn journal_of(db: &Path) -> PathBuf {
    let mut name = OsString::from(db);
    name.push("-worker");
    PathBuf::from(name)
}

/// One file has one name, by whichever way it was given.
fn absolute(file: &Path) -> anyhow::Result<String> {
    let path = file.canonicalize().with_context(|| format!("{} cannot be used", file.display()))?;
    Ok(path.to_string_lossy().into_owned())
}

fn count(number: usize) -> String {
    jobs(i64::try_from(number).unwrap_or(i64::MAX))
}
