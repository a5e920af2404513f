//! What doors hold of an engine.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use forebay_domain::command::{Answer, Command, Report, Scope};
use forebay_domain::ids::{Ticket, Timestamp, WorkflowId};
use forebay_domain::limits::Egress;
use forebay_domain::machine::{Progress, Stats};
use forebay_domain::port::{Reader, StoreError};
use forebay_domain::state::{STATE_LIST, STATES};
use tokio::sync::{broadcast, oneshot, watch};

use crate::counters::{Counters, Distributions, Gauges, count};
use crate::feed::{Changed, Feed};
use crate::inbox::{Event, Inbox};
use crate::outbox::hands_out_jobs;
use crate::readers::{NotTaken, Readers};
use crate::{Clock, Ended, Error};

/// A door's way to the engine. Clones reach the same one; when the last is dropped, the engine
/// stops.
#[derive(Clone)]
pub struct EngineHandle {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub inbox: Arc<Inbox>,
    pub doors: Readers,
    pub machine_reads: [Readers; 2],
    pub gauges: Arc<Gauges>,
    pub feed: Feed,
    pub clock: Arc<dyn Clock>,
    /// How long a read may wait for its turn.
    pub hold: Duration,
    pub egress: Egress,
    pub ended: watch::Receiver<Option<Ended>>,
}

/// How long an engine without a handle may take to write what it has.
const ABANDONED: Duration = Duration::from_secs(10);

impl Drop for Shared {
    fn drop(&mut self) {
        self.inbox.stop(Instant::now() + ABANDONED);
    }
}

impl EngineHandle {
    pub(crate) fn new(shared: Shared) -> EngineHandle {
        EngineHandle { shared: Arc::new(shared) }
    }

    /// Asks the machine. The answer comes when what it says is committed, and counts as delivered
    /// when this returns it. If this is dropped before, a claim is undone.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call(&self, command: Command) -> Result<Answer, Error> {
        let claims = matches!(command, Command::Claim(_) | Command::Report(Report { claim: Some(_), .. }));
        let asked = claims.then(Instant::now);
        let mut call = self.post(command)?;
        let answer = (&mut call.receiver).await;
        if let Some(asked) = asked {
            self.shared.gauges.claim.add_time(asked.elapsed());
        }
        call.answered(answer)
    }

    /// Asks the machine, as [`call`](EngineHandle::call) does, on behalf of somebody to whom the
    /// answer is yet to be written: jobs in an answer that is not
    /// [`delivered`](Undelivered::delivered) go back.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn call_for_delivery(&self, command: Command) -> Result<Undelivered, Error> {
        let answer = self.call(command).await?;
        Ok(Undelivered { answer: Some(answer), inbox: Arc::clone(&self.shared.inbox) })
    }

    /// As [`call`](EngineHandle::call), outside of async code.
    ///
    /// # Errors
    /// See [`Error`].
    ///
    /// # Panics
    /// Within an async context.
    pub fn call_blocking(&self, command: Command) -> Result<Answer, Error> {
        let (reply, receiver) = oneshot::channel();
        self.shared.inbox.call(command, reply)?;
        receiver.blocking_recv().map_err(|_| Error::Stopping)?.and_then(accepted)
    }

    /// Lets a reader thread look at this in the store: all that anybody was told of it is seen.
    ///
    /// # Errors
    /// `Overloaded` if too many reads wait or the store is busy, `Stopping` if the engine is.
    pub async fn read_of<T: Send + 'static>(
        &self,
        scope: Scope,
        look: impl FnOnce(&mut dyn Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        match self.shared.egress {
            // What is acknowledged is committed.
            Egress::Committed => {}
            Egress::AtOnce => drop(self.call(Command::Flush(scope)).await?),
        }
        self.read(look).await
    }

    /// Lets a reader thread look at what is committed.
    ///
    /// # Errors
    /// `Overloaded` if too many reads wait, this one waited too long or the store is busy, `Stopping`
    /// if the engine is.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&mut dyn Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Error> {
        let (reply, receiver) = oneshot::channel();
        let inbox = Arc::clone(&self.shared.inbox);
        let clock = Arc::clone(&self.shared.clock);
        let hold_ms = i64::try_from(self.shared.hold.as_millis()).unwrap_or(i64::MAX);
        let held_until = clock.now().after(hold_ms);
        let taken = self.shared.doors.read(Box::new(move |reader| {
            if !reply.is_closed() {
                let in_time = clock.now() <= held_until;
                let seen = match in_time {
                    true => look(reader).map_err(|error| failed_read(&inbox, error)),
                    false => Err(Error::Overloaded),
                };
                // Nobody waits any more: a read changed nothing.
                drop(reply.send(seen));
            }
        }));
        match taken {
            Ok(()) => receiver.await.map_err(|_| Error::Stopping)?,
            Err(NotTaken::Full) => Err(Error::Overloaded),
            Err(NotTaken::Closed) => Err(Error::Stopping),
        }
    }

    /// The jobs that each batch from now on changes, told when it is committed. A watcher that is
    /// too slow misses some, and is told how many batches.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<Changed> {
        self.shared.feed.watch()
    }

    /// The time by which the engine goes.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        let Shared { inbox, doors, machine_reads, gauges, .. } = &*self.shared;
        let load = inbox.load();
        Counters {
            commands: gauges.commands.get(),
            answers: gauges.answers.get(),
            overloaded: load.refused,
            held: gauges.held.get(),
            given_back: gauges.given_back.get(),
            turns: gauges.turns.get(),
            batches: gauges.batches.get(),
            changes: gauges.changes.get(),
            busy: gauges.busy.get(),
            machine_reads: gauges.machine_reads.get(),
            mailbox: count(load.mailbox),
            backlog: gauges.backlog.get(),
            callers: gauges.callers.get(),
            machine_reads_in_flight: machine_reads.iter().map(|readers| count(readers.in_flight())).sum(),
            door_reads_in_flight: count(doors.in_flight()),
            commit: gauges.commit.summary(),
        }
    }

    /// How long things took and how large batches were, since the start.
    #[must_use]
    pub fn distributions(&self) -> Distributions {
        let gauges = &*self.shared.gauges;
        Distributions {
            commit: gauges.commit.distribution(),
            page: gauges.page.distribution(),
            claim: gauges.claim.distribution(),
            batch: gauges.batch.distribution(),
        }
    }

    /// What the machine holds. It looks at every lane: ask every few seconds, not at each request.
    ///
    /// # Errors
    /// `Stopping` if the engine has ended.
    pub async fn stats(&self) -> Result<Stats, Error> {
        let (reply, receiver) = oneshot::channel();
        self.shared.inbox.tell(Event::Look(reply));
        receiver.await.map_err(|_| Error::Stopping)
    }

    /// How many jobs of all workflows are in each state, as it is stored. It looks at each workflow.
    ///
    /// # Errors
    /// Those of [`read`](EngineHandle::read).
    pub async fn totals(&self) -> Result<[(&'static str, i64); STATES], Error> {
        let totals = self.read(|reader| reader.totals()).await?;
        Ok(STATE_LIST.map(|state| (state.name(), totals[state as usize])))
    }

    /// What has ended in each workflow since this was asked last. There is to be one who asks.
    ///
    /// # Errors
    /// `Stopping` if the engine has ended.
    pub async fn take_progress(&self) -> Result<Vec<(WorkflowId, Progress)>, Error> {
        let (reply, receiver) = oneshot::channel();
        self.shared.inbox.tell(Event::Progress(reply));
        receiver.await.map_err(|_| Error::Stopping)
    }

    /// Takes no new commands, writes and answers those that were taken, and closes the store;
    /// waiting claims end with `Stopping`. If that is not done within `timeout`, the engine gives up.
    pub async fn stop(&self, timeout: Duration) -> Ended {
        self.shared.inbox.stop(Instant::now() + timeout);
        self.stopped().await
    }

    /// Waits until the engine has ended, for whatever reason.
    pub async fn stopped(&self) -> Ended {
        let mut ended = self.shared.ended.clone();
        let ended = ended.wait_for(Option::is_some).await.expect("the engine says how it ended before it goes");
        ended.clone().expect("it was waited for")
    }

    fn post(&self, command: Command) -> Result<Call<'_>, Error> {
        let (reply, receiver) = oneshot::channel();
        let inbox = &*self.shared.inbox;
        let ticket = inbox.call(command, reply)?;
        Ok(Call { receiver, ticket, inbox, waits: true })
    }
}

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle").finish_non_exhaustive()
    }
}

