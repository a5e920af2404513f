//! Claims: a merge of the heads of the lanes that a claimant may take from, by the order that it
//! asked for.

use alloc::collections::BinaryHeap;
use alloc::vec::Vec;
use core::cmp::Reverse;

use super::{Machine, Step, Trace, Work, Workflow};
use crate::claim::{Needs, Packing};
use crate::command::{Answer, Claim, ClaimOrder, Claimed, Rejection};
use crate::ids::{Grant, JobId, LaneId, NodeId, SchedulerId, Ticket, Timestamp, WorkflowId};
use crate::job::{JobRow, Payload};
use crate::lane::{Lane, OrderKey};
use crate::state::{Event, JobState};
use crate::window::Horizon;

/// A claim that is not answered yet, and how far it came.
#[derive(Debug)]
pub(super) struct WaitingClaim {
    ticket: Ticket,
    claim: Claim,
    /// With their payloads, as far as these are in memory.
    taken: Vec<(JobRow, Option<Payload>)>,
    /// Jobs that it took and that left its hands again while it was owed a page.
    lost: usize,
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
    /// The next job in the order may be in a page that is not there yet.
    Starved,
}

/// What becomes of a claim that took what it could.
#[derive(PartialEq, Eq)]
enum Progress {
    /// It is to be answered now.
    Done,
    /// It is owed a page, whatever else there is.
    Starved,
    /// It waits for a job.
    Idle,
}

/// The heads of the lanes that a claim may take from, the next one first, and whether each is known or
/// only a bound.
pub(super) type Merge = BinaryHeap<Reverse<(MergeKey, LaneId, bool)>>;

/// The place in the merged order: a lane's rank first, then what the order says of the lane, then id.
type MergeKey = (Option<OrderRank>, JobId);
type OrderRank = (Reverse<i64>, [Reverse<i64>; 4]);

impl Machine {
    pub(super) fn claim(&mut self, now: Timestamp, ticket: Ticket, claim: &Claim) -> Step {
        self.resident(claim.workflow)?;
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
            ClaimOrder::Queue => None,
            ClaimOrder::Fitting { capacity, .. } => Some(Packing::new(capacity)),
        };
        let any_scheduler = matches!(claim.by, ClaimOrder::Queue);
        let mut waiting = WaitingClaim { ticket, claim, taken: Vec::new(), lost: 0, packing, any_scheduler, report };
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
    fn settle(&mut self, waiting: WaitingClaim, progress: Progress) {
        let owner = self.workflows.get_mut(&waiting.claim.workflow).expect("it is resident");
        match progress {
            Progress::Starved => owner.starved.push_back(waiting),
            Progress::Idle => owner.waiting.push_back(waiting),
            Progress::Done => {
                self.unlist(&waiting);
                self.finish_claim(waiting);
            }
        }
    }

    /// Lets claims take what has become ready or was read since: first those that are owed a page,
    /// then those that wait, each in the order of their coming.
    pub(super) fn serve(&mut self, now: Timestamp) {
        self.march(now);
        while let Some(id) = self.awake.pop_first() {
            let Some(workflow) = self.workflows.get_mut(&id) else { continue };
            if workflow.frozen.is_some() {
                continue;
            }
            for mut waiting in core::mem::take(&mut workflow.starved) {
                let progress = self.advance(now, &mut waiting);
                self.settle(waiting, progress);
            }
            let mut left = core::mem::take(&mut self.workflows.get_mut(&id).expect("it stays").waiting);
            while !left.is_empty() && self.has_something(id) {
                let mut waiting = left.pop_front().expect("looked at above");
                let progress = self.advance(now, &mut waiting);
                self.settle(waiting, progress);
            }
            // Those that were looked at in vain go behind: they came before, and keep their order.
            let workflow = self.workflows.get_mut(&id).expect("claims do not unload their workflow");
            workflow.waiting.append(&mut left);
        }
    }

