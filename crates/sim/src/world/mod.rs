//! One history: clients, a network, an engine's loop, a store, and time. Everything is decided by
//! one generator of chance, so a seed names a history.

mod end;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use forebay_domain::batch::{Batch, Outcomes};
use forebay_domain::catalog::StatementOutcome;
use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::{Lsn, Ticket, Timestamp};
use forebay_domain::limits::Limits;
use forebay_domain::machine::{Broken, Found, Machine, ReadId, ReadRequest};
use forebay_domain::port::{Reader, Recovered, Rows, Store, StoreError};

use crate::audit::Auditor;
use crate::clients::Clients;
use crate::oracle::Oracle;
use crate::plan::{Options, Pace, Plan, Sabotage};
use crate::random::Random;
use crate::store::{CommitFault, MemoryReader, MemoryStore};

/// What one history was.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub steps: usize,
    pub commands: usize,
    pub crashes: usize,
    pub batches: usize,
    pub handed_out: usize,
    /// Of all answers and batches, if it was asked for.
    pub digest: u64,
}

/// A history that went wrong.
#[derive(Clone, Debug)]
pub struct Failure {
    pub seed: u64,
    pub step: usize,
    pub what: String,
    /// What happened last, if it was kept.
    pub events: Vec<String>,
}

/// Plays the history of a seed to its end.
///
/// # Errors
/// What the auditor or the oracle found wrong, with the last events: it is played again for them.
pub fn play(seed: u64, options: &Options) -> Result<Summary, Failure> {
    match World::new(seed, options).play() {
        Err(failure) if !options.log => {
            // The same again, but remembered.
            let again = World::new(seed, &Options { log: true, ..options.clone() }).play();
            Err(again.err().unwrap_or(failure))
        }
        result => result,
    }
}

struct World {
    seed: u64,
    options: Options,
    plan: Plan,
    random: Random,
    now: Timestamp,
    store: MemoryStore,
    reader: MemoryReader,
    machine: Machine,
    oracle: Option<Oracle>,
    auditor: Auditor,
    clients: Clients,
    /// What each ticket asked for, as it was sent.
    asked: BTreeMap<Ticket, Command>,
    next_ticket: u64,
    /// On their way to the server.
    calls: Vec<Ticket>,
    /// Delivered, without an answer yet.
    callers: BTreeSet<Ticket>,
    /// Answered, and waiting for their commit.
    outbox: Vec<(Ticket, Lsn, Answer)>,
    /// On their way to the clients.
    answers: Vec<(Ticket, Answer)>,
    /// Batches that the writer has, the first of them perhaps written.
    writing: VecDeque<(Batch, Option<Outcomes>)>,
    committed: Lsn,
    wanted: Vec<ReadRequest>,
    read: Vec<(ReadId, Lsn, Found)>,
    faults: bool,
    summary: Summary,
    events: VecDeque<String>,
}

#[derive(Clone, Copy)]
enum Turn {
    Call,
    Deliver,
    Take,
    Write,
    Snapshot,
    Page,
    Answer,
    Tick,
    Leave,
}

type Checked = Result<(), String>;

