//! What a workflow's jobs refer to and who runs them: files, user data, compute nodes, failure
//! handlers, events. A table is a [`Resource`]; what it has beyond that follows below.

use std::collections::HashSet;

use forebay_domain::catalog::{Match, Row, Statement, StatementOutcome, Table, Value};
use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::WorkflowId;
use forebay_domain::job::RelationKind;
use forebay_domain::port::Reader;
use forebay_wire::{
    ComputeNodeModel, EventModel, FailureHandlerModel, FileModel, FilesModel, RECORDS_MAX, UserDataListModel,
    UserDataModel, check_label,
};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::events::Severity;
use crate::fault::Fault;
use crate::http::{self, Call, Params, Reply};
use crate::job::labels_of;
use crate::list::{self, Part, rows_page};
use crate::routes::{changed, unexpected};
use crate::{Door, Unseen, rows};

/// A table as its routes see it.
pub(super) struct Resource {
    pub table: Table,
    /// In torc's texts.
    pub noun: &'static str,
    /// Filters that ask for a part of the text.
    pub contains: &'static [&'static str],
}

pub(super) const FILES: Resource = Resource { table: Table::File, noun: "File", contains: &["path"] };
pub(super) const USER_DATA: Resource = Resource { table: Table::UserData, noun: "User data", contains: &["name"] };
pub(super) const NODES: Resource = Resource { table: Table::Node, noun: "Compute node", contains: &["hostname"] };
pub(super) const EVENTS: Resource = Resource { table: Table::Event, noun: "Event", contains: &[] };
pub(super) const HANDLERS: Resource = Resource { table: Table::Handler, noun: "Failure handler", contains: &[] };

pub(super) async fn get(door: &Door, resource: &'static Resource, id: i64) -> Reply {
    let row = existing(door, resource, id).await?;
    Ok(one(resource.table, &row))
}

/// The row of this id.
pub(super) async fn existing(door: &Door, resource: &'static Resource, id: i64) -> Result<Row, Fault> {
    door.look(move |reader| {
        let row = reader.get(resource.table, id)?;
        Ok(row.ok_or_else(|| Fault::not_found(resource.noun, id))?)
    })
    .await
}

pub(super) fn one(table: Table, row: &Row) -> hyper::Response<http::Body> {
    let mut out = Vec::with_capacity(256);
    rows::write(&mut out, table, row);
    http::ok(out)
}

/// A workflow's rows. Every column that may be filtered by is a parameter; `keep` is a condition
/// that the store does not know.
pub(super) async fn list(
    door: &Door,
    resource: &'static Resource,
    workflow: i64,
    params: &Params<'_>,
    keep: Option<Keep>,
) -> Reply {
    let part = Part::of(params)?;
    let query = list::query(resource.table, Some(workflow), params, resource.contains, part)?;
    door.look(move |reader| {
        exists(reader, workflow)?;
        let (page, total) = match keep {
            None => reader.list(&query)?,
            Some(keep) => {
                let keep = keep(reader)?;
                list::filtered(reader, &query, |_, rows| Ok(rows.iter().map(&keep).collect()))?
            }
        };
        Ok(rows_page(resource.table, &page, part, total))
    })
    .await
}

/// Makes, with a reader, a condition on rows.
pub(super) type Keep = Box<dyn FnOnce(&mut dyn Reader) -> Result<Condition, Unseen> + Send>;
type Condition = Box<dyn Fn(&Row) -> bool>;

pub(super) fn exists(reader: &mut dyn Reader, workflow: i64) -> Result<(), Unseen> {
    match reader.workflow(WorkflowId(workflow))? {
        Some(_) => Ok(()),
        None => Err(Fault::not_found("Workflow", workflow).into()),
    }
}

/// Inserts the rows of these models; the first one's id, the others follow it.
pub(super) async fn insert(door: &Door, table: Table, workflow: i64, models: &[impl Serialize]) -> Result<i64, Fault> {
    let rows = models.iter().map(|model| rows::to_row(table, model)).collect::<Result<Vec<Row>, Fault>>()?;
    match door.engine().call(Command::Insert { table, workflow: WorkflowId(workflow), rows }).await? {
        Answer::Created(first) => Ok(first),
        Answer::Outcome(StatementOutcome::Refused(why)) => Err(Fault::unprocessable(why)),
        other => unexpected(&other),
    }
}

