//! Resource requirements.

use forebay_domain::catalog::{Row, Statement, StatementOutcome, Table};
use forebay_domain::claim::Needs;
use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{JobId, LaneId, RequirementId, WorkflowId};
use forebay_domain::port::{Read, Reader, Rows};
use forebay_wire::ResourceRequirementsModel;
use forebay_wire::units::{duration_seconds, memory_bytes};
use serde_json::json;

use crate::fault::Fault;
use crate::http::{self, Call, Reply};
use crate::job::model_of;
use crate::list;
use crate::routes::catalog::{self, Keep, Resource, deleted, one};
use crate::routes::unexpected;
use crate::routes::workflows::{user_action, with};
use crate::{Door, Unseen, rows};

pub(super) const REQUIREMENTS: Resource =
    Resource { table: Table::Requirement, noun: "Resource requirements", contains: &[] };

/// The name of the requirement that each workflow has from the start.
pub(super) const DEFAULT: &str = "default";

/// What jobs of this requirement need.
pub(super) fn needs_of(model: &ResourceRequirementsModel) -> Result<Needs, Fault> {
    let ResourceRequirementsModel { memory, runtime, num_cpus, num_gpus, num_nodes, .. } = model;
    let memory_bytes = memory_bytes(memory).map_err(|error| {
        Fault::field(format!("Invalid memory format '{memory}': {error}"), "memory", memory.as_str())
    })?;
    let runtime_seconds = duration_seconds(runtime).map_err(|error| {
        Fault::field(format!("Invalid runtime format '{runtime}': {error}"), "runtime", runtime.as_str())
    })?;
    for (field, value, least) in [("num_cpus", *num_cpus, 1), ("num_nodes", *num_nodes, 1), ("num_gpus", *num_gpus, 0)]
    {
        if value < least {
            let bound = if least == 1 { "> 0" } else { ">= 0" };
            return Err(Fault::field(format!("{field} must be {bound}, got {value}"), field, value));
        }
    }
    Ok(Needs { cpus: *num_cpus, memory_bytes, gpus: *num_gpus, nodes: *num_nodes, runtime_seconds })
}

pub(super) async fn create(door: &Door, call: &Call<'_>) -> Reply {
    let mut model: ResourceRequirementsModel = call.json()?;
    if model.name == DEFAULT {
        return Err(Fault::unprocessable("Cannot create resource requirement named 'default' via external API"));
    }
    let rows = vec![(rows::to_row(Table::Requirement, &model)?, needs_of(&model)?)];
    let command = Command::CreateRequirements { workflow: WorkflowId(model.workflow_id), rows };
    match door.engine().call(command).await? {
        Answer::Created(id) => model.id = Some(id),
        other => unexpected(&other),
    }
    Ok(http::ok_json(&model))
}

pub(super) async fn list(door: &Door, call: &Call<'_>) -> Reply {
    // Seconds, unlike the column of this name.
    let runtime: Option<i64> = call.params().get("runtime")?;
    let job: Option<i64> = call.params().get("job_id")?;
    let params = call.params().without("runtime");
    let workflow: i64 = params.required("workflow_id")?;
    let keep: Option<Keep> = match (runtime, job) {
        (None, None) => None,
        (runtime, job) => Some(Box::new(move |reader| {
            let of_job = job.map(|id| requirement_of(reader, id)).transpose()?;
            let condition: Box<dyn Fn(&Row) -> bool> = Box::new(move |row| {
                let seconds =
                    || rows::text(row, Table::Requirement, "runtime").and_then(|text| duration_seconds(text).ok());
                let id = || rows::int(row, Table::Requirement, "id");
                runtime.is_none_or(|wanted| seconds() == Some(wanted))
                    && of_job.is_none_or(|wanted| wanted == Some(id()))
            });
            Ok(condition)
        })),
    };
    catalog::list(door, &REQUIREMENTS, workflow, &params, keep).await
}

