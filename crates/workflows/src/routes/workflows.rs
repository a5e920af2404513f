//! Workflows: created, changed, run anew.

use std::time::Duration;

use forebay_domain::batch::WorkflowRow;
use forebay_domain::catalog::{Match, Row, Statement, StatementOutcome, Table, Value};
use forebay_domain::command::{Answer, Command, NewWorkflow, Scope};
use forebay_domain::ids::WorkflowId;
use forebay_domain::port::Reader;
use forebay_wire::{
    ActiveTaskResponse, ArchiveWorkflowRequest, EventModel, JobStatus, MessageResponse, ResetJobStatusResponse,
    ResourceRequirementsModel, TaskModel, WorkflowModel,
};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value as Json, json};

use crate::events::{Severity, stream};
use crate::fault::Fault;
use crate::http::{self, Body, Call, Reply};
use crate::job::rfc3339_z;
use crate::list::{self, Envelope, Part};
use crate::routes::catalog::exists;
use crate::routes::jobs::check_env;
use crate::routes::requirements::{DEFAULT, needs_of};
use crate::routes::{actions, changed, unexpected};
use crate::rows::{self, write_int};
use crate::tasks::{self, Begun};
use crate::{Door, Unseen};

/// Fields of torc's update; all others of the model are fixed at the creation or change otherwise.
const UPDATED: [&str; 14] = [
    "name",
    "description",
    "user",
    "compute_node_expiration_buffer_seconds",
    "compute_node_wait_for_new_jobs_seconds",
    "compute_node_ignore_workflow_completion",
    "compute_node_wait_for_healthy_database_minutes",
    "use_pending_failed",
    "enable_ro_crate",
    "project",
    "metadata",
    "execution_config",
    // Ours.
    "source_path",
    "source_hash",
];

/// The id is the server's, and so are the fields that say how the workflow goes.
pub(super) async fn create(door: &Door, call: &Call<'_>) -> Reply {
    let mut model: WorkflowModel = call.json()?;
    check_env(model.env.as_ref(), "workflow env")?;
    if let Some(most) = model.dynamic_jobs.as_ref().and_then(|config| config.max_iterations).filter(|most| *most < 1) {
        return Err(Fault::unprocessable(format!(
            "dynamic_jobs.max_iterations must be >= 1 (got {most}); omit the field to use the server default"
        )));
    }
    if let Some(group) = model.access_groups.iter().flatten().next() {
        return Err(Fault::unprocessable(format!(
            "Unknown access group '{group}': create the group before referencing it"
        )));
    }
    model.access_groups = None;
    if let Some(user) = call.user {
        model.user = user.name().to_owned();
    }
    model.env.take_if(|env| env.is_empty());
    model.timestamp = Some(rfc3339_z(door.engine().now()));
    model.compute_node_wait_for_new_jobs_seconds.get_or_insert(90);
    model.compute_node_ignore_workflow_completion.get_or_insert(false);
    model.compute_node_wait_for_healthy_database_minutes.get_or_insert(20);
    model.compute_node_min_time_for_new_jobs_seconds.get_or_insert(300);
    model.id = None;
    let requirement = default_requirement();
    let command = Command::CreateWorkflow(Box::new(NewWorkflow {
        row: rows::to_row(Table::Workflow, &model)?,
        needs: needs_of(&requirement)?,
        default_requirement: rows::to_row(Table::Requirement, &requirement)?,
    }));
    match door.engine().call(command).await? {
        Answer::Created(id) => get(door, id).await,
        other => unexpected(&other),
    }
}

fn default_requirement() -> ResourceRequirementsModel {
    ResourceRequirementsModel {
        id: None,
        workflow_id: 0,
        name: DEFAULT.to_owned(),
        num_cpus: 1,
        num_gpus: 0,
        num_nodes: 1,
        memory: "1m".to_owned(),
        runtime: "P0DT1M".to_owned(),
    }
}

pub(super) async fn get(door: &Door, id: i64) -> Reply {
    let (row, hot) = look_at(door, id).await?;
    Ok(one(&row, &hot))
}

async fn look_at(door: &Door, id: i64) -> Result<(Row, WorkflowRow), Fault> {
    door.look(move |reader| {
        let missing = || Fault::not_found("Workflow", id);
        let hot = reader.workflow(WorkflowId(id))?.ok_or_else(missing)?;
        Ok((reader.get(Table::Workflow, id)?.ok_or_else(missing)?, hot))
    })
    .await
}

