//! Workflows: what is done to all of their jobs at once.

use alloc::vec::Vec;

use super::marches::Bulk;
use super::{Machine, Step, Stop, Trace, Work, Workflow};
use crate::batch::{March, Sequence, WorkflowRow};
use crate::catalog::{Statement, Table, Value};
use crate::command::{Answer, NewWorkflow, Rejection};
use crate::graph::Graph;
use crate::ids::{JobId, RequirementId, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow};
use crate::plan::{Aim, Plan};
use crate::state::{Event, JobState};

impl Machine {
    pub(super) fn create_workflow(&mut self, new: &mut NewWorkflow) -> Answer {
        let id = WorkflowId(self.take_ids(Sequence::Row(Table::Workflow), 1));
        let requirement = RequirementId(self.take_ids(Sequence::Row(Table::Requirement), 1));
        let mut row = core::mem::take(&mut new.row);
        row[0] = Value::Int(id.0);
        let mut default = core::mem::take(&mut new.default_requirement);
        default[0] = Value::Int(requirement.0);
        default[1] = Value::Int(id.0);
        self.make_room(0);
        let mut workflow = Workflow::new(WorkflowRow::new(id, requirement));
        workflow.requirements.insert(requirement, new.needs);
        self.workflows.insert(id, workflow);
        self.dirty(id);
        self.open.requirement(id, requirement, new.needs);
        self.open.statement(Statement::Insert { table: Table::Workflow, rows: alloc::vec![row] });
        self.open.statement(Statement::Insert { table: Table::Requirement, rows: alloc::vec![default] });
        Answer::Created(id.0)
    }

    pub(super) fn delete_workflow(&mut self, id: WorkflowId) -> Step {
        let workflow = self.resident(id)?;
        for waiting in workflow.waiting.take_all() {
            self.refuse_waiting(waiting, Rejection::NoSuchWorkflow(id));
        }
        let row = &self.workflows[&id].row;
        self.graph_bytes -= row.graph_bytes;
        self.lanes_reserved -= row.lanes;
        self.unload(id);
        let gone: Vec<JobId> =
            self.slots.iter().filter(|(_, slot)| slot.row.workflow == id).map(|(job, _)| *job).collect();
        for job in gone {
            self.remove_slot(job);
        }
        self.forget_leases(id);
        self.open.delete_workflow(id);
        self.deleted.insert(id, self.open.lsn());
        Ok(Some(Answer::Done))
    }

    pub(super) fn archive_workflow(&mut self, id: WorkflowId, archived: bool) -> Step {
        self.resident(id)?;
        self.dirty(id).row.archived = archived;
        Ok(Some(Answer::Done))
    }

    pub(super) fn new_run(&mut self, id: WorkflowId, force: bool) -> Step {
        let row = self.resident(id)?.row;
        if row.archived {
            return Err(Rejection::Archived(id).into());
        }
        let held = row.counts[JobState::Claimed as usize] + row.counts[JobState::Running as usize];
        if held > 0 && !force {
            return Err(Rejection::JobsHeld { workflow: id, held }.into());
        }
        if row.canceled {
            self.lanes_fit(id, 0)?;
        }
        let workflow = self.dirty(id);
        workflow.row.run += 1;
        workflow.row.canceled = false;
        let run = workflow.row.run;
        self.reserve_what_it_needs(id);
        self.wake_all(id);
        Ok(Some(Answer::Count(run)))
    }

    pub(super) fn unless_archived(&mut self, id: WorkflowId) -> Result<(), Stop> {
        if self.resident(id)?.row.archived { Err(Rejection::Archived(id).into()) } else { Ok(()) }
    }

    /// Stops until all rows of the workflow are read; then the work goes on in `apply_plan`.
    pub(super) fn with_rows(&mut self, id: WorkflowId, aim: Aim) -> Step {
        self.resident(id)?;
        Err(Stop::Rows { workflow: id, aim })
    }

    /// Does what all rows of a workflow were read for.
    pub(super) fn apply_plan(&mut self, now: Timestamp, id: WorkflowId, aim: Aim, plan: Plan, work: Work) {
        if !self.workflows.contains_key(&id) {
            return;
        }
        if let Plan::Graph(graph) = plan {
            let waiting = self.thaw(id);
            self.workflows.get_mut(&id).expect("looked up above").graph = Some(graph);
            self.fit_graphs(id);
            self.run(now, work);
            return waiting.into_iter().for_each(|work| self.run(now, work));
        }
        self.arming = work.rearms();
        let step = self.change(now, id, aim, plan);
        self.arming = false;
        let marches = matches!(step, Err(Stop::March));
        self.conclude(step, work);
        if !marches {
            for work in self.thaw(id) {
                self.run(now, work);
            }
        }
    }

    fn change(&mut self, now: Timestamp, id: WorkflowId, aim: Aim, plan: Plan) -> Step {
        match (aim, plan) {
            (_, Plan::Refused(rejection)) => Err(rejection.into()),
            (_, Plan::Cancel { held, graph }) => self.cancel_all(now, id, &held, graph),
            (Aim::Uncreate { from }, Plan::Delete { doomed, .. }) => self.carry_out(id, Bulk::uncreate(from, doomed)),
            (Aim::Delete { job: Some(_) }, Plan::Delete { doomed, graph }) => {
                Ok(Some(self.delete_job(now, id, doomed[0], graph)))
            }
            (_, Plan::Delete { doomed, .. }) => self.carry_out(id, Bulk::delete(doomed)),
            (Aim::Initialize { only_drafts, done, now: judged }, Plan::Change(change)) => {
                self.tracer.note(Trace::Judged(id, judged));
                let bytes = change.graph.as_ref().map_or(0, Graph::bytes) as i64;
                let had = self.workflows[&id].row.graph_bytes;
                let max = self.limits.graph_bytes_max as u64;
                if (self.graph_bytes - had + bytes).cast_unsigned() > max {
                    return Err(Rejection::Limit { option: "graph_bytes_max", max }.into());
                }
                self.lanes_fit(id, 0)?;
                self.reserve(id, bytes);
                self.reserve_lanes(id);
                self.carry_out(id, Bulk::change(March::Initialize { only_drafts, done }, *change))
            }
            (Aim::Reset { failed_only, done }, Plan::Change(change)) => {
                self.lanes_fit(id, 0)?;
                self.reserve_lanes(id);
                self.carry_out(id, Bulk::change(March::Reset { failed_only, done }, *change))
            }
            (Aim::Release { job, now: judged }, Plan::Change(change)) => {
                self.tracer.note(Trace::Judged(id, judged));
                self.carry_out(id, Bulk::rest_of_release(job, judged, *change))
            }
            (_, Plan::Change(_) | Plan::Graph(_)) => unreachable!("each aim has its plan"),
        }
    }

    /// What is held becomes canceled; nothing more is handed out.
    fn cancel_all(&mut self, now: Timestamp, id: WorkflowId, held: &[JobRow], graph: Graph) -> Step {
        let workflow = self.dirty(id);
        workflow.graph = workflow.row.has_edges.then_some(graph);
        workflow.row.canceled = true;
        for row in held {
            self.load_row(*row);
            let result = self.keep_cancellation(now, row);
            let blame = |row: &mut JobRow| {
                row.result = result;
                row.node = None;
                row.started_at = None;
                row.flags = row.flags.with(JobFlags::BLAMED, true);
            };
            self.transition(row.id, Event::Cancel, blame)?;
            self.release(now, id, row.id, false);
        }
        self.reserve_what_it_needs(id);
        self.wake_all(id);
        Ok(Some(Answer::Done))
    }
}
