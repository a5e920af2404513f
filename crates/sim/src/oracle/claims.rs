//! Claims: the next job of the full order that may be taken and fits, one after the other.

use std::cmp::Reverse;

use forebay_domain::claim::{Needs, Packing};
use forebay_domain::command::{Answer, Claim, ClaimOrder, Command, Rejection, Report};
use forebay_domain::ids::{Grant, JobId, Ticket, Timestamp};
use forebay_domain::job::JobRow;
use forebay_domain::lane::LabelSet;
use forebay_domain::state::{Event, JobState};

use super::jobs::{Outcomes, hand_out};
use super::{LaneKey, Oracle, Wrong, same_row};

/// A claim from its beginning to its answer.
#[derive(Debug)]
pub(super) struct Claiming {
    claim: Claim,
    packing: Option<Packing>,
    /// As they were handed out, and the how manieth claim of each this was.
    taken: Vec<JobRow>,
    /// Nothing of its own scheduler was there when it took its first.
    any_scheduler: bool,
    outcomes: Option<Outcomes>,
    /// What its answer must say, once it is decided.
    decided: Option<Decided>,
}

#[derive(Debug)]
struct Decided {
    jobs: Vec<JobRow>,
    canceled: bool,
    complete: bool,
}

impl Oracle {
    /// A claim, or a report's outcomes and then its claim, began, unless it had before.
    pub(super) fn begin(&mut self, now: Timestamp, ticket: Ticket, command: &Command) -> Result<(), Wrong> {
        if self.claims.contains_key(&ticket) {
            return Ok(());
        }
        match command {
            Command::Claim(claim) if self.workflows.contains_key(&claim.workflow) => {
                self.begin_claim(ticket, claim, None);
                Ok(())
            }
            Command::Report(report) if self.workflows.contains_key(&report.workflow) => {
                self.begin_report(now, ticket, report);
                Ok(())
            }
            other => Err(format!("{ticket:?} took or was answered as a claim, but it is {other:?}")),
        }
    }

    pub(super) fn begin_report(&mut self, now: Timestamp, ticket: Ticket, report: &Report) {
        let outcomes = self.complete_all(now, report);
        let claim = report.claim.as_ref().expect("only a report that claims begins a claim");
        self.begin_claim(ticket, claim, Some(outcomes));
    }

    pub(super) fn begin_claim(&mut self, ticket: Ticket, claim: &Claim, outcomes: Option<Outcomes>) {
        let packing = match claim.by {
            ClaimOrder::Queue | ClaimOrder::Lanes => None,
            ClaimOrder::Fitting { capacity, .. } => Some(Packing::new(capacity)),
        };
        let claim = claim.clone();
        let claiming = Claiming { claim, packing, taken: Vec::new(), any_scheduler: false, outcomes, decided: None };
        self.claims.insert(ticket, claiming);
    }

    pub(super) fn was_finished(&self, ticket: Ticket) -> bool {
        self.claims.get(&ticket).is_some_and(|claiming| claiming.decided.is_some())
    }

    /// The job that a claim must take next, and whether it is of any scheduler.
    fn next(&self, claiming: &Claiming) -> Option<(JobId, bool)> {
        let claim = &claiming.claim;
        let owner = self.workflows.get(&claim.workflow)?.row;
        if owner.canceled || owner.paused {
            return None;
        }
        let (own, strict) = match claim.by {
            ClaimOrder::Queue => return Some((self.first(claiming, |_| true)?, false)),
            ClaimOrder::Lanes => return Some((self.of_turn(claiming)?, false)),
            ClaimOrder::Fitting { scheduler, strict, .. } => (scheduler, strict),
        };
        let is_own = |key: &LaneKey| key.1.is_none() || key.1 == own;
        if !claiming.any_scheduler
            && let Some(job) = self.first(claiming, is_own)
        {
            return Some((job, false));
        }
        let may_fall_back = claiming.any_scheduler || (claiming.taken.is_empty() && !strict);
        if may_fall_back { Some((self.first(claiming, |_| true)?, true)) } else { None }
    }

    fn first(&self, claiming: &Claiming, may: impl Fn(&LaneKey) -> bool) -> Option<JobId> {
        let workflow = &self.workflows[&claiming.claim.workflow];
        let ready = workflow.jobs.values().filter(|job| {
            job.row.state == JobState::Ready
                && may_take(&claiming.claim, &job.key.2)
                && may(&job.key)
                && claiming.packing.as_ref().is_none_or(|packing| packing.fits(&workflow.requirements[&job.key.0]))
        });
        let first = ready.min_by_key(|job| order(&job.row, &workflow.requirements[&job.key.0], claiming.claim.by));
        first.map(|job| job.row.id)
    }

