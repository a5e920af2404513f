//! Jobs that a running job brings forth: torc's orchestrators. What a lineage of them has come to is
//! kept as user data of names that torc's client knows.

use std::collections::{BTreeMap, HashMap, HashSet};

use forebay_domain::catalog::{Match, Row, Statement, Table, Value};
use forebay_domain::command::{Answer, Command, Rejection, Scope};
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::job::NewJob;
use forebay_domain::port::{JobQuery, Reader};
use forebay_domain::state::JobState;
use forebay_engine::Error;
use forebay_wire::{
    DynamicJobsConfig, JobModel, SpawnJobModel, SpawnJobsRequest, SpawnJobsResponse, UserDataModel, check_label,
};
use serde_json::{Value as Json, json};

use crate::fault::{Doing, Fault};
use crate::http::{self, Call, Reply};
use crate::job::{new_job, status_of};
use crate::list;
use crate::routes::jobs::inherited;
use crate::routes::requirements::DEFAULT;
use crate::routes::unexpected;
use crate::routes::workflows::with;
use crate::{Door, Unseen, rows};

/// Generations of a lineage where the workflow sets no number.
const ITERATIONS_MAX: i64 = 1000;

/// Names the lineage to the jobs of it.
const LINEAGE_ENV: &str = "TORC_ORCHESTRATOR_LINEAGE_ID";

/// Jobs that are looked at in one go.
const STEP: u64 = 10_000;

pub(super) async fn spawn_jobs(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let request: SpawnJobsRequest = call.json()?;
    check(&request.jobs)?;
    let SpawnJobsRequest { lineage, jobs, state } = request;
    let looked = {
        let (lineage, jobs) = (lineage.clone(), jobs.clone());
        door.look_of(Scope::Job(JobId(id)), move |reader| look(reader, id, lineage, &jobs)).await?
    };
    let Looked { workflow, lineage, known, generation, iterations_max, env, requirements, last } = looked;
    let present = jobs.iter().filter(|job| known.contains_key(&job.name)).count();
    if !jobs.is_empty() && present == jobs.len() {
        // The same again, after an answer that got lost.
        let spawned_job_ids = jobs.iter().map(|job| known[&job.name]).collect();
        return Ok(http::ok_json(&SpawnJobsResponse { spawned_job_ids, iteration: generation }));
    }
    if present > 0 {
        return Err(Fault::unprocessable("Inconsistent replay: some but not all jobs already exist"));
    }
    if jobs.is_empty() {
        if let Some(state) = state {
            store_last(door, workflow, &lineage, generation, last, state).await?;
        }
        return Ok(http::ok_json(&SpawnJobsResponse { spawned_job_ids: Vec::new(), iteration: generation }));
    }
    let iteration = generation + 1;
    if iteration > iterations_max {
        return Err(Fault::unprocessable(format!(
            "Per-lineage iteration cap reached for lineage '{lineage}': attempted iteration {iteration} exceeds \
             dynamic_jobs.max_iterations={iterations_max} (current spawn_count={generation})"
        )));
    }
    let new = new_jobs(&jobs, workflow, &known, &env, &requirements, &lineage)?;
    let data = json!({"generation": iteration, "spawn_count": iteration, "state": state});
    let said = user_data(workflow, format!("{}{iteration:06}", generation_name(&lineage)), data)?;
    let count = i64::try_from(new.len()).unwrap_or(i64::MAX);
    let command = Command::SpawnJobs { parent: JobId(id), jobs: new };
    match door.engine().call(with(vec![said], command)).await.map_err(|error| refused(id, error))? {
        Answer::Created(first) => {
            let spawned_job_ids = (first..first + count).collect();
            Ok(http::ok_json(&SpawnJobsResponse { spawned_job_ids, iteration }))
        }
        other => unexpected(&other),
    }
}

fn check(jobs: &[SpawnJobModel]) -> Result<(), Fault> {
    let mut names = HashSet::with_capacity(jobs.len());
    for job in jobs {
        let name = &job.name;
        if !names.insert(name.as_str()) {
            return Err(Fault::unprocessable(format!("duplicate name '{name}' in spawn batch")));
        }
        if let Some(priority) = job.priority.filter(|priority| *priority < 0) {
            return Err(Fault::unprocessable(format!(
                "spawn job '{name}' has invalid priority {priority}: must be >= 0"
            )));
        }
        for label in job.labels.iter().flatten() {
            check_label(label).map_err(|bad| Fault::unprocessable(format!("spawn job '{name}': {bad}")))?;
        }
    }
    Ok(())
}

