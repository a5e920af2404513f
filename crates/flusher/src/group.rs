//! The group commit of callers who bring their own threads: the first leads, the others join.
//!
//! A caller that finds nobody leading takes the ledger and commits its operation on its own thread:
//! one uncontended lock before and one after. Whoever comes meanwhile waits in line with its
//! operation; the leader takes what is in line into its transaction, hands the ledger to the next
//! in line, and answers, with one call of the system for all who wait together. Operations from async
//! callers are led by an attendant thread, which starts with the first of them.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::ledger::Ledger;
use crate::seat::{Hall, Seat, Submission, Turn};
use crate::{Backoff, Cause, Failure, Refused};

/// The bounds of a [`Group`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupOptions {
    /// At most so many operations in one transaction.
    pub batch_max: usize,
    /// No operation is added to a transaction that is this old, since others share the file.
    pub hold_max: Duration,
    /// At most so many operations wait in line. More blocking callers wait outside; an async one
    /// is refused.
    pub waiting_max: usize,
    /// A transaction that is still busy after this time is refused to its callers.
    pub busy_timeout: Duration,
    /// The pauses while the ledger is busy.
    pub backoff: Backoff,
}

impl Default for GroupOptions {
    fn default() -> Self {
        GroupOptions {
            batch_max: 1_024,
            hold_max: Duration::from_millis(2),
            waiting_max: 65_536,
            busy_timeout: Duration::from_secs(5),
            backoff: Backoff { first: Duration::from_micros(100), longest: Duration::from_millis(5) },
        }
    }
}

/// A ledger that many callers share.
pub struct Group<L: Ledger> {
    shared: Arc<Shared<L>>,
}

struct Shared<L: Ledger> {
    options: GroupOptions,
    state: Mutex<State<L>>,
    /// There is room in the line, or the group closes.
    room: Condvar,
    /// As many came back as the leader gathers for.
    gathered: Condvar,
    /// The ledger is free for whoever closes the group.
    free: Condvar,
    /// The ledger is left to the attendant, or the group closes.
    attend: Condvar,
}

struct State<L: Ledger> {
    ledger: Place<L>,
    line: VecDeque<Waiting<L>>,
    /// Where those wait who join the line now, but for the first, who is to lead next.
    hall: Arc<Hall>,
    /// How many callers wait for room in the line.
    outside: usize,
    gathering: Option<Gathering>,
    /// A leader sleeps while it gathers.
    gatherer_sleeps: bool,
    has_attendant: bool,
    /// Why nobody may join any more.
    ended: Option<Refused>,
}

/// Where the ledger is.
enum Place<L> {
    /// Nobody leads, and nobody waits in line.
    Free(Box<L>),
    /// Somebody leads.
    Led,
    /// The attendant is to lead.
    Left(Box<L>),
    /// Broken or given out at the end.
    Gone,
}

/// One in line. What waits with no operation wants the ledger for itself.
struct Waiting<L: Ledger> {
    op: Option<L::Op>,
    seat: Arc<Seat<L>>,
}

/// The wait for callers that the last commit released.
#[derive(Clone, Copy)]
struct Gathering {
    missing: usize,
    until: Instant,
    /// The commit did not sleep for so long that those it released have run meanwhile.
    was_quick: bool,
}

/// After a commit that released several callers, the next waits for them at most the commit's time
/// divided by this.
const GATHER_SHARE: u32 = 10;
/// A commit that takes less has hardly waited for a disk.
const QUICK: Duration = Duration::from_micros(100);

impl<L: Ledger> Group<L> {
    #[must_use]
    pub fn new(ledger: L, options: GroupOptions) -> Self {
        let state = State {
            ledger: Place::Free(Box::new(ledger)),
            line: VecDeque::new(),
            hall: Arc::default(),
            outside: 0,
            gathering: None,
            gatherer_sleeps: false,
            has_attendant: false,
            ended: None,
        };
        Group {
            shared: Arc::new(Shared {
                options,
                state: Mutex::new(state),
                room: Condvar::new(),
                gathered: Condvar::new(),
                free: Condvar::new(),
                attend: Condvar::new(),
            }),
        }
    }

