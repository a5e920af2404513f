//! What each lane of an endless workflow gets: shares, lanes that are paused, and how many of a lane's jobs
//! are held.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::{Broken, Machine, Map, Step, Workflow};
use crate::batch::{LaneRow, LaneState};
use crate::command::{Answer, LaneShare, Rejection};
use crate::ids::{LaneId, WorkflowId};
use crate::lane::{LabelSet, Lane};
use crate::share::{Share, Stake};

/// The shares that were said, whether their workflow is in memory or not.
#[derive(Debug, Default)]
pub(super) struct Shares(Map<WorkflowId, BTreeMap<LabelSet, Share>>);

impl Shares {
    fn of(&self, workflow: WorkflowId, labels: &LabelSet) -> Share {
        let said = self.0.get(&workflow).and_then(|of| of.get(labels));
        said.copied().unwrap_or_default()
    }

    /// The stake of a lane of an endless workflow; `state`: as it is stored.
    pub fn stake(&self, row: &LaneRow, state: Option<LaneState>) -> Stake {
        let none = LaneState { lane: row.id, held: 0, paused: false };
        Stake::new(state.unwrap_or(none), self.of(row.workflow, &row.labels))
    }
}

impl Machine {
    pub(super) fn set_shares(&mut self, shares: &mut Vec<LaneShare>) -> Step {
        if shares.len() > self.limits.lanes_max {
            return Err(Rejection::Limit { option: "lanes_max", max: self.limits.lanes_max as u64 }.into());
        }
        self.shares = Shares::default();
        for LaneShare { workflow, labels, mut share } in core::mem::take(shares) {
            if self.tracer.breaks(Broken::OverlooksBounds) {
                share.held_max = None;
            }
            self.shares.0.entry(workflow).or_default().insert(labels, share);
        }
        let mut came: Vec<(WorkflowId, LaneId)> = Vec::new();
        for (id, lane) in &mut self.lanes {
            let Some(stake) = &mut lane.stake else { continue };
            stake.share = self.shares.of(lane.row.workflow, &lane.row.labels);
            let owner = self.workflows.get_mut(&lane.row.workflow).expect("a lane is in memory with its workflow");
            if owner.heads.stand(lane) {
                came.push((lane.row.workflow, *id));
            }
        }
        for (workflow, lane) in came {
            self.wake_for(workflow, lane);
        }
        Ok(Some(Answer::Done))
    }

    pub(super) fn pause_lane(&mut self, id: WorkflowId, labels: &LabelSet, paused: bool) -> Step {
        let found = self.workflows[&id].lane_with(&mut labels.clone());
        let lane = found.ok_or_else(|| Rejection::NoSuchLane(labels.clone()))?;
        self.change_stake(lane, |state| state.paused = paused);
        Ok(Some(Answer::Done))
    }

    fn change_stake(&mut self, id: LaneId, change: impl FnOnce(&mut LaneState)) {
        let lane = self.lanes.get_mut(&id).expect("a lane is in memory with its workflow");
        let workflow = lane.row.workflow;
        lane.write_stake(&mut self.open, change);
        // It stays in memory until that is committed.
        self.dirty(workflow);
        let lane = self.lanes.get_mut(&id).expect("looked up above");
        if self.workflows.get_mut(&workflow).is_some_and(|owner| owner.heads.stand(lane)) {
            self.wake_for(workflow, id);
        }
    }
}

impl Workflow {
    /// Its lane with just these labels, if it is an endless one.
    pub(super) fn lane_with(&self, labels: &mut LabelSet) -> Option<LaneId> {
        // They are borrowed for the key.
        let key = (self.row.default_requirement, None, core::mem::take(labels));
        let found = self.lanes.get(&key).copied();
        *labels = key.2;
        found
    }
}

impl Lane {
    /// Changes the state of a lane with a stake, which is written by the open batch.
    pub(super) fn write_stake(&mut self, open: &mut super::OpenBatch, change: impl FnOnce(&mut LaneState)) {
        let Some(stake) = &mut self.stake else { return };
        change(&mut stake.state);
        if stake.written != open.lsn() {
            stake.written = open.lsn();
            open.lane_state(self.row.id);
        }
    }
}
