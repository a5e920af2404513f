//! What holders of attempts say of them, short of their end.

use forebay_domain::command::{Answer, Held, Rejection};
use forebay_domain::ids::{Timestamp, WorkflowId};
use forebay_domain::job::JobRow;

use super::Oracle;

impl Oracle {
    pub(super) fn each_held(
        &mut self,
        id: WorkflowId,
        attempts: &[Held],
        mut act: impl FnMut(&mut Oracle, JobRow),
    ) -> Result<Answer, Rejection> {
        self.workflow(id)?;
        let mut outcomes = Vec::new();
        for held in attempts {
            let found = self.held(id, held);
            outcomes.push((held.job, found.map(|row| act(self, row))));
        }
        let row = self.counted(id);
        Ok(Answer::Reported { outcomes, claimed: None, is_complete: row.is_complete(), is_canceled: row.canceled })
    }

    fn held(&self, workflow: WorkflowId, held: &Held) -> Result<JobRow, Rejection> {
        let row = self.known(held.job)?;
        let holder = row.state.is_held().then_some(row.grant);
        if row.workflow != workflow {
            Err(Rejection::OtherWorkflow { job: held.job, workflow })
        } else if row.attempt != held.attempt {
            Err(Rejection::AttemptMismatch { job: held.job, given: held.attempt, current: row.attempt })
        } else if holder != Some(held.grant) {
            Err(Rejection::GrantMismatch { job: held.job, given: held.grant, current: holder })
        } else {
            Ok(row)
        }
    }

    /// Its attempt has its whole time from now on, if that has an end.
    pub(super) fn renew(&mut self, now: Timestamp, row: JobRow) {
        let Some(policy) = row.policy.filter(|policy| policy.deadline_ms > 0) else { return };
        let workflow = self.workflows.get_mut(&row.workflow).expect("of a job");
        let job = workflow.jobs.get_mut(&row.id).expect("of a job");
        job.row.due_at = Some(now.after(policy.deadline_ms.into()));
        self.dirty.insert(row.id);
    }

    pub(super) fn put_back(&mut self, row: JobRow) {
        self.go_back(row.id).expect("who holds it may put it back");
    }
}
