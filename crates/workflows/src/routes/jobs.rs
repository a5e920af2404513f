//! Jobs: created, listed, changed by hand.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use forebay_domain::catalog::Table;
use forebay_domain::command::{Answer, Command, JobChange, Scope};
use forebay_domain::ids::{JobId, LaneId, NodeId, RequirementId, SchedulerId, WorkflowId};
use forebay_domain::job::{JobRow, NewJob};
use forebay_domain::port::{JobQuery, JobSort, JobView, Read, Reader, Rows};
use forebay_domain::state::JobState;
use forebay_wire::{DeleteCountResponse, JobModel, JobStatus, JobsModel, RECORDS_MAX, check_label, is_env_name};
use hyper::Response;
use serde_json::json;

use crate::fault::{Doing, Fault};
use crate::http::{self, Body, Call, Params, Reply};
use crate::job::{self, Front, labels_of, model_of, new_job, payload_of, split_labels, state_of, status_of};
use crate::list::{Envelope, Part, each_row};
use crate::routes::claims::parse_status;
use crate::routes::unexpected;
use crate::routes::workflows::{event, with};
use crate::{Door, Unseen, rows};

/// Jobs that are looked at in one go where the store cannot tell which are wanted.
const STEP: u64 = 10_000;

/// More jobs take so long to make or to write that other requests are not to wait for it.
const JOBS_MANY: usize = 200;

pub(super) async fn create(door: &Door, call: &Call<'_>) -> Reply {
    let model: JobModel = call.json()?;
    let workflow = model.workflow_id;
    let (first, jobs) = create_jobs(door, workflow, vec![model]).await?;
    let mut out = Vec::with_capacity(jobs[0].payload.len() + 160);
    write_created(&mut out, JobId(first), &jobs[0]);
    Ok(http::ok(out))
}

pub(super) async fn create_many(door: &Door, call: &Call<'_>) -> Reply {
    let models = call.json::<JobsModel>()?.jobs;
    let Some(workflow) = models.first().map(|model| model.workflow_id) else {
        return Err(Fault::unprocessable("Bulk job creation requires a non-empty `jobs` array"));
    };
    if let Some(other) = models.iter().map(|model| model.workflow_id).find(|id| *id != workflow) {
        return Err(Fault::unprocessable(format!(
            "All jobs in a batch must have the same workflow_id. Found workflow_ids: {workflow} and {other}"
        )));
    }
    if models.len() as u64 > RECORDS_MAX as u64 {
        return Err(Fault::unprocessable(format!(
            "Too many jobs in batch: {}. Maximum is {RECORDS_MAX}",
            models.len()
        )));
    }
    let mut names = HashSet::with_capacity(models.len());
    if let Some(twice) = models.iter().find(|model| !names.insert(model.name.as_str())) {
        return Err(Fault::unprocessable(format!("Duplicate job name '{}' in bulk create request", twice.name)));
    }
    let (first, jobs) = create_jobs(door, workflow, models).await?;
    let out = http::aside(jobs.len() > JOBS_MANY, || {
        let mut out = Vec::with_capacity(jobs.iter().map(|job| job.payload.len() + 160).sum());
        out.extend_from_slice(b"{\"jobs\":[");
        for (id, job) in (first..).zip(&jobs) {
            if id > first {
                out.push(b',');
            }
            write_created(&mut out, JobId(id), job);
        }
        out.extend_from_slice(b"]}");
        out
    });
    Ok(http::ok(out))
}

fn write_created(out: &mut Vec<u8>, id: JobId, job: &NewJob) {
    let front = Front {
        id,
        status: JobStatus::Uninitialized,
        attempt: 1,
        priority: job.priority,
        runs: None,
        depends_on: &job.depends_on,
        origin: None,
        grant: None,
    };
    job::write(out, &front, &job.payload);
}