/// What a spawn needs to know.
struct Looked {
    workflow: i64,
    lineage: String,
    /// Jobs of the workflow that the request names.
    known: HashMap<String, i64>,
    /// The newest one of the lineage.
    generation: i64,
    iterations_max: i64,
    env: BTreeMap<String, String>,
    /// By their names.
    requirements: HashMap<String, i64>,
    /// The row of the lineage's last state, if it has one.
    last: Option<i64>,
}

fn look(reader: &mut dyn Reader, id: i64, lineage: Option<String>, jobs: &[SpawnJobModel]) -> Result<Looked, Unseen> {
    let view = reader.job(JobId(id))?.ok_or_else(|| Fault::not_found("Job", id))?;
    if view.row.state != JobState::Running {
        return Err(not_running(id, view.row.state).into());
    }
    let workflow = view.row.workflow.0;
    let lineage = lineage.unwrap_or_else(|| view.name.into());
    let (env, default) = inherited(reader, workflow)?;
    let row = reader.get(Table::Workflow, workflow)?.ok_or_else(|| Fault::not_found("Workflow", workflow))?;
    let config = rows::text(&row, Table::Workflow, "dynamic_jobs");
    let config: Option<DynamicJobsConfig> = config.and_then(|config| serde_json::from_str(config).ok());
    let mut requirements = HashMap::from([(DEFAULT.to_owned(), default.0)]);
    list::each_row(reader, Table::Requirement, workflow, |row| {
        let name = rows::text(&row, Table::Requirement, "name").unwrap_or_default().to_owned();
        requirements.insert(name, rows::int(&row, Table::Requirement, "id"));
    })?;
    let (mut generation, mut last) = (0, None);
    for row in of_lineage(reader, workflow, &lineage)? {
        let name = rows::text(&row, Table::UserData, "name").unwrap_or_default();
        if name == last_name(&lineage) {
            last = Some(rows::int(&row, Table::UserData, "id"));
        } else if let Some(number) = name.strip_prefix(&generation_name(&lineage)) {
            generation = generation.max(number.parse().unwrap_or(0));
        }
    }
    Ok(Looked {
        workflow,
        known: named(reader, workflow, jobs)?,
        generation,
        iterations_max: config.and_then(|config| config.max_iterations).unwrap_or(ITERATIONS_MAX),
        env,
        requirements,
        last,
        lineage,
    })
}

fn generation_name(lineage: &str) -> String {
    format!("__torc_lineage__{lineage}__g")
}

fn last_name(lineage: &str) -> String {
    format!("__torc_lineage__{lineage}__final")
}

fn of_lineage(reader: &mut dyn Reader, workflow: i64, lineage: &str) -> Result<Vec<Row>, Unseen> {
    let name = Table::UserData.column("name").expect("user data has a name");
    let part = format!("__torc_lineage__{lineage}__");
    Ok(list::such_rows(reader, Table::UserData, workflow, (name, Match::Contains(part.into())))?)
}

/// The jobs of the workflow that a request names.
fn named(reader: &mut dyn Reader, workflow: i64, jobs: &[SpawnJobModel]) -> Result<HashMap<String, i64>, Unseen> {
    let wanted: HashSet<&str> =
        jobs.iter().flat_map(|job| job.depends_on.iter().flatten().chain([&job.name])).map(String::as_str).collect();
    let mut known = HashMap::new();
    if wanted.is_empty() {
        return Ok(known);
    }
    let mut query = JobQuery::of(WorkflowId(workflow), 0, STEP);
    loop {
        let (views, total) = reader.jobs(&query)?;
        for view in views.iter().filter(|view| wanted.contains(&*view.name)) {
            known.insert(view.name.to_string(), view.row.id.0);
        }
        query.offset += STEP;
        if query.offset >= total {
            return Ok(known);
        }
    }
}

