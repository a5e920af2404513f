//! The pen: how a job that is in memory changes, and what follows from it in counters, lanes and the open
//! batch.

use super::Machine;
use crate::batch::Extent;
use crate::command::Rejection;
use crate::ids::{JobId, LaneId, WorkflowId};
use crate::job::{JobFlags, JobRow};
use crate::lane::OrderKey;
use crate::port::Moment;
use crate::state::{Event, JobState};
use crate::window::Entered;

impl Machine {
    /// The one pen: the only way in which a job that is in memory changes its state. `edit` changes
    /// what else changes with it.
    pub(super) fn transition(
        &mut self,
        id: JobId,
        event: Event,
        edit: impl FnOnce(&mut JobRow),
    ) -> Result<(), Rejection> {
        let arms = self.arming || event.rearms();
        self.rewrite(id, arms, |row| {
            let not_before = row.not_before();
            row.state = row.state.on(event).ok_or(Rejection::WrongState { job: id, state: row.state })?;
            if !row.state.is_held() {
                row.due_at = not_before;
            }
            edit(row);
            Ok(())
        })
    }

    /// Makes `row` what its job is now.
    pub(super) fn put(&mut self, row: JobRow) {
        let same = |old: &mut JobRow| {
            *old = row;
            Ok(())
        };
        self.rewrite(row.id, false, same).expect("nothing refuses it");
    }

    /// Changes a job's row, if that is not refused, with all that follows from it: counters, lane, timers,
    /// graph and batch. `arms`: it is told of only once this is committed.
    pub(super) fn rewrite(
        &mut self,
        id: JobId,
        arms: bool,
        change: impl FnOnce(&mut JobRow) -> Result<(), Rejection>,
    ) -> Result<(), Rejection> {
        let lsn = self.open.lsn();
        let slot = self.slots.get_mut(&id).expect("a job is loaded before it changes");
        let (was, before) = (slot.row.state, slot.row.standing());
        let was_awaited = slot.row.flags.has(JobFlags::AWAITED);
        change(&mut slot.row)?;
        let (is, after) = (slot.row.state, slot.row.standing());
        let extent = Extent::between(&before, &after);
        if arms {
            slot.armed = lsn;
        }
        if slot.lsn == lsn {
            self.open.job_again(slot.place, slot.row, extent);
        } else {
            slot.lsn = lsn;
            slot.place = self.open.job(slot.row, extent);
            self.recent.push_back((lsn, id));
        }
        if core::mem::take(&mut slot.kept) {
            self.held_kept -= 1;
        }
        let owner = self.workflows.get_mut(&slot.row.workflow).expect("a workflow is loaded before it changes");
        owner.touch(&mut self.open);
        let is_over = owner.row.is_over(&slot.row);
        owner.row.counts[was as usize] -= 1;
        owner.row.counts[is as usize] += i64::from(!is_over);
        owner.progress.note(was, is);
        owner.waiting.disown(id, was, is);
        if let Some(graph) = &mut owner.graph {
            graph.update(&slot.row);
        }
        let ends = is.is_settled() && owner.row.is_complete();
        let begins = was.is_settled() && !is.is_settled();
        if was == JobState::Blocked && is != JobState::Blocked && owner.row.endless {
            self.open.replace_edges(id, &[]);
        }
        if is_over && was_awaited {
            self.open.awaited_over(id, slot.place);
        } else if is_over {
            self.open.job_over(id, slot.place);
        }
        let held = i64::from(is.is_held()) - i64::from(was.is_held());
        let mut gives_again = false;
        if (was == JobState::Ready || (held != 0 && owner.row.endless))
            && let Some(lane) = self.lanes.get_mut(&before.lane)
        {
            if was == JobState::Ready {
                slot.windowed = false;
                lane.leave(OrderKey::new(before.priority, id));
            }
            if held != 0 {
                lane.write_stake(&mut self.open, |state| state.held += held);
            }
            gives_again = owner.heads.stand(lane);
            self.sizes.note(lane);
        }
        let workflow = slot.row.workflow;
        if gives_again {
            self.wake_for(workflow, before.lane);
        }
        let moment = |at| Moment { at, job: id };
        self.retime(before.timer.map(moment), after.timer.map(moment));
        if is == JobState::Ready {
            self.enter(workflow, after.lane, OrderKey::new(after.priority, id));
        }
        if ends || begins {
            self.reserve_what_it_needs(workflow);
        }
        if ends {
            self.wake_all(workflow);
        }
        Ok(())
    }

    /// The row of a job that is in memory.
    pub(super) fn row(&self, id: JobId) -> &JobRow {
        &self.slots[&id].row
    }

    pub(super) fn remove_slot(&mut self, id: JobId) {
        self.unslotted = self.open.lsn();
        let Some(slot) = self.slots.remove(id) else { return };
        if slot.kept {
            self.held_kept -= 1;
        }
        if slot.lsn == self.open.lsn() {
            self.open.keep_place(id, slot.place);
        }
    }

    /// Puts a ready job into its lane.
    pub(super) fn enter(&mut self, workflow: WorkflowId, id: LaneId, key: OrderKey) {
        let window_max = self.limits.window_max;
        let lane = self.lanes.get_mut(&id).expect("a job's lane is in memory with its workflow");
        let entered = lane.enter(key, self.open.lsn(), window_max);
        self.stand(id);
        match entered {
            Entered::Window => self.mark_windowed(key.id()),
            Entered::Evicting(last) => {
                self.mark_windowed(key.id());
                self.evicted(id, last);
            }
            // Whoever may take it is owed a page.
            Entered::Behind => return,
        }
        self.fit_windows();
        self.wake_for(workflow, id);
    }

    /// Takes a job out of its lane that is not ready any more.
    pub(super) fn leave_lane(&mut self, row: &JobRow) {
        if let Some(lane) = self.lanes.get_mut(&row.lane) {
            lane.leave(row.key());
            self.stand(row.lane);
        }
    }

    /// A lane's window has changed.
    pub(super) fn stand(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id)
            && let Some(owner) = self.workflows.get_mut(&lane.row.workflow)
        {
            owner.heads.stand(lane);
            self.sizes.note(lane);
        }
    }

    /// Takes the last jobs out of the longest windows, until all together are not too long. Each keeps its
    /// first.
    pub(super) fn fit_windows(&mut self) {
        while let Some(over) = self.sizes.jobs().checked_sub(self.limits.windows_jobs_max).filter(|over| *over > 0)
            && let Some(id) = self.sizes.largest()
        {
            let lane = self.lanes.get_mut(&id).expect("only lanes in memory have a size");
            let shed = over.min(lane.len() / 2);
            for key in lane.shed(shed) {
                self.evicted(id, key);
            }
            self.stand(id);
        }
    }

    pub(super) fn mark_windowed(&mut self, id: JobId) {
        let slot = self.slots.get_mut(&id).expect("what enters a window is in memory");
        slot.windowed = true;
    }

    /// A job had to leave a full window. It is remembered as long as a page may be too old to show it.
    pub(super) fn evicted(&mut self, lane: LaneId, key: OrderKey) {
        let floor = self.floor();
        let slot = self.slots.get_mut(&key.id()).expect("what is in a window is in memory");
        slot.windowed = false;
        let lsn = slot.lsn;
        if lsn > floor {
            drop(self.slots.take_payload(key.id()));
            self.recent.push_back((lsn, key.id()));
            self.lanes.get_mut(&lane).expect("it was just evicted from it").remember(key, lsn);
        } else {
            self.slots.remove(key.id());
        }
    }
}
