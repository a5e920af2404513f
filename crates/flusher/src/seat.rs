//! Where one caller of a [`Group`](crate::Group) waits for its answer or for its turn to lead.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, Thread};

use crate::{Ledger, Refused};

/// One caller's place in line.
pub(crate) struct Seat<L: Ledger> {
    state: Mutex<State<L>>,
    /// The thread that waits; none for a task.
    thread: Option<Thread>,
}

/// What a caller waits for.
pub(crate) enum Turn<L: Ledger> {
    Answered(Result<L::Answer, Refused>),
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
        Seat { state: Mutex::new(State::Waiting(None)), thread: Some(thread::current()) }
    }

    pub(crate) fn for_a_task() -> Self {
        Seat { state: Mutex::new(State::Waiting(None)), thread: None }
    }

    pub(crate) fn is_for_a_task(&self) -> bool {
        self.thread.is_none()
    }

    /// Blocks the seat's thread until its turn comes.
    pub(crate) fn wait(&self) -> Turn<L> {
        loop {
            if let Some(turn) = self.take() {
                return turn;
            }
            thread::park();
        }
    }

    pub(crate) fn answer(&self, answer: Result<L::Answer, Refused>) {
        self.come(Turn::Answered(answer));
    }

    pub(crate) fn lead(&self, ledger: Box<L>, op: Option<L::Op>) {
        self.come(Turn::Lead(ledger, op));
    }

    fn come(&self, turn: Turn<L>) {
        let before = std::mem::replace(&mut *self.lock(), State::Come(turn));
        if let Some(thread) = &self.thread {
            thread.unpark();
        } else if let State::Waiting(Some(waker)) = before {
            waker.wake();
        }
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
            State::Come(Turn::Answered(answer)) => Poll::Ready(answer),
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
