//! One worker that is pushed to: connected to, fed as far as it has room, left alone while it has none.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use forebay_domain::command::{Answer as Said, Command, Held};
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::job::JobRow;
use forebay_engine::{Error, Undelivered};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::Door;
use crate::activation::Activation;
use crate::claims::{claim_of, rendered};
use crate::connection::Connection;
use crate::grants::Attempt;
use crate::push::call::{Answer, Worker, callback, causes};
use crate::push::{Counts, LAST_WORD};

/// A worker that listens.
pub(super) struct Endpoint {
    application: String,
    address: String,
    /// Not one of ours: under its number it is known what the worker got.
    connection: Connection,
    state: AtomicU8,
    room: Notify,
    counts: Arc<Counts>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Away,
    Ready,
    Full,
}

/// How long a claim may wait in the engine, in milliseconds; then it is made again.
const CLAIM_MS: i64 = 600_000;

/// A task that a worker has refused so often is not given back: it counts as a lost attempt when its time
/// is over, as if the worker had died of it. Else it would stand before all others for ever.
const REFUSALS_MAX: u8 = 5;

/// Refused tasks that are remembered.
const REFUSED_MAX: usize = 1_024;

impl Endpoint {
    pub fn new(application: &str, address: &str, connection: Connection, counts: Arc<Counts>) -> Endpoint {
        Endpoint {
            application: application.to_owned(),
            address: address.to_owned(),
            connection,
            state: AtomicU8::new(State::Away as u8),
            room: Notify::new(),
            counts,
        }
    }

    pub fn number(&self) -> u64 {
        self.connection.number()
    }

    pub fn state(&self) -> State {
        match self.state.load(Relaxed) {
            state if state == State::Ready as u8 => State::Ready,
            state if state == State::Full as u8 => State::Full,
            _ => State::Away,
        }
    }

    /// The worker said something that tells that it has room.
    pub fn has_room(&self) {
        self.room.notify_one();
    }

    fn is(&self, state: State) {
        self.state.store(state as u8, Relaxed);
    }
}

/// Pushes to a worker until it is to stop.
pub(super) async fn serve(
    door: Door,
    endpoint: Arc<Endpoint>,
    listening: SocketAddr,
    mut stopping: watch::Receiver<bool>,
) {
    let mut feeder = Feeder::new(door, endpoint);
    loop {
        tokio::select! {
            biased;
            () = told_to_stop(&mut stopping) => return,
            () = feeder.connect(listening) => {}
        }
        if let Fed::Stopped = feeder.feed(&mut stopping).await {
            return;
        }
    }
}

/// What serves one endpoint.
struct Feeder {
    door: Door,
    endpoint: Arc<Endpoint>,
    pause: Pause,
    worker: Option<Worker>,
    /// The worker was told to be away, and has not taken anything since.
    missed: bool,
    /// So many pushes may wait for their answer: one when there is little to do or little room, one more
    /// with each that is taken quickly.
    at_a_time: usize,
    refusals: HashMap<JobId, u8>,
}

/// Why feeding ended.
enum Fed {
    Away,
    Stopped,
}

/// A task that is being pushed. Dropped, it stays with the worker, who may have it.
struct Sent {
    undelivered: Option<Undelivered>,
    row: JobRow,
    id: String,
    begun: Instant,
    endpoint: Arc<Endpoint>,
}

type Claiming = Pin<Box<dyn Future<Output = Result<Claimed, Error>> + Send>>;

type Push = Pin<Box<dyn Future<Output = (Sent, Answer)> + Send>>;

impl Feeder {
    fn new(door: Door, endpoint: Arc<Endpoint>) -> Feeder {
        let pause = Pause::default();
        Feeder { door, endpoint, pause, worker: None, missed: false, at_a_time: 1, refusals: HashMap::new() }
    }

    /// Returns once the worker is there.
    async fn connect(&mut self, listening: SocketAddr) {
        self.endpoint.is(State::Away);
        let options = &self.door.options().push;
        let address = &self.endpoint.address;
        loop {
            if self.missed {
                tokio::time::sleep(self.pause.longer()).await;
            }
            let callback = match &options.callback {
                Some(callback) => callback.clone(),
                None => callback(listening, address).await,
            };
            match Worker::connect(address, callback, self.door.options().secrets.clone(), options.timeout).await {
                Ok(worker) => {
                    self.worker = Some(worker);
                    self.endpoint.is(State::Ready);
                    return;
                }
                Err(error) => {
                    let why = causes(&error).last().map(ToString::to_string).unwrap_or_default();
                    miss(&mut self.missed, &self.endpoint, &why);
                }
            }
        }
    }

