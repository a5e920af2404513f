//! What the machine did, one thing after the other: for a simulator that does the same beside it.
//! Without the feature `trace` nothing of it is left.

use crate::ids::{Grant, JobId, NodeId, Ticket, Timestamp, WorkflowId};

/// One thing that the machine did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// A command took effect or was refused; a claim began.
    Done(Ticket),
    /// It was said as of which moment the jobs of a workflow are initialized.
    Judged(WorkflowId, Timestamp),
    /// A march that a crash broke off came to its end.
    Resumed(WorkflowId),
    /// What waited for this job goes on, but in parts.
    Releasing(JobId),
    /// All of that went on.
    Released(JobId),
    /// A report's outcomes took effect; its claim begins.
    Reported(Ticket),
    /// A claim took a job.
    Taken(Ticket, JobId),
    /// It was decided what a claim gets.
    Finished(Ticket),
    /// A job's moment came.
    Due(JobId),
    /// A compute node's lease is over.
    LeaseOver(NodeId),
    /// All that the node held is back.
    LeaseGone(NodeId),
    /// A job was taken from a node whose lease is over.
    Orphan(JobId),
    /// A claim that was refused put back a job that it had taken.
    Back(JobId),
    /// A job of an endless workflow waits no more: it may go on, or has ended for another's failure.
    WentOn(JobId),
    /// All that waited for this job of an endless workflow, and for nothing else, went on.
    Awaited(JobId),
    /// A workflow left memory, and with it whose turn it is among its lanes.
    Unloaded(WorkflowId),
    /// It was looked whether a job whose claim reached nobody goes back, and whether it did.
    Looked(JobId, Grant, bool),
}

/// A rule that a machine can be made to break, so that an auditor may notice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// It forgets changes as soon as they are committed, though older reads are in flight.
    ForgetsAtOnce,
    /// It forgets timers that have no room in the window and of which a page in flight does not know.
    LosesTimers,
    /// Where it answers at once, it does so of new attempts, too.
    TellsUncommitted,
    /// It does not look at jobs that are held when their moment comes.
    MissesDeadlines,
    /// It leaves the jobs of a node whose lease is over where they are.
    KeepsOrphans,
    /// It takes from the same lane again and again, whoever's turn it is.
    TakesNoTurns,
    /// It hands out of a lane what there is, however many are held.
    OverlooksBounds,
    /// It leaves who waited for a job of an endless workflow where it is.
    LeavesDependents,
}

/// Where it is written down, once it is switched on.
#[derive(Debug, Default)]
pub(super) struct Tracer {
    #[cfg(feature = "trace")]
    steps: Option<alloc::vec::Vec<Trace>>,
    #[cfg(feature = "trace")]
    broken: Option<Broken>,
}

impl Tracer {
    #[cfg(feature = "trace")]
    pub fn note(&mut self, step: Trace) {
        if let Some(steps) = &mut self.steps {
            steps.push(step);
        }
    }

    #[cfg(not(feature = "trace"))]
    #[inline(always)]
    pub fn note(&mut self, _: Trace) {}

    /// Whether this was broken on purpose.
    #[cfg(feature = "trace")]
    pub fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    #[cfg(not(feature = "trace"))]
    #[inline(always)]
    pub fn breaks(&self, _: Broken) -> bool {
        false
    }
}

#[cfg(feature = "trace")]
impl super::Machine {
    /// Takes what was done since. The first call switches the writing down on.
    pub fn trace(&mut self) -> alloc::vec::Vec<Trace> {
        core::mem::take(self.tracer.steps.get_or_insert_default())
    }

    /// From now on it breaks a rule.
    pub fn break_rule(&mut self, rule: Broken) {
        self.tracer.broken = Some(rule);
    }
}
