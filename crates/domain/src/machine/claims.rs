//! Claims: a merge of the heads of the lanes that a claimant may take from, by the order that it
//! asked for.

use alloc::vec::Vec;

use super::heads::Order;
use super::{Broken, Machine, Step, Trace};
use crate::claim::Packing;
use crate::command::{Answer, Claim, ClaimOrder, Claimed, Rejection};
use crate::ids::{Grant, JobId, LaneId, SchedulerId, Ticket, Timestamp};
use crate::job::{JobRow, Payload};
use crate::lane::{LabelSet, Lane};
use crate::state::Event;

/// A claim that is not answered yet, and how far it came.
#[derive(Debug)]
pub(super) struct WaitingClaim {
    pub ticket: Ticket,
    pub claim: Claim,
    /// It came after those with a lower number.
    pub since: u64,
    /// With their payloads, which are empty where they are missing.
    pub taken: Vec<(JobRow, Payload)>,
    /// Those of the taken whose payloads are not in memory.
    pub missing: Vec<JobId>,
    /// Jobs that it took and that left its hands again while it was owed a page.
    pub lost: usize,
    packing: Option<Packing>,
    /// Nothing of its scheduler was there: it takes any.
    any_scheduler: bool,
    /// What the answer says beside the claim, if it came with a report.
    report: Option<Reported>,
}

pub(super) type Reported = Vec<(JobId, Result<(), Rejection>)>;

/// How a claim's pass over the lanes ended.
#[derive(PartialEq, Eq)]
enum Pass {
    /// It has all that it can get now.
    Done,
    /// The next job in the order may be in a page of this lane that is not there yet.
    Starved(LaneId),
}

/// What becomes of a claim that took what it could.
#[derive(PartialEq, Eq)]
pub(super) enum Progress {
    /// It is to be answered now.
    Done,
    /// It is owed a page of this lane, whatever else there is.
    Starved(LaneId),
    /// It waits for a job.
    Idle,
}

impl Machine {
    pub(super) fn claim(&mut self, now: Timestamp, ticket: Ticket, claim: &Claim) -> Step {
        let endless = self.resident(claim.workflow)?.row.endless;
        claim.goes_with(endless)?;
        self.needs_lease(now, claim.start_on.filter(|_| claim.leased))?;
        self.begin_claim(now, ticket, claim.clone(), None)
    }

    /// Takes what there is; waits if there is nothing and the claim may wait.
    pub(super) fn begin_claim(
        &mut self,
        now: Timestamp,
        ticket: Ticket,
        claim: Claim,
        report: Option<Reported>,
    ) -> Step {
        let workflow = claim.workflow;
        let packing = match claim.by {
            ClaimOrder::Queue | ClaimOrder::Lanes => None,
            ClaimOrder::Fitting { capacity, .. } => Some(Packing::new(capacity)),
        };
        let any_scheduler = packing.is_none();
        self.clock += 1;
        let (since, taken, missing, lost) = (self.clock, Vec::new(), Vec::new(), 0);
        let mut waiting = WaitingClaim { ticket, claim, since, taken, missing, lost, packing, any_scheduler, report };
        let progress = self.advance(now, &mut waiting);
        if progress != Progress::Done && self.waiters.len() >= self.limits.waiting_max {
            let max = self.limits.waiting_max as u64;
            for (job, _) in waiting.taken {
                self.put_back(job.id);
                self.tracer.note(Trace::Back(job.id));
            }
            return Err(Rejection::Limit { option: "waiting_max", max }.into());
        }
        if progress != Progress::Done {
            if let Some(until) = waiting.claim.wait_until {
                self.deadlines.insert((until, workflow, ticket));
            }
            self.waiters.insert(ticket, workflow);
        }
        self.settle(waiting, progress);
        Ok(None)
    }

    /// Answers a claim, or puts it where it goes on.
    pub(super) fn settle(&mut self, waiting: WaitingClaim, progress: Progress) {
        let owner = self.workflows.get_mut(&waiting.claim.workflow).expect("it is resident");
        match progress {
            Progress::Starved(lane) => owner.waiting.starve(Some(lane), waiting),
            Progress::Idle => owner.waiting.idle(waiting),
            Progress::Done => {
                self.unlist(&waiting);
                self.finish_claim(waiting);
            }
        }
    }