fn one(row: &Row, hot: &WorkflowRow) -> Response<Body> {
    let mut out = Vec::with_capacity(512);
    write(&mut out, row, hot);
    http::ok(out)
}

fn write(out: &mut Vec<u8>, row: &Row, hot: &WorkflowRow) {
    rows::write_open(out, Table::Workflow, row);
    out.extend_from_slice(b",\"run_id\":");
    write_int(out, hot.run);
    out.extend_from_slice(if hot.canceled { b",\"is_canceled\":true" } else { b",\"is_canceled\":false" });
    out.extend_from_slice(if hot.archived { b",\"is_archived\":true}" } else { b",\"is_archived\":false}" });
}

/// Ours: the filter `source_path`.
pub(super) async fn list(door: &Door, call: &Call<'_>) -> Reply {
    let params = call.params();
    let part = Part::of(&params)?;
    let archived: Option<bool> = params.get("is_archived")?;
    let query = list::query(Table::Workflow, None, &params, &["description"], part)?;
    // No workflow is shared with a group: there are none.
    let shared = params.text("access_group").is_some();
    door.look(move |reader| {
        let (page, total) = match archived {
            _ if shared => (Vec::new(), 0),
            None => reader.list(&query)?,
            Some(archived) => list::filtered(reader, &query, |reader, rows| {
                let hot = hot_rows(reader, rows)?;
                Ok(hot.iter().map(|hot| hot.is_some_and(|hot| hot.archived == archived)).collect())
            })?,
        };
        let mut envelope = Envelope::new();
        for (row, hot) in page.iter().zip(hot_rows(reader, &page)?) {
            // Between the two reads it may have been deleted.
            if let Some(hot) = hot {
                envelope.item(|out| write(out, row, &hot));
            }
        }
        Ok(envelope.close(part, total))
    })
    .await
}

/// The hot row of each of these.
fn hot_rows(
    reader: &mut dyn Reader,
    page: &[Row],
) -> Result<Vec<Option<WorkflowRow>>, forebay_domain::port::StoreError> {
    let ids: Vec<WorkflowId> = page.iter().map(|row| WorkflowId(rows::int(row, Table::Workflow, "id"))).collect();
    let mut found = reader.workflows(&ids)?.into_iter().peekable();
    Ok(ids.iter().map(|id| found.next_if(|row| row.id == *id)).collect())
}

/// What is left out stays.
pub(super) async fn update(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let model: WorkflowModel = call.json()?;
    let (row, _) = look_at(door, id).await?;
    let held = |column| rows::text(&row, Table::Workflow, column);
    let held_json = |column| held(column).map(|text| serde_json::from_str::<Json>(text).expect("documents are JSON"));
    let fixed = [
        ("env", model.env.as_ref().map(|env| (!env.is_empty()).then(|| json!(env)) == held_json("env"))),
        (
            "submission_directory",
            model.submission_directory.as_deref().map(|dir| Some(dir) == held("submission_directory")),
        ),
        ("dynamic_jobs", model.dynamic_jobs.as_ref().map(|jobs| Some(json!(jobs)) == held_json("dynamic_jobs"))),
    ];
    if let Some((field, _)) = fixed.iter().find(|(_, same)| *same == Some(false)) {
        return Err(Fault::unprocessable(format!(
            "Cannot modify {field} - this field is immutable after workflow creation"
        )));
    }
    if model.access_groups.is_some_and(|groups| !groups.is_empty()) {
        return Err(Fault::unprocessable(
            "Cannot modify access_groups via update - use add_workflow_to_group / remove_workflow_from_group",
        ));
    }
    let model = WorkflowModel { access_groups: None, ..call.json()? };
    let mut set = rows::changes(Table::Workflow, &model)?;
    set.retain(|(place, _)| UPDATED.contains(&Table::Workflow.columns()[*place].name));
    let statement = Statement::Update { table: Table::Workflow, id, only_if: Vec::new(), set };
    match door.engine().call(Command::Apply(statement)).await? {
        Answer::Outcome(StatementOutcome::Row(Some(_))) => get(door, id).await,
        Answer::Outcome(StatementOutcome::Row(None)) => Err(Fault::not_found("Workflow", id)),
        Answer::Outcome(StatementOutcome::Refused(why)) => Err(Fault::unprocessable(why)),
        other => unexpected(&other),
    }
}

pub(super) async fn delete(door: &Door, id: i64) -> Reply {
    let (row, hot) = look_at(door, id).await?;
    done(door, Command::DeleteWorkflow(WorkflowId(id))).await?;
    Ok(one(&row, &hot))
}