    /// The next job of the lane that a claim names, or of the one whose turn it is.
    fn of_turn(&self, claiming: &Claiming) -> Option<JobId> {
        let Claim { workflow, labels, .. } = &claiming.claim;
        let lane = if labels.is_empty() { self.turn(*workflow)? } else { labels };
        if !self.gives(*workflow, lane) {
            return None;
        }
        self.first(claiming, |key| key.2 == *lane)
    }

    pub(super) fn taken(&mut self, now: Timestamp, ticket: Ticket, job: JobId) -> Result<(), Wrong> {
        let claiming = &self.claims[&ticket];
        let limit = (claiming.claim.limit as usize).min(self.limits.claim_max);
        if claiming.taken.len() >= limit {
            return Err(format!("{ticket:?} took job {job} over its limit of {limit}"));
        }
        let next = self.next(claiming);
        // Of two lanes of which both may be next the machine takes which it likes.
        let next = next.map(|next| if self.is_of_turn(&claiming.claim, job) { (job, false) } else { next });
        let Some((_, any_scheduler)) = next.filter(|&(next, _)| next == job) else {
            let next = next.map(|(job, _)| self.job(job));
            let claim = &claiming.claim;
            let took = self.job(job).map(|job| (&job.row, &job.key));
            return Err(format!("{ticket:?} took {took:?}, next in the order is {next:?}, for {claim:?}"));
        };
        let claim = claiming.claim.clone();
        self.take_turn(&claim, job);
        let claiming = &self.claims[&ticket];
        let (grant, start_on) = (self.granted.next(), claiming.claim.start_on);
        let workflow = &self.workflows[&claiming.claim.workflow];
        let needs = workflow.requirements[&workflow.jobs[&job].key.0];
        let claimed = self.change(job, Event::Claim, |row| hand_out(row, now, grant));
        let mut row = claimed.expect("what is next is ready");
        self.granted = grant;
        if start_on.is_some() {
            let started = self.change(job, Event::Start, |row| {
                row.node = start_on;
                row.started_at = Some(now);
            });
            row = started.expect("it was just claimed");
        }
        let claiming = self.claims.get_mut(&ticket).expect("looked up above");
        claiming.any_scheduler = any_scheduler;
        claiming.taken.push(row);
        if let Some(packing) = &mut claiming.packing {
            packing.take(&needs);
        }
        Ok(())
    }

    /// The machine decided what a claim gets.
    pub(super) fn finished(&mut self, ticket: Ticket) -> Result<(), Wrong> {
        let claiming = &self.claims[&ticket];
        let limit = (claiming.claim.limit as usize).min(self.limits.claim_max);
        if claiming.taken.len() < limit
            && let Some((job, _)) = self.next(claiming)
        {
            let (claim, taken) = (&claiming.claim, &claiming.taken);
            return Err(format!("{ticket:?} ended with {taken:?}, but job {job} was there for {claim:?}"));
        }
        let row = self.counted(claiming.claim.workflow);
        let still = claiming.taken.iter().filter(|taken| self.is_still(taken));
        let jobs = still.copied().collect();
        let decided = Decided { jobs, canceled: row.canceled, complete: row.is_complete() };
        self.claims.get_mut(&ticket).expect("looked up above").decided = Some(decided);
        Ok(())
    }

    /// A claim, or a report that claims, was answered.
    pub fn answered(&mut self, ticket: Ticket, answer: &Answer) -> Result<(), Wrong> {
        let Some(claiming) = self.claims.remove(&ticket) else { return Ok(()) };
        if let Answer::Rejected(Rejection::NoLease(node)) = answer
            && self.has_lost_lease(&claiming.claim, *node)
        {
            // What it took is found with all that the node holds.
            return Ok(());
        }
        if let Answer::Rejected(_) = answer {
            return if claiming.taken.iter().any(|taken| self.is_still(taken)) {
                Err(format!("{ticket:?} was refused ({answer:?}), but took {:?}", claiming.taken))
            } else {
                Ok(())
            };
        }
        let Some(decided) = &claiming.decided else {
            return Err(format!("{ticket:?} was answered {answer:?} before it ended"));
        };
        let told = match (answer, &claiming.outcomes) {
            (Answer::Claimed(claimed), None) => Some(claimed),
            (Answer::Reported { outcomes, claimed: Some(claimed), is_complete, is_canceled }, Some(expected))
                if self.same_outcomes(outcomes, expected)
                    && *is_complete == decided.complete
                    && *is_canceled == decided.canceled =>
            {
                Some(claimed)
            }
            _ => None,
        };
        // Jobs that were deleted while their payloads were read may be left out.
        let is_told = |job| told.is_some_and(|told| told.jobs.iter().any(|(row, _)| row.id == job));
        let is_there = |job| self.of_job.contains_key(&job) && !self.marched.contains(&job);
        let expected = decided.jobs.iter().filter(|row| is_there(row.id) || is_told(row.id));
        let expected: Vec<&JobRow> = expected.collect();
        let fits = told.is_some_and(|told| {
            let had = |job, payload| self.job(job).is_none_or(|job| job.payloads.contains(payload));
            told.canceled == decided.canceled
                && told.jobs.len() == expected.len()
                && told.jobs.iter().zip(&expected).all(|((row, _), expected)| same_row(row, expected))
                && told.jobs.iter().all(|(row, payload)| had(row.id, payload))
        });
        if fits { Ok(()) } else { Err(format!("{ticket:?} got {answer:?}, not {expected:?}, for {claiming:?}")) }
    }

