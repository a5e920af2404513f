//! Claims that are not answered yet: those that wait for a job, and those that are owed a page.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::claims::{Progress, WaitingClaim};
use super::{Machine, Work};
use crate::command::{Answer, Rejection};
use crate::ids::{JobId, LaneId, NodeId, Ticket, Timestamp, WorkflowId};
use crate::state::JobState;

/// The claims of a workflow that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// They wait for a job, in the order of their coming.
    idle: VecDeque<WaitingClaim>,
    /// They are owed a page of this lane, or a look once the workflow is not frozen any more; with what
    /// they took before it. Each lane's in the order of their coming.
    starved: BTreeMap<Option<LaneId>, VecDeque<WaitingClaim>>,
    /// How many jobs the starved have taken.
    taken: usize,
}

impl Waiting {
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.starved.is_empty()
    }

    pub fn idle(&mut self, claim: WaitingClaim) {
        self.idle.push_back(claim);
    }

    pub fn starve(&mut self, lane: Option<LaneId>, claim: WaitingClaim) {
        self.taken += claim.taken.len();
        self.starved.entry(lane).or_default().push_back(claim);
    }

    fn starved_on(&mut self, lane: Option<LaneId>) -> Option<WaitingClaim> {
        let queue = self.starved.get_mut(&lane)?;
        let claim = queue.pop_front().expect("no queue is left empty");
        if queue.is_empty() {
            self.starved.remove(&lane);
        }
        self.taken -= claim.taken.len();
        Some(claim)
    }

    /// All that are owed something, in the order of their coming.
    fn all_starved(&mut self) -> Vec<WaitingClaim> {
        self.taken = 0;
        let mut all: Vec<WaitingClaim> = core::mem::take(&mut self.starved).into_values().flatten().collect();
        all.sort_by_key(|claim| claim.since);
        all
    }

    fn remove(&mut self, ticket: Ticket) -> Option<WaitingClaim> {
        if let Some(place) = self.idle.iter().position(|claim| claim.ticket == ticket) {
            return self.idle.remove(place);
        }
        let found = self.starved.iter().find_map(|(lane, queue)| {
            let place = queue.iter().position(|claim| claim.ticket == ticket)?;
            Some((*lane, place))
        });
        let (lane, place) = found?;
        let queue = self.starved.get_mut(&lane)?;
        let claim = queue.remove(place)?;
        if queue.is_empty() {
            self.starved.remove(&lane);
        }
        self.taken -= claim.taken.len();
        Some(claim)
    }

    /// All of them, those that are owed something first.
    pub fn take_all(&mut self) -> impl Iterator<Item = WaitingClaim> + use<> {
        let starved = self.all_starved();
        starved.into_iter().chain(core::mem::take(&mut self.idle))
    }

    /// A job left its claimant's hands while the claim is still owed a page: it is not handed out.
    pub fn disown(&mut self, job: JobId, before: JobState, after: JobState) {
        if self.taken == 0 || !before.is_held() || after.is_held() {
            return;
        }
        for claim in self.starved.values_mut().flatten() {
            let took = claim.taken.len();
            claim.taken.retain(|(row, _)| row.id != job);
            claim.missing.retain(|missing| *missing != job);
            claim.lost += took - claim.taken.len();
            self.taken -= took - claim.taken.len();
        }
    }
}

/// What is new for the claims of a workflow that wait.
#[derive(Debug)]
pub(super) enum News {
    /// These lanes have a job that they had not, or their page has come.
    Lanes(BTreeSet<LaneId>),
    /// Anything may be otherwise.
    All,
}

impl Machine {
    /// A lane has something that it had not: for claims that wait.
    pub(super) fn wake_for(&mut self, id: WorkflowId, lane: LaneId) {
        if self.workflows.get(&id).is_none_or(|workflow| workflow.waiting.is_empty()) {
            return;
        }
        match self.awake.entry(id).or_insert_with(|| News::Lanes(BTreeSet::new())) {
            News::Lanes(lanes) => {
                lanes.insert(lane);
            }
            News::All => {}
        }
    }

    /// Whatever a workflow's claims wait for, it may be there.
    pub(super) fn wake_all(&mut self, id: WorkflowId) {
        self.awake.insert(id, News::All);
    }

    /// Lets claims take what has become ready or was read since: first those that are owed a page,
    /// then those that wait, each in the order of their coming.
    pub(super) fn serve(&mut self, now: Timestamp) {
        self.march(now);
        while let Some((id, news)) = self.awake.pop_first() {
            let Some(workflow) = self.workflows.get_mut(&id) else { continue };
            if workflow.frozen.is_some() {
                continue;
            }
            let lanes = match news {
                News::All => {
                    for claim in workflow.waiting.all_starved() {
                        self.go_on(now, claim);
                    }
                    None
                }
                News::Lanes(lanes) => {
                    for lane in &lanes {
                        self.serve_starved(now, id, *lane);
                    }
                    Some(lanes)
                }
            };
            self.serve_idle(now, id, lanes.as_ref());
        }
    }

