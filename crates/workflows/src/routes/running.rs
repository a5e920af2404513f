//! Which jobs run where.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use forebay_domain::catalog::{Match, Paging, Query, Row, Table, Value};
use forebay_domain::command::Scope;
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::port::{JobQuery, Reader};
use forebay_domain::state::JobState;
use forebay_wire::{RunningJobModel, SlurmJobCorrelationModel};
use serde_json::Value as Json;

use crate::http::{self, Call, Reply};
use crate::list::{self, Envelope, Part};
use crate::routes::catalog::exists;
use crate::{Door, Unseen, rows};

/// Results that are looked at in one go.
const STEP: u64 = 10_000;

pub(super) async fn jobs(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let part = Part::of(&call.params())?;
    door.look_of(Scope::Workflow(WorkflowId(workflow)), move |reader| {
        exists(reader, workflow)?;
        let (views, total) = reader.jobs(&JobQuery {
            state: Some(JobState::Running),
            ..JobQuery::of(WorkflowId(workflow), part.offset, part.limit)
        })?;
        let mut nodes: HashMap<i64, Option<Row>> = HashMap::new();
        let mut envelope = Envelope::new();
        for view in views {
            let id = view.row.node.map_or(0, |node| node.0);
            let node = match nodes.entry(id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(reader.get(Table::Node, id)?),
            };
            // A node that was deleted has left no name.
            let Some(node) = node else { continue };
            let text = |column| rows::text(node, Table::Node, column).unwrap_or_default().to_owned();
            let model = RunningJobModel {
                job_id: view.row.id.0,
                job_name: view.name.into(),
                compute_node_name: text("hostname"),
                scheduler_type: text("compute_node_type"),
                scheduler_job_id: scheduler_job(reader, node)?.map(|id| id.to_string()),
                start_time: view.row.started_at.map(|at| at.rfc3339().into()),
            };
            envelope.item(|out| out.append(&mut http::to_json(&model)));
        }
        Ok(envelope.close(part, total))
    })
    .await
}

/// The scheduled node that a compute node is, if it is one.
fn scheduled(node: &Row) -> Option<i64> {
    let scheduler: Json = serde_json::from_str(rows::text(node, Table::Node, "scheduler")?).ok()?;
    scheduler.get("scheduler_id")?.as_i64()
}

/// The scheduler's own number of the job that a compute node runs in.
fn scheduler_job(reader: &mut dyn Reader, node: &Row) -> Result<Option<i64>, Unseen> {
    let Some(id) = scheduled(node) else { return Ok(None) };
    let row = reader.get(Table::ScheduledNode, id)?;
    Ok(row.map(|row| rows::int(&row, Table::ScheduledNode, "scheduler_id")))
}

/// Which jobs ran in which of Slurm's.
pub(super) async fn in_slurm(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let part = Part::of(&call.params())?;
    door.look_of(Scope::Workflow(WorkflowId(workflow)), move |reader| {
        exists(reader, workflow)?;
        let mut nodes = Vec::new();
        list::each_row(reader, Table::Node, workflow, |row| {
            if rows::text(&row, Table::Node, "compute_node_type") == Some("slurm") {
                nodes.push(row);
            }
        })?;
        let mut found: BTreeMap<String, BTreeSet<JobId>> = BTreeMap::new();
        for node in &nodes {
            if let Some(slurm) = scheduler_job(reader, node)? {
                let jobs = ran_on(reader, workflow, rows::int(node, Table::Node, "id"))?;
                found.entry(slurm.to_string()).or_default().extend(jobs);
            }
        }
        let pairs: Vec<(&String, JobId)> =
            found.iter().flat_map(|(slurm, jobs)| jobs.iter().map(move |job| (slurm, *job))).collect();
        let page = &pairs[part.range(pairs.len())];
        let ids: BTreeSet<JobId> = page.iter().map(|(_, job)| *job).collect();
        let names: HashMap<JobId, Box<str>> = reader.job_names(&Vec::from_iter(ids))?.into_iter().collect();
        let mut envelope = Envelope::new();
        for (slurm, job) in page {
            let name = names.get(job).map(ToString::to_string).unwrap_or_default();
            let model = SlurmJobCorrelationModel { slurm_job_id: (*slurm).clone(), job_id: job.0, job_name: name };
            envelope.item(|out| out.append(&mut http::to_json(&model)));
        }
        Ok(envelope.close(part, pairs.len() as u64))
    })
    .await
}

fn ran_on(reader: &mut dyn Reader, workflow: i64, node: i64) -> Result<BTreeSet<JobId>, Unseen> {
    let column = Table::Result.column("compute_node_id").expect("results name their node");
    let mut query = Query {
        table: Table::Result,
        filters: vec![(1, Match::Equal(Value::Int(workflow))), (column, Match::Equal(Value::Int(node)))],
        paging: Paging { offset: 0, limit: STEP, sort_by: None, reverse: false },
    };
    let mut jobs = BTreeSet::new();
    loop {
        let (page, total) = reader.list(&query)?;
        jobs.extend(page.iter().map(|row| JobId(rows::int(row, Table::Result, "job_id"))));
        query.paging.offset += STEP;
        if query.paging.offset >= total {
            return Ok(jobs);
        }
    }
}