async fn done(door: &Door, command: Command) -> Result<(), Fault> {
    match door.engine().call(command).await? {
        Answer::Done => Ok(()),
        other => unexpected(&other),
    }
}

pub(super) async fn cancel(door: &Door, id: i64) -> Reply {
    let (_, hot) = look_at(door, id).await?;
    let said = json!({
        "category": "workflow_canceled",
        "message": format!("Workflow {id} (run_id={}) was canceled", hot.run),
        "workflow_id": id,
        "run_id": hot.run,
    });
    done(door, with(vec![event(door, id, said)?], Command::CancelWorkflow(WorkflowId(id)))).await?;
    get(door, id).await
}

pub(super) async fn archive(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let archived = call.json::<ArchiveWorkflowRequest>()?.is_archived;
    let said = user_action(door, call, id, "archive_workflow", json!({"workflow_id": id, "is_archived": archived}))?;
    done(door, with(vec![said], Command::ArchiveWorkflow { workflow: WorkflowId(id), archived })).await?;
    get(door, id).await
}

pub(super) async fn reset_status(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let force = call.params().flag("force")?;
    if !force {
        door.look(move |reader| no_node_is_awaited(reader, id)).await?;
    }
    let said = user_action(door, call, id, "reset_workflow_status", json!({"workflow_id": id, "force": force}))?;
    match door.engine().call(with(vec![said], Command::NewRun { workflow: WorkflowId(id), force })).await? {
        Answer::Count(_) => get(door, id).await,
        other => unexpected(&other),
    }
}

/// No scheduler was asked for a node of the workflow that may still come.
fn no_node_is_awaited(reader: &mut dyn Reader, workflow: i64) -> Result<(), Unseen> {
    let place = Table::ScheduledNode.column("status").expect("scheduled nodes have a status");
    for status in ["pending", "active"] {
        let is_such = (place, Match::Equal(Value::Text(status.into())));
        if !list::such_rows(reader, Table::ScheduledNode, workflow, is_such)?.is_empty() {
            let text = "Cannot reset workflow status: scheduled compute nodes are currently pending or active";
            return Err(Fault::unprocessable(text).into());
        }
    }
    Ok(())
}

pub(super) async fn reset_job_status(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let failed_only = call.params().flag("failed_only")?;
    let said = user_action(door, call, id, "reset_job_status", json!({"workflow_id": id, "failed_only": failed_only}))?;
    let command = with(vec![said], Command::ResetJobs { workflow: WorkflowId(id), failed_only });
    let updated_count = match door.engine().call(command).await? {
        Answer::Count(count) => count,
        other => unexpected(&other),
    };
    Ok(http::ok_json(&ResetJobStatusResponse {
        workflow_id: id,
        updated_count,
        status: JobStatus::Uninitialized.to_string(),
        reset_type: failed_only.then(|| "failed_only".to_owned()),
    }))
}

/// With `async=true` the answer is a task. It is waited for a while first: most have ended by then,
/// and their client need not ask again.
pub(super) async fn initialize_jobs(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let params = call.params();
    let only_drafts = params.flag("only_uninitialized")?;
    // torc takes it and does nothing with it.
    params.flag("clear_ephemeral_user_data")?;
    if !params.flag("async")? {
        initialize(door, id, only_drafts, None, call.user_name()).await?;
        return Ok(http::ok_json(&MessageResponse { message: "Initialized job status".to_owned() }));
    }
    door.look(move |reader| exists(reader, id)).await?;
    let task = match tasks::begin(door, id, only_drafts).await? {
        Begun::New(task) => {
            let mut running =
                tokio::spawn(carry_out(door.clone(), task.clone(), only_drafts, call.user_name().to_owned()));
            let wait = Duration::from_millis(door.options().task_wait_ms);
            match tokio::time::timeout(wait, &mut running).await {
                Ok(Ok(())) => stored_task(door, task.id).await?,
                Ok(Err(ended)) => {
                    door.tasks().end(id);
                    match ended.try_into_panic() {
                        Ok(panic) => std::panic::resume_unwind(panic),
                        Err(_) => return Err(Fault::stopping()),
                    }
                }
                Err(_) => task,
            }
        }
        Begun::Running(task) => task,
        Begun::Conflict(task) => {
            return Err(Fault::conflict(json!({
                "error": "Conflict",
                "message": "the workflow is being initialized with other parameters",
                "existing_task_id": task.id,
                "existing_operation": task.operation,
            })));
        }
        Begun::Full => return Err(Fault::overloaded()),
    };
    Ok(http::respond(StatusCode::ACCEPTED, http::to_json(&task).into()))
}

