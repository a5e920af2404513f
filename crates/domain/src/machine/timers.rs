//! Timers: at which moment something happens to a job by itself. Held as a lane is: the soonest in a
//! window, the rest behind an index of the store, read by pages.
//!
//! A moment in the window whose job has changed since does no harm: the job is looked at when it
//! comes. What must not be is a moment that is neither in the window nor found by the next page.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::{Broken, Machine, Purpose, Step, Stop, Trace, Work};
use crate::ids::{JobId, Lsn, Timestamp};
use crate::port::{Moment, Read};
use crate::state::Event;
use crate::window::{Entered, Window};

#[derive(Debug)]
pub(super) struct Timers {
    window: Window<Moment>,
    /// Moments behind the horizon, in the order of the batches that brought them there, until no page
    /// in flight is older.
    recent: VecDeque<(Lsn, Moment)>,
    /// Jobs whose moment has come and whose rows are being read.
    reading: usize,
    /// Jobs whose moment has come and that are not seen to.
    unseen: usize,
}

impl Timers {
    /// What the store has is not known yet.
    pub fn new() -> Timers {
        Timers { window: Window::new(true), recent: VecDeque::new(), reading: 0, unseen: 0 }
    }

    pub fn len(&self) -> usize {
        self.window.len()
    }

    pub fn is_behind(&self) -> bool {
        self.window.is_behind()
    }

    pub fn recent_len(&self) -> usize {
        self.recent.len()
    }

    /// The rows of such work are asked for.
    pub fn reads(&mut self, work: &Work) {
        self.reading += usize::from(matches!(work, Work::Due(_)));
    }

    /// They are there.
    pub fn has_read(&mut self, work: &Work) {
        self.reading -= usize::from(matches!(work, Work::Due(_)));
    }

    /// A job whose moment has come was seen to.
    pub fn is_seen_to(&mut self) {
        self.unseen -= 1;
    }

    /// Forgets what no page in flight can be too old for.
    pub fn forget_old(&mut self, floor: Lsn) {
        while let Some(&(lsn, moment)) = self.recent.front() {
            if lsn > floor {
                break;
            }
            self.recent.pop_front();
            if self.window.remembered(moment) == Some(lsn) {
                self.window.forget(moment);
            }
        }
    }
}

impl Machine {
    /// A job's row changed, came to be or went: so does its timer.
    pub(super) fn retime(&mut self, before: Option<Moment>, after: Option<Moment>) {
        if let Some(moment) = before
            && before != after
        {
            self.timers.window.leave(moment);
            self.want_moments();
        }
        // Even if it is as before: that one may just have been taken out to be seen to.
        if let Some(moment) = after {
            let lsn = self.open.lsn();
            match self.timers.window.enter(moment, lsn, self.limits.timers_window) {
                Entered::Window => {}
                Entered::Evicting(last) => self.behind(last, lsn),
                Entered::Behind => self.behind(moment, lsn),
            }
        }
    }

    /// A moment is behind the horizon, and came to be by batch `lsn` or before.
    fn behind(&mut self, moment: Moment, lsn: Lsn) {
        if self.tracer.breaks(Broken::LosesTimers) {
            return self.timers.window.forget(moment);
        }
        self.timers.window.remember(moment, lsn);
        self.timers.recent.push_back((lsn, moment));
    }

    /// Asks for the next moments, if few are left in the window and there may be more.
    pub(super) fn want_moments(&mut self) {
        let max = self.limits.timers_window.max(1);
        let window = &mut self.timers.window;
        if window.asked || !window.is_behind() || window.len() > max / 4 {
            return;
        }
        window.asked = true;
        let limit = self.limits.page_max.min(u32::try_from(max - window.len()).unwrap_or(u32::MAX)).max(1);
        let (after, epoch) = (window.horizon().after(), window.epoch());
        self.ask(Lsn::default(), Read::Due { after, limit }, Purpose::Due { epoch });
    }

    pub(super) fn apply_due(&mut self, epoch: u32, what: &Read, lsn: Lsn, moments: &[Moment]) {
        let Read::Due { limit, .. } = what else { unreachable!("moments were asked for as moments") };
        self.timers.window.asked = false;
        if self.timers.window.accepts(epoch, lsn) {
            let end = if moments.len() < *limit as usize { None } else { moments.last().copied() };
            // A job that has changed since the page, and whose change is in memory.
            let is_stale = |moment: &Moment| {
                let slot = self.slots.get(&moment.job).filter(|slot| slot.lsn > lsn);
                slot.is_some_and(|slot| slot.row.moment() != Some(*moment))
            };
            let fresh: Vec<Moment> = moments.iter().copied().filter(|moment| !is_stale(moment)).collect();
            let (_, evicted) = self.timers.window.page(fresh.into_iter(), end, self.limits.timers_window);
            let stamp = self.open.stamp();
            for moment in evicted {
                self.behind(moment, stamp);
            }
        }
        self.want_moments();
    }

    /// Sees to the jobs whose moment has come: a page of them at once, and no more of those that are
    /// not in memory while others are being read.
    pub(super) fn fire(&mut self, now: Timestamp) {
        let mut due = Vec::new();
        while let Some(moment) = self.next_moment().filter(|moment| moment.at <= now) {
            if due.len() >= self.limits.page_max as usize {
                break;
            }
            self.timers.window.leave(moment);
            self.timers.unseen += 1;
            due.push((moment.job, Work::Due(moment.job)));
        }
        self.run_each(now, due);
        self.want_moments();
    }

    /// The soonest moment, unless as many as may be wait for their jobs.
    pub(super) fn next_moment(&self) -> Option<Moment> {
        let full = self.timers.reading >= self.limits.page_max as usize
            || self.timers.unseen >= self.limits.parked_max.max(self.limits.page_max as usize);
        self.timers.window.head().filter(|_| !full)
    }

    /// Does what is to be done to each of these jobs; those that are not in memory are read at once.
    pub(super) fn run_each(&mut self, now: Timestamp, works: Vec<(JobId, Work)>) {
        let (known, unknown): (Vec<_>, Vec<_>) = works.into_iter().partition(|(job, _)| self.slots.contains_key(job));
        for (_, work) in known {
            self.run(now, work);
        }
        if !unknown.is_empty() {
            let (jobs, works) = unknown.into_iter().unzip();
            self.load_for(jobs, works);
        }
    }

    /// A job's moment has come.
    pub(super) fn due(&mut self, now: Timestamp, job: JobId) -> Step {
        let row = match self.resident_job(job) {
            Ok(row) if row.timer().is_some_and(|at| at <= now) => row,
            // It was canceled, put off, or is over since.
            Ok(_) | Err(Stop::Rejected(_)) => return Ok(None),
            Err(stop) => return Err(stop),
        };
        if row.state.has_ended() {
            return Err(Stop::Dependents(row.workflow, job));
        }
        if self.tracer.breaks(Broken::MissesDeadlines) && row.state.is_held() {
            return Ok(None);
        }
        if row.state.is_held() {
            self.lose(now, row)?;
        } else if row.expires_at.is_some_and(|expires| expires <= now) {
            self.needs_graph(row.workflow)?;
            self.end_badly(now, row, |_| {})?;
        } else {
            self.transition(job, Event::Free, |row| row.due_at = None)?;
        }
        self.tracer.note(Trace::Due(job));
        Ok(None)
    }
}
