//! Workflow actions: what runners are to do once something has happened. How far a trigger of jobs or
//! of the workflow's end has come is read off the workflow whenever somebody asks: nothing of it can
//! be missed, whatever happened meanwhile.

use std::collections::HashSet;

use forebay_domain::batch::WorkflowRow;
use forebay_domain::catalog::{Row, Statement, StatementOutcome, Table, Value};
use forebay_domain::command::{Answer, Command, Scope};
use forebay_domain::graph::Graph;
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::port::{GraphRows, Read, Reader, Rows};
use forebay_domain::state::JobState;
use forebay_wire::{ClaimActionRequest, ClaimActionResponse, MessageResponse, WorkflowActionModel};
use serde_json::{Map, Value as Json, json};

use crate::fault::Fault;
use crate::http::{self, Call, Reply};
use crate::list;
use crate::routes::catalog::{Resource, existing, exists, insert};
use crate::routes::unexpected;
use crate::rows;
use crate::{Door, Unseen};

pub(super) const ACTIONS: Resource = Resource { table: Table::Action, noun: "Action", contains: &[] };

/// Fields of a `schedule_nodes` action.
const SCHEDULE_NODES: [&str; 5] =
    ["scheduler_id", "scheduler_type", "num_allocations", "start_one_worker_per_node", "max_parallel_jobs"];

pub(super) async fn create(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let mut action: WorkflowActionModel = call.json()?;
    action.workflow_id = workflow;
    check(&action.action_type, &action.action_config)?;
    let of_jobs = action.job_ids.as_ref().filter(|_| is_of_jobs(&action.trigger_type));
    action.required_triggers = of_jobs.map_or(1, |ids| i64::try_from(ids.len()).unwrap_or(i64::MAX));
    action.id = Some(insert(door, Table::Action, workflow, std::slice::from_ref(&action)).await?);
    Ok(http::ok_json(&action))
}

fn is_of_jobs(trigger: &str) -> bool {
    matches!(trigger, "on_jobs_ready" | "on_jobs_complete")
}

/// torc's rules for what an action is given.
fn check(kind: &str, config: &Json) -> Result<(), Fault> {
    let bad = |text: String| Fault::unprocessable(format!("Invalid action_config: {text}"));
    let config = config.as_object().ok_or_else(|| bad("action_config must be an object".into()))?;
    match kind {
        "run_commands" => check_commands(config).map_err(bad),
        "schedule_nodes" => check_nodes(config).map_err(bad),
        _ => Ok(()),
    }
}

fn check_commands(config: &Map<String, Json>) -> Result<(), String> {
    let commands = match config.get("commands") {
        Some(commands) if config.len() == 1 => commands,
        _ => return Err("For action_type 'run_commands', only 'commands' field is allowed".to_owned()),
    };
    let commands = commands.as_array().ok_or("'commands' must be an array")?;
    if commands.is_empty() {
        return Err("'commands' array cannot be empty".to_owned());
    }
    match commands.iter().position(|command| !command.is_string()) {
        Some(place) => Err(format!("'commands[{place}]' must be a string")),
        None => Ok(()),
    }
}

fn check_nodes(config: &Map<String, Json>) -> Result<(), String> {
    for (field, value) in config {
        let wanted = match field.as_str() {
            "scheduler_id" | "num_allocations" | "max_parallel_jobs" if !(value.is_i64() || value.is_u64()) => {
                "an integer"
            }
            "scheduler_type" if !value.is_string() => "a string",
            "start_one_worker_per_node" if !value.is_boolean() => "a boolean",
            field if SCHEDULE_NODES.contains(&field) => continue,
            _ => {
                return Err(format!(
                    "Unsupported field '{field}' for action_type 'schedule_nodes'. Allowed fields: {}",
                    SCHEDULE_NODES.join(", ")
                ));
            }
        };
        return Err(format!("'{field}' must be {wanted}"));
    }
    Ok(())
}

/// All, in the order of their ids. torc answers with a list that has no envelope.
pub(super) async fn list(door: &Door, workflow: i64) -> Reply {
    answer(door, workflow, |_| true).await
}

/// Those that somebody is to carry out now; of these triggers, if any are named.
pub(super) async fn pending(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let triggers: Vec<String> = call.params().all("trigger_type").map(str::to_owned).collect();
    answer(door, workflow, move |row| {
        let int = |column| rows::int(row, Table::Action, column);
        let trigger = rows::text(row, Table::Action, "trigger_type").unwrap_or_default();
        int("executed") == 0
            && int("trigger_count") >= int("required_triggers")
            && (triggers.is_empty() || triggers.iter().any(|wanted| wanted == trigger))
    })
    .await
}

