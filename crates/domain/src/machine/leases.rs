//! Leases: a compute node says again and again that it lives. Once it does not for the length of its
//! lease, or says goodbye, the jobs that it held are ready again, each as a new attempt.
//!
//! Renewals are not written. The store has one row for each lease, so that a start knows of it; it
//! goes in the batch in which the last of the node's jobs is back, or a later one.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::{Broken, Machine, Purpose, Step, Stop, Trace, Work};
use crate::batch::LeaseRow;
use crate::command::{Answer, Rejection};
use crate::ids::{JobId, NodeId, Timestamp, WorkflowId};
use crate::port::Read;

/// All leases. Nodes whose lease is over are here until their jobs are back.
#[derive(Debug)]
pub(super) struct Leases {
    of: BTreeMap<NodeId, Lease>,
    /// When each that is not over ends.
    ends: BTreeSet<(Timestamp, NodeId)>,
    /// As they were before the start: each gets its full length from the first moment on.
    recovered: Vec<LeaseRow>,
}

#[derive(Debug)]
struct Lease {
    row: LeaseRow,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Until(Timestamp),
    /// It is over; so many of its jobs are not looked at. `None`: which ones it has is being read.
    Over(Option<usize>),
}

impl Leases {
    pub fn new(recovered: Vec<LeaseRow>) -> Leases {
        Leases { of: BTreeMap::new(), ends: BTreeSet::new(), recovered }
    }

    pub fn len(&self) -> usize {
        self.of.len() + self.recovered.len()
    }

    /// The next moment at which one ends, or must be begun.
    pub fn next(&self) -> Option<Timestamp> {
        if self.recovered.is_empty() { self.ends.first().map(|end| end.0) } else { Some(Timestamp(0)) }
    }

    fn holds(&self, node: NodeId) -> bool {
        self.of.get(&node).is_some_and(|lease| matches!(lease.stage, Stage::Until(_)))
    }
}

impl Machine {
    /// A node lives, for the first time or still, or says goodbye.
    pub(super) fn heartbeat(
        &mut self,
        now: Timestamp,
        workflow: WorkflowId,
        node: NodeId,
        lease_ms: i64,
        begin: bool,
    ) -> Step {
        self.begin_recovered(now);
        let until = now.after(lease_ms);
        match self.leases.of.get_mut(&node) {
            Some(Lease { row, stage: Stage::Until(end) }) if row.workflow == workflow => {
                self.leases.ends.remove(&(*end, node));
                if lease_ms <= 0 {
                    self.end_lease(node);
                } else {
                    *end = until;
                    self.leases.ends.insert((until, node));
                }
            }
            None if begin && lease_ms > 0 => {
                self.resident(workflow)?;
                if self.leases.len() >= self.limits.leases_max {
                    let max = self.limits.leases_max as u64;
                    return Err(Rejection::Limit { option: "leases_max", max }.into());
                }
                let row = LeaseRow { node, workflow, lease_ms };
                self.leases.of.insert(node, Lease { row, stage: Stage::Until(until) });
                self.leases.ends.insert((until, node));
                self.open.lease(row, true);
            }
            Some(_) | None => return Err(Rejection::NoLease(node).into()),
        }
        Ok(Some(Answer::Done))
    }

    /// Whether a claim may start jobs on a node that says it has a lease.
    pub(super) fn needs_lease(&mut self, now: Timestamp, node: Option<NodeId>) -> Result<(), Rejection> {
        self.begin_recovered(now);
        match node {
            Some(node) if self.leases.holds(node) => Ok(()),
            Some(node) => Err(Rejection::NoLease(node)),
            None => Ok(()),
        }
    }

    /// Ends the leases whose time has come.
    pub(super) fn end_leases(&mut self, now: Timestamp) {
        self.begin_recovered(now);
        while let Some((_, node)) = self.leases.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.leases.ends.pop_first();
            self.end_lease(node);
        }
    }

    fn begin_recovered(&mut self, now: Timestamp) {
        for row in core::mem::take(&mut self.leases.recovered) {
            let until = now.after(row.lease_ms);
            self.leases.of.insert(row.node, Lease { row, stage: Stage::Until(until) });
            self.leases.ends.insert((until, row.node));
        }
    }

    /// A node is gone: nothing more is handed out to it, and what it holds is looked for, with all
    /// that was decided until now.
    fn end_lease(&mut self, node: NodeId) {
        let lease = self.leases.of.get_mut(&node).expect("only a lease that is there ends");
        lease.stage = Stage::Over(None);
        let workflow = lease.row.workflow;
        self.tracer.note(Trace::LeaseOver(node));
        self.drop_claims_of(workflow, node);
        self.ask(self.open.stamp(), Read::Held(node), Purpose::Held { node });
    }

    /// Which jobs a node held whose lease is over.
    pub(super) fn apply_held(&mut self, now: Timestamp, node: NodeId, mut jobs: Vec<JobId>) {
        if self.tracer.breaks(Broken::KeepsOrphans) {
            jobs.clear();
        }
        let Some(Lease { stage: Stage::Over(left @ None), .. }) = self.leases.of.get_mut(&node) else { return };
        *left = Some(jobs.len());
        if jobs.is_empty() {
            return self.remove_lease(node);
        }
        self.run_each(now, jobs.into_iter().map(|job| (job, Work::Orphan { job, node })).collect());
    }

    /// A job is to be taken from a node that is gone.
    pub(super) fn orphan(&mut self, now: Timestamp, job: JobId, node: NodeId) -> Step {
        match self.resident_job(job) {
            Ok(row) if row.state.is_held() && row.node == Some(node) => {
                self.lose(now, row)?;
                self.tracer.note(Trace::Orphan(job));
                Ok(None)
            }
            // It was reported, reset or deleted since.
            Ok(_) | Err(Stop::Rejected(_)) => Ok(None),
            Err(stop) => Err(stop),
        }
    }

    /// A job of a node that is gone was looked at; after the last one nothing is left of its lease.
    pub(super) fn orphan_is_seen_to(&mut self, node: NodeId) {
        let Some(Lease { stage: Stage::Over(Some(left)), .. }) = self.leases.of.get_mut(&node) else { return };
        *left -= 1;
        if *left == 0 {
            self.remove_lease(node);
        }
    }

    fn remove_lease(&mut self, node: NodeId) {
        if let Some(lease) = self.leases.of.remove(&node) {
            self.open.lease(lease.row, false);
            self.tracer.note(Trace::LeaseGone(node));
        }
    }

    /// Leases of a workflow that is deleted; the store's go with it.
    pub(super) fn forget_leases(&mut self, workflow: WorkflowId) {
        let ends = &mut self.leases.ends;
        self.leases.recovered.retain(|row| row.workflow != workflow);
        self.leases.of.retain(|node, lease| {
            if let (Stage::Until(until), true) = (&lease.stage, lease.row.workflow == workflow) {
                ends.remove(&(*until, *node));
            }
            lease.row.workflow != workflow
        });
    }
}