/// A caller that waits. Dropped while it does, it leaves.
struct Call<'a> {
    receiver: oneshot::Receiver<Result<Answer, Error>>,
    ticket: Ticket,
    inbox: &'a Inbox,
    waits: bool,
}

impl Call<'_> {
    fn answered(mut self, answer: Result<Result<Answer, Error>, oneshot::error::RecvError>) -> Result<Answer, Error> {
        self.waits = false;
        answer.map_err(|_| Error::Stopping)?.and_then(accepted)
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.waits {
            return;
        }
        // From here on the engine sees that nobody is there; what it sent before is in the channel.
        self.receiver.close();
        match self.receiver.try_recv() {
            Ok(Ok(answer)) if hands_out_jobs(&answer) => self.inbox.give_back(answer),
            Ok(Ok(_) | Err(_)) => {}
            Err(_) => self.inbox.left(self.ticket),
        }
    }
}

/// An answer on its way to somebody. Keep it until its last byte is handed to them, then say so;
/// dropped before, the jobs in it go back.
#[must_use = "jobs in an answer that is dropped go back"]
pub struct Undelivered {
    /// None only while it is taken apart.
    answer: Option<Answer>,
    inbox: Arc<Inbox>,
}

impl Undelivered {
    /// The answer reached who asked.
    pub fn delivered(mut self) -> Answer {
        self.answer.take().expect("only this and the drop take it")
    }
}

impl Deref for Undelivered {
    type Target = Answer;

    fn deref(&self) -> &Answer {
        self.answer.as_ref().expect("only `delivered` and the drop take it")
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        if let Some(answer) = self.answer.take().filter(hands_out_jobs) {
            self.inbox.give_back(answer);
        }
    }
}

impl std::fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Undelivered").field(&self.answer).finish()
    }
}

fn accepted(answer: Answer) -> Result<Answer, Error> {
    match answer {
        Answer::Rejected(rejection) => Err(Error::Rejected(rejection)),
        answer => Ok(answer),
    }
}

fn failed_read(inbox: &Inbox, error: StoreError) -> Error {
    match error {
        StoreError::Busy(cause) => {
            tracing::warn!(%cause, "the store is busy: a read was refused");
            Error::Overloaded
        }
        StoreError::Broken(cause) => {
            inbox.tell(Event::Broken(cause));
            Error::Stopping
        }
    }
}