async fn answer(door: &Door, workflow: i64, wanted: impl Fn(&Row) -> bool + Send + 'static) -> Reply {
    door.look_of(Scope::Workflow(WorkflowId(workflow)), move |reader| {
        let missing = || Fault::not_found("Workflow", workflow);
        let hot = reader.workflow(WorkflowId(workflow))?.ok_or_else(missing)?;
        let mut out = b"[".to_vec();
        for row in counted(reader, &hot)?.iter().filter(|row| wanted(row)) {
            if out.len() > 1 {
                out.push(b',');
            }
            rows::write(&mut out, Table::Action, row);
        }
        out.push(b']');
        Ok(http::ok(out))
    })
    .await
}

/// The actions of a workflow, each with its count as it is now.
fn counted(reader: &mut dyn Reader, hot: &WorkflowRow) -> Result<Vec<Row>, Unseen> {
    let mut actions = Vec::new();
    list::each_row(reader, Table::Action, hot.id.0, |row| actions.push(row))?;
    let place = Table::Action.column("trigger_count").expect("actions have a count");
    for row in &mut actions {
        let happened = match rows::text(row, Table::Action, "trigger_type") {
            Some("on_jobs_ready") => count_jobs(reader, row, was_ready)?,
            Some("on_jobs_complete") => count_jobs(reader, row, JobState::has_ended)?,
            Some("on_workflow_complete") => i64::from(is_over(hot)),
            _ => 0,
        };
        row[place] = Value::Int(happened.max(rows::int(row, Table::Action, "trigger_count")));
    }
    Ok(actions)
}

/// A workflow that was canceled has not completed; one that has not begun neither.
fn is_over(hot: &WorkflowRow) -> bool {
    let has_begun =
        || forebay_domain::state::STATE_LIST.iter().any(|state| state.has_ended() && hot.counts[*state as usize] > 0);
    !hot.canceled && hot.is_complete() && has_begun()
}

fn was_ready(state: JobState) -> bool {
    match state {
        JobState::Draft | JobState::Blocked | JobState::Scheduled | JobState::Disabled => false,
        JobState::Ready
        | JobState::Claimed
        | JobState::Running
        | JobState::Completed
        | JobState::Failed
        | JobState::Canceled
        | JobState::Terminated
        | JobState::PendingFailed => true,
    }
}

fn job_ids(row: &Row) -> Vec<JobId> {
    let ids = rows::text(row, Table::Action, "job_ids");
    let ids: Vec<i64> = ids.and_then(|ids| serde_json::from_str(ids).ok()).unwrap_or_default();
    ids.into_iter().map(JobId).collect()
}

/// How many of an action's jobs are in such a state.
fn count_jobs(reader: &mut dyn Reader, row: &Row, is_in: impl Fn(JobState) -> bool) -> Result<i64, Unseen> {
    let (_, Rows::Jobs(jobs)) = reader.read(&Read::Jobs(job_ids(row)))? else {
        unreachable!("a reader answers with the twin of what was asked")
    };
    Ok(i64::try_from(jobs.iter().filter(|job| is_in(job.state)).count()).unwrap_or(i64::MAX))
}

/// One claimant wins. A persistent action is for all of them.
pub(super) async fn claim(door: &Door, workflow: i64, id: i64, call: &Call<'_>) -> Reply {
    let by = call.json::<ClaimActionRequest>()?.compute_node_id;
    door.look(move |reader| exists(reader, workflow)).await?;
    let row = existing(door, &ACTIONS, id).await?;
    if rows::int(&row, Table::Action, "workflow_id") != workflow {
        let text = format!("Action {id} does not belong to workflow {workflow}");
        return Err(Fault::new(hyper::StatusCode::NOT_FOUND, text));
    }
    let place = |column| Table::Action.column(column).expect("only columns of the table are set");
    let now = Value::Text(door.engine().now().rfc3339());
    let (only_if, set) = if rows::int(&row, Table::Action, "persistent") != 0 {
        (Vec::new(), vec![(place("executed_at"), now)])
    } else {
        let by = by.map_or(Value::Null, Value::Int);
        (
            vec![(place("executed"), Value::Int(0))],
            vec![(place("executed"), Value::Int(1)), (place("executed_at"), now), (place("executed_by"), by)],
        )
    };
    let statement = Statement::Update { table: Table::Action, id, only_if, set };
    match door.engine().call(Command::Apply(statement)).await? {
        Answer::Outcome(StatementOutcome::Row(Some(_))) => {
            Ok(http::ok_json(&ClaimActionResponse { action_id: id, claimed: true }))
        }
        Answer::Outcome(StatementOutcome::Row(None)) => {
            Err(Fault::conflict(json!({"message": format!("Action {id} already claimed"), "claimed": false})))
        }
        other => unexpected(&other),
    }
}

