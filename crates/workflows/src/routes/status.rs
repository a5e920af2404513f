//! How far a workflow is.

use std::collections::BTreeMap;

use forebay_domain::batch::WorkflowRow;
use forebay_domain::catalog::{Match, Paging, Query, Table, Value};
use forebay_domain::claim::Needs;
use forebay_domain::command::Scope;
use forebay_domain::ids::{LaneId, Timestamp, WorkflowId};
use forebay_domain::lane::LabelSet;
use forebay_domain::port::{JobQuery, JobSort, Read, Reader, Rows, WorkflowRows};
use forebay_domain::state::{JobState, STATE_LIST};
use forebay_wire::{IsCompleteResponse, IsUninitializedResponse, JobStatusCounts, WorkflowStatusResponse};

use crate::fault::Fault;
use crate::http::{self, Call, Reply};
use crate::job::{seconds_of, status_of};
use crate::routes::requirements::lane_needs;
use crate::{Door, Unseen, list, rows};

/// torc's runners start jobs this long beyond their time limit, in seconds.
const STARTUP_GRACE_SECONDS: i64 = 120;

pub(super) async fn is_complete(door: &Door, id: i64) -> Reply {
    let row = hot_row(door, id).await?;
    Ok(http::ok_json(&IsCompleteResponse { is_canceled: row.canceled, is_complete: row.is_complete() }))
}

pub(super) async fn is_uninitialized(door: &Door, id: i64) -> Reply {
    let row = hot_row(door, id).await?;
    let begun = |state: &JobState| !matches!(state, JobState::Draft | JobState::Disabled);
    let is_uninitialized = STATE_LIST.iter().filter(|state| begun(state)).all(|state| row.counts[*state as usize] == 0);
    Ok(http::ok_json(&IsUninitializedResponse { is_uninitialized }))
}

async fn hot_row(door: &Door, id: i64) -> Result<WorkflowRow, Fault> {
    let row = door.look_of(Scope::Workflow(WorkflowId(id)), move |reader| Ok(reader.workflow(WorkflowId(id))?)).await?;
    row.ok_or_else(|| Fault::not_found("Workflow", id))
}

/// Ours: with `times=false` without what takes a look at each result.
pub(super) async fn status(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let now = door.engine().now();
    let times = call.params().get("times")?.unwrap_or(true);
    let status = door.look_of(Scope::Workflow(WorkflowId(id)), move |reader| look(reader, id, now, times)).await?;
    Ok(http::ok_json(&status))
}

fn look(reader: &mut dyn Reader, id: i64, now: Timestamp, times: bool) -> Result<WorkflowStatusResponse, Unseen> {
    let missing = || Fault::not_found("Workflow", id);
    let row = reader.get(Table::Workflow, id)?.ok_or_else(missing)?;
    let (_, Rows::Workflow(found)) = reader.read(&Read::Workflow(WorkflowId(id)))? else {
        unreachable!("a reader answers with the twin of what was asked")
    };
    let found = found.ok_or_else(missing)?;
    let mut counts = JobStatusCounts::default();
    for state in STATE_LIST {
        *counts.of_mut(status_of(state)) += found.row.counts[state as usize];
    }
    let text = |column| rows::text(&row, Table::Workflow, column).unwrap_or_default().to_owned();
    let mut status = WorkflowStatusResponse {
        workflow_id: id,
        workflow_name: text("name"),
        workflow_user: text("user"),
        total_jobs: counts.total(),
        is_complete: found.row.is_complete(),
        is_canceled: found.row.canceled,
        pending_scheduled_nodes: scheduled(reader, id, "pending")?,
        active_scheduled_nodes: scheduled(reader, id, "active")?,
        ..WorkflowStatusResponse::default()
    };
    if times {
        add_times(reader, id, &mut status)?;
    }
    let nodes = active_nodes(reader, id, now)?;
    status.active_compute_nodes = i64::try_from(nodes.len()).unwrap_or(i64::MAX);
    status.max_allocation_remaining_seconds = nodes.iter().filter_map(|node| node.seconds_left).max();
    if counts.ready > 0 {
        add_unserved(reader, id, &found, &nodes, &mut status)?;
    }
    status.jobs_by_status = counts;
    Ok(status)
}

