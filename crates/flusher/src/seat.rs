//! Where one caller of a [`Group`](crate::Group) waits for its answer or for its turn to lead.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};

use crate::{Ledger, Refused};

/// One caller's place in line.
pub(crate) struct Seat<L: Ledger> {
    state: Mutex<State<L>>,
    place: Place,
}

/// Where the caller of a seat is to be called.
enum Place {
    /// It is a thread that waits by itself.
    Alone(Thread),
    /// It is a thread that waits with those who are likely to be answered by the same commit.
    Hall(Arc<Hall>),
    /// It is a task, which leaves its waker.
    Task,
}

/// Where threads wait that one call of the system wakes together. Waking each by itself costs a
/// call each, and each lets the woken one interrupt the waking one.
#[derive(Debug, Default)]
pub(crate) struct Hall {
    lock: Mutex<()>,
    called: Condvar,
}

/// What a caller waits for.
pub(crate) enum Turn<L: Ledger> {
    /// Committed, with what was in line here.
    Committed(L::Op, L::Answer),
    Refused(Refused),
    /// Take the ledger and lead, with what was in line here.
    Lead(Box<L>, Option<L::Op>),
}

enum State<L: Ledger> {
    Waiting(Option<Waker>),
    Come(Turn<L>),
    Gone,
}

impl<L: Ledger> Seat<L> {
    pub(crate) fn for_this_thread() -> Self {
        Seat::at(Place::Alone(thread::current()))
    }

    pub(crate) fn in_hall(hall: &Arc<Hall>) -> Self {
        Seat::at(Place::Hall(Arc::clone(hall)))
    }

    pub(crate) fn for_a_task() -> Self {
        Seat::at(Place::Task)
    }

    fn at(place: Place) -> Self {
        Seat { state: Mutex::new(State::Waiting(None)), place }
    }

    pub(crate) fn is_for_a_task(&self) -> bool {
        matches!(self.place, Place::Task)
    }

    /// Blocks the caller's thread until its turn comes.
    pub(crate) fn wait(&self) -> Turn<L> {
        let mut guard = match &self.place {
            Place::Hall(hall) => Some((hall, hall.lock())),
            Place::Alone(_) | Place::Task => None,
        };
        loop {
            if let Some(turn) = self.take() {
                return turn;
            }
            guard = match guard {
                Some((hall, locked)) => Some((hall, hall.called.wait(locked).unwrap_or_else(PoisonError::into_inner))),
                None => {
                    thread::park();
                    None
                }
            };
        }
    }

    /// Gives a caller its turn. Who waits with others is called once all of them have theirs.
    pub(crate) fn come(&self, turn: Turn<L>) {
        if let Some(hall) = self.come_quietly(turn) {
            hall.call();
        }
    }

    /// Gives each caller its turn.
    pub(crate) fn all_come(turns: impl Iterator<Item = (Arc<Seat<L>>, Turn<L>)>) {
        let mut last: Option<Arc<Hall>> = None;
        for (seat, turn) in turns {
            if let Some(hall) = seat.come_quietly(turn)
                && last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, hall))
                && let Some(last) = last.replace(Arc::clone(hall))
            {
                last.call();
            }
        }
        if let Some(last) = last {
            last.call();
        }
    }

    /// Gives a caller its turn and wakes it, unless it waits in a hall, which is still to be called.
    fn come_quietly(&self, turn: Turn<L>) -> Option<&Arc<Hall>> {
        let before = std::mem::replace(&mut *self.lock(), State::Come(turn));
        match &self.place {
            Place::Hall(hall) => return Some(hall),
            Place::Alone(thread) => thread.unpark(),
            Place::Task => {
                if let State::Waiting(Some(waker)) = before {
                    waker.wake();
                }
            }
        }
        None
    }

    fn take(&self) -> Option<Turn<L>> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Come(turn) => Some(turn),
            other => {
                *state = other;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<L>> {
        // Each change is one assignment.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hall {
    /// Wakes all who wait, to see whether their turn has come.
    fn call(&self) {
        // Whoever saw that its turn has not come holds the lock until it waits.
        drop(self.lock());
        self.called.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The future answer to an operation that was put in line.
#[must_use = "the answer comes by awaiting it"]
pub struct Submission<L: Ledger> {
    seat: Arc<Seat<L>>,
}

impl<L: Ledger> Submission<L> {
    pub(crate) fn new(seat: Arc<Seat<L>>) -> Self {
        Submission { seat }
    }
}

impl<L: Ledger> Future for Submission<L> {
    type Output = Result<L::Answer, Refused>;

    /// # Panics
    /// If polled again after the answer.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.seat.lock();
        match std::mem::replace(&mut *state, State::Gone) {
            State::Come(Turn::Committed(op, answer)) => Poll::Ready(Ok(L::settle(op, answer))),
            State::Come(Turn::Refused(refused)) => Poll::Ready(Err(refused)),
            State::Come(Turn::Lead(..)) => unreachable!("a task is never asked to lead"),
            State::Waiting(_) => {
                *state = State::Waiting(Some(context.waker().clone()));
                Poll::Pending
            }
            State::Gone => panic!("a submission was polled after its answer"),
        }
    }
}

impl<L: Ledger> fmt::Debug for Submission<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").finish_non_exhaustive()
    }
}