/// The body's fields replace those of the action's configuration.
pub(super) async fn update(door: &Door, workflow: i64, id: i64, call: &Call<'_>) -> Reply {
    let Json::Object(fields) = call.json::<Json>()? else {
        return Err(Fault::unprocessable("updates body must be a JSON object"));
    };
    if fields.is_empty() {
        return Err(Fault::unprocessable("updates body has no fields to merge"));
    }
    let row = of_workflow(door, workflow, id).await?;
    let text = |column| rows::text(&row, Table::Action, column).unwrap_or_default();
    let mut config: Map<String, Json> =
        serde_json::from_str(text("action_config")).expect("this door wrote the configuration as an object");
    config.extend(fields);
    let config = Json::Object(config);
    check(text("action_type"), &config)?;
    let place = Table::Action.column("action_config").expect("actions have a configuration");
    super::catalog::set(door, &ACTIONS, id, vec![(place, Value::Text(config.to_string().into()))]).await
}

pub(super) async fn delete(door: &Door, workflow: i64, id: i64) -> Reply {
    of_workflow(door, workflow, id).await?;
    super::catalog::delete(door, &ACTIONS, id).await?;
    Ok(http::ok_json(&MessageResponse { message: "Workflow action deleted successfully".to_owned() }))
}

async fn of_workflow(door: &Door, workflow: i64, id: i64) -> Result<Row, Fault> {
    door.look(move |reader| exists(reader, workflow)).await?;
    let row = existing(door, &ACTIONS, id).await?;
    let is_of = rows::int(&row, Table::Action, "workflow_id") == workflow;
    if is_of { Ok(row) } else { Err(Fault::not_found("Action", id)) }
}

/// What an initialize does beside: what will happen again is to be done again. After a partial one
/// (`only_drafts`) the workflow does not start again, nor do jobs that have all ended and stay so.
pub(super) fn rearm(reader: &mut dyn Reader, workflow: i64, only_drafts: bool) -> Result<Vec<Statement>, Unseen> {
    let mut actions = Vec::new();
    list::each_row(reader, Table::Action, workflow, |row| actions.push(row))?;
    let of_jobs = |row: &Row| is_of_jobs(rows::text(row, Table::Action, "trigger_type").unwrap_or_default());
    let stay = if only_drafts && actions.iter().any(of_jobs) { stay_ended(reader, workflow)? } else { HashSet::new() };
    Ok(actions.iter().map(|row| rearmed(row, only_drafts, &stay)).collect())
}

/// Jobs that have ended and wait for no draft: a partial initialize leaves them as they are.
fn stay_ended(reader: &mut dyn Reader, workflow: i64) -> Result<HashSet<JobId>, Unseen> {
    let (_, Rows::Graph(found)) = reader.read(&Read::Graph(WorkflowId(workflow)))? else {
        unreachable!("a reader answers with the twin of what was asked")
    };
    let GraphRows { jobs, mut edges, implied } = *found;
    edges.direct.extend(implied);
    let graph = Graph::new(WorkflowId(workflow), &jobs, &edges);
    let drafts = (0..).zip(&jobs).filter(|(_, job)| job.state == JobState::Draft).map(|(place, _)| place);
    let begin_anew = graph.downstream(drafts);
    let ended = jobs.iter().zip(begin_anew).filter(|(job, anew)| job.state.has_ended() && !anew);
    Ok(ended.map(|(job, _)| job.id).collect())
}

fn rearmed(row: &Row, only_drafts: bool, stay_ended: &HashSet<JobId>) -> Statement {
    let int = |column| rows::int(row, Table::Action, column);
    let id = int("id");
    if int("is_recovery") != 0 {
        return Statement::Delete { table: Table::Action, id };
    }
    let trigger = rows::text(row, Table::Action, "trigger_type").unwrap_or_default();
    // Counts of jobs and of the workflow's end are read off whenever somebody asks.
    let count = i64::from(matches!(trigger, "on_workflow_start" | "on_worker_start" | "on_worker_complete"));
    let stays_done = only_drafts
        && match trigger {
            "on_workflow_start" => true,
            trigger if is_of_jobs(trigger) && !job_ids(row).is_empty() => {
                let done = job_ids(row).into_iter().filter(|job| stay_ended.contains(job)).count();
                done as i64 >= int("required_triggers")
            }
            _ => false,
        };
    let place = |column| Table::Action.column(column).expect("only columns of the table are set");
    let mut set = vec![(place("trigger_count"), Value::Int(count))];
    if !stays_done {
        set.extend([(place("executed"), Value::Int(0)), (place("executed_by"), Value::Null)]);
    }
    Statement::Update { table: Table::Action, id, only_if: Vec::new(), set }
}