    /// Nothing is being read: no claim that waits may have something to take.
    pub fn check_waiting(&self, now: Timestamp) -> Result<(), Wrong> {
        for (ticket, claiming) in self.claims.iter().filter(|(_, claiming)| claiming.decided.is_none()) {
            let late = claiming.claim.wait_until.is_none_or(|until| until <= now);
            if let Some((job, _)) = self.next(claiming) {
                return Err(format!("{ticket:?} waits, but job {job} is there for {:?}", claiming.claim));
            }
            let over = self.counted(claiming.claim.workflow).is_complete();
            if late || over || !claiming.taken.is_empty() {
                return Err(format!("{ticket:?} is not answered: {claiming:?}"));
            }
        }
        Ok(())
    }

    /// The caller of a waiting claim is gone: what it took goes back.
    pub fn left(&mut self, ticket: Ticket) {
        if self.claims.get(&ticket).is_some_and(|claiming| claiming.decided.is_none()) {
            let claiming = self.claims.remove(&ticket).expect("just looked up");
            let still = claiming.taken.iter().filter(|taken| self.is_still(taken)).copied();
            let still: Vec<JobRow> = still.collect();
            self.owed.extend(still);
        }
    }

    /// An answer reached nobody: the jobs that it hands out go back.
    pub fn undelivered(&mut self, answer: &Answer) {
        if let Answer::Claimed(claimed) | Answer::Reported { claimed: Some(claimed), .. } = answer {
            self.owed.extend(claimed.jobs.iter().map(|(row, _)| *row));
        }
    }

    /// A claim that was refused put back a job that it had taken.
    pub(super) fn back(&mut self, job: JobId) -> Result<(), Wrong> {
        if !self.claims.values().any(|claiming| claiming.taken.iter().any(|row| row.id == job)) {
            return Err(format!("no claim that put back job {job} had it: {:?}", self.job(job)));
        }
        self.go_back(job)
    }

    /// The machine looked whether a job that reached nobody goes back, and whether it did.
    pub(super) fn looked(&mut self, job: JobId, grant: Grant, back: bool) -> Result<(), Wrong> {
        let place = self.owed.iter().position(|row| row.id == job && row.grant == grant);
        // A march may have deleted it already.
        let is_going = !back && self.marched.contains(&job);
        let Some(place) = place.filter(|&place| is_going || self.is_as_handed(&self.owed[place]) == back) else {
            return Err(format!("job {job} went back: {back}; it is {:?}, owed {:?}", self.job(job), self.owed));
        };
        self.owed.remove(place);
        if back { self.go_back(job) } else { Ok(()) }
    }

    pub(super) fn go_back(&mut self, job: JobId) -> Result<(), Wrong> {
        let back = self.change(job, Event::GiveBack, |row| {
            row.node = None;
            row.started_at = None;
        });
        back.map(drop).map_err(|why| format!("job {job} was put back: {why:?}"))
    }

    /// A job that a claim took is still in its claimant's hands.
    fn is_still(&self, row: &JobRow) -> bool {
        self.job(row.id).is_some_and(|job| job.row.state.is_held() && job.row.grant == row.grant)
    }

    pub(super) fn is_as_handed(&self, row: &JobRow) -> bool {
        self.job(row.id)
            .is_some_and(|job| job.row.state == row.state && row.state.is_held() && job.row.grant == row.grant)
    }
}

/// Whether a claim takes jobs of these labels.
fn may_take(claim: &Claim, labels: &LabelSet) -> bool {
    match claim.by {
        ClaimOrder::Queue | ClaimOrder::Fitting { .. } => claim.labels.may_take(labels),
        ClaimOrder::Lanes => claim.labels == LabelSet::default() || claim.labels == *labels,
    }
}

type Order = (Reverse<i64>, [Reverse<i64>; 4], JobId);

fn order(row: &JobRow, needs: &Needs, by: ClaimOrder) -> Order {
    let shape = match by {
        ClaimOrder::Queue | ClaimOrder::Lanes => [Reverse(0); 4],
        ClaimOrder::Fitting { .. } => {
            [Reverse(needs.gpus), Reverse(needs.runtime_seconds), Reverse(needs.memory_bytes), Reverse(needs.cpus)]
        }
    };
    (Reverse(row.priority), shape, row.id)
}
