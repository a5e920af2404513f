//! `forebay worker`: runs jobs of a workflow of a server.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use forebay_wire::{ListWorkflowsResponse, WorkflowStatusResponse};
use forebay_worker::{Client, End, Summary, settle_and_give_back};

use crate::args::WorkerArgs;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::report::Report;
use crate::run::worker_options;
use crate::watch::{self, Watched};

pub async fn worker(args: &WorkerArgs) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let access = args.access.resolve()?;
    let client = Client::new(&args.url, &access)?;
    let workflow = match args.workflow {
        Some(id) => id,
        None => newest_unfinished(&client).await?,
    };
    let mut options = worker_options(&args.url, workflow, &args.running);
    options.access = access;
    options.idle_max = args.idle_max;
    options.time_limit = args.time_limit;
    options.lease = Some(args.lease).filter(|lease| !lease.is_zero());
    options.enforce_runtime = args.enforce_runtime;
    settle_and_give_back(&options.journal_path(), &client)
        .await
        .context("what an earlier worker of this folder left running cannot be ended and given back")?;
    let progress = Arc::new(Progress::new(&args.display));
    let watched = watch::worker(options, &client, &progress, std::future::pending()).await;
    progress.finish();
    let Watched::Ended(summary) = watched? else { bail!("the server is gone") };
    if matches!(summary.end, End::Away { .. }) {
        // It cannot be asked for more than the worker knows.
        bail!("{}", away(&summary));
    }
    let mut report = Report::gather(&client, workflow, Some(&summary), &args.running.output, began.elapsed()).await?;
    report.set_exit(exit_of(&summary));
    report.print(&args.display)?;
    Ok(report.exit)
}

/// What failed elsewhere is not this worker's.
fn exit_of(summary: &Summary) -> Exit {
    match &summary.end {
        End::Interrupted => Exit::Interrupted,
        End::NothingFits { .. } | End::Stuck(_) => Exit::CannotGoOn,
        End::Away { .. } | End::Refused { .. } => Exit::Error,
        End::Canceled => Exit::SomeFailed,
        End::Complete | End::Idle | End::TimeLimit if summary.failed + summary.terminated > 0 => Exit::SomeFailed,
        End::Complete | End::Idle | End::TimeLimit => Exit::Done,
    }
}

fn away(summary: &Summary) -> String {
    let why = match &summary.end {
        End::Away { why } => why.as_str(),
        _ => "",
    };
    match summary.unreported.len() {
        0 => format!("the server cannot be reached: {why}"),
        count => format!("the server cannot be reached: {why}; {count} ended attempts could not be reported"),
    }
}

async fn newest_unfinished(client: &Client) -> anyhow::Result<i64> {
    let page: ListWorkflowsResponse = client.get("/workflows?limit=1000&reverse_sort=true&is_archived=false").await?;
    for model in page.items {
        let id = model.id.context("a workflow has an id")?;
        let status: WorkflowStatusResponse = client.get(&format!("/workflows/{id}/status?times=false")).await?;
        if !status.is_complete {
            return Ok(id);
        }
    }
    bail!("no workflow of the server has anything left to do")
}