/// Sets these columns of a row.
pub(super) async fn set(door: &Door, resource: &'static Resource, id: i64, set: Vec<(usize, Value)>) -> Reply {
    if set.is_empty() {
        return get(door, resource, id).await;
    }
    apply(door, resource, id, Statement::Update { table: resource.table, id, only_if: Vec::new(), set }).await
}

pub(super) async fn delete(door: &Door, resource: &'static Resource, id: i64) -> Reply {
    apply(door, resource, id, Statement::Delete { table: resource.table, id }).await
}

async fn apply(door: &Door, resource: &'static Resource, id: i64, statement: Statement) -> Reply {
    match door.engine().call(Command::Apply(statement)).await? {
        Answer::Outcome(StatementOutcome::Row(Some(row))) => Ok(one(resource.table, &row)),
        Answer::Outcome(StatementOutcome::Row(None)) => Err(Fault::not_found(resource.noun, id)),
        Answer::Outcome(StatementOutcome::Refused(why)) => Err(Fault::unprocessable(why)),
        other => unexpected(&other),
    }
}

/// Deletes a workflow's rows. torc answers `count` or `deleted_count` by table: here it is both.
pub(super) async fn delete_all(door: &Door, resource: &'static Resource, call: &Call<'_>) -> Reply {
    let workflow: i64 = call.params().required("workflow_id")?;
    door.look(move |reader| exists(reader, workflow)).await?;
    let statement = Statement::DeleteAll { table: resource.table, workflow: WorkflowId(workflow) };
    match door.engine().call(Command::Apply(statement)).await? {
        Answer::Outcome(StatementOutcome::Count(count)) => Ok(deleted(count)),
        Answer::Outcome(StatementOutcome::Refused(why)) => Err(Fault::unprocessable(why)),
        other => unexpected(&other),
    }
}

pub(super) fn deleted(count: u64) -> hyper::Response<http::Body> {
    http::ok_json(&json!({"count": count, "deleted_count": count}))
}

/// Checks the workflows, number and names of a bulk request; the workflow of all.
fn check_bulk<'a>(
    kind: &str,
    array: &str,
    entries: impl ExactSizeIterator<Item = (i64, &'a str)> + Clone,
) -> Result<i64, Fault> {
    let Some((workflow, _)) = entries.clone().next() else {
        return Err(Fault::unprocessable(format!("Bulk {kind} creation requires a non-empty `{array}` array")));
    };
    if let Some((other, _)) = entries.clone().find(|(id, _)| *id != workflow) {
        return Err(Fault::unprocessable(format!(
            "All {array} in a batch must have the same workflow_id. Found workflow_ids: {workflow} and {other}"
        )));
    }
    let count = entries.len();
    if count as u64 > RECORDS_MAX as u64 {
        let what = if kind == "user_data" { "user_data entries" } else { array };
        return Err(Fault::unprocessable(format!("Too many {what} in batch: {count}. Maximum is {RECORDS_MAX}")));
    }
    let mut names = HashSet::with_capacity(count);
    for (_, name) in entries {
        if !names.insert(name) {
            return Err(Fault::unprocessable(format!("Duplicate {kind} name '{name}' in bulk create request")));
        }
    }
    Ok(workflow)
}

pub(super) async fn create_file(door: &Door, call: &Call<'_>) -> Reply {
    let mut file: FileModel = call.json()?;
    file.id = Some(insert(door, Table::File, file.workflow_id, std::slice::from_ref(&file)).await?);
    Ok(http::ok_json(&file))
}

pub(super) async fn create_files(door: &Door, call: &Call<'_>) -> Reply {
    let mut body: FilesModel = call.json()?;
    let workflow = check_bulk("file", "files", body.files.iter().map(|file| (file.workflow_id, file.name.as_str())))?;
    let first = insert(door, Table::File, workflow, &body.files).await?;
    for (id, file) in (first..).zip(&mut body.files) {
        file.id = Some(id);
    }
    Ok(http::ok_json(&body))
}

/// A missing `st_mtime` is cleared, unlike what else is missing.
pub(super) async fn update_file(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let file: FileModel = call.json()?;
    let mut changes = rows::changes(Table::File, &file)?;
    if file.st_mtime.is_none() {
        changes.push((Table::File.column("st_mtime").expect("files have a time"), Value::Null));
    }
    set(door, &FILES, id, changes).await
}

