//! The stream of reports and claims.
//!
//! Two requests may be open at once, so that what ends while one is on its way need not wait for
//! it. Each claim asks for what is free and not asked for by the other. When there is nothing to
//! report and something free, one claim waits at the server; what ends meanwhile is reported at
//! once by the other request. A waiting claim is never called back: its answer would be lost.

use super::*;

use forebay_wire::JobCompletionEntry;
use forebay_wire::ours::{ClaimRequest, ReportAndClaimRequest};
use forebay_wire::units::duration_string;

use crate::aside::BACKOFF_MAX;
use crate::launcher::protocol::{Attempt, Command};

/// How many requests may be open at once.
const OPEN_MAX: usize = 2;

/// The second request is not opened for fewer reports while the first is on its way: one more
/// may come before that is answered, and a request costs more than its wait.
const SECOND_REPORTS_MIN: usize = 2;

/// The most reports of one request: the server takes 2 MiB.
const REPORTS_MAX: usize = 1000;

/// How long after a lost answer the server is asked what it believes: time for it to notice by
/// itself that nobody was there, and to take the jobs back.
const DOUBT: Duration = Duration::from_secs(1);

impl Session<'_> {
    /// Sends what there is to report and asks for what is free.
    pub(super) fn report_and_claim(&mut self) {
        if self.away.as_ref().is_some_and(|away| !self.in_flight.is_empty() || Instant::now() < away.next_try) {
            return;
        }
        // One is enough to find out whether the server is back.
        let open_max = if self.away.is_some() { 1 } else { OPEN_MAX };
        while self.in_flight.len() < open_max {
            let is_second = self.in_flight.values().any(|request| !request.is_waiting_claim);
            if is_second && self.outbox.len() < SECOND_REPORTS_MIN {
                return;
            }
            if !self.outbox.is_empty() {
                let single = self.one_by_one > 0;
                let count = if single { 1 } else { self.outbox.len().min(REPORTS_MAX) };
                let reports = self.outbox.drain(..count).collect();
                let ask = if single { None } else { self.ask() };
                self.send(reports, ask, Duration::ZERO);
            } else if let Some(wait) = self.claim_wait()
                && let Some(ask) = self.ask()
            {
                self.send(Vec::new(), Some(ask), wait);
            } else {
                return;
            }
        }
    }

    /// What to ask for now, if anything.
    fn ask(&mut self) -> Option<Ask> {
        let pauses = self.pause.as_ref().is_some_and(|pause| Instant::now() < pause.until);
        let may =
            self.is_working() && !pauses && self.doubt.is_none() && !self.lease.is_lost() && self.has_time_for_more();
        if may { self.ledger.ask() } else { None }
    }

    /// How long a claim without reports may wait at the server; `None` if there is to be none.
    fn claim_wait(&self) -> Option<Duration> {
        if self.in_flight.values().any(|request| request.ask.is_some()) {
            return None;
        }
        if !self.has_nothing() {
            // What becomes free while a claim waits is asked for apart: it waits for a short time.
            return Some(self.options.busy_claim_wait);
        }
        match self.lull {
            Lull::Unknown | Lull::Suspect { .. } => Some(Duration::ZERO),
            Lull::Reading { .. } => None,
            Lull::OthersWork => Some(self.options.claim_wait),
        }
    }

    fn send(&mut self, reports: Vec<Finished>, ask: Option<Ask>, wait: Duration) {
        let labels = Some(self.options.labels.clone()).filter(|labels| !labels.is_empty());
        let time_limit =
            self.time_left().map(|left| duration_string(i64::try_from(left.as_secs()).unwrap_or(i64::MAX)));
        let claim = ask.map(|ask| ClaimRequest {
            limit: ask.limit,
            resources: ask.resources(labels.clone(), self.options.scheduler_config_id).map(|mut resources| {
                resources.time_limit = time_limit;
                resources
            }),
            labels: labels.filter(|_| ask.amount.is_none()),
            strict_scheduler_match: self.options.strict_scheduler_match.then_some(true),
            start_on: Some(self.aside.compute_node_id),
            leased: self.options.lease.map(|_| true),
            wait_ms: i64::try_from(wait.as_millis()).ok().filter(|wait| *wait > 0),
        });
        let completions = reports.iter().map(|finished| JobCompletionEntry {
            job_id: finished.attempt.job_id,
            status: finished.result.status,
            run_id: finished.attempt.run_id,
            result: finished.result.clone(),
            // Attempt and node say enough. In `memory` mode a crash may take the claim back: the report
            // of it is then as good as another run.
            grant: None,
        });
        let request = ReportAndClaimRequest { completions: completions.collect(), claim };
        let client = self.aside.client.clone();
        let path = format!("/workflows/{}/report_and_claim", self.aside.workflow_id);
        self.last_key += 1;
        let id = self.last_key;
        let task = self.requests.spawn(async move { (id, client.post_and_wait(&path, &request, wait).await) });
        let (node, is_waiting_claim) = (self.aside.compute_node_id, reports.is_empty());
        self.in_flight.insert(id, InFlight { node, is_waiting_claim, reports, ask, task });
    }

    pub(super) fn on_answer(&mut self, id: u64, answer: Result<ReportAndClaimResponse, CallError>) {
        let Some(InFlight { node, reports, ask, .. }) = self.in_flight.remove(&id) else { return };
        let is_ours = node == self.aside.compute_node_id && !self.lease.is_lost();
        if let Some(ask) = ask {
            self.ledger.answered(ask);
        }
        match answer {
            Ok(mut answer) => {
                self.on_back();
                self.on_reported(reports, &answer);
                if !is_ours {
                    // Handed to the node that we were, and taken from it since.
                    answer.jobs.clear();
                }
                self.on_claimed(ask.is_some(), answer);
            }
            Err(CallError::Away { why, reached }) => {
                for mut finished in reports.into_iter().rev() {
                    finished.sent_before |= reached;
                    self.outbox.push_front(finished);
                }
                if reached && ask.is_some() && is_ours {
                    self.doubt = Some(Instant::now() + DOUBT);
                }
                self.on_away(why);
            }
            // Nothing of it was done; what is reported is sent again, without a claim.
            Err(CallError::Refused { status: lease::OVER, .. }) => {
                self.on_back();
                reports.into_iter().rev().for_each(|finished| self.outbox.push_front(finished));
                if is_ours {
                    self.on_lease_over();
                }
            }
            Err(CallError::Refused { status, message }) => self.on_request_refused(reports, status, message),
        }
    }

    /// The server refused a whole request. If that was for one of its reports, we find it.
    fn on_request_refused(&mut self, mut reports: Vec<Finished>, status: u16, message: String) {
        self.on_back();
        let is_about_us = [401, 403, 404].contains(&status);
        match reports.len() {
            1 if !is_about_us => {
                let finished = reports.remove(0);
                self.one_by_one = self.one_by_one.saturating_sub(1);
                self.settle(&[finished.attempt]);
                self.counts.not_accepted += 1;
                self.tell(Event::NotAccepted { job: finished.named(), message });
            }
            2.. if !is_about_us => {
                self.one_by_one = reports.len();
                reports.into_iter().rev().for_each(|finished| self.outbox.push_front(finished));
            }
            _ => {
                reports.into_iter().rev().for_each(|finished| self.outbox.push_front(finished));
                self.on_refused(message);
            }
        }
    }

    fn on_reported(&mut self, reports: Vec<Finished>, answer: &ReportAndClaimResponse) {
        if reports.is_empty() {
            return;
        }
        self.one_by_one = self.one_by_one.saturating_sub(reports.len());
        let attempts: Vec<Attempt> = reports.iter().map(|finished| finished.attempt).collect();
        self.settle(&attempts);
        for finished in reports {
            let refused = answer.errors.iter().find(|error| error.job_id == finished.attempt.job_id);
            match refused {
                // It was accepted the first time, when the answer was lost.
                Some(_) if finished.sent_before => {}
                // It was ended because it was canceled, and nobody asks how.
                Some(_) if matches!(self.phase, Phase::Leaving(End::Canceled)) => continue,
                Some(error) => {
                    self.counts.not_accepted += 1;
                    self.tell(Event::NotAccepted { job: finished.named(), message: error.message.clone() });
                    continue;
                }
                None => {}
            }
            self.on_accepted(&finished);
        }
    }

    fn on_claimed(&mut self, asked: bool, answer: ReportAndClaimResponse) {
        self.last_answer = Instant::now();
        if answer.is_canceled {
            self.on_canceled();
        } else if answer.is_complete && answer.jobs.is_empty() && self.is_working() {
            self.leave_because(End::Complete);
        }
        if !answer.jobs.is_empty() {
            self.last_claim = self.last_answer;
            self.lull = Lull::Unknown;
        } else if asked && self.is_working() && self.has_nothing() && self.in_flight.is_empty() {
            self.on_nothing();
        }
        for job in answer.jobs {
            self.take(Box::new(job));
        }
    }

    /// All that we have was free, and there was no job for it.
    fn on_nothing(&mut self) {
        let claims = match self.lull {
            Lull::Unknown | Lull::OthersWork => 1,
            Lull::Reading { claims } | Lull::Suspect { claims } => claims + 1,
        };
        self.lull = Lull::Reading { claims };
        let aside = self.aside.clone();
        self.sides.spawn(async move { Side::Status(aside.workflow_status().await.map(Box::new)) });
    }

    /// Decides whether to wait for others or to leave. What becomes ready between a claim and
    /// the status is found by a second claim.
    pub(super) fn on_status(&mut self, status: Result<Box<WorkflowStatusResponse>, CallError>) {
        let Lull::Reading { claims } = self.lull else { return };
        let status = match status {
            Ok(status) => status,
            Err(CallError::Away { why, .. }) => return self.on_away(why),
            Err(CallError::Refused { message, .. }) => return self.on_refused(message),
        };
        if !self.is_working() {
            return;
        }
        let counts = status.jobs_by_status;
        if counts.running + counts.pending > 0 {
            self.lull = Lull::OthersWork;
        } else if claims < 2 {
            self.lull = Lull::Suspect { claims };
        } else if counts.ready > 0 {
            let aside = self.aside.clone();
            self.sides.spawn(async move { Side::Unfit(aside.unfit().await.unwrap_or_default()) });
        } else if status.is_complete {
            self.leave_because(End::Complete);
        } else {
            self.leave_because(End::Stuck(Box::new(counts)));
        }
    }

    /// Takes up the jobs that the server started here and whose claim's answer was lost.
    pub(super) fn on_running_here(&mut self, jobs: Result<Vec<JobModel>, CallError>) {
        self.checking = false;
        match jobs {
            Ok(jobs) => {
                self.doubt = None;
                self.on_back();
                for job in jobs {
                    self.take(Box::new(job));
                }
            }
            Err(CallError::Away { why, .. }) => self.on_away(why),
            Err(CallError::Refused { message, .. }) => self.on_refused(message),
        }
    }

    pub(super) fn on_away(&mut self, why: String) {
        let now = Instant::now();
        let Some(away) = &mut self.away else {
            self.away = Some(Away { since: now, next_try: now + BACKOFF_MIN, backoff: BACKOFF_MIN, why: why.clone() });
            return self.tell(Event::Away { why });
        };
        if away.next_try <= now {
            away.backoff = (away.backoff * 2).min(BACKOFF_MAX);
            away.next_try = now + away.backoff;
        }
        away.why = why;
    }

    pub(super) fn on_back(&mut self) {
        if self.away.take().is_some() {
            self.tell(Event::Back);
        }
    }

    /// Strikes attempts from the journal: the server knows how they ended.
    pub(super) fn settle(&mut self, attempts: &[Attempt]) {
        for attempt in attempts {
            self.ours.remove(&(attempt.job_id, attempt.attempt_id));
        }
        self.processes.send(&Command::Settled(attempts.to_vec()));
    }
}
