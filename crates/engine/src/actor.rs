//! The loop: takes what waits, asks the machine, and moves batches, reads and answers along.
//! It contains no decision about jobs.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_domain::batch::{Batch, Outcomes};
use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{Lsn, Ticket, Timestamp};
use forebay_domain::limits::Egress;
use forebay_domain::machine::{Machine, ReadRequest};
use forebay_domain::port::{Read, Store, StoreError};
use forebay_flusher::{Backoff, Cadence, Cause, Flush, Report, Stopped, Syncing, Writer};

use crate::counters::{Gauges, count};
use crate::feed::{Changed, Feed};
use crate::inbox::{Event, Inbox, Message, Reply, Taken, Wait};
use crate::options::{Durability, Options};
use crate::outbox::Outbox;
use crate::readers::{Readers, Reading};
use crate::sink::{StoreSink, failure};
use crate::{Clock, Ended, Error};

/// What an actor is made of.
pub(crate) struct Parts<S> {
    pub machine: Machine,
    /// The last committed batch.
    pub committed: Lsn,
    pub store: StoreSink<S>,
    pub inbox: Arc<Inbox>,
    pub pages: Readers,
    pub graphs: Readers,
    pub doors: Readers,
    pub gauges: Arc<Gauges>,
    pub feed: Feed,
    pub clock: Arc<dyn Clock>,
}

/// The engine thread's own.
pub(crate) struct Actor<S> {
    parts: Parts<S>,
    writer: Writer<Batch>,
    cadence: Cadence,
    outbox: Outbox,
    batch_max: usize,
    backlog_max: usize,
    hold: Duration,
    backoff: Backoff,
    /// When answers may leave.
    egress: Egress,
    /// At least one of the last messages was answered without a wait for its commit.
    answers_at_once: bool,
    /// The cadence's time counts from here.
    origin: Instant,
    taken: Taken,
    /// Calls that came while the backlog was full, in their order.
    held: VecDeque<Held>,
    in_flight: Option<InFlight>,
    /// Reads whose batch is not committed.
    reads: Vec<ReadRequest>,
    /// Reads that their threads have.
    reads_out: usize,
    /// Answers with jobs that reached nobody.
    undelivered: Vec<Answer>,
    /// The machine's backlog when the cadence was last told.
    backlog_told: usize,
    /// Callers who wait for the open batch, and that the cadence was not told of.
    waiting: usize,
    /// When the end must be reached.
    stop_by: Option<Instant>,
}

/// A call that waits for room in the backlog.
struct Held {
    until: Instant,
    ticket: Ticket,
    command: Command,
    reply: Reply,
}

/// The batch that the writer has.
struct InFlight {
    lsn: Lsn,
    changes: usize,
    /// For who watches.
    changed: Option<Changed>,
}

/// While a commit is in flight, or due shortly, and answers wait for it, callers need not wake the
/// engine one by one. It looks up by itself this often, or when so many messages wait.
const DOZE: Duration = Duration::from_millis(1);
const DOZE_MESSAGES: usize = 64;

/// So many messages are applied in one turn at most: a few hundred microseconds, for which the writer may
/// have nothing to do, and callers whose answers may leave get none.
const TURN_MESSAGES: usize = 256;

