//! Which jobs have other inputs than when their workflow was initialized last.

use std::collections::BTreeSet;

use forebay_domain::catalog::{Match, Row, Statement, Table, Value};
use forebay_domain::command::{Answer, Command, Scope};
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::job::RelationKind;
use forebay_domain::port::{Read, Reader, Rows};
use forebay_domain::state::JobState;
use forebay_wire::ProcessChangedJobInputsResponse;

use crate::fault::Fault;
use crate::http::{self, Call, Reply};
use crate::list;
use crate::routes::catalog::exists;
use crate::routes::unexpected;
use crate::routes::workflows::user_action;
use crate::{Door, Unseen, rows};

/// JSON's word for data that is not there, as it was before.
const NOTHING: &str = "null";

fn before() -> usize {
    Table::UserData.column("data_before").expect("user data remembers its data")
}

/// What is to be set beside new data, so that a change is known until the next initialize.
pub(super) fn remember(held: &Row, set: &mut Vec<(usize, Value)>) {
    let data = Table::UserData.column("data").expect("user data has data");
    let changes = set.iter().any(|(place, value)| *place == data && *value != held[data]);
    if changes && held[before()] == Value::Null {
        let was = match &held[data] {
            Value::Text(was) => was.clone(),
            Value::Null | Value::Int(_) | Value::Real(_) => NOTHING.into(),
        };
        set.push((before(), Value::Text(was)));
    }
}

/// The rows of a workflow whose data was set since.
fn remembered(reader: &mut dyn Reader, workflow: i64) -> Result<Vec<Row>, Unseen> {
    let is_set = (before(), Match::Above(Value::Text("".into())));
    Ok(list::such_rows(reader, Table::UserData, workflow, is_set)?)
}

/// What an initialize does beside: from now on changes are new ones.
pub(super) fn forget(reader: &mut dyn Reader, workflow: i64) -> Result<Vec<Statement>, Unseen> {
    let update = |row: Row| Statement::Update {
        table: Table::UserData,
        id: rows::int(&row, Table::UserData, "id"),
        only_if: Vec::new(),
        set: vec![(before(), Value::Null)],
    };
    Ok(remembered(reader, workflow)?.into_iter().map(update).collect())
}

/// Jobs that read user data whose data is another one now go back, unless it is a dry run.
pub(super) async fn process(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let dry_run = call.params().flag("dry_run")?;
    let (run, jobs) =
        door.look_of(Scope::Workflow(WorkflowId(workflow)), move |reader| changed(reader, workflow)).await?;
    if !dry_run && !jobs.is_empty() {
        let said = user_action(
            door,
            call,
            workflow,
            "process_changed_job_inputs",
            serde_json::json!({"workflow_id": workflow, "reinitialized_jobs": jobs.len()}),
        )?;
        let mut statements = vec![said];
        for (job, _) in jobs.iter().filter(|(_, is_draft)| !is_draft) {
            let command = Command::SetState { job: job.0, run, state: JobState::Draft };
            let statements = std::mem::take(&mut statements);
            match door.engine().call(Command::With { statements, command: Box::new(command) }).await? {
                Answer::Job(_) => {}
                other => unexpected(&other),
            }
        }
    }
    let reinitialized_jobs = jobs.into_iter().map(|((_, name), _)| name).collect();
    Ok(http::ok_json(&ProcessChangedJobInputsResponse { reinitialized_jobs }))
}

/// The jobs with their names, and whether they are drafts already.
type Changed = Vec<((JobId, String), bool)>;

fn changed(reader: &mut dyn Reader, workflow: i64) -> Result<(i64, Changed), Unseen> {
    exists(reader, workflow)?;
    let missing = || Fault::not_found("Workflow", workflow);
    let run = reader.workflow(WorkflowId(workflow))?.ok_or_else(missing)?.run;
    let data = |row: &Row| rows::text(row, Table::UserData, "data").unwrap_or(NOTHING).to_owned();
    let was = |row: &Row| rows::text(row, Table::UserData, "data_before").map(str::to_owned);
    let differs = |row: &Row| was(row).is_some_and(|was| was != data(row));
    let ids: BTreeSet<i64> = remembered(reader, workflow)?
        .iter()
        .filter(|row| differs(row))
        .map(|row| rows::int(row, Table::UserData, "id"))
        .collect();
    if ids.is_empty() {
        return Ok((run, Vec::new()));
    }
    let relations = reader.relations(WorkflowId(workflow))?.into_iter();
    let readers: BTreeSet<JobId> = relations
        .filter(|(_, kind, id)| *kind == RelationKind::InputUserData && ids.contains(id))
        .map(|(job, _, _)| job)
        .collect();
    let readers = Vec::from_iter(readers);
    let (_, Rows::Jobs(jobs)) = reader.read(&Read::Jobs(readers.clone()))? else {
        unreachable!("a reader answers with the twin of what was asked")
    };
    let drafts: BTreeSet<JobId> = jobs.iter().filter(|job| job.state == JobState::Draft).map(|job| job.id).collect();
    let names = reader.job_names(&readers)?;
    Ok((run, names.into_iter().map(|(job, name)| ((job, name.into()), drafts.contains(&job))).collect()))
}