    /// Pushes what there is, as it comes, until the worker is away.
    async fn feed(&mut self, stopping: &mut watch::Receiver<bool>) -> Fed {
        let worker = self.worker.clone().expect("it was connected to");
        let endpoint = Arc::clone(&self.endpoint);
        let mut pushes: FuturesUnordered<Push> = FuturesUnordered::new();
        let mut claim: Option<Claiming> = None;
        // Until then nothing is taken for it.
        let mut rest: Option<Instant> = None;
        let mut away = false;
        loop {
            if away && pushes.is_empty() {
                return Fed::Away;
            }
            let room = self.at_a_time.saturating_sub(pushes.len());
            if claim.is_none() && room > 0 && rest.is_none() && !away {
                claim = Some(Box::pin(take(self.door.clone(), Arc::clone(&endpoint), room)));
            }
            tokio::select! {
                biased;
                () = told_to_stop(stopping) => {
                    // What it has got goes back.
                    drop(claim);
                    let answered = async {
                        while let Some((sent, answer)) = pushes.next().await {
                            self.settle(sent, answer);
                        }
                    };
                    drop(tokio::time::timeout(LAST_WORD, answered).await);
                    return Fed::Stopped;
                }
                Some((sent, answer)) = pushes.next() => match self.settle(sent, answer) {
                    Next::On => {
                        rest = None;
                        endpoint.is(State::Ready);
                    }
                    Next::Rest => {
                        claim = None;
                        rest = Some(Instant::now() + self.pause.longer());
                        endpoint.is(State::Full);
                    }
                    Next::Away => {
                        claim = None;
                        away = true;
                        endpoint.is(State::Away);
                    }
                },
                claimed = async { claim.as_mut().expect("it is there").await }, if claim.is_some() => {
                    claim = None;
                    match claimed {
                        Ok(Claimed { tasks, waited }) => {
                            if waited {
                                self.at_a_time = 1;
                            }
                            pushes.extend(tasks.into_iter().filter_map(|task| self.push(&worker, task)));
                        }
                        // What is pushed meanwhile may still be answered.
                        Err(Error::Stopping) => rest = Some(Instant::now() + LAST_WORD),
                        Err(error) => {
                            tracing::debug!(%error, "no task could be taken to be pushed");
                            rest = Some(Instant::now() + self.pause.longer());
                        }
                    }
                }
                () = async { tokio::time::sleep_until(rest.expect("it is there")).await }, if rest.is_some() => {
                    rest = None;
                }
                () = endpoint.room.notified(), if rest.is_some() => rest = None,
            }
        }
    }

    /// Begins to push a task; none if it cannot be read.
    fn push(&self, worker: &Worker, task: Undelivered) -> Option<Push> {
        let Said::Claimed(claimed) = &*task else { unreachable!("a claim is answered as one") };
        let (row, payload) = claimed.jobs.first().expect("empty answers were left out");
        let row = *row;
        if self.door.is_doomed(&self.door.rulings().now(), &row, payload) {
            drop(task.delivered());
            self.door.end_behind(vec![row]);
            return None;
        }
        let Some((id, activation)) = rendered(&row, payload) else {
            drop(task.delivered());
            return None;
        };
        self.door.grants().granted(self.endpoint.number(), &id, Attempt::of(&row));
        let endpoint = Arc::clone(&self.endpoint);
        endpoint.counts.in_flight.fetch_add(1, Relaxed);
        let begun = Instant::now();
        let sent = Sent { undelivered: Some(task), row, id, begun, endpoint };
        Some(Box::pin(deliver(self.door.clone(), worker.clone(), sent, activation)))
    }

    /// What becomes of a push that was answered, and what is next.
    fn settle(&mut self, sent: Sent, answer: Answer) -> Next {
        let counts = Arc::clone(&self.endpoint.counts);
        match answer {
            Answer::Taken => {
                counts.taken.fetch_add(1, Relaxed);
                self.refusals.remove(&sent.row.id);
                let quick = sent.begun.elapsed() < self.door.options().push.quick;
                let most = self.door.options().push.in_flight_max.max(1);
                self.at_a_time = if quick { most.min(self.at_a_time + 1) } else { 1 };
                self.pause = Pause::default();
                if std::mem::take(&mut self.missed) {
                    let Endpoint { application, address, .. } = &*self.endpoint;
                    tracing::info!(application, address, "the worker takes tasks again");
                }
                Next::On
            }
            Answer::Busy => {
                counts.busy.fetch_add(1, Relaxed);
                self.at_a_time = 1;
                sent.back(&self.door);
                Next::Rest
            }
            Answer::Refused(status) => {
                counts.refused.fetch_add(1, Relaxed);
                self.at_a_time = 1;
                if self.refusals.len() >= REFUSED_MAX {
                    self.refusals.clear();
                }
                let times = self.refusals.entry(sent.row.id).or_default();
                *times += 1;
                let Endpoint { application, address, .. } = &*self.endpoint;
                tracing::warn!(application, address, task = sent.id, %status, times, "a worker refused a task");
                if *times >= REFUSALS_MAX {
                    self.refusals.remove(&sent.row.id);
                } else {
                    sent.back(&self.door);
                }
                Next::Rest
            }
            Answer::Away(why) => {
                counts.failed.fetch_add(1, Relaxed);
                miss(&mut self.missed, &self.endpoint, &why);
                sent.back(&self.door);
                Next::Away
            }
            Answer::Broken(why) => {
                counts.failed.fetch_add(1, Relaxed);
                miss(&mut self.missed, &self.endpoint, &why);
                // It may have been begun. Whoever did that is gone, and is not listened to any more.
                if !sent.row.policy.is_some_and(|policy| policy.at_most_once) {
                    sent.again();
                }
                Next::Away
            }
            Answer::Late => {
                counts.failed.fetch_add(1, Relaxed);
                miss(&mut self.missed, &self.endpoint, "it does not answer");
                Next::Away
            }
        }
    }
}

