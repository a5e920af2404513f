//! `status`, `jobs`, `results`: what is in a database, read beside whoever serves it, or on a
//! server. Both say it in torc's types.

mod database;
mod server;

use std::io::{self, Write};

use anyhow::{Context, bail};
use forebay_wire::{JobModel, JobStatus, JobStatusCounts, ResultModel, WorkflowModel};
use serde::Serialize;

use crate::args::{JobsArgs, PlaceArgs, ResultsArgs, StatusArgs};
use crate::exit::Exit;
use crate::table::{Table, count_word};
use database::Database;
use server::Server;

/// Rows that are read at a time.
const PAGE: i64 = 10_000;

/// A workflow and how far it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorkflowView {
    pub id: i64,
    pub name: String,
    pub user: String,
    pub run_id: i64,
    pub is_complete: bool,
    pub is_canceled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_path: Option<String>,
    pub total_jobs: i64,
    pub jobs_by_status: JobStatusCounts,
}

/// Which results are wanted.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    failed: bool,
    all_attempts: bool,
}

/// Where to look.
enum Place {
    Database(Database),
    Server(Box<Server>),
}

impl Place {
    fn open(args: &PlaceArgs) -> anyhow::Result<Place> {
        match &args.url {
            Some(url) => Ok(Place::Server(Box::new(Server::at(url, &args.access.resolve()?)?))),
            None => Ok(Place::Database(Database::open(&args.db)?)),
        }
    }

    /// All workflows, the oldest first.
    async fn workflows(&mut self) -> anyhow::Result<Vec<WorkflowView>> {
        match self {
            Place::Database(database) => database.workflows(),
            Place::Server(server) => server.workflows().await,
        }
    }

    async fn workflow(&mut self, id: i64) -> anyhow::Result<WorkflowView> {
        let found = match self {
            Place::Database(database) => database.workflow(id)?,
            Place::Server(server) => server.workflow(id).await?,
        };
        found.with_context(|| format!("there is no workflow {id}"))
    }

    async fn newest(&mut self) -> anyhow::Result<Option<i64>> {
        match self {
            Place::Database(database) => database.newest(),
            Place::Server(server) => server.newest().await,
        }
    }

    /// The workflow that is meant: the one that is named, else the newest.
    async fn meant(&mut self, named: Option<i64>) -> anyhow::Result<i64> {
        match named {
            Some(id) => Ok(self.workflow(id).await?.id),
            None => match self.newest().await? {
                Some(id) => Ok(id),
                None => bail!("there is no workflow yet"),
            },
        }
    }

    async fn jobs(&mut self, workflow: i64, status: Option<JobStatus>, offset: i64) -> anyhow::Result<Vec<JobModel>> {
        match self {
            Place::Database(database) => database.jobs(workflow, status, offset),
            Place::Server(server) => server.jobs(workflow, status, offset).await,
        }
    }

    async fn results(&mut self, workflow: i64, wanted: Wanted, offset: i64) -> anyhow::Result<Vec<ResultModel>> {
        match self {
            Place::Database(database) => database.results(workflow, wanted, offset),
            Place::Server(server) => server.results(workflow, wanted, offset).await,
        }
    }
}

pub async fn status(args: &StatusArgs) -> anyhow::Result<Exit> {
    let mut place = Place::open(&args.place)?;
    let views = match args.workflow {
        Some(id) => vec![place.workflow(id).await?],
        None => place.workflows().await?,
    };
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &views)?;
        writeln!(out)?;
        return Ok(Exit::Done);
    }
    if views.is_empty() {
        writeln!(out, "there is no workflow yet")?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["id", "name", "user", "run", "state", "jobs", "by state"]);
    for view in &views {
        let by_state = counts(&view.jobs_by_status);
        table.row([
            view.id.to_string(),
            view.name.clone(),
            view.user.clone(),
            view.run_id.to_string(),
            state(view).to_owned(),
            view.total_jobs.to_string(),
            by_state,
        ]);
    }
    table.write(&mut out)?;
    Ok(Exit::Done)
}

