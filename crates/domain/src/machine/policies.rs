//! What a job's policy has done when its attempt failed, took too long or was lost.

use super::Machine;
use crate::command::{Again, Rejection};
use crate::ids::{ResultId, Timestamp};
use crate::job::{JobFlags, JobRow};
use crate::policy::{OnEnd, Policy};
use crate::state::Event;

impl Machine {
    /// An attempt failed, and shall be followed by another one if its policy has one left.
    pub(super) fn try_again(
        &mut self,
        now: Timestamp,
        row: JobRow,
        again: &Again,
        result: Option<ResultId>,
    ) -> Result<(), Rejection> {
        let policy = row.policy.expect("only a job with a policy is tried again");
        let failures = row.tries.failures.saturating_add(1);
        let max = again.failures_max.or(policy.failures_max);
        if max.is_some_and(|max| failures >= max.get()) {
            return self.end_badly(now, row, |row| {
                row.tries.failures = failures;
                row.result = result;
            });
        }
        let backoff = || policy.backoff.delay_ms(row.id, row.attempt, failures);
        let delay_ms = again.delay_ms.unwrap_or_else(backoff);
        let (event, due_at) =
            if delay_ms > 0 { (Event::Delay, Some(now.after(delay_ms))) } else { (Event::Retry, None) };
        self.transition(row.id, event, |row| {
            row.tries.failures = failures;
            row.result = result;
            next_attempt(row, due_at);
        })
    }

    /// An attempt is over and nobody knows how: its time ran out, or its node is gone.
    pub(super) fn lose(&mut self, now: Timestamp, row: JobRow) -> Result<(), super::Stop> {
        let losses = row.tries.losses.saturating_add(1);
        let is_last = |policy: &Policy| policy.at_most_once || policy.losses_max.is_some_and(|max| losses >= max.get());
        if row.policy.as_ref().is_some_and(is_last) {
            self.needs_graph(row.workflow)?;
            self.end_badly(now, row, |row| row.tries.losses = losses)?;
        } else {
            let count = row.policy.is_some();
            self.transition(row.id, Event::Retry, |row| {
                if count {
                    row.tries.losses = losses;
                }
                next_attempt(row, None);
            })?;
        }
        self.dirty(row.workflow).progress.lost += 1;
        Ok(())
    }

    /// A job ends without success, and nobody reported it.
    pub(super) fn end_badly(
        &mut self,
        now: Timestamp,
        row: JobRow,
        edit: impl FnOnce(&mut JobRow),
    ) -> Result<(), Rejection> {
        let dead = row.policy.is_some_and(|policy| policy.on_end == OnEnd::DeadLetter);
        self.transition(row.id, Event::Fail, |row| {
            edit(row);
            row.node = None;
            row.started_at = None;
            row.due_at = None;
            row.flags = row.flags.with(JobFlags::BLAMED, true).with(JobFlags::DEAD_LETTER, dead);
        })?;
        self.release(now, row.workflow, row.id, true);
        Ok(())
    }
}

fn next_attempt(row: &mut JobRow, due_at: Option<Timestamp>) {
    row.attempt += 1;
    row.node = None;
    row.started_at = None;
    row.due_at = due_at;
}