/// Run time of the latest results in sum, and from the first start to the last end.
fn add_times(reader: &mut dyn Reader, id: i64, status: &mut WorkflowStatusResponse) -> Result<(), Unseen> {
    let mut query = Query {
        table: Table::Result,
        filters: vec![(1, Match::Equal(Value::Int(id)))],
        paging: Paging { offset: 0, limit: 50_000, sort_by: None, reverse: false },
    };
    let (mut first, mut last) = (f64::INFINITY, f64::NEG_INFINITY);
    loop {
        let (page, total) = reader.latest_results(&query)?;
        for row in &page {
            let minutes = rows::real(row, Table::Result, "exec_time_minutes");
            status.total_exec_time_minutes += minutes;
            if let Some(end) = rows::text(row, Table::Result, "completion_time").and_then(seconds_of) {
                first = first.min(end - minutes * 60.0);
                last = last.max(end);
            }
        }
        query.paging.offset += query.paging.limit;
        if query.paging.offset >= total {
            break;
        }
    }
    status.walltime_seconds = (first <= last).then_some(last - first);
    Ok(())
}

/// A compute node that may claim.
struct ActiveNode {
    labels: LabelSet,
    /// `None`: it stays.
    seconds_left: Option<i64>,
}

fn active_nodes(reader: &mut dyn Reader, id: i64, now: Timestamp) -> Result<Vec<ActiveNode>, Unseen> {
    let mut nodes = Vec::new();
    list::each_row(reader, Table::Node, id, |row| {
        if rows::int(&row, Table::Node, "is_active") == 0 {
            return;
        }
        let labels = rows::text(&row, Table::Node, "labels");
        let labels: Vec<String> = labels.and_then(|labels| serde_json::from_str(labels).ok()).unwrap_or_default();
        let end = rows::text(&row, Table::Node, "end_time").and_then(seconds_of);
        let seconds_left = end.map(|end| (end - now.0 as f64 / 1000.0).max(0.0) as i64);
        nodes.push(ActiveNode { labels: LabelSet::new(labels.into_iter().map(Into::into)), seconds_left });
    })?;
    Ok(nodes)
}

fn scheduled(reader: &mut dyn Reader, id: i64, status: &str) -> Result<i64, Unseen> {
    let column = Table::ScheduledNode.column("status").expect("scheduled nodes have a status");
    let query = Query {
        table: Table::ScheduledNode,
        filters: vec![(1, Match::Equal(Value::Int(id))), (column, Match::Equal(Value::Text(status.into())))],
        paging: Paging { offset: 0, limit: 0, sort_by: None, reverse: false },
    };
    Ok(count(reader.list(&query)?.1))
}

/// Ready jobs that no active node will take: by their labels, or since they run longer than any stays.
fn add_unserved(
    reader: &mut dyn Reader,
    id: i64,
    found: &WorkflowRows,
    nodes: &[ActiveNode],
    status: &mut WorkflowStatusResponse,
) -> Result<(), Unseen> {
    let ready: Vec<_> = found.lanes.iter().filter(|(_, is_ready)| *is_ready).map(|(lane, _)| lane).collect();
    let mut unserved: BTreeMap<String, Vec<LaneId>> = BTreeMap::new();
    for lane in ready.iter().filter(|lane| !lane.labels.is_empty()) {
        if !nodes.iter().any(|node| node.labels.may_take(&lane.labels)) {
            unserved.entry(lane.labels.iter().collect::<Vec<_>>().join(",")).or_default().push(lane.id);
        }
    }
    for (labels, lanes) in unserved {
        status.unserved_ready_labels.insert(labels, ready_in(reader, id, lanes)?);
    }
    let unlabeled: Vec<&ActiveNode> = nodes.iter().filter(|node| node.labels.is_empty()).collect();
    let longest_left = unlabeled.iter().filter_map(|node| node.seconds_left).max();
    if let Some(left) = longest_left.filter(|_| unlabeled.iter().all(|node| node.seconds_left.is_some())) {
        let unlabeled = |lane: &LaneId| ready.iter().any(|found| found.id == *lane && found.labels.is_empty());
        let needs: Vec<(LaneId, Needs)> = lane_needs(found).into_iter().filter(|(lane, _)| unlabeled(lane)).collect();
        status.longest_ready_runtime_seconds = needs.iter().map(|(_, needs)| needs.runtime_seconds).max();
        let longer = needs.iter().filter(|(_, needs)| needs.runtime_seconds > left + STARTUP_GRACE_SECONDS);
        status.runtime_blocked_ready_jobs = ready_in(reader, id, longer.map(|(lane, _)| *lane).collect())?;
    }
    Ok(())
}

/// How many ready jobs these lanes have.
fn ready_in(reader: &mut dyn Reader, id: i64, lanes: Vec<LaneId>) -> Result<i64, Unseen> {
    if lanes.is_empty() {
        return Ok(0);
    }
    let query = JobQuery {
        workflow: WorkflowId(id),
        state: Some(JobState::Ready),
        name: None,
        command: None,
        node: None,
        upstream: None,
        needs_file: None,
        lanes: Some(lanes),
        offset: 0,
        limit: 0,
        sort: JobSort::Id,
        reverse: false,
    };
    Ok(count(reader.jobs(&query)?.1))
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