pub(super) async fn list_files(door: &Door, call: &Call<'_>) -> Reply {
    let params = call.params();
    let workflow: i64 = params.required("workflow_id")?;
    let producer: Option<i64> = params.get("produced_by_job_id")?;
    let is_output = params.flag("is_output")?;
    let related = move |kind, job: i64| kind == RelationKind::OutputFile && producer.is_none_or(|id| id == job);
    let keep = (is_output || producer.is_some()).then(|| related_to(workflow, related));
    list(door, &FILES, workflow, &params, keep).await
}

/// Rows that a job of the workflow is tied to in a wanted way.
fn related_to(workflow: i64, wanted: impl Fn(RelationKind, i64) -> bool + Send + 'static) -> Keep {
    Box::new(move |reader| {
        let relations = reader.relations(WorkflowId(workflow))?;
        let wanted = relations.into_iter().filter(|(job, kind, _)| wanted(*kind, job.0));
        let ids: HashSet<i64> = wanted.map(|(_, _, id)| id).collect();
        let condition: Condition = Box::new(move |row| matches!(row[0], Value::Int(id) if ids.contains(&id)));
        Ok(condition)
    })
}

pub(super) async fn create_user_data(door: &Door, call: &Call<'_>) -> Reply {
    let mut data: UserDataModel = call.json()?;
    let params = call.params();
    if params.text("consumer_job_id").is_some() || params.text("producer_job_id").is_some() {
        return Err(Fault::unprocessable(
            "a job's user data is named when the job is created, by input_user_data_ids and output_user_data_ids",
        ));
    }
    complete_user_data(&mut data);
    data.id = Some(insert(door, Table::UserData, data.workflow_id, std::slice::from_ref(&data)).await?);
    Ok(http::ok_json(&data))
}

pub(super) async fn create_user_data_list(door: &Door, call: &Call<'_>) -> Reply {
    let mut body: UserDataListModel = call.json()?;
    let entries = body.user_data.iter().map(|data| (data.workflow_id, data.name.as_str()));
    let workflow = check_bulk("user_data", "user_data", entries)?;
    body.user_data.iter_mut().for_each(complete_user_data);
    let first = insert(door, Table::UserData, workflow, &body.user_data).await?;
    for (id, data) in (first..).zip(&mut body.user_data) {
        data.id = Some(id);
    }
    Ok(http::ok_json(&body))
}

/// Without a flag it stays; JSON's null is no data.
fn complete_user_data(data: &mut UserDataModel) {
    data.is_ephemeral.get_or_insert(false);
    data.data.take_if(|data| data.is_null());
}

pub(super) async fn update_user_data(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let mut data: UserDataModel = call.json()?;
    data.data.take_if(|data| data.is_null());
    let mut set_columns = rows::changes(Table::UserData, &data)?;
    changed::remember(&existing(door, &USER_DATA, id).await?, &mut set_columns);
    set(door, &USER_DATA, id, set_columns).await
}

pub(super) async fn list_user_data(door: &Door, call: &Call<'_>) -> Reply {
    let params = call.params();
    let workflow: i64 = params.required("workflow_id")?;
    let consumer: Option<i64> = params.get("consumer_job_id")?;
    let producer: Option<i64> = params.get("producer_job_id")?;
    let keep: Option<Keep> = match (consumer, producer) {
        (None, None) => None,
        (consumer, producer) => Some(Box::new(move |reader| {
            let tied = |kind, wanted: Option<i64>| {
                wanted.map(|id| related_to(workflow, move |found, job| found == kind && job == id))
            };
            let conditions =
                [tied(RelationKind::InputUserData, consumer), tied(RelationKind::OutputUserData, producer)];
            let mut all = Vec::new();
            for keep in conditions.into_iter().flatten() {
                all.push(keep(reader)?);
            }
            let condition: Condition = Box::new(move |row| all.iter().all(|condition| condition(row)));
            Ok(condition)
        })),
    };
    list(door, &USER_DATA, workflow, &params, keep).await
}

