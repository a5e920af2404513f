//! Callers without an answer, and answers without their commit.

use std::collections::{HashMap, VecDeque};
use std::mem;

use forebay_domain::batch::Outcomes;
use forebay_domain::catalog::StatementOutcome;
use forebay_domain::command::{Answer, Claimed};
use forebay_domain::ids::{Lsn, Ticket};
use rustc_hash::FxBuildHasher;

use crate::inbox::Reply;

/// Invariant 1 stands here: an answer leaves when its batch is committed, not before.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    callers: HashMap<Ticket, Reply, FxBuildHasher>,
    /// The caller that came last: most are answered before the next one comes.
    last: Option<(Ticket, Reply)>,
    /// By lsn, the lowest first: the batch in flight and the open one.
    parked: VecDeque<(Lsn, Vec<Parked>)>,
    /// What may leave now.
    ready: Vec<Parked>,
    committed: Lsn,
    spare: Vec<Parked>,
}

#[derive(Debug)]
struct Parked {
    /// None: its caller is gone.
    reply: Option<Reply>,
    answer: Answer,
}

impl Outbox {
    pub fn new(committed: Lsn) -> Outbox {
        Outbox { committed, ..Outbox::default() }
    }

    /// A caller whose command is being applied.
    pub fn enter(&mut self, ticket: Ticket, reply: Reply) {
        if let Some((earlier, reply)) = self.last.replace((ticket, reply)) {
            self.callers.insert(earlier, reply);
        }
    }

    /// A caller does not wait any more; false if its answer is on its way.
    pub fn leave(&mut self, ticket: Ticket) -> bool {
        self.take(ticket).is_some()
    }

    fn take(&mut self, ticket: Ticket) -> Option<Reply> {
        match self.last.take_if(|(last, _)| *last == ticket) {
            Some((_, reply)) => Some(reply),
            None => self.callers.remove(&ticket),
        }
    }

    /// Every caller without an answer is told, by the loss of its reply, that there will be none.
    pub fn dismiss(&mut self) -> Vec<Ticket> {
        let all = self.callers.drain().chain(self.last.take());
        let mut tickets: Vec<Ticket> = all.map(|(ticket, _)| ticket).collect();
        tickets.sort_unstable();
        tickets
    }

    /// How many callers have no answer yet.
    pub fn callers(&self) -> usize {
        self.callers.len() + usize::from(self.last.is_some())
    }

    /// Takes the machine's answer to a caller; it may leave once `lsn` is committed.
    pub fn park(&mut self, ticket: Ticket, lsn: Lsn, answer: Answer) {
        let parked = Parked { reply: self.take(ticket), answer };
        if lsn <= self.committed {
            self.ready.push(parked);
            return;
        }
        let place = self.parked.iter().position(|(other, _)| *other >= lsn).unwrap_or(self.parked.len());
        match self.parked.get_mut(place) {
            Some((found, answers)) if *found == lsn => answers.push(parked),
            Some(_) | None => {
                let mut answers = mem::take(&mut self.spare);
                answers.push(parked);
                self.parked.insert(place, (lsn, answers));
            }
        }
    }

    /// Everything up to `lsn` is committed, with these outcomes of the statements of `lsn`.
    pub fn committed(&mut self, lsn: Lsn, mut outcomes: Outcomes) {
        self.committed = lsn;
        while self.parked.front().is_some_and(|(parked, _)| *parked <= lsn) {
            let (_, mut answers) = self.parked.pop_front().expect("there is a first: it was just looked at");
            for parked in &mut answers {
                fill(&mut parked.answer, &mut outcomes);
            }
            if self.ready.is_empty() {
                mem::swap(&mut self.ready, &mut answers);
            } else {
                self.ready.append(&mut answers);
            }
            self.spare = answers;
        }
    }

    /// The open batch, and all before it, need no commit: it holds nothing.
    pub fn nothing_to_commit(&mut self) {
        for (_, mut answers) in self.parked.drain(..) {
            self.ready.append(&mut answers);
        }
    }

    /// Sends what may leave; how many. Jobs that were handed out to nobody come back.
    pub fn deliver(&mut self, undelivered: &mut Vec<Answer>) -> u64 {
        let mut delivered = 0;
        for Parked { reply, answer } in self.ready.drain(..) {
            let sent = match reply {
                Some(reply) => reply.send(Ok(answer)),
                None => Err(Ok(answer)),
            };
            match sent {
                Ok(()) => delivered += 1,
                Err(Ok(answer)) if hands_out_jobs(&answer) => undelivered.push(answer),
                // Its caller will ask again, or knows already that there is no answer.
                Err(Ok(_) | Err(_)) => {}
            }
        }
        delivered
    }
}

/// Whether an answer gives jobs away, that must come back if it reaches nobody.
pub(crate) fn hands_out_jobs(answer: &Answer) -> bool {
    let some = |claimed: &Claimed| !claimed.jobs.is_empty();
    match answer {
        Answer::Claimed(claimed) => some(claimed),
        Answer::Reported { claimed, .. } => claimed.as_ref().is_some_and(some),
        Answer::Done | Answer::Created(_) | Answer::Count(_) | Answer::Job(_) => false,
        Answer::Statement(_) | Answer::Outcome(_) | Answer::Rejected(_) => false,
    }
}

/// Puts the outcome of a statement into the place that was kept for it.
fn fill(answer: &mut Answer, outcomes: &mut Outcomes) {
    if let Answer::Statement(slot) = answer {
        let outcome = outcomes.get_mut(*slot).expect("a store answers every statement of a batch");
        *answer = Answer::Outcome(mem::replace(outcome, StatementOutcome::Inserted));
    }
}
