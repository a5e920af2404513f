//! Schedulers and the nodes that they were asked for, as stored records.

use forebay_domain::catalog::Table;
use forebay_wire::{LocalSchedulerModel, ScheduledComputeNodesModel, SlurmSchedulerModel};
use serde_json::json;

use crate::Door;
use crate::events::Severity;
use crate::http::{self, Call, Reply};
use crate::routes::catalog::{Resource, insert, list, set};
use crate::rows;

pub(super) const LOCAL: Resource = Resource { table: Table::LocalScheduler, noun: "Local scheduler", contains: &[] };
pub(super) const SLURM: Resource = Resource { table: Table::SlurmScheduler, noun: "Slurm scheduler", contains: &[] };
pub(super) const SCHEDULED_NODES: Resource =
    Resource { table: Table::ScheduledNode, noun: "Scheduled compute node", contains: &[] };

pub(super) async fn list_all(door: &Door, resource: &'static Resource, call: &Call<'_>) -> Reply {
    let params = call.params();
    list(door, resource, params.required("workflow_id")?, &params, None).await
}

pub(super) async fn create_local(door: &Door, call: &Call<'_>) -> Reply {
    let mut scheduler: LocalSchedulerModel = call.json()?;
    let workflow = scheduler.workflow_id;
    scheduler.id = Some(insert(door, Table::LocalScheduler, workflow, std::slice::from_ref(&scheduler)).await?);
    Ok(http::ok_json(&scheduler))
}

pub(super) async fn update_local(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let scheduler: LocalSchedulerModel = call.json()?;
    set(door, &LOCAL, id, rows::changes(Table::LocalScheduler, &scheduler)?).await
}

pub(super) async fn create_slurm(door: &Door, call: &Call<'_>) -> Reply {
    let mut scheduler: SlurmSchedulerModel = call.json()?;
    scheduler.serialize_allocations.get_or_insert(false);
    let workflow = scheduler.workflow_id;
    scheduler.id = Some(insert(door, Table::SlurmScheduler, workflow, std::slice::from_ref(&scheduler)).await?);
    Ok(http::ok_json(&scheduler))
}

pub(super) async fn update_slurm(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let scheduler: SlurmSchedulerModel = call.json()?;
    set(door, &SLURM, id, rows::changes(Table::SlurmScheduler, &scheduler)?).await
}

pub(super) async fn create_scheduled_node(door: &Door, call: &Call<'_>) -> Reply {
    let mut node: ScheduledComputeNodesModel = call.json()?;
    let workflow = node.workflow_id;
    node.id = Some(insert(door, Table::ScheduledNode, workflow, std::slice::from_ref(&node)).await?);
    door.hub().tell(
        door.engine().now(),
        workflow,
        "scheduler_node_created",
        Severity::Info,
        json!({
            "category": "scheduler",
            "scheduled_compute_node_id": node.id,
            "scheduler_id": node.scheduler_id,
            "scheduler_config_id": node.scheduler_config_id,
            "scheduler_type": node.scheduler_type,
            "status": node.status,
        }),
    );
    Ok(http::ok_json(&node))
}

pub(super) async fn update_scheduled_node(door: &Door, id: i64, call: &Call<'_>) -> Reply {
    let node: ScheduledComputeNodesModel = call.json()?;
    set(door, &SCHEDULED_NODES, id, rows::changes(Table::ScheduledNode, &node)?).await
}
