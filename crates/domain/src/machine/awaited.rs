//! Jobs of endless workflows that wait for others. There is no graph: who is waited for knows only that
//! somebody does, and who that is, is read when it has ended. It stays until then, with a moment that has
//! come; so a crash in between leaves nobody behind. Edges are there for jobs that are blocked, and only
//! for those.

use alloc::vec::Vec;

use super::{Broken, Machine, Purpose, Stop, Trace, Work};
use crate::command::Rejection;
use crate::ids::{JobId, Timestamp, WorkflowId};
use crate::job::{JobFlags, JobRow, NewJob};
use crate::port::{Dependents, Read};
use crate::state::JobState;

impl Machine {
    /// The rows of the jobs that new ones are to wait for, as far as these are there already. A
    /// prerequisite below 0 is one of the new ones, before the one that names it.
    pub(super) fn prerequisites_of(&mut self, id: WorkflowId, jobs: &[NewJob]) -> Result<Vec<JobRow>, Stop> {
        let mut named: Vec<JobId> = Vec::new();
        for (place, job) in jobs.iter().enumerate() {
            for on in job.depends_on.iter().copied() {
                if on.0 >= 0 {
                    named.push(on);
                } else if on.0.unsigned_abs() > place as u64 {
                    return Err(Rejection::NoSuchPrerequisite(on).into());
                }
            }
        }
        named.sort_unstable();
        named.dedup();
        self.needs_jobs(id, named.iter().copied())?;
        let mut rows = Vec::with_capacity(named.len());
        for on in named {
            let row = self.slots.get(&on).map(|slot| slot.row).filter(|row| row.workflow == id);
            let row =
                row.filter(|row| !self.workflows[&id].row.is_over(row)).ok_or(Rejection::NoSuchPrerequisite(on))?;
            if row.state.has_ended() {
                return Err(Rejection::AlreadyEnded { job: on, state: row.state }.into());
            }
            rows.push(row);
        }
        Ok(rows)
    }

    /// Others wait for these jobs from now on.
    pub(super) fn await_all(&mut self, rows: Vec<JobRow>) {
        for row in rows.into_iter().filter(|row| !row.flags.has(JobFlags::AWAITED)) {
            // What was done to the others may have pushed it out of its window.
            self.load_row(row);
            self.flag_awaited(row.id, true);
        }
    }

    fn flag_awaited(&mut self, job: JobId, awaited: bool) {
        let flag = |row: &mut JobRow| {
            row.flags = row.flags.with(JobFlags::AWAITED, awaited);
            Ok(())
        };
        self.rewrite(job, false, flag).expect("nothing refuses it");
    }

    /// Who waits for a job that has ended was read: who waits for nothing else goes on. All that is decided
    /// of jobs that end without success is decided at once.
    pub(super) fn apply_dependents(&mut self, now: Timestamp, what: &Read, work: Work, found: Dependents) {
        let Read::Dependents { job, limit, .. } = what else { unreachable!("dependents were asked for as such") };
        if let Some(row) = found.of {
            // It may have been forgotten since; had it changed, it were there.
            self.load_row(row);
        }
        match self.resident_job(*job) {
            Ok(row) if row.state.has_ended() && row.flags.has(JobFlags::AWAITED) => {}
            // It is done again, or was seen to.
            Ok(_) | Err(Stop::Rejected(_)) => return self.conclude(Ok(None), work),
            Err(stop) => return self.conclude(Err(stop), work),
        }
        let ended = *self.row(*job);
        let next = found.rows.last().filter(|_| found.rows.len() >= *limit as usize).map(|(row, _)| row.id);
        for (row, on) in found.rows {
            let row = self.slots.get(&row.id).map_or(row, |slot| slot.row);
            if row.state != JobState::Blocked || self.tracer.breaks(Broken::LeavesDependents) {
                continue;
            }
            let state = |(id, state): &(JobId, JobState)| self.slots.get(id).map_or(*state, |slot| slot.row.state);
            let (mut met, mut failed) = (true, false);
            for state in on.iter().map(state) {
                met &= state.has_ended();
                failed |= state.has_ended() && state != JobState::Completed;
            }
            if !met && !failed {
                continue;
            }
            self.load_row(row);
            if failed {
                self.end_badly(now, row, |_| {}).expect("a blocked job can fail");
            } else {
                self.free(now, row.id, row.due_at);
            }
            self.tracer.note(Trace::WentOn(row.id));
        }
        if next.is_some() {
            let more = Read::Dependents { job: *job, after: next, limit: *limit };
            self.parked += 1;
            self.ask(Default::default(), more, Purpose::Dependents { work });
            return;
        }
        self.load_row(ended);
        self.flag_awaited(*job, false);
        self.tracer.note(Trace::Awaited(*job));
        self.conclude(Ok(None), work);
    }
}