    /// Carries `op` out and returns its answer when its transaction is committed.
    ///
    /// # Errors
    /// [`Refused`], for all but `Broken` with nothing written.
    pub fn submit(&self, op: L::Op) -> Result<L::Answer, Refused> {
        let shared = &*self.shared;
        let mut state = shared.lock();
        state = shared.wait_for_room(state)?;
        state.came_back();
        if let Some(ledger) = state.take_free() {
            // Nobody is in line while the ledger is free.
            let leader = if state.gathering.is_none() { Leader::Alone } else { Leader::Caller };
            drop(state);
            return shared.lead(ledger, op, leader).map(settle::<L>);
        }
        let seat = Arc::new(if state.line.is_empty() { Seat::for_this_thread() } else { Seat::in_hall(&state.hall) });
        state.line.push_back(Waiting { op: Some(op), seat: Arc::clone(&seat) });
        shared.tell_gatherer(state);
        match seat.wait() {
            Turn::Committed(op, answer) => Ok(L::settle(op, answer)),
            Turn::Refused(refused) => Err(refused),
            Turn::Lead(ledger, op) => {
                let op = op.expect("an operation in line is handed on with the ledger");
                shared.lead(ledger, op, Leader::Caller).map(settle::<L>)
            }
        }
    }

    /// Puts `op` in line and returns a future of its answer. The operation is carried out whether
    /// or not the future is polled.
    ///
    /// # Errors
    /// At once if the line is full or the group has ended.
    pub fn submit_async(&self, op: L::Op) -> Result<Submission<L>, Refused> {
        let mut state = self.shared.lock();
        if let Some(refused) = &state.ended {
            return Err(refused.clone());
        }
        if state.line.len() >= self.shared.options.waiting_max {
            return Err(Refused::Full);
        }
        if !state.has_attendant {
            state.has_attendant = true;
            let shared = Arc::clone(&self.shared);
            thread::Builder::new()
                .name("forebay-group".to_owned())
                .spawn(move || shared.attend())
                .expect("a process that cannot start a thread cannot go on");
        }
        state.came_back();
        let seat = Arc::new(Seat::for_a_task());
        state.line.push_back(Waiting { op: Some(op), seat: Arc::clone(&seat) });
        if let Some(ledger) = state.take_free() {
            state.ledger = Place::Left(ledger);
            self.shared.attend.notify_one();
        }
        self.shared.tell_gatherer(state);
        Ok(Submission::new(seat))
    }

    /// Runs `work` with the ledger, outside any transaction and after what is in line before it.
    ///
    /// # Errors
    /// If the group has ended.
    pub fn with_ledger<R>(&self, work: impl FnOnce(&mut L) -> R) -> Result<R, Refused> {
        let shared = &*self.shared;
        let mut state = shared.lock();
        state = shared.wait_for_room(state)?;
        let mut ledger = match state.take_free() {
            Some(ledger) => {
                drop(state);
                ledger
            }
            None => {
                let seat = Arc::new(Seat::for_this_thread());
                state.line.push_back(Waiting { op: None, seat: Arc::clone(&seat) });
                shared.tell_gatherer(state);
                match seat.wait() {
                    Turn::Lead(ledger, _) => ledger,
                    Turn::Refused(refused) => return Err(refused),
                    Turn::Committed(..) => unreachable!("no operation was in line here"),
                }
            }
        };
        let result = panic::catch_unwind(AssertUnwindSafe(|| work(&mut ledger)));
        match result {
            Ok(result) => {
                shared.hand_on(ledger, 0, Duration::ZERO);
                Ok(result)
            }
            Err(panic) => {
                shared.end(Refused::Broken(panicked()));
                panic::resume_unwind(panic)
            }
        }
    }

