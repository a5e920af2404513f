//! Leases: who has one, whose is over, and that what they held is back.

use std::collections::{BTreeMap, BTreeSet};

use forebay_domain::command::{Claim, Rejection};
use forebay_domain::ids::{JobId, NodeId, Timestamp, WorkflowId};
use forebay_domain::job::JobRow;

use super::{Oracle, Wrong};
use crate::store::Db;

#[derive(Debug)]
pub(super) struct Leases {
    /// Until when.
    until: BTreeMap<NodeId, (WorkflowId, Timestamp)>,
    /// Over, and what they held may not be back.
    over: BTreeMap<NodeId, WorkflowId>,
    /// Nothing is left of their leases.
    gone: BTreeSet<NodeId>,
    /// Over in this call, and whether before its time: then somebody must be saying goodbye.
    just_over: Option<(NodeId, bool)>,
}

impl Leases {
    pub fn new(now: Timestamp, db: &Db) -> Leases {
        let until = db.leases.values().map(|lease| (lease.node, (lease.workflow, now.after(lease.lease_ms)))).collect();
        Leases { until, over: BTreeMap::new(), gone: BTreeSet::new(), just_over: None }
    }

    pub fn forget(&mut self, workflow: WorkflowId) {
        self.until.retain(|_, (of, _)| *of != workflow);
        self.over.retain(|_, of| *of != workflow);
    }
}

impl Oracle {
    pub(super) fn heartbeat(
        &mut self,
        now: Timestamp,
        workflow: WorkflowId,
        node: NodeId,
        lease_ms: i64,
        begin: bool,
    ) -> Result<(), Rejection> {
        if lease_ms <= 0 && self.leases.just_over.take_if(|(over, _)| *over == node).is_some() {
            return Ok(());
        }
        let until = now.after(lease_ms);
        match self.leases.until.get_mut(&node) {
            Some((of, end)) if *of == workflow && lease_ms > 0 => *end = until,
            None if begin && lease_ms > 0 && !self.leases.over.contains_key(&node) => {
                self.workflow(workflow)?;
                self.leases.gone.remove(&node);
                self.leases.until.insert(node, (workflow, until));
            }
            _ => return Err(Rejection::NoLease(node)),
        }
        Ok(())
    }

    pub(super) fn needs_lease(&self, claim: &Claim) -> Result<(), Rejection> {
        match claim.start_on.filter(|_| claim.leased) {
            Some(node) if !self.leases.until.contains_key(&node) => Err(Rejection::NoLease(node)),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether a claim may be refused in its midst.
    pub(super) fn has_lost_lease(&self, claim: &Claim, node: NodeId) -> bool {
        claim.leased && claim.start_on == Some(node) && !self.leases.until.contains_key(&node)
    }

    pub(super) fn lease_over(&mut self, now: Timestamp, node: NodeId) -> Result<(), Wrong> {
        self.call_over()?;
        let Some((workflow, until)) = self.leases.until.remove(&node) else {
            return Err(format!("node {node} has no lease that could be over"));
        };
        self.leases.over.insert(node, workflow);
        self.leases.just_over = Some((node, until > now));
        Ok(())
    }

    /// All that a call of the machine did was followed.
    pub fn call_over(&mut self) -> Result<(), Wrong> {
        match self.leases.just_over.take() {
            Some((node, true)) => Err(format!("the lease of node {node} was over before its time")),
            Some((_, false)) | None => Ok(()),
        }
    }

    pub(super) fn orphan(&mut self, now: Timestamp, job: JobId) -> Result<(), Wrong> {
        let row = self.known(job).map_err(|gone| format!("it was taken from its node: {gone:?}"))?;
        let is_orphan = row.state.is_held() && row.node.is_some_and(|node| self.leases.over.contains_key(&node));
        if !is_orphan {
            return Err(format!("it was taken from its node: {row:?}, {:?}", self.leases));
        }
        self.lose(now, row).map_err(|why| format!("{row:?} was lost: {why:?}"))
    }

    pub(super) fn lease_gone(&mut self, node: NodeId) -> Result<(), Wrong> {
        if self.leases.over.remove(&node).is_none() {
            return Err(format!("node {node} had no lease that was over"));
        }
        self.leases.gone.insert(node);
        Ok(())
    }

    /// Nothing is being read: no job may be with a node that is gone. While it changes in bulk, a
    /// workflow is as it was before for the oracle.
    pub(super) fn check_orphans(&self) -> Result<(), Wrong> {
        let mut jobs = self.workflows.values().flat_map(|workflow| workflow.jobs.values());
        let is_orphan = |row: &JobRow| row.state.is_held() && row.node.is_some_and(|on| self.leases.gone.contains(&on));
        match jobs.find(|job| is_orphan(&job.row)) {
            Some(job) => Err(format!("its node is gone, and it holds {:?}", job.row)),
            None => Ok(()),
        }
    }

    /// Time was called: no lease may go on that is over.
    pub fn check_leases(&self, now: Timestamp) -> Result<(), Wrong> {
        let late = self.leases.until.iter().find(|(_, (_, until))| *until <= now);
        match late {
            Some((node, (_, until))) => Err(format!("the lease of node {node} was over at {until:?}, and goes on")),
            None => Ok(()),
        }
    }

    /// Everything is committed.
    pub(super) fn check_stored_leases(&self, db: &Db) -> Result<(), Wrong> {
        let all: BTreeSet<NodeId> = self.leases.until.keys().chain(self.leases.over.keys()).copied().collect();
        if db.leases.keys().copied().eq(all.iter().copied()) {
            Ok(())
        } else {
            Err(format!("leases are stored otherwise than {:?}: {:?}", self.leases, db.leases))
        }
    }
}