/// Checks and creates jobs of one workflow; the first one's id, the others follow it.
async fn create_jobs(door: &Door, workflow: i64, models: Vec<JobModel>) -> Result<(i64, Vec<NewJob>), Fault> {
    let ties = Ties::of(&models);
    let look = move |reader: &mut dyn Reader| {
        let inherited = inherited(reader, workflow)?;
        ties.check(reader, workflow)?;
        Ok(inherited)
    };
    let (env, default_requirement) = door.look(look).await?;
    let jobs: Vec<NewJob> = http::aside(models.len() > JOBS_MANY, || {
        let made = models.into_iter().map(|mut model| {
            check(&model)?;
            model.resource_requirements_id.get_or_insert(default_requirement.0);
            model.cancel_on_blocking_job_failure.get_or_insert(true);
            model.supports_termination.get_or_insert(false);
            if !env.is_empty() {
                let mut merged = env.clone();
                merged.append(&mut model.env.take().unwrap_or_default());
                model.env = Some(merged);
            }
            Ok(new_job(model))
        });
        made.collect::<Result<_, Fault>>()
    })?;
    let command = Command::CreateJobs { workflow: WorkflowId(workflow), jobs: jobs.clone() };
    match door.engine().call(command).await? {
        Answer::Created(first) => Ok((first, jobs)),
        other => unexpected(&other),
    }
}

/// Files, user data and failure handlers that new jobs name.
struct Ties {
    files: BTreeSet<i64>,
    user_data: BTreeSet<i64>,
    handlers: BTreeSet<i64>,
}

/// So few rows are looked up one by one; of more, all that the workflow has are read.
const TIES_FEW: usize = 64;

impl Ties {
    fn of(models: &[JobModel]) -> Ties {
        let files = models.iter().flat_map(|job| [&job.input_file_ids, &job.output_file_ids]);
        let user_data = models.iter().flat_map(|job| [&job.input_user_data_ids, &job.output_user_data_ids]);
        Ties {
            files: files.flatten().flatten().copied().collect(),
            user_data: user_data.flatten().flatten().copied().collect(),
            handlers: models.iter().filter_map(|job| job.failure_handler_id).collect(),
        }
    }

    /// They are the workflow's.
    fn check(&self, reader: &mut dyn Reader, workflow: i64) -> Result<(), Unseen> {
        for (table, noun, ids) in [
            (Table::File, "File", &self.files),
            (Table::UserData, "User data", &self.user_data),
            (Table::Handler, "Failure handler", &self.handlers),
        ] {
            let mut known = BTreeSet::new();
            if ids.len() > TIES_FEW {
                each_row(reader, table, workflow, |row| {
                    known.insert(rows::int(&row, table, "id"));
                })?;
            } else {
                for id in ids {
                    let row = reader.get(table, *id)?;
                    known.extend(row.filter(|row| rows::int(row, table, "workflow_id") == workflow).map(|_| *id));
                }
            }
            if let Some(id) = ids.iter().find(|id| !known.contains(id)) {
                return Err(Fault::unprocessable(format!("{noun} not found in this workflow with ID: {id}")).into());
            }
        }
        Ok(())
    }
}

/// What a job takes from its workflow: environment, and the requirement if it names none.
pub(super) fn inherited(reader: &mut dyn Reader, id: i64) -> Result<(BTreeMap<String, String>, RequirementId), Unseen> {
    let missing = || Fault::not_found("Workflow", id);
    let row = reader.get(Table::Workflow, id)?.ok_or_else(missing)?;
    let hot = reader.workflow(WorkflowId(id))?.ok_or_else(missing)?;
    let env = rows::text(&row, Table::Workflow, "env");
    let env = env.map(|env| serde_json::from_str(env).expect("this door wrote the environment as JSON"));
    Ok((env.unwrap_or_default(), hot.default_requirement))
}

