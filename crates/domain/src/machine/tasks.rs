//! Endless workflows: the tasks of an application. Jobs come one by one or some at a time, are ready at
//! once or at their moment, and are gone when they end.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::{Machine, Slot, Step, Workflow};
use crate::batch::{JobDetail, Sequence, WorkflowRow};
use crate::catalog::{Statement, Table, Value};
use crate::claim::Needs;
use crate::command::{Answer, Command, Rejection};
use crate::ids::{JobId, RequirementId, Timestamp, WorkflowId};
use crate::job::{JobFlags, NewJob};
use crate::lane::LabelSet;
use crate::state::JobState;

/// What jobs of endless workflows need: they are not packed.
const NEEDS: Needs = Needs { cpus: 0, memory_bytes: 0, gpus: 0, nodes: 1, runtime_seconds: 0 };

impl Machine {
    pub(super) fn create_application(&mut self, name: &str) -> Answer {
        let id = WorkflowId(self.take_ids(Sequence::Row(Table::Workflow), 1));
        let number = self.take_ids(Sequence::Row(Table::Application), 1);
        // The catalog knows nothing of what it needs.
        let requirement = RequirementId(0);
        self.make_room(0);
        let mut workflow = Workflow::new(WorkflowRow::endless(id, requirement));
        workflow.requirements.insert(requirement, NEEDS);
        self.workflows.insert(id, workflow);
        self.dirty(id);
        self.open.requirement(id, requirement, NEEDS);
        let row = Box::new([Value::Int(number), Value::Int(id.0), Value::Text(name.into())]);
        self.open.statement(Statement::Insert { table: Table::Application, rows: alloc::vec![row] });
        Answer::Created(id.0)
    }

    /// All or nothing. They are in their lanes at once: whoever waits for one gets it in the same batch.
    pub(super) fn enqueue(&mut self, now: Timestamp, id: WorkflowId, jobs: &mut Vec<NewJob>) -> Step {
        let endless = self.resident(id)?.row.endless;
        if !endless {
            return Err(Rejection::NoSuchWorkflow(id).into());
        }
        if jobs.len() > self.limits.step_max {
            return Err(Rejection::Limit { option: "step_max", max: self.limits.step_max as u64 }.into());
        }
        for job in jobs.iter() {
            if job.priority < 0 {
                return Err(Rejection::NegativePriority(job.priority).into());
            }
            if let Some(requirement) = job.requirement {
                return Err(Rejection::NoSuchRequirement(requirement).into());
            }
            if let Some(scheduler) = job.scheduler {
                return Err(Rejection::NoSuchScheduler(scheduler).into());
            }
        }
        if jobs.iter().map(|job| job.depends_on.len()).sum::<usize>() > self.limits.step_max {
            return Err(Rejection::Limit { option: "step_max", max: self.limits.step_max as u64 }.into());
        }
        let prerequisites = self.prerequisites_of(id, jobs)?;
        let lanes = self.lanes_of(id, jobs)?;
        let first = self.take_ids(Sequence::Job, jobs.len());
        self.await_all(prerequisites);
        let lsn = self.open.lsn();
        let of_them = jobs.iter().flat_map(|job| job.depends_on.iter().filter(|on| on.0 < 0));
        let awaited: BTreeSet<JobId> = of_them.map(|on| JobId(first - 1 - on.0)).collect();
        // Payloads that are not kept in memory are read once they are there.
        self.dirty(id).details = lsn;
        for ((job, lane), number) in core::mem::take(jobs).into_iter().zip(lanes).zip(first..) {
            let waits = job.not_before.is_some_and(|at| at > now);
            let state = match (job.depends_on.is_empty(), waits) {
                (false, _) => JobState::Blocked,
                (true, true) => JobState::Scheduled,
                (true, false) => JobState::Ready,
            };
            let mut row = job.row(JobId(number), id, lane, state);
            row.flags = row.flags.with(JobFlags::AWAITED, awaited.contains(&row.id));
            for on in &job.depends_on {
                self.open.edge(row.id, if on.0 < 0 { JobId(first - 1 - on.0) } else { *on });
            }
            let is_small = job.payload.len() <= self.limits.payload_inline_max as usize;
            let payload = is_small.then(|| job.payload.clone());
            let detail = JobDetail { job: row.id, workflow: id, name: job.name, payload: job.payload };
            let place = self.open.enqueue(row, detail);
            let slot = self.slots.insert(Slot::read(row, lsn));
            (slot.armed, slot.place) = (lsn, place);
            self.slots.keep_payload(row.id, payload, self.limits.windows_bytes_max);
            self.recent.push_back((lsn, row.id));
            self.dirty(id).row.counts[state as usize] += 1;
            self.retime(None, row.moment());
            if state == JobState::Ready {
                self.enter(id, row.lane, row.key());
            }
        }
        Ok(Some(Answer::Created(first)))
    }

    pub(super) fn pause(&mut self, id: WorkflowId, labels: &LabelSet, paused: bool) -> Step {
        let endless = self.resident(id)?.row.endless;
        if !endless {
            return Err(Rejection::NoSuchWorkflow(id).into());
        }
        if !labels.is_empty() {
            return self.pause_lane(id, labels, paused);
        }
        self.dirty(id).row.paused = paused;
        self.wake_all(id);
        Ok(Some(Answer::Done))
    }

    /// To what has no end is not done what is done to a workflow from its beginning to its end: for who
    /// asks so, it is not there.
    pub(super) fn unless_endless(&self, command: &Command) -> Result<(), Rejection> {
        let is_endless = |id: &WorkflowId| self.workflows.get(id).is_some_and(|workflow| workflow.row.endless);
        match command {
            Command::DeleteWorkflow(workflow)
            | Command::CancelWorkflow(workflow)
            | Command::ArchiveWorkflow { workflow, .. }
            | Command::NewRun { workflow, .. }
            | Command::ResetJobs { workflow, .. }
            | Command::Initialize { workflow, .. }
            | Command::CreateJobs { workflow, .. }
            | Command::DeleteJobs { workflow, .. }
            | Command::Heartbeat { workflow, begin: true, .. }
            | Command::CreateRequirements { workflow, .. }
            | Command::UpdateRequirement { workflow, .. }
            | Command::Insert { workflow, .. }
                if is_endless(workflow) =>
            {
                Err(Rejection::NoSuchWorkflow(*workflow))
            }
            Command::SpawnJobs { parent: job, .. } | Command::UpdateJob { job, .. }
                if self.slots.get(job).is_some_and(|slot| is_endless(&slot.row.workflow)) =>
            {
                Err(Rejection::NoSuchJob(*job))
            }
            _ => Ok(()),
        }
    }
}