fn requirement_of(reader: &mut dyn Reader, job: i64) -> Result<Option<i64>, Unseen> {
    let view = reader.job(JobId(job))?;
    Ok(view.and_then(|view| model_of(&view.payload).resource_requirements_id))
}

pub(super) async fn update(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let model: ResourceRequirementsModel = call.json()?;
    let needs = needs_of(&model)?;
    let row = catalog::existing(door, &REQUIREMENTS, id).await?;
    let workflow = rows::int(&row, Table::Requirement, "workflow_id");
    let said = json!({
        "resource_requirements_id": id,
        "name": model.name,
        "num_cpus": model.num_cpus,
        "num_gpus": model.num_gpus,
        "num_nodes": model.num_nodes,
        "memory": model.memory,
        "runtime": model.runtime,
    });
    let said = user_action(door, call, workflow, "update_resource_requirements", said)?;
    let command = Command::UpdateRequirement {
        workflow: WorkflowId(workflow),
        id: RequirementId(id),
        set: rows::changes(Table::Requirement, &model)?,
        needs,
    };
    let command = with(vec![said], command);
    let row = match door.engine().call(command).await? {
        Answer::Outcome(StatementOutcome::Row(Some(row))) => row,
        Answer::Outcome(StatementOutcome::Row(None)) => return Err(Fault::not_found(REQUIREMENTS.noun, id)),
        Answer::Outcome(StatementOutcome::Refused(why)) => return Err(Fault::unprocessable(why)),
        other => unexpected(&other),
    };
    Ok(one(Table::Requirement, &row))
}

/// One that jobs have, or may come to have by default, stays.
pub(super) async fn delete(door: &Door, id: i64) -> Reply {
    let row = catalog::existing(door, &REQUIREMENTS, id).await?;
    let workflow = rows::int(&row, Table::Requirement, "workflow_id");
    let used = door.look(move |reader| in_use(reader, workflow)).await?;
    if used.contains(&RequirementId(id)) {
        return Err(Fault::unprocessable(format!("resource_requirements_id={id} is used by jobs of its workflow")));
    }
    catalog::delete(door, &REQUIREMENTS, id).await
}

/// Deletes those that no job has and that are not the default.
pub(super) async fn delete_all(door: &Door, call: &Call<'_>) -> Reply {
    let workflow: i64 = call.params().required("workflow_id")?;
    let unused = door.look(move |reader| {
        let used = in_use(reader, workflow)?;
        let mut unused = Vec::new();
        list::each_row(reader, Table::Requirement, workflow, |row| {
            let id = rows::int(&row, Table::Requirement, "id");
            if !used.contains(&RequirementId(id)) {
                unused.push(id);
            }
        })?;
        Ok(unused)
    });
    let mut count = 0;
    for id in unused.await? {
        let statement = Statement::Delete { table: Table::Requirement, id };
        match door.engine().call(Command::Apply(statement)).await? {
            Answer::Outcome(StatementOutcome::Row(Some(_))) => count += 1,
            Answer::Outcome(StatementOutcome::Row(None)) => {}
            Answer::Outcome(StatementOutcome::Refused(why)) => return Err(Fault::unprocessable(why)),
            other => unexpected(&other),
        }
    }
    Ok(deleted(count))
}

fn in_use(reader: &mut dyn Reader, workflow: i64) -> Result<Vec<RequirementId>, Unseen> {
    match reader.read(&Read::Workflow(WorkflowId(workflow)))? {
        (_, Rows::Workflow(Some(found))) => {
            let of_lanes = found.lanes.iter().map(|(lane, _)| lane.requirement);
            Ok(of_lanes.chain([found.row.default_requirement]).collect())
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

/// What each lane of a workflow needs, with the lane.
pub(super) fn lane_needs(found: &forebay_domain::port::WorkflowRows) -> Vec<(LaneId, Needs)> {
    let needs = |id: RequirementId| found.requirements.iter().find(|(other, _)| *other == id).map(|(_, needs)| *needs);
    found.lanes.iter().filter_map(|(lane, _)| Some((lane.id, needs(lane.requirement)?))).collect()
}
