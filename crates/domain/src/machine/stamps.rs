//! When an answer may leave: with the commit of which batch.

use super::{Broken, Machine};
use crate::command::{Answer, Claimed, Command, Scope};
use crate::ids::{JobId, Lsn};
use crate::limits::Egress;

impl Machine {
    /// The batch whose commit lets the answer to a command leave.
    pub(super) fn stamp(&self, command: &Command, answer: &Answer) -> Lsn {
        match command {
            Command::Flush(scope) => self.last_change(*scope),
            Command::Start { .. }
            | Command::Claim(_)
            | Command::Report(_)
            | Command::Renew { .. }
            | Command::PutBack { .. } => self.stamp_of_work(answer),
            Command::CreateWorkflow(_)
            | Command::DeleteWorkflow(_)
            | Command::CancelWorkflow(_)
            | Command::ArchiveWorkflow { .. }
            | Command::NewRun { .. }
            | Command::ResetJobs { .. }
            | Command::Initialize { .. }
            | Command::CreateJobs { .. }
            | Command::SpawnJobs { .. }
            | Command::UpdateJob { .. }
            | Command::DeleteJobs { .. }
            | Command::Retry { .. }
            | Command::SetState { .. }
            | Command::Heartbeat { .. }
            | Command::CreateApplication { .. }
            | Command::Enqueue { .. }
            | Command::Pause { .. }
            | Command::SetShares(_)
            | Command::CreateRequirements { .. }
            | Command::UpdateRequirement { .. }
            | Command::Insert { .. }
            | Command::Apply(_)
            | Command::With { .. } => self.open.stamp(),
        }
    }

    /// The batch whose commit lets the answer to a claim, a start or a report leave.
    pub(super) fn stamp_of_work(&self, answer: &Answer) -> Lsn {
        if self.limits.egress == Egress::Committed {
            return self.open.stamp();
        }
        if self.tracer.breaks(Broken::TellsUncommitted) {
            return Lsn::default();
        }
        let armed = |job: &JobId| self.slots.get(job).map_or(Lsn::default(), |slot| slot.armed);
        let armed_of = |claimed: &Claimed| claimed.jobs.iter().map(|(row, _)| armed(&row.id)).max();
        let last = match answer {
            Answer::Job(row) => Some(armed(&row.id)),
            Answer::Claimed(claimed) if !claimed.canceled => armed_of(claimed),
            Answer::Reported { outcomes, claimed, is_complete: false, is_canceled: false } => {
                let reported = outcomes.iter().map(|(job, _)| armed(job)).max();
                reported.max(claimed.as_ref().and_then(armed_of))
            }
            // A refusal, or the end of the workflow: nobody comes back to be told otherwise.
            _ => Some(self.open.stamp()),
        };
        last.unwrap_or_default()
    }

    /// The last batch with a change of this.
    pub(super) fn last_change(&self, scope: Scope) -> Lsn {
        let last = match scope {
            Scope::Everything => Some(self.open.stamp()),
            Scope::Workflow(id) => {
                self.workflows.get(&id).map(|workflow| workflow.touched).or(self.deleted.get(&id).copied())
            }
            Scope::Job(id) => Some(self.slots.get(&id).map_or(self.unslotted, |slot| slot.lsn)),
        };
        last.unwrap_or_default()
    }
}