impl<S: Store + Send + 'static> Actor<S> {
    pub fn new(parts: Parts<S>, options: Options) -> Actor<S> {
        let cadence = Cadence::new(options.cadence());
        let egress = options.egress();
        let syncing = match options.durability {
            Durability::Power => None,
            Durability::Process { sync_interval, mut sync } => {
                Some(Syncing { interval: sync_interval, sync: Box::new(move || sync().map_err(failure)) })
            }
            Durability::Memory { .. } => None,
        };
        let inbox = Arc::clone(&parts.inbox);
        let report = move |report| inbox.tell(Event::Writer(report));
        let writer = Writer::start(parts.store.clone(), syncing, options.backoff, report);
        Actor {
            writer,
            cadence,
            outbox: Outbox::new(parts.committed),
            batch_max: options.batch_max,
            backlog_max: options.backlog_max,
            hold: options.hold,
            backoff: options.backoff,
            egress,
            answers_at_once: true,
            origin: Instant::now(),
            taken: Taken::default(),
            held: VecDeque::new(),
            in_flight: None,
            reads: Vec::new(),
            reads_out: 0,
            undelivered: Vec::new(),
            backlog_told: 0,
            waiting: 0,
            stop_by: None,
            parts,
        }
    }

    /// Runs until it is stopped or the store breaks.
    pub fn run(mut self) -> Ended {
        let mut wait = None;
        loop {
            self.parts.inbox.take(wait, &mut self.taken);
            if let Err(cause) = self.turn() {
                return self.broken(cause);
            }
            if self.stop_by.is_some() && self.has_nothing_left() {
                return self.close();
            }
            if self.stop_by.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ended::Unwritten { changes: self.unwritten() };
            }
            wait = self.wait();
        }
    }

    /// One turn: everything that waited is seen to, and what may leave leaves.
    fn turn(&mut self) -> Result<(), Cause> {
        let now = self.parts.clock.now();
        let mut events = mem::take(&mut self.taken.events);
        for event in events.drain(..) {
            self.on(now, event)?;
        }
        self.taken.events = events;
        for answer in mem::take(&mut self.undelivered) {
            self.give_back(now, answer);
        }
        if self.cadence.is_worth_a_commit() {
            // The writer need not wait for what comes on top.
            self.flush();
        }
        self.apply(now);
        self.parts.machine.tick(now);
        self.collect();
        let all_applied = self.taken.messages.is_empty() && self.held.is_empty();
        if self.stop_by.is_some() && all_applied && self.reads.is_empty() && self.reads_out == 0 {
            self.dismiss(now);
            self.collect();
        }
        // Before the answers: the writer works while they are sent.
        self.flush();
        self.issue_reads();
        self.refuse();
        self.count();
        let delivered = self.outbox.deliver(&mut self.undelivered);
        self.parts.gauges.answers.add(delivered);
        Ok(())
    }

    fn on(&mut self, now: Timestamp, event: Event) -> Result<(), Cause> {
        match event {
            Event::Writer(Report::Committed { done, took, tries }) => {
                if tries > 1 {
                    tracing::info!(tries, "the store is not busy any more: the batch is committed");
                }
                self.committed(now, done, took);
            }
            Event::Writer(Report::Busy { cause, tries, pause, .. }) => {
                self.parts.gauges.busy.add(1);
                if tries.is_power_of_two() {
                    tracing::warn!(%cause, tries, ?pause, "the store is busy: the batch will be tried again");
                }
            }
            Event::Writer(Report::Broken { cause }) | Event::Broken(cause) => return Err(cause),
            Event::Read { id, lsn, found } => {
                self.reads_out -= 1;
                self.parts.machine.read_done(now, id, lsn, found);
            }
            Event::Stop { deadline } => {
                self.stop_by = Some(self.stop_by.map_or(deadline, |other| other.min(deadline)));
                self.cadence.hurry();
            }
            // Who asked may have left.
            Event::Look(reply) => drop(reply.send(self.parts.machine.stats())),
            Event::Progress(reply) => drop(reply.send(self.parts.machine.take_progress())),
        }
        Ok(())
    }

    fn committed(&mut self, now: Timestamp, outcomes: Outcomes, took: Duration) {
        let InFlight { lsn, changes, changed } = self.in_flight.take().expect("the writer reports what it was handed");
        self.cadence.committed(self.origin.elapsed(), took);
        self.parts.machine.committed(now, lsn);
        self.outbox.committed(lsn, outcomes);
        if let Some(changed) = changed {
            self.parts.feed.tell(changed);
        }
        self.parts.committed = lsn;
        self.parts.gauges.batches.add(1);
        self.parts.gauges.changes.add(count(changes));
        self.parts.gauges.batch.add(count(changes));
        self.parts.gauges.commit.add_time(took);
    }

    /// Applies what is held, then messages: at most `batch_max` and `TURN_MESSAGES`, and not many more changes.
    /// Calls for which there is no room are held, and refused in the end.
    fn apply(&mut self, now: Timestamp) {
        let backlog_before = self.parts.machine.backlog();
        self.answers_at_once &= self.taken.messages.is_empty();
        for _ in 0..self.batch_max.min(TURN_MESSAGES) {
            let backlog = self.parts.machine.backlog();
            let has_room = backlog < self.backlog_max;
            if has_room && backlog >= backlog_before.saturating_add(self.batch_max) {
                return;
            }
            if let Some(Held { ticket, command, reply, .. }) = self.held.pop_front_if(|_| has_room) {
                self.taken.calls -= 1;
                // Nothing was done, and nobody waits for it any more.
                if !reply.is_closed() {
                    self.call(now, ticket, command, reply);
                }
                continue;
            }
            let Some(message) = self.taken.messages.pop_front() else { break };
            match message {
                Message::Call { ticket, command, reply } if has_room => {
                    self.taken.calls -= 1;
                    self.call(now, ticket, command, reply);
                }
                Message::Call { ticket, command, reply } => {
                    self.held.push_back(Held { until: Instant::now() + self.hold, ticket, command, reply });
                }
                Message::Left(ticket) => {
                    if self.outbox.leave(ticket) {
                        self.parts.machine.caller_left(now, ticket);
                    }
                }
                Message::GiveBack(answer) => self.give_back(now, answer),
            }
        }
    }

    /// Refuses what was held long enough and still finds no room.
    fn refuse(&mut self) {
        if self.held.is_empty() || self.parts.machine.backlog() < self.backlog_max {
            return;
        }
        let now = Instant::now();
        while let Some(Held { reply, .. }) = self.held.pop_front_if(|held| held.until <= now) {
            self.taken.calls -= 1;
            self.parts.inbox.refused(1);
            // Whether the caller is still there or not: nothing was done for it.
            drop(reply.send(Err(Error::Overloaded)));
        }
    }

    fn call(&mut self, now: Timestamp, ticket: Ticket, command: Command, reply: Reply) {
        if matches!(command, Command::Claim(_)) && reply.is_closed() {
            return;
        }
        self.parts.gauges.commands.add(1);
        self.outbox.enter(ticket, reply);
        self.parts.machine.apply(now, ticket, command);
        self.park();
    }

    /// Takes over the machine's answers.
    fn park(&mut self) {
        let handed = self.handed();
        for (ticket, lsn, answer) in self.parts.machine.answers() {
            self.waiting += usize::from(lsn > handed);
            self.answers_at_once |= lsn <= self.parts.committed;
            self.outbox.park(ticket, lsn, answer);
        }
    }

    /// The last batch that the writer got.
    fn handed(&self) -> Lsn {
        self.in_flight.as_ref().map_or(self.parts.committed, |batch| batch.lsn)
    }

    fn give_back(&mut self, now: Timestamp, answer: Answer) {
        self.parts.gauges.given_back.add(1);
        self.parts.machine.give_back(now, answer);
    }

    /// The engine stops, and only claims that wait for jobs have no answer yet: they get none, and
    /// what they took goes back.
    fn dismiss(&mut self, now: Timestamp) {
        for ticket in self.outbox.dismiss() {
            self.parts.machine.caller_left(now, ticket);
        }
    }

    /// Takes over what the machine has for others.
    fn collect(&mut self) {
        self.park();
        let handed = self.handed();
        // Who waits for the open batch: callers, reads that are to see it, and changes that go on after it.
        let mut waiting = mem::take(&mut self.waiting) + usize::from(self.parts.machine.is_marching());
        for read in self.parts.machine.reads() {
            waiting += usize::from(read.after > handed);
            self.reads.push(read);
        }
        let backlog = self.parts.machine.backlog();
        self.cadence.gathered(backlog.saturating_sub(self.backlog_told), waiting);
        self.backlog_told = backlog;
    }

    /// Hands the open batch to the writer when it is time.
    fn flush(&mut self) {
        let now = self.origin.elapsed();
        if self.cadence.decide(now) != Flush::Now {
            return;
        }
        self.cadence.handed(now);
        match self.parts.machine.take_batch() {
            Some(batch) => {
                let changed = self.parts.feed.gather(&batch);
                self.in_flight = Some(InFlight { lsn: batch.lsn, changes: batch.len(), changed });
                if self.writer.hand(batch).is_err() {
                    // It has ended; its report, which says why, is on its way.
                    tracing::warn!("the writer has ended");
                }
            }
            None => {
                self.cadence.committed(now, Duration::ZERO);
                self.outbox.nothing_to_commit();
                for read in mem::take(&mut self.reads) {
                    self.issue(read);
                }
            }
        }
        self.backlog_told = self.parts.machine.backlog();
    }

    /// Hands reads to their threads, if what they must see is committed.
    fn issue_reads(&mut self) {
        let committed = self.parts.committed;
        for read in mem::take(&mut self.reads) {
            if read.after <= committed {
                self.issue(read);
            } else {
                self.reads.push(read);
            }
        }
    }

    fn issue(&mut self, read: ReadRequest) {
        self.reads_out += 1;
        self.parts.gauges.machine_reads.add(1);
        let readers = match read.what {
            Read::Page { .. }
            | Read::Due { .. }
            | Read::Workflow(_)
            | Read::Jobs(_)
            | Read::Held(_)
            | Read::Dependents { .. }
            | Read::Payloads(_) => &self.parts.pages,
            // It may take long; pages must not wait behind it.
            Read::Graph(_) => &self.parts.graphs,
        };
        let gauges = Arc::clone(&self.parts.gauges);
        if readers.read(reading(read, Arc::clone(&self.parts.inbox), gauges, self.backoff)).is_err() {
            tracing::warn!("a read was dropped: its readers have ended");
        }
    }

    fn count(&self) {
        let gauges = &self.parts.gauges;
        gauges.turns.add(1);
        gauges.backlog.set(self.parts.machine.backlog());
        gauges.callers.set(self.outbox.callers());
        gauges.held.set(self.held.len());
    }

    /// How to wait for the next turn; `None` is not at all.
    fn wait(&self) -> Option<Wait> {
        let can_go_on = !self.held.is_empty() && self.parts.machine.backlog() < self.backlog_max;
        if can_go_on || !self.taken.messages.is_empty() || !self.undelivered.is_empty() {
            return None;
        }
        let now = Instant::now();
        let may_doze = self.egress == Egress::Committed || !self.answers_at_once;
        let flush = match self.cadence.decide(now - self.origin) {
            Flush::Now => return None,
            Flush::At(due) => Some(self.origin + due),
            Flush::WhenCommitted => may_doze.then_some(now + DOZE),
            Flush::Nothing => None,
        };
        let dozing = may_doze && flush.is_some_and(|due| due <= now + DOZE);
        let messages = match self.cadence.awaited() {
            _ if !dozing => 1,
            0 => DOZE_MESSAGES,
            callers => callers.min(DOZE_MESSAGES),
        };
        let deadline = self.parts.machine.next_deadline().and_then(|deadline| {
            let left_ms = deadline.0.saturating_sub(self.parts.clock.now().0).max(0);
            now.checked_add(Duration::from_millis(left_ms.unsigned_abs()))
        });
        let held = self.held.front().map(|held| held.until);
        let until = [flush, deadline, held, self.stop_by].into_iter().flatten().min();
        Some(Wait { until, messages })
    }

    /// Nothing is left to do before the end.
    fn has_nothing_left(&self) -> bool {
        self.taken.messages.is_empty()
            && self.held.is_empty()
            && self.undelivered.is_empty()
            && self.reads.is_empty()
            && self.reads_out == 0
            && !self.cadence.is_pending()
    }

    /// Changes that are not known to be written.
    fn unwritten(&self) -> usize {
        self.in_flight.as_ref().map_or(0, |batch| batch.changes) + self.parts.machine.backlog()
    }

    /// Everything is committed: ends the threads and closes the store.
    fn close(self) -> Ended {
        let deadline = self.stop_by.expect("only a stop comes here");
        let changes = self.unwritten();
        let Parts { store, inbox, pages, graphs, doors, .. } = self.parts;
        let readers_ended = [pages, graphs, doors].iter().all(|readers| readers.stop(deadline));
        match self.writer.stop(deadline.saturating_duration_since(Instant::now())) {
            Stopped::Clean => {}
            Stopped::TimedOut => return Ended::Unwritten { changes },
            Stopped::Broken => return Ended::Broken { cause: Arc::from(last_words(&inbox)), changes },
        }
        match store.close() {
            Ok(()) => Ended::Stopped,
            Err(StoreError::Busy(cause)) => {
                // Everything is committed; the next start folds the log.
                tracing::warn!(%cause, readers_ended, "the store's log could not be folded");
                Ended::Stopped
            }
            Err(StoreError::Broken(cause)) => Ended::Broken { cause: Arc::from(cause), changes },
        }
    }

    fn broken(self, cause: Cause) -> Ended {
        tracing::error!(%cause, "the store is broken");
        Ended::Broken { cause: Arc::from(cause), changes: self.unwritten() }
    }
}

