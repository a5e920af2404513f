//! Workflows: what is done to all of their jobs at once.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Machine, Step, Stop, Work, Workflow};
use crate::batch::{Sequence, WorkflowRow};
use crate::catalog::{Statement, Table, Value};
use crate::command::{Answer, Command, NewWorkflow, Rejection};
use crate::graph::{Graph, Place};
use crate::ids::{JobId, RequirementId, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow};
use crate::port::GraphRows;
use crate::state::{Event, JobState, STATES};

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
        let mut workflow = Workflow::new(WorkflowRow {
            id,
            run: 0,
            canceled: false,
            archived: false,
            has_edges: false,
            default_requirement: requirement,
            counts: [0; STATES],
        });
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
        let mut waiting = core::mem::take(&mut workflow.starved);
        waiting.append(&mut workflow.waiting);
        for waiting in waiting {
            self.refuse_waiting(waiting, Rejection::NoSuchWorkflow(id));
        }
        self.unload(id);
        let gone: Vec<JobId> =
            self.slots.iter().filter(|(_, slot)| slot.row.workflow == id).map(|(job, _)| *job).collect();
        for job in gone {
            self.remove_slot(job);
        }
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
        let workflow = self.dirty(id);
        workflow.row.run += 1;
        workflow.row.canceled = false;
        let run = workflow.row.run;
        self.awake.insert(id);
        Ok(Some(Answer::Count(run)))
    }

    pub(super) fn unless_archived(&mut self, id: WorkflowId) -> Result<(), Stop> {
        if self.resident(id)?.row.archived { Err(Rejection::Archived(id).into()) } else { Ok(()) }
    }

    /// Stops until all rows of the workflow are read; then the work goes on in `run_with_rows`.
    pub(super) fn with_all_rows(&mut self, id: WorkflowId) -> Step {
        self.resident(id)?;
        Err(Stop::Graph { workflow: id, fresh: true })
    }

    /// Does what is done with all rows of a workflow at hand, as they are now.
    pub(super) fn run_with_rows(&mut self, now: Timestamp, id: WorkflowId, rows: &GraphRows, work: Work) {
        let step = match &work {
            Work::Command(_, Command::CancelWorkflow(_)) => self.cancel_all(now, id, rows),
            Work::Command(_, Command::ResetJobs { failed_only, .. }) => {
                Ok(Some(self.reset_all(id, *failed_only, rows)))
            }
            Work::Command(_, Command::Initialize { only_drafts, .. }) => {
                self.initialize_all(now, id, *only_drafts, rows)
            }
            Work::Command(_, Command::DeleteJobs { job, .. }) => self.delete_jobs_of(now, id, *job, rows),
            Work::Command(..) | Work::Due(_) | Work::GiveBack(_) => {
                unreachable!("only these commands ask for all rows")
            }
        };
        self.conclude(step, work);
    }

    /// What is held becomes canceled; nothing more is handed out.
    fn cancel_all(&mut self, now: Timestamp, id: WorkflowId, rows: &GraphRows) -> Step {
        let graph = Graph::new(id, &rows.jobs, rows.edges.iter().copied());
        let workflow = self.dirty(id);
        workflow.graph = workflow.row.has_edges.then_some(graph);
        workflow.row.canceled = true;
        for row in rows.jobs.iter().filter(|row| row.state.is_held()) {
            self.load_row(*row);
            let blame = |row: &mut JobRow| {
                row.node = None;
                row.started_at = None;
                row.flags = row.flags.with(JobFlags::BLAMED, true);
            };
            self.transition(row.id, Event::Cancel, blame)?;
            self.release(now, id, row.id);
        }
        self.awake.insert(id);
        Ok(Some(Answer::Done))
    }

    /// Back to draft: all jobs, or those that failed with all that hangs on them.
    fn reset_all(&mut self, id: WorkflowId, failed_only: bool, rows: &GraphRows) -> Answer {
        let edges = rows.edges.iter().copied();
        let chosen: Vec<bool> = if failed_only {
            let graph = Graph::new(id, &rows.jobs, edges);
            let failed = (0..rows.jobs.len() as Place).filter(|place| match graph.state(*place) {
                JobState::Failed | JobState::Canceled | JobState::Terminated | JobState::PendingFailed => true,
                JobState::Draft
                | JobState::Blocked
                | JobState::Ready
                | JobState::Claimed
                | JobState::Running
                | JobState::Completed
                | JobState::Disabled
                | JobState::Scheduled => false,
            });
            graph.downstream(failed)
        } else {
            alloc::vec![true; rows.jobs.len()]
        };
        self.reload_lanes(id);
        let mut count = 0;
        for (row, _) in rows.jobs.iter().zip(chosen).filter(|(_, chosen)| *chosen) {
            count += 1;
            if let Some(reset) = step(row, Event::Reset) {
                self.put_in_bulk(*row, reset);
            }
        }
        self.workflows.get_mut(&id).expect("it is resident").graph = None;
        Answer::Count(count)
    }

    /// Derives the dependencies that files and user data imply, then makes each job blocked or ready
    /// (torc 1.0.0, `initialize_jobs_core`).
    fn initialize_all(&mut self, now: Timestamp, id: WorkflowId, only_drafts: bool, rows: &GraphRows) -> Step {
        let stored: BTreeSet<(JobId, JobId)> = rows.edges.iter().copied().collect();
        let implied: Vec<(JobId, JobId)> = rows.implied.iter().copied().filter(|edge| !stored.contains(edge)).collect();
        let edges = || rows.edges.iter().copied().chain(implied.iter().copied());
        let bytes = Graph::bytes_for(rows.jobs.len(), rows.edges.len() + implied.len());
        let has_edges = !rows.edges.is_empty() || !implied.is_empty();
        if has_edges && bytes > self.limits.graph_bytes_max {
            let max = self.limits.graph_bytes_max as u64;
            return Err(Rejection::Limit { option: "graph_bytes_max", max }.into());
        }
        let graph = Graph::new(id, &rows.jobs, edges());
        if let Some(circle) = graph.circle() {
            return Err(Rejection::Cycle(circle).into());
        }
        for (job, prerequisite) in &implied {
            self.open.edge(*job, *prerequisite);
        }
        self.dirty(id).row.has_edges = has_edges;

        let mut after: Vec<JobRow> = rows.jobs.clone();
        if only_drafts {
            let drafts = (0..after.len() as Place).filter(|place| graph.state(*place) == JobState::Draft);
            for (row, _) in after.iter_mut().zip(graph.downstream(drafts)).filter(|(_, reached)| *reached) {
                *row = step(row, Event::Reset).unwrap_or(*row);
            }
        }
        // Who waits for a job that has not ended waits, whatever it was before; who waits for that one
        // is judged by what it was before, as torc does.
        let waits = Graph::new(id, &after, edges());
        for (place, row) in after.iter_mut().enumerate() {
            let unmet = waits.unmet(place as Place) > 0;
            let changed = match row.state {
                JobState::Draft | JobState::Scheduled if unmet => step(row, Event::Block),
                JobState::Disabled => None,
                _ if only_drafts && row.state != JobState::Draft => None,
                JobState::Ready | JobState::Claimed | JobState::Running | JobState::PendingFailed if unmet => {
                    step(row, Event::Block)
                }
                JobState::Completed | JobState::Failed | JobState::Canceled | JobState::Terminated if unmet => {
                    step(row, Event::Reset).and_then(|row| step(&row, Event::Block))
                }
                JobState::Completed | JobState::Failed | JobState::Canceled | JobState::Ready => None,
                JobState::Draft
                | JobState::Blocked
                | JobState::Claimed
                | JobState::Running
                | JobState::Terminated
                | JobState::PendingFailed
                | JobState::Scheduled => match (unmet, row.due_at.is_some_and(|due| due > now)) {
                    (true, _) => None,
                    (false, true) => step(row, Event::Delay),
                    (false, false) => step(row, Event::Free),
                },
            };
            *row = changed.unwrap_or(*row);
        }
        for (before, row) in rows.jobs.iter().zip(&mut after) {
            // What has an outcome and is to be done again is a new attempt: an attempt has one outcome.
            let had_ended = before.state.has_ended() || before.state == JobState::PendingFailed;
            if had_ended && before.result.is_some() && row.state != before.state {
                row.attempt += 1;
            }
        }
        self.reload_lanes(id);
        for (before, row) in rows.jobs.iter().zip(&after) {
            if before != row {
                self.put_in_bulk(*before, *row);
            }
        }
        let workflow = self.workflows.get_mut(&id).expect("it is resident");
        workflow.graph = has_edges.then(|| Graph::new(id, &after, edges()));
        self.fit_graphs(id);
        Ok(Some(Answer::Done))
    }
}

/// A row after an event of a change in bulk: nobody holds it, and it has no outcome.
fn step(row: &JobRow, event: Event) -> Option<JobRow> {
    Some(JobRow {
        state: row.state.on(event)?,
        node: None,
        started_at: None,
        result: None,
        flags: row.flags.with(JobFlags::BLAMED, false).with(JobFlags::CASCADED, false),
        ..*row
    })
}
