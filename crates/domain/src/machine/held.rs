//! What the holder of an attempt may say of it, short of its end: that it goes on, or was not begun.

use alloc::vec::Vec;

use super::{Machine, Step};
use crate::command::{Answer, Held, Rejection};
use crate::ids::{JobId, Timestamp, WorkflowId};
use crate::job::JobRow;

impl Machine {
    /// Attempts go on: their time begins anew. It is written, as the job's row alone says when that is over.
    pub(super) fn renew(&mut self, now: Timestamp, workflow: WorkflowId, attempts: &[Held]) -> Step {
        self.each_held(workflow, attempts, |machine, row| {
            let Some(deadline) = row.deadline(now) else { return };
            let later = |row: &mut JobRow| {
                row.due_at = Some(deadline);
                Ok(())
            };
            machine.rewrite(row.id, false, later).expect("nothing refuses it");
        })
    }

    pub(super) fn put_back_all(&mut self, workflow: WorkflowId, attempts: &[Held]) -> Step {
        self.each_held(workflow, attempts, |machine, row| machine.put_back(row.id))
    }

    /// Does this to those attempts that are held as is said.
    fn each_held(&mut self, id: WorkflowId, attempts: &[Held], act: impl Fn(&mut Machine, JobRow)) -> Step {
        self.resident(id)?;
        self.needs_jobs(id, attempts.iter().map(|held| held.job))?;
        let outcomes: Vec<(JobId, Result<(), Rejection>)> =
            attempts.iter().map(|held| (held.job, self.held(id, held).map(|row| act(self, row)))).collect();
        let row = &self.workflows[&id].row;
        let (is_complete, is_canceled) = (row.is_complete(), row.canceled);
        Ok(Some(Answer::Reported { outcomes, claimed: None, is_complete, is_canceled }))
    }

    /// The job's row, if this claim of this attempt holds it.
    fn held(&self, workflow: WorkflowId, held: &Held) -> Result<JobRow, Rejection> {
        let &Held { job, attempt, grant } = held;
        let row = self.slots.get(&job).ok_or(Rejection::NoSuchJob(job))?.row;
        if self.workflows.get(&row.workflow).is_some_and(|owner| owner.row.is_over(&row)) {
            return Err(Rejection::NoSuchJob(job));
        }
        if row.workflow != workflow {
            return Err(Rejection::OtherWorkflow { job, workflow });
        }
        if row.attempt != attempt {
            return Err(Rejection::AttemptMismatch { job, given: attempt, current: row.attempt });
        }
        if row.held_by() != Some(grant) {
            return Err(Rejection::GrantMismatch { job, given: grant, current: row.held_by() });
        }
        Ok(row)
    }
}