impl World {
    fn new(seed: u64, options: &Options) -> World {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random, options);
        let mut store = MemoryStore::new();
        let recovered = store.recover().expect("no fault was arranged");
        let machine = machine(&plan.limits, recovered, options);
        World {
            seed,
            now: Timestamp(1_000_000),
            reader: store.reader(),
            oracle: options.oracle.then(|| store.look(|db| Oracle::new(&plan.limits, Timestamp(1_000_000), db))),
            store,
            machine,
            auditor: Auditor::new(plan.limits.egress),
            clients: Clients::default(),
            asked: BTreeMap::new(),
            next_ticket: 1,
            calls: Vec::new(),
            callers: BTreeSet::new(),
            outbox: Vec::new(),
            answers: Vec::new(),
            writing: VecDeque::new(),
            committed: Lsn(0),
            wanted: Vec::new(),
            read: Vec::new(),
            faults: true,
            summary: Summary::default(),
            events: VecDeque::new(),
            options: options.clone(),
            plan,
            random,
        }
    }

    fn play(mut self) -> Result<Summary, Failure> {
        let result = self.live().and_then(|()| self.settle()).and_then(|()| self.drain());
        match result {
            Ok(()) => Ok(self.summary),
            Err(what) => Err(Failure { seed: self.seed, step: self.summary.steps, what, events: self.events.into() }),
        }
    }

    /// Everything at once, with faults.
    fn live(&mut self) -> Checked {
        while self.summary.commands < self.options.commands {
            if self.plan.crashes.first().is_some_and(|at| *at <= self.summary.commands) {
                self.plan.crashes.remove(0);
                self.crash()?;
            }
            let turn = self.draw();
            self.turn(turn)?;
        }
        while !self.plan.crashes.is_empty() {
            self.plan.crashes.remove(0);
            self.crash()?;
        }
        Ok(())
    }

    fn draw(&mut self) -> Turn {
        let Pace { call, deliver, take, write, snapshot, page, answer, tick, leave, .. } = self.plan.pace;
        let when = |there: bool, weight: usize| if there { weight } else { 0 };
        let turns = [
            (when(self.calls.len() < 12, call), Turn::Call),
            (when(!self.calls.is_empty(), deliver), Turn::Deliver),
            (when(self.machine.backlog() > 0 && self.writing.len() < 2, take), Turn::Take),
            (when(!self.writing.is_empty(), write), Turn::Write),
            (when(!self.wanted.is_empty(), snapshot), Turn::Snapshot),
            (when(!self.read.is_empty(), page), Turn::Page),
            (when(!self.answers.is_empty(), answer), Turn::Answer),
            (tick, Turn::Tick),
            (when(!self.callers.is_empty(), leave), Turn::Leave),
        ];
        let mut at = self.random.below(turns.iter().map(|(weight, _)| weight).sum());
        for (weight, turn) in turns {
            if at < weight {
                return turn;
            }
            at -= weight;
        }
        Turn::Tick
    }

    fn turn(&mut self, turn: Turn) -> Checked {
        self.summary.steps += 1;
        match turn {
            Turn::Call => {
                let command = self.clients.ask(self.now, &self.plan, &mut self.random);
                self.send(command);
                Ok(())
            }
            Turn::Deliver => {
                // In any order; the last one at times twice, as a client does that heard nothing.
                let at = self.random.below(self.calls.len());
                let ticket = self.calls.swap_remove(at);
                self.deliver(ticket)
            }
            Turn::Take => self.take(),
            Turn::Write => self.write(),
            Turn::Snapshot => {
                self.snapshot();
                Ok(())
            }
            Turn::Page => {
                let at = self.random.below(self.read.len());
                let (id, lsn, found) = self.read.swap_remove(at);
                self.note(|| format!("read {id:?} is back as of {lsn:?}: {found:?}"));
                self.machine.read_done(self.now, id, lsn, found);
                self.collect()
            }
            Turn::Answer => self.arrive(),
            Turn::Tick => self.tick(),
            Turn::Leave => self.leave(),
        }
    }

    fn send(&mut self, command: Command) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.summary.commands += 1;
        self.auditor.asked(ticket, &command);
        self.asked.insert(ticket, command);
        self.calls.push(ticket);
        ticket
    }

    fn deliver(&mut self, ticket: Ticket) -> Checked {
        if self.random.chance(1, 4) {
            self.now = self.now.after(self.random.between(0, 20));
        }
        let mut command = self.asked[&ticket].clone();
        if self.options.sabotage == Some(Sabotage::NoFence)
            && let Command::Report(report) = &mut command
        {
            for completion in &mut report.completions {
                (completion.attempt, completion.node) = (None, None);
            }
            self.asked.insert(ticket, command.clone());
        }
        self.note(|| format!("{ticket:?} asks {command:?}"));
        self.callers.insert(ticket);
        self.machine.apply(self.now, ticket, command);
        self.collect()
    }

    /// Takes over what the machine has for others, and checks it.
    fn collect(&mut self) -> Checked {
        let answers: Vec<(Ticket, Lsn, Answer)> = self.machine.answers().collect();
        let trace = self.machine.trace();
        if self.events_wanted() {
            for (ticket, lsn, answer) in &answers {
                self.note(|| format!("{ticket:?} is answered with {lsn:?}: {answer:?}"));
            }
            self.note(|| format!("{trace:?}"));
        }
        let (now, asked) = (self.now, &self.asked);
        if let Some(oracle) = &mut self.oracle {
            for step in &trace {
                let answer = |of| answers.iter().find(|(ticket, ..)| *ticket == of).map(|(.., answer)| answer);
                oracle.follow(now, step, |ticket| asked.get(&ticket), answer)?;
            }
            oracle.call_over()?;
            for (ticket, _, answer) in &answers {
                oracle.answered(*ticket, answer)?;
            }
        }
        for (ticket, lsn, answer) in answers {
            if lsn > self.committed.next().next().next() {
                return Err(format!("{ticket:?} waits for {lsn:?}, which is far away"));
            }
            self.outbox.push((ticket, lsn, answer));
        }
        for read in self.machine.reads() {
            self.wanted.push(read);
        }
        self.check_bounds()?;
        if self.options.sabotage == Some(Sabotage::AnswerBeforeCommit) {
            return self.release(Lsn(u64::MAX), None);
        }
        self.release(self.committed, None)
    }

    /// Lets answers go whose batch is committed.
    fn release(&mut self, upto: Lsn, outcomes: Option<(Lsn, &Outcomes)>) -> Checked {
        let mut at = 0;
        while at < self.outbox.len() {
            if self.outbox[at].1 > upto {
                at += 1;
                continue;
            }
            let (ticket, lsn, mut answer) = self.outbox.remove(at);
            if let (Answer::Statement(slot), Some((of, outcomes))) = (&answer, outcomes)
                && lsn == of
            {
                let outcome = outcomes.get(*slot).ok_or_else(|| format!("{lsn:?} has no statement {slot}"))?;
                answer = Answer::Outcome(outcome.clone());
            }
            if self.callers.remove(&ticket) {
                let command = &self.asked[&ticket];
                let auditor = &mut self.auditor;
                self.store.look(|db| auditor.told(ticket, command, &answer, db))?;
                if let Answer::Outcome(StatementOutcome::Refused(why)) = &answer {
                    return Err(format!("{ticket:?}: {why}"));
                }
                self.answers.push((ticket, answer));
            } else {
                self.note(|| format!("{ticket:?} is gone: {answer:?} comes back"));
                if let Some(oracle) = &mut self.oracle {
                    oracle.undelivered(&answer);
                }
                self.machine.give_back(self.now, answer);
                self.collect()?;
                at = 0;
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Checked {
        let Some(batch) = self.machine.take_batch() else {
            return Err("changes wait, but there is no batch".into());
        };
        self.note(|| format!("closed: {batch:?}"));
        self.summary.batches += 1;
        let last = self.writing.back().map_or(self.committed, |(batch, _)| batch.lsn);
        if batch.lsn != last.next() {
            return Err(format!("{:?} follows {last:?}", batch.lsn));
        }
        if let Some(oracle) = &mut self.oracle {
            oracle.closed(&batch)?;
        }
        self.writing.push_back((batch, None));
        Ok(())
    }

    /// The writer tries its first batch, or reports that it is written.
    fn write(&mut self) -> Checked {
        let (batch, outcomes) = self.writing.front_mut().expect("there is one to write");
        if let Some(outcomes) = outcomes.take() {
            let lsn = batch.lsn;
            self.writing.pop_front();
            self.note(|| format!("{lsn:?} is committed"));
            self.committed = lsn;
            self.machine.committed(self.now, lsn);
            self.release(lsn, Some((lsn, &outcomes)))?;
            return self.collect();
        }
        if self.faults && self.random.below(100) < self.plan.pace.busy {
            let after = self.random.chance(1, 2);
            self.store.arrange(Some(if after { CommitFault::BusyAfterWriting } else { CommitFault::Busy }));
        }
        match self.store.commit(batch) {
            Ok(done) => *outcomes = Some(done),
            Err(StoreError::Busy(_)) => {}
            Err(StoreError::Broken(why)) => return Err(why.to_string()),
        }
        let auditor = &mut self.auditor;
        self.store.look(|db| if db.lsn == batch.lsn { auditor.committed(batch, db) } else { Ok(()) })
    }

    /// A reader answers one of the reads that may be issued.
    fn snapshot(&mut self) {
        let at = self.random.below(self.wanted.len());
        if self.wanted[at].after > self.committed {
            return;
        }
        let read = self.wanted.swap_remove(at);
        let ReadRequest { id, what, .. } = &read;
        let (lsn, mut rows) = self.reader.read(what).expect("readers do not fail here");
        if let (Some(Sabotage::LostEdge), Rows::Graph(graph)) = (self.options.sabotage, &mut rows)
            && !graph.edges.is_empty()
        {
            if graph.edges.direct.is_empty() {
                graph.edges.members.remove(0);
            } else {
                let lost = graph.edges.direct.remove(0);
                graph.implied.retain(|edge| *edge != lost);
            }
        }
        self.note(|| format!("read {id:?} sees {lsn:?}: {what:?}"));
        self.read.push((*id, lsn, read.digest(rows)));
    }

    /// An answer reaches its client, or is lost on the way.
    fn arrive(&mut self) -> Checked {
        let at = self.random.below(self.answers.len());
        let (ticket, answer) = self.answers.swap_remove(at);
        let command = self.asked.remove(&ticket).expect("who is answered has asked");
        if let Answer::Claimed(claimed) | Answer::Reported { claimed: Some(claimed), .. } = &answer {
            self.summary.handed_out += claimed.jobs.len();
        }
        if self.faults && self.random.below(100) < self.plan.pace.lost {
            self.note(|| format!("the answer to {ticket:?} is lost"));
            self.missed(command);
        } else {
            self.clients.hear(&command, &answer);
        }
        Ok(())
    }

    /// A client heard nothing: it asks again what may be asked twice.
    fn missed(&mut self, command: Command) {
        if matches!(command, Command::Report(_) | Command::Initialize { .. }) && self.random.chance(1, 2) {
            self.send(command);
        }
    }

    fn tick(&mut self) -> Checked {
        let jump = match self.random.below(10) {
            0 => 0,
            1 => self.random.between(0, 5_000),
            2..=4 => self.machine.next_deadline().map_or(1, |due| (due.0 - self.now.0).max(0)),
            _ => self.random.between(0, 30),
        };
        self.now = self.now.after(jump);
        self.note(|| "the clock goes on".to_owned());
        self.machine.tick(self.now);
        self.collect()?;
        // A call sees to so many timers only.
        while self.machine.next_deadline().is_some_and(|due| due <= self.now) {
            self.machine.tick(self.now);
            self.collect()?;
        }
        if let Some(oracle) = &self.oracle {
            oracle.check_leases(self.now)?;
        }
        if self.summary.steps.is_multiple_of(3)
            && let Some(oracle) = &self.oracle
            && self.machine.stats().reads == 0
            && !self.machine.is_marching()
        {
            oracle.check_timers(self.now)?;
            oracle.check_waiting(self.now)?;
        }
        Ok(())
    }

    /// A caller does not wait any longer.
    fn leave(&mut self) -> Checked {
        let at = self.random.below(self.callers.len());
        let ticket = *self.callers.iter().nth(at).expect("below their number");
        self.callers.remove(&ticket);
        self.note(|| format!("{ticket:?} leaves"));
        // The machine may have answered already; then the answer comes back when it finds nobody.
        if !self.outbox.iter().any(|(of, ..)| *of == ticket) {
            if let Some(oracle) = &mut self.oracle {
                oracle.left(ticket);
            }
            self.machine.caller_left(self.now, ticket);
            self.collect()?;
        }
        let command = self.asked[&ticket].clone();
        self.missed(command);
        Ok(())
    }

    /// The server ends at once, and starts again on what is committed.
    fn crash(&mut self) -> Checked {
        self.summary.crashes += 1;
        if let Some((batch, None)) = self.writing.front()
            && self.random.chance(1, 2)
        {
            // In the midst of a commit, which happened.
            match self.store.commit(batch) {
                Ok(_) | Err(StoreError::Busy(_)) => {}
                Err(StoreError::Broken(why)) => return Err(why.to_string()),
            }
            let auditor = &mut self.auditor;
            self.store.look(|db| auditor.committed(batch, db))?;
        }
        self.outbox.clear();
        self.writing.clear();
        self.wanted.clear();
        self.read.clear();
        self.note(|| "crash".to_owned());
        for ticket in std::mem::take(&mut self.callers) {
            let command = self.asked[&ticket].clone();
            self.missed(command);
        }
        let auditor = &mut self.auditor;
        self.store.look(|db| auditor.crashed(db));
        let recovered = self.store.recover().map_err(|error| error.to_string())?;
        self.committed = recovered.lsn;
        let (limits, now) = (&self.plan.limits, self.now);
        self.machine = machine(limits, recovered, &self.options);
        self.oracle = self.options.oracle.then(|| self.store.look(|db| Oracle::new(limits, now, db)));
        // As an engine does: a start is a moment, too.
        self.machine.tick(now);
        self.collect()
    }

    fn check_bounds(&self) -> Checked {
        let stats = self.machine.stats();
        let limits = &self.plan.limits;
        let bounds = [
            ("window_max", stats.window_longest, limits.window_max),
            ("windows_jobs_max", stats.windowed, limits.windows_jobs_max.max(stats.lanes)),
            ("windows_bytes_max", stats.payload_bytes, limits.windows_bytes_max),
            ("waiting_max", stats.waiting, limits.waiting_max),
            ("leases_max", stats.leases, limits.leases_max),
            ("timers_window", stats.timers, limits.timers_window),
        ];
        match bounds.iter().find(|(_, is, max)| is > max) {
            Some((name, is, max)) => Err(format!("{name}: {is} of {max}")),
            None => Ok(()),
        }
    }

    fn events_wanted(&self) -> bool {
        self.options.log
    }

    /// Remembers what happened, and takes it into the digest.
    fn note(&mut self, event: impl FnOnce() -> String) {
        if !self.options.log {
            return;
        }
        let event = format!("{}: {}", self.now.0, event());
        for byte in event.bytes() {
            self.summary.digest = (self.summary.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.events.len() == 400 {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

/// A machine that writes down what it does, broken if it is to be.
fn machine(limits: &Limits, recovered: Recovered, options: &Options) -> Machine {
    let mut machine = Machine::new(limits.clone(), recovered);
    machine.trace();
    match options.sabotage {
        Some(Sabotage::NoRecent) => machine.break_rule(Broken::ForgetsAtOnce),
        Some(Sabotage::LostTimers) => machine.break_rule(Broken::LosesTimers),
        Some(Sabotage::UncommittedAttempt) => machine.break_rule(Broken::TellsUncommitted),
        Some(Sabotage::NoDeadlines) => machine.break_rule(Broken::MissesDeadlines),
        Some(Sabotage::KeptOrphans) => machine.break_rule(Broken::KeepsOrphans),
        Some(Sabotage::NoTurns) => machine.break_rule(Broken::TakesNoTurns),
        Some(Sabotage::LeftDependents) => machine.break_rule(Broken::LeavesDependents),
        Some(Sabotage::NoBounds) => machine.break_rule(Broken::OverlooksBounds),
        Some(Sabotage::AnswerBeforeCommit | Sabotage::NoFence | Sabotage::LostEdge) | None => {}
    }
    machine
}
