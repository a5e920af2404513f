//! What a run begins with: the workflow of its file, made or found, and put in order.

use anyhow::{Context, bail};
use forebay_spec::Workflow;
use forebay_wire::{
    JobModel, JobStatus, ListJobsResponse, ListWorkflowsResponse, ResetJobStatusResponse, WorkflowModel,
    WorkflowStatusResponse,
};
use forebay_worker::Client;

use crate::create::{self, LONG, Source};

/// More than any job has attempts.
const ATTEMPTS_MAX: i64 = i32::MAX as i64;

/// What to do with what an earlier run left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    pub fresh: bool,
    pub retry_failed: bool,
}

/// A workflow that is ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub workflow_id: i64,
    /// The file was run before.
    pub goes_on: bool,
    /// Jobs that an earlier run had begun and not brought to their end; they are ready again.
    pub taken_back: usize,
    /// Jobs that run again on request.
    pub retried: i64,
}

/// Finds the workflow of this file, or makes it.
pub async fn plan(client: &Client, workflow: &Workflow, source: &Source, wish: Wish) -> anyhow::Result<Plan> {
    let mut earlier = whole(client, of_file(client, source).await?).await?;
    // The newest counts. Older ones are there only if a --fresh was killed before it was through.
    let found = earlier.pop();
    for old in earlier {
        create::delete(client, id_of(&old)?).await.context("cannot delete an older run of this file")?;
    }
    let Some(found) = found else { return make(client, workflow, source).await };
    let id = id_of(&found)?;
    if wish.fresh {
        let plan = make(client, workflow, source).await?;
        create::delete(client, id).await.context("cannot delete the earlier run of this file")?;
        return Ok(plan);
    }
    if found.source_hash.as_deref() != Some(&source.hash) {
        bail!(
            "{} has changed since it was run as workflow {id}: \
             --fresh forgets that run and begins anew",
            source.path
        );
    }
    let was_canceled = found.is_canceled == Some(true);
    let taken_back = if was_canceled { 0 } else { take_back(client, id, found.run_id.unwrap_or_default()).await? };
    let retried = if wish.retry_failed { retry_failed(client, id).await? } else { 0 };
    let status: WorkflowStatusResponse = client.get(&format!("/workflows/{id}/status?times=false")).await?;
    if status.jobs_by_status.uninitialized > 0 {
        create::initialize(client, id, true).await?;
    }
    Ok(Plan { workflow_id: id, goes_on: true, taken_back, retried })
}

async fn make(client: &Client, workflow: &Workflow, source: &Source) -> anyhow::Result<Plan> {
    let workflow_id = create::on_server(client, workflow, Some(source)).await?;
    Ok(Plan { workflow_id, goes_on: false, taken_back: 0, retried: 0 })
}

/// The workflows that were made from this file, the oldest first.
async fn of_file(client: &Client, source: &Source) -> anyhow::Result<Vec<WorkflowModel>> {
    let path: String = form_urlencoded::byte_serialize(source.path.as_bytes()).collect();
    let page: ListWorkflowsResponse = client.get(&format!("/workflows?source_path={path}")).await?;
    let mut found = page.items;
    found.retain(|model| model.source_path.as_ref() == Some(&source.path));
    found.sort_by_key(|model| model.id);
    Ok(found)
}

/// Deletes those whose creation was cut short, and returns the others.
async fn whole(client: &Client, found: Vec<WorkflowModel>) -> anyhow::Result<Vec<WorkflowModel>> {
    let (whole, half): (Vec<_>, Vec<_>) = found.into_iter().partition(|model| model.run_id.is_some_and(|run| run > 0));
    for model in half {
        let id = id_of(&model)?;
        create::delete(client, id).await.with_context(|| format!("cannot delete the half-made workflow {id}"))?;
    }
    Ok(whole)
}

/// Makes every job ready again that an earlier run had begun and not brought to its own end: those
/// that it held when it was killed, and those that it terminated when it was interrupted. Each is a
/// new attempt: what is still said of the old one is not accepted. Their processes are gone.
async fn take_back(client: &Client, workflow: i64, run: i64) -> anyhow::Result<usize> {
    let mut taken = 0;
    for status in [JobStatus::Pending, JobStatus::Running, JobStatus::Terminated] {
        loop {
            let path = format!("/jobs?workflow_id={workflow}&status={status}&limit=10000");
            let page: ListJobsResponse = client.get(&path).await?;
            for job in &page.items {
                let id = job.id.context("a job has an id")?;
                let path = format!("/jobs/{id}/retry/{run}?max_retries={ATTEMPTS_MAX}");
                let _: JobModel =
                    client.post_empty(&path).await.with_context(|| format!("cannot take job {id} back"))?;
                taken += 1;
            }
            if page.items.is_empty() {
                break;
            }
        }
    }
    Ok(taken)
}

/// A new run, in which jobs that failed, and all that hangs on them, begin anew.
async fn retry_failed(client: &Client, workflow: i64) -> anyhow::Result<i64> {
    let status: WorkflowStatusResponse = client.get(&format!("/workflows/{workflow}/status?times=false")).await?;
    let counts = &status.jobs_by_status;
    if counts.failed + counts.canceled + counts.terminated + counts.pending_failed == 0 && !status.is_canceled {
        return Ok(0);
    }
    create::begin_run(client, workflow).await?;
    let path = format!("/workflows/{workflow}/reset_job_status?failed_only=true");
    let nothing = serde_json::json!({});
    let reset: ResetJobStatusResponse =
        client.post_and_wait(&path, &nothing, LONG).await.context("cannot reset the failed jobs")?;
    Ok(reset.updated_count)
}

fn id_of(model: &WorkflowModel) -> anyhow::Result<i64> {
    model.id.context("a workflow has an id")
}
