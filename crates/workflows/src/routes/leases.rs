//! Ours: compute nodes that say that they live.

use forebay_domain::catalog::Table;
use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{NodeId, WorkflowId};
use forebay_wire::ours::{HeartbeatRequest, HeartbeatResponse};

use crate::fault::Fault;
use crate::http::{self, Call, Reply};
use crate::routes::unexpected;
use crate::{Door, rows};

/// Begins, renews or ends the lease of a compute node.
pub(super) async fn heartbeat(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let HeartbeatRequest { compute_node_id: node, lease_ms, begin } = call.json()?;
    if lease_ms < 0 {
        let message = format!("lease_ms cannot be negative, got {lease_ms}");
        return Err(Fault::field(message, "lease_ms", lease_ms));
    }
    if begin {
        let row = door.look(move |reader| Ok(reader.get(Table::Node, node)?)).await?;
        row.filter(|row| rows::int(row, Table::Node, "workflow_id") == workflow)
            .ok_or_else(|| Fault::not_found("Compute node", node))?;
    }
    let lease_ms = lease_ms.min(door.options().lease_max_ms);
    let command = Command::Heartbeat { workflow: WorkflowId(workflow), node: NodeId(node), lease_ms, begin };
    match door.engine().call(command).await? {
        Answer::Done => Ok(http::ok_json(&HeartbeatResponse { lease_ms })),
        other => unexpected(&other),
    }
}
