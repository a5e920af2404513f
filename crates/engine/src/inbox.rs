//! Where everything that the engine waits for arrives: one lock, one condition.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use forebay_domain::batch::Outcomes;
use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{Lsn, Ticket, WorkflowId};
use forebay_domain::machine::{Found, Progress, ReadId, Stats};
use forebay_flusher::{Cause, Report};
use tokio::sync::oneshot;

use crate::Error;

/// How an answer gets to its caller.
pub(crate) type Reply = oneshot::Sender<Result<Answer, Error>>;

/// What callers send. They are taken in the order in which they were sent.
#[derive(Debug)]
pub(crate) enum Message {
    Call {
        ticket: Ticket,
        command: Command,
        reply: Reply,
    },
    /// The caller with this ticket is gone. At most one for each call.
    Left(Ticket),
    /// This answer reached nobody. At most one for each call.
    GiveBack(Answer),
}

/// What happened elsewhere: at most one for each batch, read and owner in flight.
#[derive(Debug)]
pub(crate) enum Event {
    Writer(Report<Outcomes>),
    Read {
        id: ReadId,
        lsn: Lsn,
        found: Found,
    },
    Broken(Cause),
    Stop {
        deadline: Instant,
    },
    /// Somebody asks what the machine holds.
    Look(oneshot::Sender<Stats>),
    /// Somebody asks what has ended since this was asked last.
    Progress(oneshot::Sender<Vec<(WorkflowId, Progress)>>),
}

/// Whether calls are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Stopping,
    /// The engine has ended; nothing is taken any more.
    Ended,
}

/// What the engine thread waits on.
#[derive(Debug)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
    mailbox_max: usize,
}

#[derive(Debug)]
struct State {
    messages: VecDeque<Message>,
    /// Calls among the messages.
    calls: usize,
    /// Calls that were taken and not applied.
    taken: usize,
    events: Vec<Event>,
    next_ticket: u64,
    door: Door,
    /// Calls refused with `Overloaded` since the start.
    refused: u64,
    sleeper: Sleeper,
}

/// The engine thread, as callers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sleeper {
    Awake,
    /// Asleep, to be woken by an event or by so many messages.
    Until(usize),
}

/// How the engine waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wait {
    /// At most until then.
    pub until: Option<Instant>,
    /// Or until so many messages are there; at least 1.
    pub messages: usize,
}

/// What the engine thread has taken and not seen to.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub events: Vec<Event>,
    pub messages: VecDeque<Message>,
    /// Calls among the messages, and those that were taken out of them and are held.
    pub calls: usize,
}

/// How much waits, and how much was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub mailbox: usize,
    pub refused: u64,
}

impl Inbox {
    pub fn new(mailbox_max: usize) -> Inbox {
        let state = State {
            messages: VecDeque::new(),
            calls: 0,
            taken: 0,
            events: Vec::new(),
            next_ticket: 0,
            door: Door::Open,
            refused: 0,
            sleeper: Sleeper::Awake,
        };
        Inbox { state: Mutex::new(state), changed: Condvar::new(), mailbox_max }
    }

    /// A caller's command; its ticket, or why it is not taken.
    pub fn call(&self, command: Command, reply: Reply) -> Result<Ticket, Error> {
        let mut state = self.lock();
        let has_room = state.calls + state.taken < self.mailbox_max;
        match state.door {
            Door::Open if has_room => {}
            Door::Open => {
                state.refused += 1;
                return Err(Error::Overloaded);
            }
            Door::Stopping | Door::Ended => return Err(Error::Stopping),
        }
        let ticket = Ticket(state.next_ticket);
        state.next_ticket += 1;
        state.calls += 1;
        state.messages.push_back(Message::Call { ticket, command, reply });
        self.wake_for_messages(state);
        Ok(ticket)
    }

    /// The caller with this ticket does not wait any more.
    pub fn left(&self, ticket: Ticket) {
        self.send(Message::Left(ticket));
    }

    /// This answer reached nobody.
    pub fn give_back(&self, answer: Answer) {
        self.send(Message::GiveBack(answer));
    }

    fn send(&self, message: Message) {
        let mut state = self.lock();
        // After the end nothing can be undone any more; the next start settles it.
        if state.door != Door::Ended {
            state.messages.push_back(message);
            self.wake_for_messages(state);
        }
    }

    pub fn tell(&self, event: Event) {
        let mut state = self.lock();
        if state.door != Door::Ended {
            state.events.push(event);
            self.wake(state);
        }
    }

    /// No call is taken any more; what was taken is finished until the deadline.
    pub fn stop(&self, deadline: Instant) {
        let mut state = self.lock();
        if state.door != Door::Ended {
            state.door = Door::Stopping;
            state.events.push(Event::Stop { deadline });
            self.wake(state);
        }
    }

    /// The engine's own: waits as asked, then takes all events, and all messages if none are left
    /// of the last time.
    pub fn take(&self, wait: Option<Wait>, taken: &mut Taken) {
        let mut state = self.lock();
        if let Some(wait) = wait {
            // What was applied makes room now, not when the engine wakes.
            state.taken = taken.calls;
            state = self.wait(state, wait);
        }
        mem::swap(&mut state.events, &mut taken.events);
        if taken.messages.is_empty() {
            mem::swap(&mut state.messages, &mut taken.messages);
            taken.calls += mem::take(&mut state.calls);
        }
        state.taken = taken.calls;
    }

    fn wait<'a>(&'a self, mut state: MutexGuard<'a, State>, wait: Wait) -> MutexGuard<'a, State> {
        while state.events.is_empty() && state.messages.len() < wait.messages {
            state.sleeper = Sleeper::Until(wait.messages);
            state = match wait.until {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.sleeper = Sleeper::Awake;
        state
    }

    /// Calls that were taken are refused.
    pub fn refused(&self, calls: u64) {
        self.lock().refused += calls;
    }

    /// The engine has ended: who waits is told so by the loss of its reply.
    pub fn end(&self) {
        let mut state = self.lock();
        state.door = Door::Ended;
        let dropped = (mem::take(&mut state.messages), mem::take(&mut state.events));
        drop(state);
        drop(dropped);
    }

    pub fn has_ended(&self) -> bool {
        self.lock().door == Door::Ended
    }

    pub fn load(&self) -> Load {
        let state = self.lock();
        Load { mailbox: state.calls + state.taken, refused: state.refused }
    }

    fn wake_for_messages(&self, state: MutexGuard<'_, State>) {
        match state.sleeper {
            Sleeper::Until(messages) if state.messages.len() >= messages => self.wake(state),
            Sleeper::Until(_) | Sleeper::Awake => {}
        }
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        // Once awake it need not be woken again.
        let sleeper = mem::replace(&mut state.sleeper, Sleeper::Awake);
        drop(state);
        if sleeper != Sleeper::Awake {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder runs code that can panic between two changes of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