fn check(model: &JobModel) -> Result<(), Fault> {
    let name = &model.name;
    check_env(model.env.as_ref(), "job env")?;
    if let Some(priority) = model.priority.filter(|priority| *priority < 0) {
        return Err(Fault::unprocessable(format!("priority must be >= 0, got {priority} for job '{name}'")));
    }
    for label in model.labels.iter().flatten() {
        check_label(label).map_err(|bad| Fault::unprocessable(format!("{bad} for job '{name}'")))?;
    }
    Ok(())
}

pub(super) fn check_env(env: Option<&BTreeMap<String, String>>, field: &str) -> Result<(), Fault> {
    match env.and_then(|env| env.keys().find(|key| !is_env_name(key))) {
        None => Ok(()),
        Some(key) => Err(Fault::unprocessable(format!("Invalid {field} key '{key}'; expected [A-Za-z_][A-Za-z0-9_]*"))),
    }
}

pub(super) async fn get(door: &Door, id: i64) -> Reply {
    Ok(view(&look_at(door, id).await?))
}

/// A job with all that it depends on.
struct Whole {
    view: JobView,
    depends_on: Vec<JobId>,
}

async fn look_at(door: &Door, id: i64) -> Result<Whole, Fault> {
    door.look_of(Scope::Job(JobId(id)), move |reader| {
        let view = reader.job(JobId(id))?.ok_or_else(|| Fault::not_found("Job", id))?;
        let edges = reader.prerequisites(&[JobId(id)])?;
        let mut depends_on: Vec<JobId> = edges.into_iter().map(|(_, prerequisite)| prerequisite).collect();
        depends_on.sort_unstable();
        Ok(Whole { view, depends_on })
    })
    .await
}

fn view(whole: &Whole) -> Response<Body> {
    let mut out = Vec::with_capacity(whole.view.payload.len() + 160);
    job::write_view(&mut out, &whole.view, &whole.depends_on);
    http::ok(out)
}

pub(super) async fn list(door: &Door, call: &Call<'_>) -> Reply {
    let params = call.params();
    let workflow: i64 = params.required("workflow_id")?;
    let part = Part::of(&params)?;
    let labels = params.text("labels").map(|text| labels_of(Some(&split_labels(text))));
    let origin_is_set: Option<bool> = params.get("origin_is_set")?;
    let with_relations = params.flag("include_relationships")?;
    let mut query = job_query(workflow, &params, part)?;
    door.look_of(Scope::Workflow(WorkflowId(workflow)), move |reader| {
        if reader.workflow(WorkflowId(workflow))?.is_none() {
            return Err(Fault::not_found("Workflow", workflow).into());
        }
        if let Some(labels) = labels {
            query.lanes = Some(lanes(reader, workflow, |lane| labels.may_take(lane))?);
        }
        let (views, total) = match origin_is_set {
            None => reader.jobs(&query)?,
            Some(is_set) => scan(reader, &query, |row| job::origin_of(row).is_some() == is_set)?,
        };
        let mut depends_on: BTreeMap<JobId, Vec<JobId>> = BTreeMap::new();
        if with_relations {
            let ids: Vec<JobId> = views.iter().map(|view| view.row.id).collect();
            for (job, prerequisite) in reader.prerequisites(&ids)? {
                depends_on.entry(job).or_default().push(prerequisite);
            }
        }
        let mut envelope = Envelope::new();
        for view in &views {
            let depends_on = depends_on.get(&view.row.id).map_or(&[][..], Vec::as_slice);
            envelope.item(|out| job::write_view(out, view, depends_on));
        }
        Ok(envelope.close(part, total))
    })
    .await
}