fn new_jobs(
    jobs: &[SpawnJobModel],
    workflow: i64,
    known: &HashMap<String, i64>,
    env: &BTreeMap<String, String>,
    requirements: &HashMap<String, i64>,
    lineage: &str,
) -> Result<Vec<NewJob>, Fault> {
    let places: HashMap<&str, usize> = jobs.iter().enumerate().map(|(place, job)| (job.name.as_str(), place)).collect();
    let mut siblings: Vec<Vec<usize>> = Vec::with_capacity(jobs.len());
    let mut new = Vec::with_capacity(jobs.len());
    let mut env = env.clone();
    env.insert(LINEAGE_ENV.to_owned(), lineage.to_owned());
    for job in jobs {
        let (mut depends_on, mut of_these) = (Vec::new(), Vec::new());
        for name in job.depends_on.iter().flatten() {
            match (places.get(name.as_str()), known.get(name)) {
                (Some(place), _) => {
                    of_these.push(*place);
                    depends_on.push(-1 - i64::try_from(*place).expect("a request is not so long"));
                }
                (None, Some(id)) => depends_on.push(*id),
                (None, None) => {
                    let text = format!("spawn job '{}' depends on unknown job '{name}'", job.name);
                    return Err(Fault::unprocessable(text));
                }
            }
        }
        siblings.push(of_these);
        let requirement = job.resource_requirements.as_deref().unwrap_or(DEFAULT);
        let unknown = || format!("Unknown resource_requirements '{requirement}' for spawn job '{}'", job.name);
        new.push(new_job(JobModel {
            workflow_id: workflow,
            name: job.name.clone(),
            command: job.command.clone(),
            env: Some(env.clone()),
            resource_requirements_id: Some(
                *requirements.get(requirement).ok_or_else(|| Fault::unprocessable(unknown()))?,
            ),
            priority: job.priority,
            labels: job.labels.clone(),
            cancel_on_blocking_job_failure: Some(job.cancel_on_blocking_job_failure.unwrap_or(true)),
            supports_termination: Some(false),
            depends_on_job_ids: Some(depends_on),
            ..JobModel::default()
        }));
    }
    if has_circle(&siblings) {
        return Err(Fault::unprocessable("spawn jobs dependency graph contains a cycle"));
    }
    Ok(new)
}

/// Whether some of these depend on each other in a circle.
fn has_circle(depends_on: &[Vec<usize>]) -> bool {
    let mut unmet: Vec<usize> = depends_on.iter().map(Vec::len).collect();
    let mut dependents = vec![Vec::new(); depends_on.len()];
    for (place, prerequisites) in depends_on.iter().enumerate() {
        for prerequisite in prerequisites {
            dependents[*prerequisite].push(place);
        }
    }
    let mut free: Vec<usize> = (0..depends_on.len()).filter(|place| unmet[*place] == 0).collect();
    let mut freed = 0;
    while let Some(place) = free.pop() {
        freed += 1;
        for dependent in &dependents[place] {
            unmet[*dependent] -= 1;
            if unmet[*dependent] == 0 {
                free.push(*dependent);
            }
        }
    }
    freed < depends_on.len()
}

fn user_data(workflow: i64, name: String, data: Json) -> Result<Statement, Fault> {
    let model = UserDataModel { id: None, workflow_id: workflow, name, is_ephemeral: Some(true), data: Some(data) };
    Ok(Statement::Insert { table: Table::UserData, rows: vec![rows::to_row(Table::UserData, &model)?] })
}

/// Nothing more is to come of a lineage: its state is kept under one name.
async fn store_last(
    door: &Door,
    workflow: i64,
    lineage: &str,
    generation: i64,
    last: Option<i64>,
    state: Json,
) -> Result<(), Fault> {
    let data = json!({"generation": generation, "spawn_count": generation, "final": true, "state": state});
    let statement = match last {
        None => user_data(workflow, last_name(lineage), data)?,
        Some(id) => {
            let place = Table::UserData.column("data").expect("user data has data");
            let set = vec![(place, Value::Text(data.to_string().into()))];
            Statement::Update { table: Table::UserData, id, only_if: Vec::new(), set }
        }
    };
    let command = match statement {
        Statement::Insert { table, rows } => Command::Insert { table, workflow: WorkflowId(workflow), rows },
        statement => Command::Apply(statement),
    };
    match door.engine().call(command).await? {
        Answer::Created(_) | Answer::Outcome(_) => Ok(()),
        other => unexpected(&other),
    }
}

fn not_running(id: i64, state: JobState) -> Fault {
    Fault::unprocessable(format!(
        "spawn_jobs requires the calling job to be Running (job_id={id} is {:?}); spawned children blocked on an \
         already-processed caller would never unblock",
        status_of(state)
    ))
}

fn refused(id: i64, error: Error) -> Fault {
    match error {
        Error::Rejected(Rejection::WrongState { state, .. }) => not_running(id, state),
        error => Doing::Other.fault(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_among_new_jobs_is_found() {
        assert!(!has_circle(&[]));
        assert!(!has_circle(&[vec![], vec![0], vec![0, 1]]));
        assert!(has_circle(&[vec![0]]));
        assert!(has_circle(&[vec![], vec![2, 0], vec![1]]));
    }
}