pub async fn jobs(args: &JobsArgs) -> anyhow::Result<Exit> {
    let mut place = Place::open(&args.place)?;
    let workflow = place.meant(args.workflow).await?;
    let mut jobs = Vec::new();
    loop {
        let page = place.jobs(workflow, args.status, offset(&jobs)).await?;
        let last = offset(&page) < PAGE;
        jobs.extend(page);
        if last {
            break;
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &jobs)?;
        writeln!(out)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["id", "name", "state", "attempt", "priority", "command"]);
    for job in &jobs {
        table.row([
            number(job.id),
            job.name.clone(),
            job.status.map(|status| status.to_string()).unwrap_or_default(),
            number(job.attempt_id),
            number(job.priority),
            job.command.clone(),
        ]);
    }
    table.write(&mut out)?;
    Ok(Exit::Done)
}

pub async fn results(args: &ResultsArgs) -> anyhow::Result<Exit> {
    let mut place = Place::open(&args.place)?;
    let workflow = place.meant(args.workflow).await?;
    let wanted = Wanted { failed: args.failed, all_attempts: args.all_attempts };
    let mut results = Vec::new();
    let mut seen = 0;
    loop {
        let page = place.results(workflow, wanted, seen).await?;
        seen += PAGE;
        let last = offset(&page) < PAGE;
        results.extend(page.into_iter().filter(|result| !wanted.failed || result.status != JobStatus::Completed));
        if last {
            break;
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &results)?;
        writeln!(out)?;
        return Ok(Exit::Done);
    }
    let mut table = Table::new(["job", "name", "run", "attempt", "state", "code", "seconds", "peak memory"]);
    for result in &results {
        table.row([
            result.job_id.to_string(),
            result.job_name.clone().unwrap_or_default(),
            result.run_id.to_string(),
            number(result.attempt_id),
            result.status.to_string(),
            result.return_code.to_string(),
            format!("{:.2}", result.exec_time_minutes * 60.0),
            result.peak_memory_bytes.map(memory).unwrap_or_default(),
        ]);
    }
    table.write(&mut out)?;
    Ok(Exit::Done)
}

/// One word for where a workflow is.
fn state(view: &WorkflowView) -> &'static str {
    let counts = &view.jobs_by_status;
    if view.is_canceled {
        "canceled"
    } else if view.is_complete {
        if counts.completed + counts.disabled == view.total_jobs { "completed" } else { "ended" }
    } else if counts.running + counts.pending > 0 {
        "running"
    } else {
        "unfinished"
    }
}

/// `3 completed, 1 failed`: the states that any job is in.
pub fn counts(counts: &JobStatusCounts) -> String {
    let some = JobStatus::ALL.into_iter().filter(|status| counts.of(*status) > 0);
    let words: Vec<String> = some.map(|status| count_word(counts.of(status), status.as_str())).collect();
    words.join(", ")
}

fn view(model: &WorkflowModel, jobs_by_status: JobStatusCounts, is_complete: bool) -> WorkflowView {
    WorkflowView {
        id: model.id.unwrap_or_default(),
        name: model.name.clone(),
        user: model.user.clone(),
        run_id: model.run_id.unwrap_or_default(),
        is_complete,
        is_canceled: model.is_canceled.unwrap_or_default(),
        source_path: model.source_path.clone(),
        total_jobs: jobs_by_status.total(),
        jobs_by_status,
    }
}

fn number(number: Option<i64>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

fn offset<T>(items: &[T]) -> i64 {
    i64::try_from(items.len()).expect("what is in memory can be counted")
}

/// Bytes for people: `1.5 GiB`.
pub fn memory(bytes: i64) -> String {
    let units = [(1_i64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_states_that_any_job_is_in_are_counted_out() {
        let some = JobStatusCounts { completed: 3, failed: 1, ..JobStatusCounts::default() };
        assert_eq!(counts(&some), "3 completed, 1 failed");
        assert_eq!(counts(&JobStatusCounts::default()), "");
    }

    #[test]
    fn memory_is_told_in_its_largest_unit() {
        assert_eq!(memory(12), "12 B");
        assert_eq!(memory(3 << 19), "1.5 MiB");
        assert_eq!(memory(5 << 30), "5.0 GiB");
    }
}