fn job_query(workflow: i64, params: &Params, part: Part) -> Result<JobQuery, Fault> {
    let status = params.text("status").map(|word| {
        let bad = |_| {
            Fault::bad_request(format!("Failed to deserialize query string: status: {}", rows::unknown_status(word)))
        };
        word.parse::<JobStatus>().map_err(bad)
    });
    Ok(JobQuery {
        workflow: WorkflowId(workflow),
        state: status.transpose()?.map(state_of),
        name: params.text("name").map(Into::into),
        command: params.text("command").map(Into::into),
        node: params.get("active_compute_node_id")?.map(NodeId),
        upstream: params.get("upstream_job_id")?.map(JobId),
        needs_file: params.get("needs_file_id")?,
        lanes: None,
        offset: part.offset,
        limit: part.limit,
        sort: match params.text("sort_by") {
            Some("name") => JobSort::Name,
            Some("status") => JobSort::State,
            Some("priority") => JobSort::Priority,
            Some(_) | None => JobSort::Id,
        },
        reverse: part.reverse,
    })
}

/// The lanes of a workflow whose labels are wanted.
pub(super) fn lanes(
    reader: &mut dyn Reader,
    workflow: i64,
    mut wanted: impl FnMut(&forebay_domain::lane::LabelSet) -> bool,
) -> Result<Vec<LaneId>, Unseen> {
    match reader.read(&Read::Workflow(WorkflowId(workflow)))? {
        (_, Rows::Workflow(Some(found))) => {
            let lanes = found.lanes.iter().map(|(lane, _)| lane);
            Ok(lanes.filter(|lane| wanted(&lane.labels)).map(|lane| lane.id).collect())
        }
        (_, Rows::Workflow(None)) => Err(Fault::not_found("Workflow", workflow).into()),
        (_, Rows::Page(_) | Rows::Due(_) | Rows::Graph(_) | Rows::Jobs(_) | Rows::Held(_)) => {
            unreachable!("a reader answers with the twin of what was asked")
        }
        (_, Rows::Dependents(_) | Rows::Payloads(_)) => {
            unreachable!("a reader answers with the twin of what was asked")
        }
    }
}

/// The part of a list whose last condition the store does not know, and how long that list is.
fn scan(
    reader: &mut dyn Reader,
    query: &JobQuery,
    keep: impl Fn(&JobRow) -> bool,
) -> Result<(Vec<JobView>, u64), Unseen> {
    let wanted = query.offset..query.offset.saturating_add(query.limit);
    let mut step = JobQuery { offset: 0, limit: STEP, ..query.clone() };
    let (mut kept, mut seen) = (Vec::new(), 0);
    loop {
        let (views, total) = reader.jobs(&step)?;
        for view in views.into_iter().filter(|view| keep(&view.row)) {
            if wanted.contains(&seen) {
                kept.push(view);
            }
            seen += 1;
        }
        step.offset += STEP;
        if step.offset >= total {
            return Ok((kept, seen));
        }
    }
}

/// torc's rules: what is left out stays; relations and the environment never change; most of the
/// rest only while the job is not initialized; the status only to disabled.
pub(super) async fn update(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let body: JobModel = call.json()?;
    let Whole { view, depends_on } = look_at(door, id).await?;
    let held = model_of(&view.payload);
    let status = status_of(view.row.state);
    let changed = restricted_changes(&body, &held, &view, &depends_on);
    if view.row.state != JobState::Draft && !changed.is_empty() {
        let fields: Vec<&str> = changed.iter().map(|(_, text)| text.as_str()).collect();
        return Err(Fault::unprocessable(format!(
            "Cannot update job {id} when status is '{status}' - most updates are only allowed when status is \
             'uninitialized'. Only scheduler_id and resource_requirements_id can be updated at any time. \
             Changed fields: [{}]",
            fields.join(", ")
        )));
    }
    let disable = changed.iter().any(|(field, _)| *field == "status");
    if disable && body.status != Some(JobStatus::Disabled) {
        return Err(Fault::unprocessable(
            "Cannot update job status - this field is immutable after job creation (except to Disabled)",
        ));
    }
    const FIXED: [&str; 5] =
        ["input_file_ids", "output_file_ids", "input_user_data_ids", "output_user_data_ids", "env"];
    if let Some(field) = FIXED.into_iter().find(|fixed| changed.iter().any(|(field, _)| field == fixed)) {
        return Err(Fault::unprocessable(format!(
            "Cannot modify {field} - this field is immutable after job creation"
        )));
    }
    if let Some(priority) = body.priority.filter(|priority| *priority < 0) {
        return Err(Fault::unprocessable(format!("priority must be >= 0, got {priority}")));
    }
    for label in body.labels.iter().flatten() {
        check_label(label).map_err(|bad| Fault::unprocessable(bad.to_string()))?;
    }
    let fields: Vec<&str> = changed.iter().map(|(field, _)| *field).collect();
    let command = Command::UpdateJob { job: JobId(id), change: Box::new(change(body, held, &fields)) };
    match door.engine().call(command).await.map_err(|error| Doing::Update.fault(error))? {
        Answer::Done => {
            door.kept().take(JobId(id));
        }
        other => unexpected(&other),
    }
    if disable {
        let run = run_of(door, view.row.workflow.0).await?;
        set_state(door, JobId(id), run, JobStatus::Disabled).await?;
    }
    Ok(self::view(&look_at(door, id).await?))
}

