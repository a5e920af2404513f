//! A worker's stream: it says how many attempts it will take, and what became of those that it has; they
//! are sent as soon as they are there.

mod lease;
mod said;
mod sources;

use std::pin::{Pin, pin};

use forebay_domain::command::Answer;
use forebay_domain::ids::Timestamp;
use forebay_domain::job::JobRow;
use forebay_engine::{Error, Undelivered};
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{FutureExt, Stream, StreamExt};
use prost::Message;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::Door;
use crate::claims::rendered;
use crate::fault::Fault;
use crate::proto::ours::{Attempt, FromWorker, ToWorker};
use crate::stream::lease::Lease;
use crate::stream::said::Said;
use crate::stream::sources::Sources;

/// Attempts that a worker may be owed.
const CREDIT_MAX: u32 = 16_384;

/// Messages of a worker that are not answered yet; with so many it is not listened to.
const UNANSWERED_MAX: usize = 32;

/// Messages to a worker that its connection has not taken yet.
const UNSENT_MAX: usize = 4;

/// A message that has so many bytes takes no attempt more.
const MESSAGE_BYTES: usize = 1 << 20;

/// What is sent to a worker.
pub(crate) type ToWorkers = Pin<Box<dyn Stream<Item = Result<ToWorker, Status>> + Send>>;

/// A message to a worker, and the claim of which it is the first part: until the connection takes it, its
/// attempts go back if the worker leaves.
type Unsent = (Result<ToWorker, Status>, Option<Undelivered>);

impl Door {
    /// Serves a worker until it, or the server, ends the stream.
    pub(crate) async fn work(&self, mut worker: Streaming<FromWorker>) -> Result<ToWorkers, Status> {
        let mut first = worker.message().await?.unwrap_or_default();
        let hello = first.hello.take().ok_or_else(|| Status::invalid_argument("a worker says hello first"))?;
        let sources = Sources::new(self, hello)?;
        let (out, unsent) = mpsc::channel(UNSENT_MAX);
        let session = Session { door: self.clone(), sources, credit: 0, out };
        tokio::spawn(session.run(first, worker));
        let sent = stream::unfold(unsent, async |mut unsent: mpsc::Receiver<Unsent>| {
            let (message, claimed) = unsent.recv().await?;
            drop(claimed.map(Undelivered::delivered));
            Some((message, unsent))
        });
        Ok(Box::pin(sent))
    }
}

/// One worker's stream.
struct Session {
    door: Door,
    sources: Sources,
    /// So many attempts may still be sent.
    credit: u32,
    out: mpsc::Sender<Unsent>,
}

/// Why a session goes no further.
enum End {
    /// The worker has said all that it has to say.
    Done,
    /// Nobody is there.
    Left,
    With(Status),
}

impl Session {
    async fn run(mut self, first: FromWorker, worker: Streaming<FromWorker>) {
        if let Err(End::With(status)) = self.serve(first, worker).await {
            // The worker may have left.
            drop(self.out.send((Err(status), None)).await);
        }
    }

    async fn serve(&mut self, first: FromWorker, mut worker: Streaming<FromWorker>) -> Result<(), End> {
        let mut stopping = pin!(self.door.stopping());
        let mut settling: FuturesUnordered<_> = self.hear(first)?.into_iter().map(Said::settle).collect();
        let mut taking = None;
        let mut turn = 0;
        let end = loop {
            if taking.is_none() && self.credit > 0 {
                taking = Some(Box::pin(self.sources.clone().take(self.credit, turn)));
                turn += 1;
            }
            tokio::select! {
                biased;
                () = &mut stopping => break Fault::from(Error::Stopping).into(),
                () = self.out.closed() => return Err(End::Left),
                Some(answer) = settling.next() => {
                    let more = std::iter::from_fn(|| settling.next().now_or_never().flatten());
                    let answers = [answer].into_iter().chain(more).collect::<Result<Vec<_>, Fault>>()?;
                    self.send(ToWorker { attempts: Vec::new(), answers }, None).await?;
                }
                Some(taken) = async { Some(taking.as_mut()?.await) } => {
                    taking = None;
                    for claimed in taken.map_err(Fault::from)? {
                        self.hand_out(claimed).await?;
                    }
                }
                message = worker.message(), if settling.len() < UNANSWERED_MAX => match message {
                    Ok(Some(message)) => match self.hear(message) {
                        Ok(said) => settling.extend(said.map(Said::settle)),
                        Err(end) => break end,
                    },
                    Ok(None) => break End::Done,
                    // It is gone, or what it said is no message.
                    Err(status) => break End::With(status),
                }
            }
        };
        // No attempt is sent any more; what was said is answered.
        drop(taking);
        while let Some(answer) = settling.next().await {
            self.send(ToWorker { attempts: Vec::new(), answers: vec![answer?] }, None).await?;
        }
        Err(end)
    }

    /// Takes credit, and what is to be settled and answered if there is any.
    fn hear(&mut self, message: FromWorker) -> Result<Option<Said>, End> {
        if message.hello.is_some() {
            return Err(Fault::Invalid("a worker says hello once".to_owned()).into());
        }
        let credit = self.credit.checked_add(message.credit).filter(|credit| *credit <= CREDIT_MAX);
        self.credit = credit.ok_or_else(|| Fault::Invalid(format!("the credit may be {CREDIT_MAX} at most")))?;
        Ok(Said::read(&self.door, message)?)
    }

    /// Sends the attempts of a claim.
    async fn hand_out(&mut self, claimed: Undelivered) -> Result<(), End> {
        let Answer::Claimed(taken) = &*claimed else { unreachable!("a claim is answered with jobs") };
        let now = self.door.engine().now();
        let (mut messages, mut bytes) = (vec![ToWorker::default()], 0);
        let (rules, mut doomed) = (self.door.rulings().now(), Vec::new());
        for (row, payload) in &taken.jobs {
            if self.door.is_doomed(&rules, row, payload) {
                doomed.push(*row);
                continue;
            }
            let Some((_, activation)) = rendered(row, payload) else { continue };
            if bytes >= MESSAGE_BYTES {
                messages.push(ToWorker::default());
                bytes = 0;
            }
            bytes += activation.encoded_len();
            let attempt =
                Attempt { activation: Some(activation), lease: Lease::of(row).to_bytes(), lease_ms: left_ms(row, now) };
            messages.last_mut().expect("there is one from the beginning").attempts.push(attempt);
            self.credit = self.credit.saturating_sub(1);
        }
        self.door.end_behind(doomed);
        if messages.iter().all(|message| message.attempts.is_empty()) {
            // Nothing of it goes to the worker, and nothing back.
            drop(claimed.delivered());
            return Ok(());
        }
        let mut claimed = Some(claimed);
        for message in messages {
            self.send(message, claimed.take()).await?;
        }
        Ok(())
    }

    async fn send(&self, message: ToWorker, claimed: Option<Undelivered>) -> Result<(), End> {
        self.out.send((Ok(message), claimed)).await.map_err(|_| End::Left)
    }
}

/// How long an attempt may take, from now on.
fn left_ms(row: &JobRow, now: Timestamp) -> Option<u64> {
    row.due_at.map(|due| due.0.saturating_sub(now.0).max(0).unsigned_abs())
}

impl From<Fault> for End {
    fn from(fault: Fault) -> End {
        End::With(fault.into())
    }
}
