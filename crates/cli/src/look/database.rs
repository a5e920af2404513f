//! A database, read beside whoever serves it.

use std::path::Path;

use forebay_domain::batch::WorkflowRow;
use forebay_domain::catalog::{Match, Paging, Query, Row, Table, Value};
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::port::{JobQuery, JobView, Reader};
use forebay_domain::state::{JobState, STATE_LIST};
use forebay_store_sqlite::SqliteReader;
use forebay_wire::{JobModel, JobStatus, JobStatusCounts, ResultModel, WorkflowModel};
use serde_json::{Map, Value as Json};

use super::{PAGE, Wanted, WorkflowView, view};

pub struct Database {
    reader: SqliteReader,
}

impl Database {
    pub fn open(path: &Path) -> anyhow::Result<Database> {
        Ok(Database { reader: SqliteReader::open(path)? })
    }

    pub fn workflows(&mut self) -> anyhow::Result<Vec<WorkflowView>> {
        let mut views = Vec::new();
        let mut paging = page(0);
        loop {
            let (rows, total) = self.reader.list(&Query { table: Table::Workflow, filters: Vec::new(), paging })?;
            let ids: Vec<WorkflowId> = rows.iter().map(|row| WorkflowId(int(&row[0]))).collect();
            let hot = self.reader.workflows(&ids)?;
            // One that was deleted between the two reads has no hot row any more.
            let both = rows.iter().filter_map(|row| Some((row, hot.iter().find(|hot| hot.id.0 == int(&row[0]))?)));
            views.extend(both.map(|(row, hot)| workflow_view(row, hot)));
            paging.offset += paging.limit;
            if paging.offset >= total {
                return Ok(views);
            }
        }
    }

    pub fn workflow(&mut self, id: i64) -> anyhow::Result<Option<WorkflowView>> {
        let row = self.reader.get(Table::Workflow, id)?;
        let hot = self.reader.workflow(WorkflowId(id))?;
        Ok(row.zip(hot).map(|(row, hot)| workflow_view(&row, &hot)))
    }

    pub fn newest(&mut self) -> anyhow::Result<Option<i64>> {
        let paging = Paging { limit: 1, reverse: true, ..page(0) };
        let (rows, _) = self.reader.list(&Query { table: Table::Workflow, filters: Vec::new(), paging })?;
        Ok(rows.first().map(|row| int(&row[0])))
    }

    pub fn jobs(&mut self, workflow: i64, status: Option<JobStatus>, offset: i64) -> anyhow::Result<Vec<JobModel>> {
        let query = JobQuery {
            state: status.map(state_of),
            ..JobQuery::of(WorkflowId(workflow), offset.unsigned_abs(), PAGE.unsigned_abs())
        };
        let (views, _) = self.reader.jobs(&query)?;
        views.iter().map(job_model).collect()
    }

    pub fn results(&mut self, workflow: i64, wanted: Wanted, offset: i64) -> anyhow::Result<Vec<ResultModel>> {
        let place = Table::Result.column("workflow_id").expect("every result has its workflow");
        let query = Query {
            table: Table::Result,
            filters: vec![(place, Match::Equal(Value::Int(workflow)))],
            paging: page(offset.unsigned_abs()),
        };
        let (rows, _) =
            if wanted.all_attempts { self.reader.list(&query)? } else { self.reader.latest_results(&query)? };
        let mut results = rows.iter().map(result_model).collect::<anyhow::Result<Vec<_>>>()?;
        let mut ids: Vec<JobId> = results.iter().map(|result| JobId(result.job_id)).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut names = self.reader.job_names(&ids)?;
        names.sort_unstable_by_key(|(id, _)| *id);
        for result in &mut results {
            let name = names.binary_search_by_key(&JobId(result.job_id), |(id, _)| *id);
            result.job_name = name.ok().map(|place| names[place].1.to_string());
        }
        Ok(results)
    }
}

fn page(offset: u64) -> Paging {
    Paging { offset, limit: PAGE.unsigned_abs(), sort_by: None, reverse: false }
}

fn workflow_view(row: &Row, hot: &WorkflowRow) -> WorkflowView {
    let text = |column| match column_of(row, Table::Workflow, column) {
        Value::Text(text) => Some(text.to_string()),
        Value::Null | Value::Int(_) | Value::Real(_) => None,
    };
    let model = WorkflowModel {
        id: Some(hot.id.0),
        name: text("name").unwrap_or_default(),
        user: text("user").unwrap_or_default(),
        run_id: Some(hot.run),
        is_canceled: Some(hot.canceled),
        source_path: text("source_path"),
        ..WorkflowModel::default()
    };
    let mut counts = JobStatusCounts::default();
    for state in STATE_LIST {
        *counts.of_mut(status_of(state)) += hot.counts[state as usize];
    }
    view(&model, counts, hot.is_complete())
}

/// What was written once of a job is kept as its model; what changes stands in its hot row.
fn job_model(view: &JobView) -> anyhow::Result<JobModel> {
    let model: JobModel = serde_json::from_slice(&view.payload)?;
    let row = &view.row;
    Ok(JobModel {
        id: Some(row.id.0),
        status: Some(status_of(row.state)),
        attempt_id: Some(row.attempt),
        priority: Some(row.priority),
        compute_node_id: row.node.map(|node| node.0).filter(|_| row.state == JobState::Running),
        origin: (row.attempt > 1).then(|| "retry".to_owned()),
        ..model
    })
}

fn result_model(row: &Row) -> anyhow::Result<ResultModel> {
    let mut fields = Map::new();
    for (column, value) in Table::Result.columns().iter().zip(row) {
        let json = match value {
            Value::Null => continue,
            Value::Int(code) if column.name == "status" => {
                JobStatus::from_code(*code).map_or(Json::Null, |status| Json::from(status.as_str()))
            }
            Value::Int(number) => Json::from(*number),
            Value::Real(number) => Json::from(*number),
            Value::Text(text) => Json::from(&**text),
        };
        fields.insert(column.name.to_owned(), json);
    }
    Ok(serde_json::from_value(Json::Object(fields))?)
}

fn column_of<'a>(row: &'a Row, table: Table, column: &str) -> &'a Value {
    &row[table.column(column).expect("only columns of the table are asked for")]
}

fn int(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        Value::Null | Value::Real(_) | Value::Text(_) => 0,
    }
}

/// torc's word for a state, as the workflows door has it.
fn status_of(state: JobState) -> JobStatus {
    match state {
        JobState::Draft => JobStatus::Uninitialized,
        JobState::Blocked | JobState::Scheduled => JobStatus::Blocked,
        JobState::Ready => JobStatus::Ready,
        JobState::Claimed => JobStatus::Pending,
        JobState::Running => JobStatus::Running,
        JobState::Completed => JobStatus::Completed,
        JobState::Failed => JobStatus::Failed,
        JobState::Canceled => JobStatus::Canceled,
        JobState::Terminated => JobStatus::Terminated,
        JobState::Disabled => JobStatus::Disabled,
        JobState::PendingFailed => JobStatus::PendingFailed,
    }
}

fn state_of(status: JobStatus) -> JobState {
    let known = STATE_LIST.into_iter().find(|state| status_of(*state) == status);
    known.expect("every status is the word for some state")
}