/// Fields that a request changes and that may not be changed at any time, each with torc's text.
fn restricted_changes(
    body: &JobModel,
    held: &JobModel,
    view: &JobView,
    depends_on: &[JobId],
) -> Vec<(&'static str, String)> {
    let mut changed = Vec::new();
    let status = status_of(view.row.state);
    if body.name != held.name {
        changed.push(("name", format!("name: '{}' -> '{}'", held.name, body.name)));
    }
    let mut check = |field: &'static str, differs: bool| {
        if differs {
            changed.push((field, field.to_owned()));
        }
    };
    check("command", body.command != held.command);
    let env = body.env.as_ref().filter(|env| !env.is_empty());
    check("env", body.env.is_some() && env != held.env.as_ref());
    let differ = |body: &Option<Vec<i64>>, held: &Option<Vec<i64>>| {
        let set = |ids: &Option<Vec<i64>>| ids.iter().flatten().copied().collect::<BTreeSet<i64>>();
        body.is_some() && set(body) != set(held)
    };
    check("input_file_ids", differ(&body.input_file_ids, &held.input_file_ids));
    check("output_file_ids", differ(&body.output_file_ids, &held.output_file_ids));
    check("input_user_data_ids", differ(&body.input_user_data_ids, &held.input_user_data_ids));
    check("output_user_data_ids", differ(&body.output_user_data_ids, &held.output_user_data_ids));
    let edges = Some(depends_on.iter().map(|job| job.0).collect());
    check("depends_on_job_ids", differ(&body.depends_on_job_ids, &edges));
    if let Some(new) = body.status.filter(|new| *new != status) {
        changed.push(("status", format!("status: Some({status:?}) -> Some({new:?})")));
    }
    changed
}

fn change(mut body: JobModel, mut held: JobModel, changed: &[&str]) -> JobChange {
    let depends_on = body.depends_on_job_ids.take().filter(|_| changed.contains(&"depends_on_job_ids"));
    let draft_only = !changed.is_empty();
    let change = JobChange {
        name: Some(body.name.as_str().into()),
        payload: None,
        requirement: body.resource_requirements_id.map(RequirementId),
        labels: body.labels.as_ref().map(|labels| labels_of(Some(labels))),
        scheduler: body.scheduler_id.map(|id| Some(SchedulerId(id))),
        priority: body.priority,
        cancel_on_failure: body.cancel_on_blocking_job_failure,
        depends_on: depends_on.map(|ids| BTreeSet::from_iter(ids).into_iter().map(JobId).collect()),
        draft_only,
    };
    held.name = body.name;
    held.command = body.command;
    held.invocation_script = body.invocation_script.or(held.invocation_script);
    held.cancel_on_blocking_job_failure = body.cancel_on_blocking_job_failure.or(held.cancel_on_blocking_job_failure);
    held.supports_termination = body.supports_termination.or(held.supports_termination);
    held.resource_requirements_id = body.resource_requirements_id.or(held.resource_requirements_id);
    held.scheduler_id = body.scheduler_id.or(held.scheduler_id);
    held.labels = body.labels.or(held.labels);
    JobChange { payload: Some(payload_of(held)), ..change }
}