    /// Takes what the claim may take now.
    pub(super) fn advance(&mut self, now: Timestamp, waiting: &mut WaitingClaim) -> Progress {
        let workflow = &self.workflows[&waiting.claim.workflow];
        if workflow.row.is_complete() {
            return Progress::Done;
        }
        if workflow.row.paused {
            let waits = !waiting.took_any() && waiting.claim.limit > 0 && waiting.claim.wait_until.is_some();
            return if waits { Progress::Idle } else { Progress::Done };
        }
        if !waiting.took_any() {
            // Whatever it looked at before: its own scheduler's jobs go first if there are any now.
            waiting.any_scheduler = waiting.packing.is_none();
        }
        loop {
            if let Pass::Starved(lane) = self.pass(now, waiting) {
                return Progress::Starved(lane);
            }
            let strict = matches!(waiting.claim.by, ClaimOrder::Fitting { strict: true, .. });
            if waiting.took_any() || waiting.any_scheduler || strict {
                break;
            }
            waiting.any_scheduler = true;
        }
        if waiting.took_any() || waiting.claim.limit == 0 || waiting.claim.wait_until.is_none() {
            return Progress::Done;
        }
        Progress::Idle
    }

    /// One pass over the merged order of the lanes.
    fn pass(&mut self, now: Timestamp, waiting: &mut WaitingClaim) -> Pass {
        let limit = (waiting.claim.limit as usize).min(self.limits.claim_max);
        let id = waiting.claim.workflow;
        let Some(order) = Order::of(waiting.claim.by) else { return self.pass_turns(now, waiting, limit) };
        let workflow = self.workflows.get_mut(&id).expect("it is resident");
        if !workflow.heads.keeps(order) {
            workflow.heads.keep(order, workflow.lanes.values().filter_map(|lane| self.lanes.get(lane)));
        }
        let mut groups = core::mem::take(&mut self.groups);
        groups.clear();
        groups.extend(workflow.heads.groups(|labels, scheduler| waiting.may_take(labels, scheduler)));
        let (mut pass, mut at) = (Pass::Done, None);
        while waiting.taken.len() + waiting.lost < limit
            && let Some(place) = self.workflows[&id].heads.next(order, &groups, at)
        {
            at = Some(place);
            let lane = &self.lanes[&place.lane];
            let needs = lane.needs;
            if waiting.packing.as_ref().is_some_and(|packing| !packing.fits(&needs)) {
                continue;
            }
            let Some(head) = lane.head() else {
                self.want_page(place.lane);
                pass = Pass::Starved(place.lane);
                break;
            };
            self.hand(now, head.id(), waiting);
            if let Some(packing) = &mut waiting.packing {
                packing.take(&needs);
            }
            self.took_from(place.lane);
        }
        self.groups = groups;
        pass
    }

    /// Takes from the lane that the claim names, or from all in turns.
    fn pass_turns(&mut self, now: Timestamp, waiting: &mut WaitingClaim, limit: usize) -> Pass {
        let id = waiting.claim.workflow;
        let names_one = !waiting.claim.labels.is_empty();
        let named = names_one.then(|| self.workflows[&id].lane_with(&mut waiting.claim.labels)).flatten();
        while waiting.taken.len() + waiting.lost < limit {
            let next = if names_one { named } else { self.workflows[&id].heads.turn() };
            let Some((place, lane)) = next.and_then(|lane| Some((lane, self.lanes.get_mut(&lane)?))) else { break };
            if !lane.gives() {
                break;
            }
            let Some(head) = lane.head() else {
                self.want_page(place);
                return Pass::Starved(place);
            };
            if !names_one && !self.tracer.breaks(Broken::TakesNoTurns) {
                self.workflows.get_mut(&id).expect("it is resident").heads.take_turn(lane);
            }
            self.hand(now, head.id(), waiting);
            self.took_from(place);
        }
        Pass::Done
    }