/// Why the writer ended while it was being stopped: its last sync failed.
fn last_words(inbox: &Inbox) -> Cause {
    let mut taken = Taken::default();
    inbox.take(None, &mut taken);
    let cause = taken.events.into_iter().find_map(|event| match event {
        Event::Writer(Report::Broken { cause }) | Event::Broken(cause) => Some(cause),
        Event::Writer(Report::Committed { .. } | Report::Busy { .. }) => None,
        Event::Read { .. } | Event::Stop { .. } | Event::Look(_) | Event::Progress(_) => None,
    });
    cause.unwrap_or_else(|| Cause::from("the last sync failed"))
}

/// What a reader thread does with a read of the machine.
fn reading(read: ReadRequest, inbox: Arc<Inbox>, gauges: Arc<Gauges>, backoff: Backoff) -> Reading {
    let asked = Instant::now();
    Box::new(move |reader| {
        let mut tries = 0;
        let event = loop {
            match reader.read(&read.what) {
                Ok((lsn, rows)) => break Event::Read { id: read.id, lsn, found: read.digest(rows) },
                Err(StoreError::Broken(cause)) => break Event::Broken(cause),
                Err(StoreError::Busy(cause)) => {
                    tries += 1;
                    if inbox.has_ended() {
                        return;
                    }
                    if u32::is_power_of_two(tries) {
                        tracing::warn!(%cause, tries, "the store is busy: the read will be tried again");
                    }
                    std::thread::sleep(backoff.pause(tries));
                }
            }
        };
        if matches!(read.what, Read::Page { .. }) {
            gauges.page.add_time(asked.elapsed());
        }
        inbox.tell(event);
    })
}
