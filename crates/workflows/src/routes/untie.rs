//! Files and user data that are deleted: no job lists what is not there.

use std::collections::{BTreeMap, BTreeSet};

use forebay_domain::catalog::Table;
use forebay_domain::command::{Answer, Command, JobChange, Rejection, Scope};
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::job::RelationKind;
use forebay_domain::port::Reader;
use forebay_engine::Error;
use forebay_wire::JobModel;
use tokio::task::JoinSet;

use crate::fault::Fault;
use crate::http::{Call, Reply};
use crate::job::{model_of, payload_of};
use crate::routes::catalog::{self, Resource, existing};
use crate::routes::unexpected;
use crate::{Door, Unseen, rows};

/// Jobs that are changed at a time.
const STEP: usize = 500;

/// What jobs are tied to, of those rows that are to be deleted.
type Ties = BTreeMap<JobId, BTreeSet<(RelationKind, i64)>>;

/// Deletes a row; the jobs that list it do so no more.
pub(super) async fn delete(door: &Door, resource: &'static Resource, id: i64) -> Reply {
    let row = existing(door, resource, id).await?;
    untie(door, resource.table, rows::int(&row, resource.table, "workflow_id"), Some(id)).await?;
    catalog::delete(door, resource, id).await
}

/// Deletes a workflow's rows, likewise.
pub(super) async fn delete_all(door: &Door, resource: &'static Resource, call: &Call<'_>) -> Reply {
    untie(door, resource.table, call.params().required("workflow_id")?, None).await?;
    catalog::delete_all(door, resource, call).await
}

/// Before the row is gone: who asks for its deletion again, should this end half done, ends it.
async fn untie(door: &Door, table: Table, workflow: i64, id: Option<i64>) -> Result<(), Fault> {
    let scope = Scope::Workflow(WorkflowId(workflow));
    let mut ties = door.look_of(scope, move |reader| ties_to(reader, table, workflow, id)).await?;
    while let Some((last, _)) = ties.iter().nth(STEP - 1).or_else(|| ties.last_key_value()) {
        let rest = ties.split_off(&JobId(last.0 + 1));
        let step = std::mem::replace(&mut ties, rest);
        let changes = door.look_of(scope, move |reader| without(reader, &step)).await?;
        let mut calls = JoinSet::new();
        for (job, change) in changes {
            let door = door.clone();
            calls.spawn(async move {
                let answer = door.engine().call(Command::UpdateJob { job, change: Box::new(change) }).await;
                door.kept().take(job);
                answer
            });
        }
        while let Some(answer) = calls.join_next().await {
            match answer.expect("a change of a job does not panic") {
                // What is gone lists nothing.
                Ok(Answer::Done) | Err(Error::Rejected(Rejection::NoSuchJob(_))) => {}
                Ok(other) => unexpected(&other),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

fn ties_to(reader: &mut dyn Reader, table: Table, workflow: i64, id: Option<i64>) -> Result<Ties, Unseen> {
    let kinds = RelationKind::of(table);
    let mut ties = Ties::new();
    for (job, kind, item) in reader.relations(WorkflowId(workflow))? {
        if kinds.contains(&kind) && id.is_none_or(|id| id == item) {
            ties.entry(job).or_default().insert((kind, item));
        }
    }
    Ok(ties)
}

/// These jobs as they are without their ties.
fn without(reader: &mut dyn Reader, ties: &Ties) -> Result<Vec<(JobId, JobChange)>, Unseen> {
    let mut changes = Vec::with_capacity(ties.len());
    for (job, ties) in ties {
        let Some(view) = reader.job(*job)? else { continue };
        let mut model = model_of(&view.payload);
        for (kind, id) in ties {
            ids(&mut model, *kind).retain(|listed| listed != id);
        }
        let (name, payload) = (Some(view.name), Some(payload_of(model)));
        changes.push((*job, JobChange { name, payload, ..JobChange::default() }));
    }
    Ok(changes)
}

fn ids(model: &mut JobModel, kind: RelationKind) -> &mut Vec<i64> {
    match kind {
        RelationKind::InputFile => &mut model.input_file_ids,
        RelationKind::OutputFile => &mut model.output_file_ids,
        RelationKind::InputUserData => &mut model.input_user_data_ids,
        RelationKind::OutputUserData => &mut model.output_user_data_ids,
    }
    .get_or_insert_default()
}
