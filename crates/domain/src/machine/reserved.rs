//! What workflows that are not complete have reserved, in memory or not: room for their graphs, and lanes.

use super::Machine;
use crate::command::Rejection;
use crate::ids::WorkflowId;

impl Machine {
    /// Reserves so many bytes for the workflow's graph, in place of what it had.
    pub(super) fn reserve(&mut self, id: WorkflowId, bytes: i64) {
        let workflow = self.dirty(id);
        let had = core::mem::replace(&mut workflow.row.graph_bytes, bytes);
        self.graph_bytes += bytes - had;
    }

    /// Refuses unless the workflow may have so many lanes more, and jobs with something to do in all of its
    /// lanes; then there is room for them in memory.
    pub(super) fn room_for_lanes(&mut self, id: WorkflowId, more: usize) -> Result<(), Rejection> {
        self.lanes_fit(id, more)?;
        if more > 0 {
            // It stays in memory itself; others that have nothing going on need not.
            self.dirty(id);
            self.make_room(more);
            if self.lanes.len() + more > self.limits.lanes_max {
                return Err(self.lanes_are_full());
            }
        }
        Ok(())
    }

    /// Refuses unless all lanes of the workflow, and so many more, fit beside those of the others that are
    /// not complete.
    pub(super) fn lanes_fit(&self, id: WorkflowId, more: usize) -> Result<(), Rejection> {
        let owner = &self.workflows[&id];
        let others = self.lanes_reserved - owner.row.lanes;
        if others + (owner.lanes.len() + more) as i64 > self.limits.lanes_max as i64 {
            return Err(self.lanes_are_full());
        }
        Ok(())
    }

    fn lanes_are_full(&self) -> Rejection {
        Rejection::Limit { option: "lanes_max", max: self.limits.lanes_max as u64 }
    }

    /// The workflow's jobs are about to have something to do.
    pub(super) fn reserve_lanes(&mut self, id: WorkflowId) {
        let lanes = self.workflows[&id].lanes.len() as i64;
        self.set_lanes(id, lanes);
    }

    /// The workflow may have become complete, or may be so no more.
    pub(super) fn reserve_what_it_needs(&mut self, id: WorkflowId) {
        let row = &self.workflows[&id].row;
        if !row.is_complete() {
            return self.reserve_lanes(id);
        }
        if row.graph_bytes != 0 {
            self.reserve(id, 0);
        }
        self.set_lanes(id, 0);
    }

    fn set_lanes(&mut self, id: WorkflowId, lanes: i64) {
        if self.workflows[&id].row.lanes != lanes {
            let had = core::mem::replace(&mut self.dirty(id).row.lanes, lanes);
            self.lanes_reserved += lanes - had;
        }
    }
}