    /// Lets claims go on that are owed a page of this lane, until it is to be read again.
    fn serve_starved(&mut self, now: Timestamp, id: WorkflowId, lane: LaneId) {
        while self.lanes.get(&lane).is_some_and(|lane| !lane.is_starved())
            && let Some(claim) = self.workflows.get_mut(&id).and_then(|owner| owner.waiting.starved_on(Some(lane)))
        {
            self.go_on(now, claim);
        }
        if self.workflows.get(&id).is_some_and(|owner| owner.waiting.starved.contains_key(&Some(lane))) {
            // The page may have held nothing that is still there.
            self.want_page(lane);
        }
    }

    /// Lets claims that wait take what there is, of these lanes if they are said. Those that it is not for
    /// keep their place.
    fn serve_idle(&mut self, now: Timestamp, id: WorkflowId, lanes: Option<&BTreeSet<LaneId>>) {
        let mut at = 0;
        loop {
            let workflow = self.workflows.get(&id).expect("claims do not unload their workflow");
            let Some(claim) = workflow.waiting.idle.get(at).filter(|_| !workflow.row.paused) else { return };
            let is_for_it = match lanes {
                None if workflow.row.is_complete() || workflow.heads.any() => true,
                None => return,
                Some(lanes) => {
                    let lanes = lanes.iter().filter_map(|lane| self.lanes.get(lane));
                    let mut lanes = lanes.filter(|lane| lane.gives()).peekable();
                    if lanes.peek().is_none() {
                        return;
                    }
                    lanes.any(|lane| claim.can_take(lane))
                }
            };
            if !is_for_it {
                at += 1;
                continue;
            }
            let mut claim = self.idle_of(id).remove(at).expect("looked at above");
            match self.advance(now, &mut claim) {
                Progress::Idle => {
                    self.idle_of(id).insert(at, claim);
                    at += 1;
                }
                progress => self.settle(claim, progress),
            }
        }
    }

    fn idle_of(&mut self, id: WorkflowId) -> &mut VecDeque<WaitingClaim> {
        &mut self.workflows.get_mut(&id).expect("claims do not unload their workflow").waiting.idle
    }

    fn go_on(&mut self, now: Timestamp, mut claim: WaitingClaim) {
        let progress = self.advance(now, &mut claim);
        self.settle(claim, progress);
    }

    /// Answers claims that have waited long enough with what they have. One that is owed a page goes
    /// on without waiting for more than that.
    pub(super) fn expire_waiting(&mut self, now: Timestamp) {
        while let Some(&(until, id, ticket)) = self.deadlines.first() {
            if until > now {
                break;
            }
            self.deadlines.pop_first();
            let Some(workflow) = self.workflows.get_mut(&id) else { continue };
            if let Some(claim) = workflow.waiting.starved.values_mut().flatten().find(|claim| claim.ticket == ticket) {
                claim.claim.wait_until = None;
                continue;
            }
            let frozen = workflow.frozen.is_some();
            let Some(mut waiting) = self.remove_waiting(id, ticket) else { continue };
            if frozen {
                // What became ready since is not handed out yet: it looks once more when the graph is there.
                waiting.claim.wait_until = None;
                self.waiters.insert(ticket, id);
                self.workflows.get_mut(&id).expect("looked up above").waiting.starve(None, waiting);
            } else {
                self.finish_claim(waiting);
            }
        }
    }

    /// The caller is gone before its answer: a claim that waits is removed, what it took goes back.
    pub fn caller_left(&mut self, now: Timestamp, ticket: Ticket) {
        let Some(id) = self.waiters.get(&ticket).copied() else { return };
        if let Some(waiting) = self.remove_waiting(id, ticket) {
            if let Some(until) = waiting.claim.wait_until {
                self.deadlines.remove(&(until, id, ticket));
            }
            self.run(now, Work::GiveBack(waiting.taken.into_iter().map(|(row, _)| row).collect()));
            self.serve(now);
        }
    }

    /// Refuses the waiting claims of a node whose lease is over. What they took is found with all that
    /// the node holds.
    pub(super) fn drop_claims_of(&mut self, id: WorkflowId, node: NodeId) {
        let Some(workflow) = self.workflows.get(&id) else { return };
        let of_node = |waiting: &&WaitingClaim| waiting.claim.leased && waiting.claim.start_on == Some(node);
        let starved = workflow.waiting.starved.values().flatten();
        let all = starved.chain(&workflow.waiting.idle).filter(of_node);
        for ticket in all.map(|waiting| waiting.ticket).collect::<Vec<Ticket>>() {
            if let Some(waiting) = self.remove_waiting(id, ticket) {
                self.refuse_waiting(waiting, Rejection::NoLease(node));
            }
        }
    }

    /// A waiting claim of a workflow that is deleted: what it took goes with it.
    pub(super) fn refuse_waiting(&mut self, waiting: WaitingClaim, rejection: Rejection) {
        self.unlist(&waiting);
        self.answers.push((waiting.ticket, self.open.stamp(), Answer::Rejected(rejection)));
    }

    fn remove_waiting(&mut self, id: WorkflowId, ticket: Ticket) -> Option<WaitingClaim> {
        self.waiters.remove(&ticket);
        self.workflows.get_mut(&id)?.waiting.remove(ticket)
    }

    pub(super) fn unlist(&mut self, waiting: &WaitingClaim) {
        self.waiters.remove(&waiting.ticket);
        if let Some(until) = waiting.claim.wait_until {
            self.deadlines.remove(&(until, waiting.claim.workflow, waiting.ticket));
        }
    }
}