    fn hand(&mut self, now: Timestamp, job: JobId, waiting: &mut WaitingClaim) {
        let grant = self.granted.next();
        self.transition(job, Event::Claim, |row| begin(row, now, grant)).expect("what is in a window is ready");
        self.granted = grant;
        if let Some(node) = waiting.claim.start_on {
            let start = |row: &mut JobRow| {
                row.node = Some(node);
                row.started_at = Some(now);
            };
            self.transition(job, Event::Start, start).expect("it was just claimed");
        }
        let payload = self.slots.take_payload(job).unwrap_or_else(|| {
            waiting.missing.push(job);
            Payload::from([])
        });
        if waiting.taken.is_empty() {
            // Most claims are of one job or a few, and an answer that waits shall not be larger than it must.
            waiting.taken.reserve_exact(waiting.claim.limit.min(4) as usize);
        }
        waiting.taken.push((*self.row(job), payload));
        self.tracer.note(Trace::Taken(waiting.ticket, job));
    }

    /// Answers a claim with what it took.
    pub(super) fn finish_claim(&mut self, mut waiting: WaitingClaim) {
        self.tracer.note(Trace::Finished(waiting.ticket));
        let workflow = &self.workflows[&waiting.claim.workflow];
        let (canceled, complete, details) = (workflow.row.canceled, workflow.row.is_complete(), workflow.details);
        let (ticket, report) = (waiting.ticket, waiting.report.take());
        let claimed = Claimed { jobs: waiting.taken, canceled };
        let answer = match report {
            None => Answer::Claimed(claimed),
            Some(outcomes) => {
                Answer::Reported { outcomes, claimed: Some(claimed), is_complete: complete, is_canceled: canceled }
            }
        };
        self.hand_out(ticket, answer, waiting.missing, details);
    }

    /// Takes back jobs that were handed out as these rows say, if they still are.
    pub(super) fn take_back(&mut self, rows: &mut Vec<JobRow>) -> Step {
        while let Some(row) = rows.last().copied() {
            let mut back = false;
            match self.resident_job(row.id) {
                Ok(current) => {
                    if current.held_by() == Some(row.grant) && current.state == row.state {
                        self.put_back(row.id);
                        back = true;
                    }
                }
                Err(super::Stop::Rejected(_)) => {}
                Err(stop) => return Err(stop),
            }
            rows.pop();
            self.tracer.note(Trace::Looked(row.id, row.grant, back));
        }
        Ok(None)
    }

    pub(super) fn put_back(&mut self, job: JobId) {
        let back = self.transition(job, Event::GiveBack, |row| {
            row.node = None;
            row.started_at = None;
        });
        back.expect("only held jobs are put back");
    }
}

impl WaitingClaim {
    fn took_any(&self) -> bool {
        self.taken.len() + self.lost > 0
    }

    /// Whether it may take jobs with these labels and of this scheduler, as far as it came.
    fn may_take(&self, labels: &LabelSet, scheduler: Option<SchedulerId>) -> bool {
        let own = match self.claim.by {
            ClaimOrder::Fitting { scheduler: own, .. } if !self.any_scheduler => {
                scheduler.is_none() || scheduler == own
            }
            ClaimOrder::Fitting { .. } | ClaimOrder::Queue | ClaimOrder::Lanes => true,
        };
        own && self.claim.may_take(labels)
    }

    /// Whether it may take jobs of this lane now.
    pub fn can_take(&self, lane: &Lane) -> bool {
        let fits = self.packing.as_ref().is_none_or(|packing| packing.fits(&lane.needs));
        fits && self.may_take(&lane.row.labels, lane.row.scheduler)
    }
}

impl Claim {
    /// Endless workflows have claims of their own, and others none of those.
    pub(super) fn goes_with(&self, endless: bool) -> Result<(), Rejection> {
        if endless == (self.by == ClaimOrder::Lanes) { Ok(()) } else { Err(Rejection::NoSuchWorkflow(self.workflow)) }
    }

    /// Whether it takes jobs from lanes of these labels.
    fn may_take(&self, labels: &LabelSet) -> bool {
        match self.by {
            ClaimOrder::Queue | ClaimOrder::Fitting { .. } => self.labels.may_take(labels),
            ClaimOrder::Lanes => self.labels.is_empty() || self.labels == *labels,
        }
    }
}

/// A job is handed out: its attempt begins.
pub(super) fn begin(row: &mut JobRow, now: Timestamp, grant: Grant) {
    row.grant = grant;
    if row.policy.is_some() {
        row.due_at = row.deadline(now);
    }
}