pub(super) async fn delete(door: &Door, id: i64) -> Reply {
    let whole = look_at(door, id).await?;
    let command = Command::DeleteJobs { workflow: whole.view.row.workflow, job: Some(JobId(id)) };
    match door.engine().call(command).await? {
        Answer::Count(_) => {
            door.kept().take(JobId(id));
            Ok(view(&whole))
        }
        other => unexpected(&other),
    }
}

pub(super) async fn delete_all(door: &Door, call: &Call<'_>) -> Reply {
    let workflow: i64 = call.params().required("workflow_id")?;
    match door.engine().call(Command::DeleteJobs { workflow: WorkflowId(workflow), job: None }).await? {
        Answer::Count(count) => Ok(http::ok_json(&DeleteCountResponse { count })),
        other => unexpected(&other),
    }
}

pub(super) async fn manage_status_change(door: &Door, id: i64, status: &str, run: i64) -> Reply {
    let status = parse_status(status)?;
    if status.is_complete() {
        return Err(Fault::unprocessable(format!(
            "Cannot set completion status '{status}' via manage_status_change. Use complete_job API instead."
        )));
    }
    let whole = look_at(door, id).await?;
    if status_of(whole.view.row.state) == status {
        return Ok(view(&whole));
    }
    let row = set_state(door, JobId(id), run, status).await?;
    Ok(view(&Whole { view: JobView { row, ..whole.view }, ..whole }))
}

async fn set_state(door: &Door, job: JobId, run: i64, status: JobStatus) -> Result<JobRow, Fault> {
    let command = Command::SetState { job, run, state: state_of(status) };
    match door.engine().call(command).await.map_err(|error| Doing::SetState(status).fault(error))? {
        Answer::Job(row) => Ok(*row),
        other => unexpected(&other),
    }
}

async fn run_of(door: &Door, workflow: i64) -> Result<i64, Fault> {
    let row = door.look(move |reader| Ok(reader.workflow(WorkflowId(workflow))?)).await?;
    row.map(|row| row.run).ok_or_else(|| Fault::not_found("Workflow", workflow))
}

/// Ours: `delay_ms`, how long the job waits before it is ready again.
pub(super) async fn retry(door: &Door, id: i64, run: i64, call: &Call<'_>) -> Reply {
    let params = call.params();
    let attempts_max: i64 = params.required("max_retries")?;
    let delay_ms: i64 = params.get("delay_ms")?.unwrap_or(0);
    if delay_ms < 0 {
        return Err(Fault::unprocessable("delay_ms cannot be negative"));
    }
    let job = JobId(id);
    let (held, payload) = match door.kept().take(job) {
        Some(kept) => kept,
        None => {
            let view = door.look(move |reader| Ok(reader.job(job)?)).await?;
            let view = view.ok_or_else(|| Fault::not_found("Job", id))?;
            (view.row, view.payload)
        }
    };
    let name = model_of(&payload).name;
    let (previous, new) = (held.attempt, held.attempt + 1);
    let said = json!({
        "event_type": "job_retried",
        "job_id": id,
        "job_name": name,
        "previous_attempt": previous,
        "new_attempt": new,
        "run_id": run,
        "message": format!("Job with name = {name} retried: attempt {previous} -> {new}"),
    });
    let command = with(vec![event(door, held.workflow.0, said)?], Command::Retry { job, run, attempts_max, delay_ms });
    let row = match door.engine().call(command).await.map_err(|error| Doing::Retry.fault(error))? {
        Answer::Job(row) => row,
        other => unexpected(&other),
    };
    let mut out = Vec::with_capacity(payload.len() + 160);
    job::write(&mut out, &Front::of(&row), &payload);
    Ok(http::ok(out))
}
