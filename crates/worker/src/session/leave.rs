//! When and how a worker ends.

use super::*;

use crate::launcher::journal::settle;
use crate::options::OnInterrupt;
use crate::outcome::Terminated;

/// How long the last words to the server may take: what is not known to be ours is given back,
/// and the compute node is signed off.
const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// Seconds that must be left for another job when jobs are claimed by count, if the workflow
/// does not say.
const MIN_TIME_FOR_NEW_JOBS_SECONDS: i64 = 300;

impl Session<'_> {
    /// Whether nothing is left to do, and why.
    pub(super) fn is_over(&mut self) -> Option<End> {
        if !self.running.is_empty() || !self.scripts.is_empty() {
            return None;
        }
        if let Some(away) = self.away.as_ref().filter(|away| away.since.elapsed() >= self.away_max()) {
            let why = away.why.clone();
            return Some(match std::mem::replace(&mut self.phase, Phase::Working) {
                Phase::Leaving(end) => end,
                Phase::Working => End::Away { why },
            });
        }
        let Phase::Leaving(end) = &self.phase else { return None };
        if matches!(end, End::Refused { .. }) {
            return Some(end.clone());
        }
        let reports_are_through = self.outbox.is_empty() && self.in_flight.values().all(|r| r.is_waiting_claim);
        (reports_are_through && self.sides.is_empty()).then(|| end.clone())
    }

    /// From now on nothing is claimed. The first reason counts.
    pub(super) fn leave_because(&mut self, end: End) {
        if self.is_working() {
            self.phase = Phase::Leaving(end.clone());
            self.tell(Event::Stopping { why: end });
            self.release_held();
        }
    }

    pub(super) fn on_interrupt(&mut self, count: u32) {
        self.leave_because(End::Interrupted);
        match (count, self.options.on_interrupt) {
            (1, OnInterrupt::Wait) => {}
            (0 | 1, _) | (2, _) => self.terminate_all(),
            _ => self.kill_all(Terminated::Stopping { forced: true }),
        }
    }

    /// The jobs of a canceled workflow are killed. Their reports are refused, but our books and
    /// the journal are then in order.
    pub(super) fn on_canceled(&mut self) {
        let is_news = !matches!(self.phase, Phase::Leaving(End::Canceled));
        self.leave_because(End::Canceled);
        if is_news {
            self.phase = Phase::Leaving(End::Canceled);
            self.kill_all(Terminated::Canceled);
        }
    }

    /// The server will have nothing to do with us: the workflow is gone, or we may not.
    pub(super) fn on_refused(&mut self, why: String) {
        self.leave_because(End::Refused { why: why.clone() });
        if !matches!(self.phase, Phase::Leaving(End::Refused { .. })) {
            self.phase = Phase::Leaving(End::Refused { why });
        }
        self.terminate_all();
    }

    pub(super) fn away_max(&self) -> Duration {
        if self.is_working() { self.options.away_max } else { self.options.stopping_away_max }
    }

    /// When jobs are asked to end so that they have ended, or are killed, by the time limit.
    pub(super) fn termination_at(&self) -> Option<Instant> {
        let headroom = self.config.sigkill_headroom_seconds.unwrap_or(ExecutionConfig::SIGKILL_HEADROOM_SECONDS);
        let lead = self.config.sigterm_lead_seconds.unwrap_or(ExecutionConfig::SIGTERM_LEAD_SECONDS);
        let before = Duration::from_secs(u64::try_from(headroom + lead).unwrap_or(0));
        Some(self.began + self.options.time_limit?.saturating_sub(before))
    }

    pub(super) fn time_left(&self) -> Option<Duration> {
        Some(self.options.time_limit?.saturating_sub(self.began.elapsed()))
    }

    /// Whether jobs may be claimed by count. By resources the server compares their runtimes.
    pub(super) fn has_time_for_more(&self) -> bool {
        let least = self.workflow.compute_node_min_time_for_new_jobs_seconds.unwrap_or(MIN_TIME_FOR_NEW_JOBS_SECONDS);
        let least = Duration::from_secs(u64::try_from(least).unwrap_or(0));
        self.options.max_parallel_jobs.is_none() || self.time_left().is_none_or(|left| left >= least)
    }

    /// Says farewell: what nobody runs is given back, the node is signed off, the launcher ends.
    pub(super) async fn leave(mut self, end: End) -> Summary {
        let waiting: Vec<InFlight> = self.in_flight.drain().map(|(_, request)| request).collect();
        let lost_claim = waiting.iter().any(|request| request.ask.is_some()) || self.doubt.is_some();
        waiting.iter().for_each(|request| request.task.abort());
        let unsent = waiting.into_iter().flat_map(|request| request.reports);
        let unreported: Vec<Named> = unsent.chain(self.outbox.drain(..)).map(|finished| finished.named()).collect();
        self.requests.shutdown().await;

        let is_done = matches!(end, End::Complete | End::Canceled);
        if !matches!(end, End::Refused { .. } | End::Away { .. }) {
            let is_leased = self.lease.is_held();
            say_farewell(&self.aside, self.node.clone(), self.began, lost_claim && !is_done, is_leased).await;
        }
        self.give_up.send_replace(true);
        self.sides.shutdown().await;
        let Counts { completed, failed, terminated, retried, not_accepted } = self.counts;
        Summary {
            end,
            compute_node_id: self.aside.compute_node_id,
            run_id: self.aside.run_id,
            completed,
            failed,
            terminated,
            retried,
            not_accepted,
            unreported,
        }
    }

    /// The launcher died, and with it all hope to hear how the jobs end. What still runs is
    /// killed, and what is not reported is given back.
    pub(super) async fn abandon(mut self) {
        self.requests.shutdown().await;
        self.sides.shutdown().await;
        let journal = self.options.journal_path();
        let Self { processes, aside, node, began, give_up, lease, .. } = self;
        drop(processes);
        // What cannot be settled now is found by whoever uses the journal next.
        drop(tokio::task::spawn_blocking(move || settle(&journal)).await);
        say_farewell(&aside, node, began, true, lease.is_held()).await;
        give_up.send_replace(true);
    }
}

/// Gives back what the server believes to run here, if that is in doubt, and signs the node off.
/// It is a courtesy: the server can do without, and refused or not, there is nothing more to say.
async fn say_farewell(aside: &Aside, node: ComputeNodeModel, began: Instant, in_doubt: bool, is_leased: bool) {
    let farewell = async {
        if in_doubt {
            drop(aside.release_all().await);
        }
        if is_leased {
            drop(aside.say_goodbye().await);
        }
        let duration_seconds = Some(began.elapsed().as_secs_f64());
        let node = ComputeNodeModel { is_active: Some(false), duration_seconds, ..node };
        let path = format!("/compute_nodes/{}", aside.compute_node_id);
        drop(aside.client.put::<ComputeNodeModel>(&path, &node).await);
    };
    drop(tokio::time::timeout(FAREWELL_MAX, farewell).await);
}