    /// Whether there is anything that a waiting claim may hear of.
    fn has_something(&self, id: WorkflowId) -> bool {
        let workflow = &self.workflows[&id];
        let has_jobs = |lane: &Lane| !lane.is_empty() || lane.is_behind();
        workflow.row.is_complete() || workflow.lanes.values().any(|lane| self.lanes.get(lane).is_some_and(has_jobs))
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
            if let Some(waiting) = workflow.starved.iter_mut().find(|waiting| waiting.ticket == ticket) {
                waiting.claim.wait_until = None;
                continue;
            }
            let frozen = workflow.frozen.is_some();
            let Some(mut waiting) = self.remove_waiting(id, ticket) else { continue };
            if frozen {
                // What became ready since is not handed out yet: it looks once more when the graph is there.
                waiting.claim.wait_until = None;
                self.waiters.insert(ticket, id);
                self.settle(waiting, Progress::Starved);
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
        let all = workflow.starved.iter().chain(&workflow.waiting).filter(of_node);
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
        let workflow = self.workflows.get_mut(&id)?;
        for queue in [&mut workflow.waiting, &mut workflow.starved] {
            if let Some(place) = queue.iter().position(|waiting| waiting.ticket == ticket) {
                return queue.remove(place);
            }
        }
        None
    }

    fn unlist(&mut self, waiting: &WaitingClaim) {
        self.waiters.remove(&waiting.ticket);
        if let Some(until) = waiting.claim.wait_until {
            self.deadlines.remove(&(until, waiting.claim.workflow, waiting.ticket));
        }
    }

    /// Takes what the claim may take now.
    fn advance(&mut self, now: Timestamp, waiting: &mut WaitingClaim) -> Progress {
        let workflow = &self.workflows[&waiting.claim.workflow];
        if workflow.row.is_complete() {
            return Progress::Done;
        }
        if !waiting.took_any() {
            // Whatever it looked at before: its own scheduler's jobs go first if there are any now.
            waiting.any_scheduler = matches!(waiting.claim.by, ClaimOrder::Queue);
        }
        loop {
            if self.pass(now, waiting) == Pass::Starved {
                return Progress::Starved;
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
        let by = waiting.claim.by;
        let mut merge = core::mem::take(&mut self.merge);
        merge.clear();
        let workflow = &self.workflows[&waiting.claim.workflow];
        for ((_, scheduler, labels), id) in &workflow.lanes {
            if waiting.claim.labels.may_take(labels)
                && (waiting.any_scheduler || is_for(*scheduler, by))
                && let Some(next) = self.lanes.get(id).and_then(|lane| next_of(lane, by))
            {
                merge.push(Reverse((next.0, *id, next.1)));
            }
        }
        let mut pass = Pass::Done;
        while waiting.taken.len() + waiting.lost < limit
            && let Some(Reverse((_, id, is_head))) = merge.pop()
        {
            let lane = &self.lanes[&id];
            let needs = lane.needs;
            if waiting.packing.as_ref().is_some_and(|packing| !packing.fits(&needs)) {
                continue;
            }
            if !is_head {
                self.want_page(id);
                pass = Pass::Starved;
                break;
            }
            let job = lane.head().expect("it was pushed for its head").id();
            self.hand(now, job, waiting);
            if let Some(packing) = &mut waiting.packing {
                packing.take(&needs);
            }
            if let Some(next) = next_of(&self.lanes[&id], by) {
                merge.push(Reverse((next.0, id, next.1)));
            }
            self.want_page(id);
        }
        self.merge = merge;
        pass
    }

    fn hand(&mut self, now: Timestamp, job: JobId, waiting: &mut WaitingClaim) {
        let grant = self.granted.next();
        let mut row =
            self.transition(job, Event::Claim, |row| begin(row, now, grant)).expect("what is in a window is ready");
        self.granted = grant;
        if let Some(node) = waiting.claim.start_on {
            let start = |row: &mut JobRow| {
                row.node = Some(node);
                row.started_at = Some(now);
            };
            row = self.transition(job, Event::Start, start).expect("it was just claimed");
        }
        let slot = self.slots.get_mut(&job).expect("it was just claimed");
        waiting.taken.push((row, slot.payload.take()));
        self.tracer.note(Trace::Taken(waiting.ticket, job));
    }

    /// Answers a claim with what it took.
    fn finish_claim(&mut self, mut waiting: WaitingClaim) {
        self.tracer.note(Trace::Finished(waiting.ticket));
        let workflow = &self.workflows[&waiting.claim.workflow];
        let (canceled, complete, details) = (workflow.row.canceled, workflow.row.is_complete(), workflow.details);
        let (ticket, report) = (waiting.ticket, waiting.report.take());
        let mut missing = Vec::new();
        let none = |row: &JobRow| {
            missing.push(row.id);
            Payload::from([])
        };
        let jobs = with_payloads(waiting.taken, none);
        let claimed = Claimed { jobs, canceled };
        let answer = match report {
            None => Answer::Claimed(claimed),
            Some(outcomes) => {
                Answer::Reported { outcomes, claimed: Some(claimed), is_complete: complete, is_canceled: canceled }
            }
        };
        self.hand_out(ticket, answer, missing, details);
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

    fn put_back(&mut self, job: JobId) {
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
}

/// A job is handed out: its attempt begins.
pub(super) fn begin(row: &mut JobRow, now: Timestamp, grant: Grant) {
    row.grant = grant;
    if row.policy.is_some() {
        row.due_at = row.deadline(now);
    }
}

impl Workflow {
    /// A job left its claimant's hands while the claim is still owed a page: it is not handed out.
    pub(super) fn disown(&mut self, before: &JobRow, after: JobState) {
        if before.state.is_held() && !after.is_held() {
            for waiting in &mut self.starved {
                let took = waiting.taken.len();
                waiting.taken.retain(|(row, _)| row.id != before.id);
                waiting.lost += took - waiting.taken.len();
            }
        }
    }
}

/// Puts something in the place of payloads that are not in memory.
fn with_payloads(
    taken: Vec<(JobRow, Option<Payload>)>,
    mut none: impl FnMut(&JobRow) -> Payload,
) -> Vec<(JobRow, Payload)> {
    let filled = taken.into_iter().map(|(row, payload)| {
        let payload = payload.unwrap_or_else(|| none(&row));
        (row, payload)
    });
    filled.collect()
}

/// Whether a claim takes jobs of this scheduler before it takes any.
fn is_for(scheduler: Option<SchedulerId>, by: ClaimOrder) -> bool {
    match by {
        ClaimOrder::Queue => true,
        ClaimOrder::Fitting { scheduler: wanted, .. } => scheduler.is_none() || scheduler == wanted,
    }
}

/// Where the lane's next job stands in the merged order, and whether it is known (its head) or only
/// a bound (it must be read). `None`: the lane has no ready job.
fn next_of(lane: &Lane, by: ClaimOrder) -> Option<(MergeKey, bool)> {
    if let Some(head) = lane.head() {
        return Some((merge_key(head, &lane.needs, by), true));
    }
    match lane.horizon() {
        Horizon::Open => None,
        Horizon::Start => Some(((None, JobId(i64::MIN)), false)),
        Horizon::At(last) => Some((merge_key(last, &lane.needs, by), false)),
    }
}

fn merge_key(key: OrderKey, needs: &Needs, by: ClaimOrder) -> MergeKey {
    let shape = match by {
        ClaimOrder::Queue => [Reverse(0); 4],
        ClaimOrder::Fitting { .. } => {
            [Reverse(needs.gpus), Reverse(needs.runtime_seconds), Reverse(needs.memory_bytes), Reverse(needs.cpus)]
        }
    };
    (Some((Reverse(key.priority()), shape)), key.id())
}
