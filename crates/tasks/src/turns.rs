//! Whose turn it is among the applications, for who takes tasks of any. Within an application the engine
//! says so.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_domain::ids::WorkflowId;
use forebay_domain::share::{self, Share, Turn};

/// Applications that are believed to have a pending task, by their turns. Whether one has, only the engine
/// knows: what is believed in vain costs a question, and of the others one is asked now and then.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    turns: share::Turns<WorkflowId>,
    of: HashMap<WorkflowId, (Turn, Share)>,
    /// Turns that were given.
    given: u64,
    /// Which of those that are not believed to have anything was asked last.
    asked: Option<WorkflowId>,
}

/// Of so many turns one is that of an application that is not believed to have anything.
const ASKED_EVERY: u64 = 16;

impl Turns {
    /// The application whose turn it is, which is used with that.
    pub fn next(&self, known: impl Iterator<Item = WorkflowId> + Clone) -> Option<WorkflowId> {
        let mut inner = self.lock();
        inner.given += 1;
        if inner.given.is_multiple_of(ASKED_EVERY)
            && let Some(other) = inner.other(known)
        {
            return Some(other);
        }
        inner.take()
    }

    /// An application has, or may have, a pending task.
    pub fn has_some(&self, application: WorkflowId) {
        self.lock().settle(application, true);
    }

    /// An application had none when it was asked.
    pub fn has_none(&self, application: WorkflowId) {
        self.lock().settle(application, false);
    }

    /// How an application weighs from now on; until it is said it weighs 1.
    pub fn weigh(&self, application: WorkflowId, weight: NonZeroU32) {
        self.lock().of.entry(application).or_default().1.weight = weight;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No holder panics between two changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn take(&mut self) -> Option<WorkflowId> {
        let application = self.turns.first()?;
        let (turn, share) = self.of.get_mut(&application).expect("who is in the queue has a turn");
        self.turns.take(application, turn, share);
        Some(application)
    }

    /// The next in the order of their numbers that is not in the queue.
    fn other(&mut self, known: impl Iterator<Item = WorkflowId> + Clone) -> Option<WorkflowId> {
        let is_queued = |application: &WorkflowId| self.of.get(application).is_some_and(|(turn, _)| turn.gives());
        let others = known.filter(|application| !is_queued(application));
        let after = others.clone().filter(|application| Some(*application) > self.asked).min();
        let other = after.or_else(|| others.min());
        self.asked = other;
        other
    }

    fn settle(&mut self, application: WorkflowId, gives: bool) {
        let (turn, _) = self.of.entry(application).or_default();
        self.turns.settle(application, turn, gives);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const APPLICATIONS: [WorkflowId; 3] = [WorkflowId(1), WorkflowId(2), WorkflowId(3)];

    fn taken(turns: &Turns, n: usize) -> [usize; 3] {
        let mut taken = [0; 3];
        for _ in 0..n {
            let next = turns.next(APPLICATIONS.into_iter()).expect("there is one");
            taken[next.0 as usize - 1] += 1;
        }
        taken
    }

    #[test]
    fn applications_take_turns_as_they_weigh() {
        let turns = Turns::default();
        turns.weigh(WorkflowId(2), NonZeroU32::new(3).unwrap());
        APPLICATIONS.into_iter().for_each(|application| turns.has_some(application));
        assert_eq!(taken(&turns, 50), [10, 30, 10]);
        turns.weigh(WorkflowId(2), NonZeroU32::MIN);
        let even = taken(&turns, 60);
        assert!(even.iter().all(|n| (18..=22).contains(n)), "{even:?}");
    }

    #[test]
    fn who_has_nothing_has_no_turn_and_is_asked_now_and_then() {
        let turns = Turns::default();
        assert_eq!(turns.next(APPLICATIONS.into_iter()), None);
        turns.has_some(WorkflowId(1));
        turns.has_some(WorkflowId(2));
        turns.has_none(WorkflowId(2));
        assert_eq!(taken(&turns, 63), [59, 2, 2]);
    }
}