/// Does what a task is for, and stores what became of it.
async fn carry_out(door: Door, task: TaskModel, only_drafts: bool, user: String) {
    let done = initialize(&door, task.workflow_id, only_drafts, Some(task.id), &user).await;
    let error = done.err().map(|fault| fault.message().to_owned());
    if let Some(error) = &error
        && let Err(fault) = tasks::fail(&door, task.id, error).await
    {
        tracing::warn!(task = task.id, why = fault.message(), "the end of a task could not be stored");
    }
    door.tasks().end(task.workflow_id);
    let (status, severity) = if error.is_none() { ("succeeded", Severity::Info) } else { ("failed", Severity::Error) };
    let mut said = json!({
        "category": "tasks",
        "type": "task_completed",
        "task_id": task.id,
        "operation": task.operation,
        "status": status,
        "user": user,
        "message": format!("task {} {status}", task.id),
    });
    if let Some(error) = error {
        said["error"] = json!(error);
    }
    door.hub().tell(door.engine().now(), task.workflow_id, "task_completed", severity, said);
}

/// Initializes; a task that it is done for ends with it.
async fn initialize(door: &Door, id: i64, only_drafts: bool, task: Option<i64>, user: &str) -> Result<(), Fault> {
    let beside = move |reader: &mut dyn Reader| {
        let mut statements = changed::forget(reader, id)?;
        statements.extend(actions::rearm(reader, id, only_drafts)?);
        Ok(statements)
    };
    let mut statements = door.look_of(Scope::Workflow(WorkflowId(id)), beside).await?;
    statements.extend(task.map(|task| tasks::ended(door, task, None)));
    done(door, with(statements, Command::Initialize { workflow: WorkflowId(id), only_drafts })).await?;
    // torc has the two words the other way round than they read.
    let kind = if only_drafts { "workflow_started" } else { "workflow_reinitialized" };
    let said = json!({
        "category": "workflow",
        "type": kind,
        "user": user,
        "message": format!("{} workflow {id}", kind.replace('_', " ")),
    });
    door.hub().tell(door.engine().now(), id, kind, Severity::Info, said);
    Ok(())
}

pub(super) async fn task(door: &Door, id: i64) -> Reply {
    Ok(http::ok_json(&stored_task(door, id).await?))
}

async fn stored_task(door: &Door, id: i64) -> Result<TaskModel, Fault> {
    let row = door.look(move |reader| Ok(reader.get(Table::Task, id)?)).await?;
    Ok(door.tasks().model(&row.ok_or_else(|| Fault::not_found("Task", id))?))
}

pub(super) async fn active_task(door: &Door, id: i64) -> Reply {
    door.look(move |reader| exists(reader, id)).await?;
    Ok(http::ok_json(&ActiveTaskResponse { task: door.tasks().active(id) }))
}

/// There are none: none can be added yet. torc's recover asks.
pub(super) async fn remote_workers(door: &Door, id: i64) -> Reply {
    door.look(move |reader| exists(reader, id)).await?;
    Ok(http::ok(b"[]".to_vec()))
}

/// The stream of what happens in a workflow. Ours: it says that it is alive, and goes on after the
/// event that `Last-Event-ID` names.
pub(super) async fn events(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    door.look(move |reader| exists(reader, id)).await?;
    let least = Severity::of(call.params().text("level"));
    let last = call.headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let mut response = http::bare(StatusCode::OK, Body::streaming(stream(door, id, least, last)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// The command with what is written down in its batch.
pub(super) fn with(statements: Vec<Statement>, command: Command) -> Command {
    Command::With { statements, command: Box::new(command) }
}

/// Writes down what a user did, as torc does.
pub(super) fn user_action(
    door: &Door,
    call: &Call<'_>,
    workflow: i64,
    action: &str,
    mut said: Json,
) -> Result<Statement, Fault> {
    said["category"] = json!("user_action");
    said["action"] = json!(action);
    said["user"] = json!(call.user_name());
    event(door, workflow, said)
}

pub(super) fn event(door: &Door, workflow: i64, data: Json) -> Result<Statement, Fault> {
    let event = EventModel { id: None, workflow_id: workflow, timestamp: door.engine().now().0, data };
    Ok(Statement::Insert { table: Table::Event, rows: vec![rows::to_row(Table::Event, &event)?] })
}