    /// Takes no more operations, finishes those in line, and gives the ledger back; none if it
    /// broke or was given before.
    pub fn close(&self) -> Option<L> {
        let mut state = self.shared.lock();
        state.ended.get_or_insert(Refused::Closed);
        self.shared.room.notify_all();
        loop {
            match std::mem::replace(&mut state.ledger, Place::Gone) {
                Place::Free(ledger) => {
                    self.shared.attend.notify_all();
                    self.shared.free.notify_all();
                    return Some(*ledger);
                }
                Place::Gone => return None,
                busy @ (Place::Led | Place::Left(_)) => state.ledger = busy,
            }
            state = self.shared.free.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<L: Ledger> fmt::Debug for Group<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// Closes the group; what async callers left in line is still carried out.
impl<L: Ledger> Drop for Group<L> {
    fn drop(&mut self) {
        drop(self.close());
    }
}

impl<L: Ledger> State<L> {
    fn take_free(&mut self) -> Option<Box<L>> {
        match std::mem::replace(&mut self.ledger, Place::Led) {
            Place::Free(ledger) => Some(ledger),
            other => {
                self.ledger = other;
                None
            }
        }
    }

    fn came_back(&mut self) {
        self.gathering = self.gathering.and_then(|gathering| {
            let missing = gathering.missing - 1;
            (missing > 0).then_some(Gathering { missing, ..gathering })
        });
    }
}

/// Who leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leader {
    /// A caller, with nobody else about.
    Alone,
    /// A caller, which may share a processor with those that the last commit released. Without
    /// letting them run it would come back and commit alone before they do, again and again.
    Caller,
    /// The attendant, who is no caller: while it leads the others may come.
    Attendant,
}

/// What a leader has applied, with who waits for it; the leader's own operation comes first.
struct Batch<L: Ledger> {
    own: L::Op,
    /// Nobody else was there when it began.
    is_alone: bool,
    joined: Vec<(L::Op, Arc<Seat<L>>)>,
    /// So many of the joined were applied in a try before, or in this one.
    tried: usize,
}

impl<L: Ledger> Shared<L> {
    fn lock(&self) -> MutexGuard<'_, State<L>> {
        // No holder runs a ledger's code, or any other that panics, between two changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_room<'a>(&'a self, mut state: MutexGuard<'a, State<L>>) -> Result<MutexGuard<'a, State<L>>, Refused> {
        loop {
            if let Some(refused) = &state.ended {
                return Err(refused.clone());
            }
            if state.line.len() < self.options.waiting_max {
                return Ok(state);
            }
            state.outside += 1;
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.outside -= 1;
        }
    }

    fn tell_gatherer(&self, state: MutexGuard<'_, State<L>>) {
        let is_enough = state.gathering.is_none() || state.line.len() >= self.options.batch_max;
        let wakes = is_enough && state.gatherer_sleeps;
        drop(state);
        if wakes {
            self.gathered.notify_one();
        }
    }

    /// Leads one transaction, with `own` first in it.
    fn lead(&self, mut ledger: Box<L>, own: L::Op, leader: Leader) -> Result<(L::Op, L::Answer), Refused> {
        match leader {
            Leader::Alone => {}
            Leader::Caller => self.gather(thread::yield_now),
            Leader::Attendant => self.gather(|| ()),
        }
        let is_alone = leader == Leader::Alone;
        let mut batch = Batch { own, is_alone, joined: Vec::new(), tried: 0 };
        match self.commit(&mut ledger, &mut batch) {
            Ok(Committed { own, joined, took }) => {
                self.hand_on(ledger, 1 + joined.len(), took);
                let answers = batch.joined.into_iter().zip(joined);
                Seat::all_come(answers.map(|((op, seat), answer)| (seat, Turn::Committed(op, answer))));
                Ok((batch.own, own))
            }
            Err(refused) => {
                match &refused {
                    Refused::Broken(_) => self.end(refused.clone()),
                    Refused::Busy(_) | Refused::Full | Refused::Closed => {
                        self.hand_on(ledger, 0, Duration::ZERO);
                    }
                }
                Seat::all_come(batch.joined.into_iter().map(|(_, seat)| (seat, Turn::Refused(refused.clone()))));
                Err(refused)
            }
        }
    }

    /// Waits for the callers that the last commit released, for a part of its time; after a quick
    /// one at least lets them run.
    fn gather(&self, let_run: impl FnOnce()) {
        let mut state = self.lock();
        if state.gathering.is_some_and(|gathering| gathering.was_quick) {
            drop(state);
            let_run();
            state = self.lock();
        }
        while let Some(Gathering { until, .. }) = state.gathering {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() || state.line.len() >= self.options.batch_max {
                state.gathering = None;
                return;
            }
            state.gatherer_sleeps = true;
            let woken = self.gathered.wait_timeout(state, wait);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
            state.gatherer_sleeps = false;
        }
    }

    /// Tries until the transaction is committed, or refuses all of it.
    fn commit(&self, ledger: &mut L, batch: &mut Batch<L>) -> Result<Committed<L::Answer>, Refused> {
        let mut busy_since = None;
        let mut tries = 0;
        loop {
            let caught = panic::catch_unwind(AssertUnwindSafe(|| self.try_commit(ledger, batch)));
            let failure = match caught {
                Ok(Ok(committed)) => return Ok(committed),
                Ok(Err(failure)) => {
                    ledger.roll_back();
                    failure
                }
                Err(_) => return Err(Refused::Broken(panicked())),
            };
            match failure {
                Failure::Broken(cause) => return Err(Refused::Broken(Arc::new(cause))),
                Failure::Busy(cause) => {
                    let since = *busy_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= self.options.busy_timeout {
                        return Err(Refused::Busy(Arc::new(cause)));
                    }
                    tries += 1;
                    thread::sleep(self.options.backoff.pause(tries));
                }
            }
        }
    }

    fn try_commit(&self, ledger: &mut L, batch: &mut Batch<L>) -> Result<Committed<L::Answer>, Failure> {
        let is_alone = std::mem::take(&mut batch.is_alone);
        if is_alone || (batch.joined.is_empty() && !self.take_line(batch)) {
            let own = ledger.apply_alone(&batch.own)?;
            return Ok(Committed { own, joined: Vec::new(), took: Duration::ZERO });
        }
        let start = Instant::now();
        ledger.begin()?;
        let own = ledger.apply(&batch.own)?;
        let mut joined = Vec::with_capacity(batch.joined.len());
        loop {
            while let Some((op, _)) = batch.joined.get(joined.len()) {
                // What was begun before counts too: it is tried again whole.
                if joined.len() >= batch.tried && start.elapsed() >= self.options.hold_max {
                    self.give_back(batch.joined.drain(joined.len()..));
                    break;
                }
                joined.push(ledger.apply(op)?);
                batch.tried = batch.tried.max(joined.len());
            }
            if start.elapsed() >= self.options.hold_max || !self.take_line(batch) {
                break;
            }
        }
        // Who joins from here on is answered by another commit.
        self.lock().hall = Arc::default();
        let applied = Instant::now();
        ledger.commit()?;
        Ok(Committed { own, joined, took: applied.elapsed() })
    }

    /// Adds what is in line to the batch, up to who wants the ledger for itself; false if nothing
    /// was added.
    fn take_line(&self, batch: &mut Batch<L>) -> bool {
        let room = self.options.batch_max.saturating_sub(batch.joined.len() + 1);
        let before = batch.joined.len();
        let mut state = self.lock();
        while batch.joined.len() < before + room
            && let Some(next) = state.line.pop_front_if(|next| next.op.is_some())
        {
            let op = next.op.expect("the front has an operation");
            batch.joined.push((op, next.seat));
            self.tell_room(&state);
        }
        batch.joined.len() > before
    }

    /// Puts operations back at the front of the line, in their order.
    fn give_back(&self, rest: impl DoubleEndedIterator<Item = (L::Op, Arc<Seat<L>>)>) {
        let mut state = self.lock();
        for (op, seat) in rest.rev() {
            state.line.push_front(Waiting { op: Some(op), seat });
        }
    }

    /// Passes the ledger to the next in line, or leaves it free. `released` callers are about to
    /// be answered by a commit that took `took`.
    fn hand_on(&self, ledger: Box<L>, released: usize, took: Duration) {
        let mut state = self.lock();
        if released > 1 {
            let until = Instant::now() + took / GATHER_SHARE;
            let was_quick = took < QUICK;
            state.gathering = Some(Gathering { missing: released, until, was_quick });
        }
        let next_is_task = state.line.front().map(|next| next.seat.is_for_a_task());
        match next_is_task {
            None => {
                let closing = state.ended.is_some();
                state.ledger = Place::Free(ledger);
                if closing {
                    self.free.notify_all();
                }
            }
            Some(true) => {
                state.ledger = Place::Left(ledger);
                self.attend.notify_one();
            }
            Some(false) => {
                self.tell_room(&state);
                let next = state.line.pop_front().expect("the line has a front");
                drop(state);
                next.seat.come(Turn::Lead(ledger, next.op));
            }
        }
    }

    /// Somebody is about to leave the line.
    fn tell_room(&self, state: &State<L>) {
        if state.outside > 0 {
            self.room.notify_one();
        }
    }

    /// The ledger is lost: refuses all in line and all to come.
    fn end(&self, refused: Refused) {
        let mut state = self.lock();
        state.ended = Some(refused.clone());
        state.ledger = Place::Gone;
        let line = std::mem::take(&mut state.line);
        drop(state);
        self.room.notify_all();
        self.free.notify_all();
        self.attend.notify_all();
        Seat::all_come(line.into_iter().map(|waiting| (waiting.seat, Turn::Refused(refused.clone()))));
    }

    /// The attendant's life: leads when an async caller is next in line.
    fn attend(&self) {
        let mut state = self.lock();
        loop {
            match std::mem::replace(&mut state.ledger, Place::Led) {
                Place::Left(ledger) => {
                    self.tell_room(&state);
                    let next = state.line.pop_front().expect("the ledger is left for the next");
                    drop(state);
                    let op = next.op.expect("an async caller is in line with an operation");
                    next.seat.come(match self.lead(ledger, op, Leader::Attendant) {
                        Ok((op, answer)) => Turn::Committed(op, answer),
                        Err(refused) => Turn::Refused(refused),
                    });
                    state = self.lock();
                    continue;
                }
                Place::Gone => {
                    state.ledger = Place::Gone;
                    return;
                }
                other @ (Place::Free(_) | Place::Led) => state.ledger = other,
            }
            state = self.attend.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

struct Committed<A> {
    own: A,
    joined: Vec<A>,
    took: Duration,
}

fn settle<L: Ledger>((op, answer): (L::Op, L::Answer)) -> L::Answer {
    L::settle(op, answer)
}

fn panicked() -> Arc<Cause> {
    Arc::new("the ledger panicked".into())
}