pub(super) async fn create_node(door: &Door, call: &Call<'_>) -> Reply {
    let mut node: ComputeNodeModel = call.json()?;
    for label in node.labels.iter().flatten() {
        check_label(label).map_err(|bad| Fault::unprocessable(bad.to_string()))?;
    }
    let labels = labels_of(node.labels.as_deref());
    node.labels = (!labels.is_empty()).then(|| labels.iter().map(str::to_owned).collect());
    node.id = Some(insert(door, Table::Node, node.workflow_id, std::slice::from_ref(&node)).await?);
    let said = json!({
        "compute_node_id": node.id,
        "hostname": node.hostname,
        "pid": node.pid,
        "num_cpus": node.num_cpus,
        "memory_gb": node.memory_gb,
        "num_gpus": node.num_gpus,
        "compute_node_type": node.compute_node_type,
    });
    door.hub().tell(door.engine().now(), node.workflow_id, "compute_node_started", Severity::Info, said);
    Ok(http::ok_json(&node))
}

pub(super) async fn update_node(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    // Labels are those that it registered with.
    let node = ComputeNodeModel { labels: None, ..call.json()? };
    let updated = set(door, &NODES, id, rows::changes(Table::Node, &node)?).await?;
    if node.is_active == Some(false) {
        let said = json!({
            "compute_node_id": id,
            "hostname": node.hostname,
            "pid": node.pid,
            "duration_seconds": node.duration_seconds,
            "compute_node_type": node.compute_node_type,
        });
        door.hub().tell(door.engine().now(), node.workflow_id, "compute_node_stopped", Severity::Info, said);
    }
    Ok(updated)
}

pub(super) async fn list_nodes(door: &Door, call: &Call<'_>) -> Reply {
    let params = call.params();
    let workflow: i64 = params.required("workflow_id")?;
    let scheduled: Option<i64> = params.get("scheduled_compute_node_id")?;
    let keep = scheduled.map(|id| document(Table::Node, "scheduler", "scheduler_id", json!(id)));
    list(door, &NODES, workflow, &params, keep).await
}

/// Rows whose document has this in a field.
fn document(table: Table, column: &'static str, field: &'static str, wanted: Json) -> Keep {
    Box::new(move |_| {
        let condition: Condition = Box::new(move |row| {
            let document = rows::text(row, table, column).and_then(|text| serde_json::from_str::<Json>(text).ok());
            document.is_some_and(|document| document.get(field) == Some(&wanted))
        });
        Ok(condition)
    })
}

pub(super) async fn create_handler(door: &Door, call: &Call<'_>) -> Reply {
    let mut handler: FailureHandlerModel = call.json()?;
    handler.id = Some(insert(door, Table::Handler, handler.workflow_id, std::slice::from_ref(&handler)).await?);
    Ok(http::ok_json(&handler))
}

pub(super) async fn list_handlers(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    list(door, &HANDLERS, workflow, &call.params(), None).await
}

/// Its time is the server's.
pub(super) async fn create_event(door: &Door, call: &Call<'_>) -> Reply {
    let mut event: EventModel = call.json()?;
    event.timestamp = door.engine().now().0;
    event.id = Some(insert(door, Table::Event, event.workflow_id, std::slice::from_ref(&event)).await?);
    Ok(http::ok_json(&event))
}

/// The body is the event's new data.
pub(super) async fn update_event(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let data: Json = call.json()?;
    let place = Table::Event.column("data").expect("events have data");
    set(door, &EVENTS, id, vec![(place, Value::Text(data.to_string().into()))]).await
}

pub(super) async fn list_events(door: &Door, call: &Call<'_>) -> Reply {
    let params = call.params();
    let workflow: i64 = params.required("workflow_id")?;
    let part = Part::of(&params)?;
    let category = params.text("category").map(|category| json!(category));
    let after: Option<i64> = params.get("after_timestamp")?;
    let mut query = list::query(Table::Event, Some(workflow), &params, EVENTS.contains, part)?;
    if let Some(after) = after {
        let place = Table::Event.column("timestamp").expect("events have a time");
        query.filters.push((place, Match::Above(Value::Int(after))));
    }
    door.look(move |reader| {
        exists(reader, workflow)?;
        let (page, total) = match category {
            None => reader.list(&query)?,
            Some(category) => {
                let keep = document(Table::Event, "data", "category", category)(reader)?;
                list::filtered(reader, &query, |_, rows| Ok(rows.iter().map(&keep).collect()))?
            }
        };
        Ok(rows_page(Table::Event, &page, part, total))
    })
    .await
}