/// What is next for a worker.
enum Next {
    On,
    Rest,
    Away,
}

/// Tasks that were taken to be pushed, each in an answer of its own.
struct Claimed {
    tasks: Vec<Undelivered>,
    /// There was none at first.
    waited: bool,
}

/// The tasks that are there, so many at most; if there are none, the next one.
async fn take(door: Door, endpoint: Arc<Endpoint>, room: usize) -> Result<Claimed, Error> {
    let workflow = door.applications().appears(&endpoint.application).await;
    let at_once = join_all((0..room).map(|_| take_one(&door, workflow, false))).await;
    let mut tasks = Vec::with_capacity(room);
    let mut failed = None;
    for taken in at_once {
        match taken {
            Ok(task) => tasks.extend(task),
            Err(error) => failed = Some(error),
        }
    }
    match (tasks.is_empty(), failed) {
        (false, _) => Ok(Claimed { tasks, waited: false }),
        (true, Some(error)) => Err(error),
        (true, None) => {
            let task = take_one(&door, workflow, true).await?;
            Ok(Claimed { tasks: task.into_iter().collect(), waited: true })
        }
    }
}

async fn take_one(door: &Door, workflow: WorkflowId, wait: bool) -> Result<Option<Undelivered>, Error> {
    let until = wait.then(|| door.engine().now().after(CLAIM_MS));
    let claim = Command::Claim(claim_of(workflow, None, until));
    let answer = door.engine().call_for_delivery(claim).await?;
    let has_one = matches!(&*answer, Said::Claimed(claimed) if !claimed.jobs.is_empty());
    Ok(has_one.then_some(answer))
}

/// Pushes it. Its time begins when the worker has taken it: what waits for room is not lost meanwhile.
async fn deliver(door: Door, worker: Worker, sent: Sent, activation: Activation) -> (Sent, Answer) {
    let deadline_ms = sent.row.policy.map(|policy| policy.deadline_ms).filter(|ms| *ms > 0);
    let half = deadline_ms.map(|ms| Duration::from_millis(ms.into()) / 2);
    let mut push = std::pin::pin!(worker.push(activation));
    let answer = loop {
        tokio::select! {
            biased;
            answer = push.as_mut() => break answer,
            () = async { tokio::time::sleep(half.expect("it is there")).await }, if half.is_some() => {
                sent.renew(&door).await;
            }
        }
    };
    if matches!(answer, Answer::Taken) && sent.begun.elapsed() >= door.options().push.quick {
        sent.renew(&door).await;
    }
    (sent, answer)
}

fn miss(missed: &mut bool, endpoint: &Endpoint, why: &str) {
    if !std::mem::replace(missed, true) {
        let Endpoint { application, address, .. } = endpoint;
        tracing::warn!(application, address, why, "a worker is away: its tasks go to others, or wait");
    }
}

impl Sent {
    /// Its time begins anew.
    async fn renew(&self, door: &Door) {
        let JobRow { id: job, attempt, grant, workflow, .. } = self.row;
        let renewed = door.engine().call(Command::Renew { workflow, attempts: vec![Held { job, attempt, grant }] });
        if let Err(error) = renewed.await {
            tracing::debug!(job = job.0, %error, "the time of a task that is being pushed was not begun anew");
        }
    }

    /// It was not taken: it is ready as if it had never been handed out.
    fn back(self, door: &Door) {
        door.grants().reported(self.endpoint.number(), &self.id);
        self.again();
    }

    /// It is ready, though the worker may have it: what that reports of it is passed over.
    fn again(mut self) {
        drop(self.undelivered.take());
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.endpoint.counts.in_flight.fetch_sub(1, Relaxed);
        if let Some(kept) = self.undelivered.take() {
            drop(kept.delivered());
        }
    }
}

/// Longer with each time, within bounds.
#[derive(Debug, Default)]
struct Pause(Duration);

impl Pause {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    fn longer(&mut self) -> Duration {
        self.0 = (self.0 * 2).clamp(Pause::FIRST, Pause::LONGEST);
        self.0
    }
}

/// Returns when it is to stop.
async fn told_to_stop(stopping: &mut watch::Receiver<bool>) {
    drop(stopping.wait_for(|stopping| *stopping).await);
}
