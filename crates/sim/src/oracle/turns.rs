//! Whose turn it is among the lanes of an endless workflow, and which of them give nothing.

use std::collections::BTreeMap;

use forebay_domain::batch::LaneState;
use forebay_domain::command::{Claim, ClaimOrder, LaneShare, Rejection};
use forebay_domain::ids::{JobId, LaneId, WorkflowId};
use forebay_domain::job::NewJob;
use forebay_domain::lane::LabelSet;
use forebay_domain::share::Share;
use forebay_domain::state::JobState;

use super::{Job, Oracle, Wrong};
use crate::store::Db;

/// The lanes of an endless workflow, by their labels: no two have the same.
#[derive(Debug, Default)]
pub(super) struct Turns {
    lanes: BTreeMap<LabelSet, Turn>,
    /// The latest turn.
    now: u64,
}

#[derive(Debug, Default)]
struct Turn {
    paused: bool,
    /// Not before the latest turn, whatever it says.
    at: u64,
}

impl Turns {
    /// A lane that is known from now on.
    pub fn begin(&mut self, labels: LabelSet, paused: bool) {
        self.lanes.entry(labels).or_default().paused |= paused;
    }

    fn at(&self, labels: &LabelSet) -> u64 {
        self.lanes[labels].at.max(self.now)
    }
}

impl Oracle {
    pub(super) fn begin_turns(&mut self, id: WorkflowId, jobs: &[NewJob]) {
        let workflow = self.workflows.get_mut(&id).expect("checked before");
        for job in jobs {
            workflow.turns.begin(job.labels.clone(), false);
        }
    }

    pub(super) fn pause(&mut self, id: WorkflowId, labels: &LabelSet, paused: bool) -> Result<(), Rejection> {
        let workflow = self.endless(id)?;
        if labels.is_empty() {
            workflow.row.paused = paused;
        } else {
            let lane = workflow.turns.lanes.get_mut(labels);
            lane.ok_or_else(|| Rejection::NoSuchLane(labels.clone()))?.paused = paused;
        }
        self.dirty_workflows.insert(id);
        Ok(())
    }

    pub(super) fn set_shares(&mut self, shares: &[LaneShare]) {
        let shares = shares.iter().map(|lane| ((lane.workflow, lane.labels.clone()), lane.share));
        self.shares = shares.collect();
    }

    /// Whose turn it was is forgotten with all else that is not stored.
    pub(super) fn unloaded(&mut self, id: WorkflowId) {
        let Some(workflow) = self.workflows.get_mut(&id) else { return };
        workflow.turns.now = 0;
        workflow.turns.lanes.values_mut().for_each(|turn| turn.at = 0);
    }

    /// Whether a job of this lane may be handed out.
    pub(super) fn gives(&self, id: WorkflowId, labels: &LabelSet) -> bool {
        let has_room = self.share(id, labels).held_max.is_none_or(|max| self.held_of(id, labels) < i64::from(max));
        has_room && self.workflows[&id].turns.lanes.get(labels).is_some_and(|turn| !turn.paused)
    }

    /// One of the lanes that may be next.
    pub(super) fn turn(&self, id: WorkflowId) -> Option<&LabelSet> {
        let workflow = &self.workflows[&id];
        let giving = workflow.turns.lanes.keys().filter(|labels| {
            let is_ready = |job: &Job| job.row.state == JobState::Ready && job.key.2 == **labels;
            self.gives(id, labels) && workflow.jobs.values().any(is_ready)
        });
        giving.min_by_key(|labels| workflow.turns.at(labels))
    }

    /// Whether a job is the first of a lane that may be next for a claim that names none.
    pub(super) fn is_of_turn(&self, claim: &Claim, job: JobId) -> bool {
        let id = claim.workflow;
        let Some(labels) = self.job(job).map(|job| &job.key.2).filter(|_| takes_turns(claim)) else { return false };
        let turns = &self.workflows[&id].turns;
        let is_next = self.turn(id).is_some_and(|next| turns.at(next) == turns.at(labels));
        let of_lane = self.workflows[&id].jobs.values().filter(|job| job.key.2 == *labels);
        let ready = of_lane.map(|job| &job.row).filter(|row| row.state == JobState::Ready);
        let first = ready.min_by_key(|row| row.key()).map(|row| row.id);
        is_next && self.gives(id, labels) && first == Some(job)
    }

    /// A claim takes a job.
    pub(super) fn take_turn(&mut self, claim: &Claim, job: JobId) {
        if !takes_turns(claim) {
            return;
        }
        let labels = self.job(job).expect("it is taken").key.2.clone();
        let stride = self.share(claim.workflow, &labels).stride();
        let turns = &mut self.workflows.get_mut(&claim.workflow).expect("looked up before").turns;
        turns.now = turns.at(&labels);
        turns.lanes.get_mut(&labels).expect("of a job").at = turns.now + stride;
    }

    fn share(&self, id: WorkflowId, labels: &LabelSet) -> Share {
        self.shares.get(&(id, labels.clone())).copied().unwrap_or_default()
    }

    fn held_of(&self, id: WorkflowId, labels: &LabelSet) -> i64 {
        let of_lane = self.workflows[&id].jobs.values().filter(|job| job.key.2 == *labels);
        of_lane.filter(|job| job.row.state.is_held()).count() as i64
    }

    /// What is written of a lane is as it is.
    pub(super) fn check_lane_state(&self, state: &LaneState) -> Result<(), Wrong> {
        let expected = self.lane_state(state.lane);
        if expected == Some(*state) { Ok(()) } else { Err(format!("{state:?} is written, not {expected:?}")) }
    }

    /// Everything is committed.
    pub(super) fn check_lane_states(&self, db: &Db) -> Result<(), Wrong> {
        for lane in self.lanes.keys() {
            let Some(expected) = self.lane_state(*lane) else { continue };
            let none = LaneState { lane: *lane, held: 0, paused: false };
            let stored = db.lane_states.get(lane).copied().unwrap_or(none);
            if stored != expected {
                return Err(format!("{stored:?} is stored, not {expected:?}"));
            }
        }
        Ok(())
    }

    /// Of lanes of endless workflows.
    fn lane_state(&self, lane: LaneId) -> Option<LaneState> {
        let (id, (.., labels)) = self.lanes.get(&lane)?;
        let workflow = self.workflows.get(id).filter(|workflow| workflow.row.endless)?;
        let paused = workflow.turns.lanes.get(labels)?.paused;
        Some(LaneState { lane, held: self.held_of(*id, labels), paused })
    }
}

fn takes_turns(claim: &Claim) -> bool {
    claim.by == ClaimOrder::Lanes && claim.labels.is_empty()
}
