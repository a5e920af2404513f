//! The streams of events: what happens in workflows, told as it is committed to who listens.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forebay_domain::catalog::Table;
use forebay_domain::ids::{JobId, Timestamp, WorkflowId};
use forebay_domain::job::JobRow;
use forebay_domain::port::Reader;
use forebay_domain::state::JobState;
use hyper::body::Bytes;
use serde_json::{Value as Json, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use crate::job::status_of;
use crate::{Door, Unseen, rows};

/// Events that wait for a slow listener at most; then it misses the oldest, and is told how many.
const WAITING_MAX: usize = 1024;

/// So many are told in one go; then who listens may catch up.
const AT_ONCE: usize = WAITING_MAX / 4;

/// How often, and how long each time, it is waited for who has much to catch up with: then it is slow.
const PATIENCE: (u32, Duration) = (100, Duration::from_millis(1));

/// Events that are told again to who comes back with the id of the last one it saw.
const REMEMBERED_MAX: usize = 4096;

/// A stream on which nothing happens says so this often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long events are remembered for nobody: a listener whose connection broke off is back by then.
const LINGER: Duration = Duration::from_secs(60);

/// How much an event matters; the order is that of `level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Debug,
    Info,
    Warning,
    Error,
}

impl Severity {
    /// torc's words; what is none of them asks for all that it tells by default.
    pub fn of(level: Option<&str>) -> Severity {
        match level.unwrap_or_default().to_ascii_lowercase().as_str() {
            "debug" => Severity::Debug,
            "warning" | "warn" => Severity::Warning,
            "error" => Severity::Error,
            _ => Severity::Info,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// An event, written as it goes over the wire.
#[derive(Debug)]
struct Told {
    id: i64,
    workflow: i64,
    severity: Severity,
    frame: String,
}

/// Who tells, and who listens. Clones are the same.
#[derive(Clone)]
pub(crate) struct Hub {
    sender: broadcast::Sender<Arc<Told>>,
    state: Arc<Mutex<State>>,
}

struct State {
    next_id: i64,
    /// The newest last. Kept only while somebody listens, or did shortly before.
    remembered: VecDeque<Arc<Told>>,
    /// Whether the engine's changes are being told.
    is_fed: bool,
}

impl Hub {
    /// Ids go on from the time of the start, so that they differ between runs of the server.
    pub fn new(now: Timestamp) -> Hub {
        let state = State { next_id: now.0.saturating_mul(1000), remembered: VecDeque::new(), is_fed: false };
        Hub { sender: broadcast::Sender::new(WAITING_MAX), state: Arc::new(Mutex::new(state)) }
    }

    /// Tells who listens, if anybody does.
    pub fn tell(&self, now: Timestamp, workflow: i64, kind: &str, severity: Severity, data: Json) {
        let mut state = self.lock();
        if !state.is_fed {
            return;
        }
        let id = state.next_id;
        state.next_id += 1;
        let body = json!({
            "workflow_id": workflow,
            "timestamp": now.0,
            "event_type": kind,
            "severity": severity.as_str(),
            "data": data,
        });
        let mut frame = String::with_capacity(256);
        write!(frame, "id: {id}\nevent: {kind}\ndata: {body}\n\n").expect("a String takes all text");
        let told = Arc::new(Told { id, workflow, severity, frame });
        if state.remembered.len() == REMEMBERED_MAX {
            state.remembered.pop_front();
        }
        state.remembered.push_back(Arc::clone(&told));
        // Under the lock, so that the order is that of the ids; nobody may be there right now.
        drop(self.sender.send(told));
    }

    /// Waits until no listener has much to catch up with, or one is so slow that it shall miss some.
    async fn keep_pace(&self) {
        let (times, pause) = PATIENCE;
        for _ in 0..times {
            if self.sender.len() <= WAITING_MAX - AT_ONCE {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Events from now on, and before them what came after `last`, the last one that was seen.
    fn listen(&self, door: &Door, last: Option<i64>) -> (broadcast::Receiver<Arc<Told>>, Missed) {
        let mut state = self.lock();
        if !state.is_fed {
            state.is_fed = true;
            tokio::spawn(feed(door.clone()));
        }
        let mut missed = Missed::default();
        if let Some(last) = last {
            missed.events = state.remembered.iter().filter(|told| told.id > last).cloned().collect();
            missed.some_are_gone = state.remembered.front().map_or(state.next_id, |oldest| oldest.id) > last + 1;
        }
        (self.sender.subscribe(), missed)
    }

    /// Ends the feed if nobody listens; whether it ended.
    fn end_if_alone(&self) -> bool {
        let mut state = self.lock();
        if self.sender.receiver_count() > 0 {
            return false;
        }
        state.is_fed = false;
        // Ids go on over the gap, so who comes back later is told that there is one.
        state.next_id += 1;
        state.remembered.clear();
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder panics between two changes of the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Missed {
    events: Vec<Arc<Told>>,
    some_are_gone: bool,
}

/// Tells what the engine committed, until nobody has listened for a while.
async fn feed(door: Door) {
    let mut changes = door.engine().watch();
    let mut look_up = tokio::time::interval(LINGER);
    look_up.tick().await;
    loop {
        tokio::select! {
            changed = changes.recv() => match changed {
                Ok(rows) => tell_jobs(&door, &rows).await,
                Err(RecvError::Lagged(batches)) => tracing::warn!(batches, "events of some changes were not told"),
                Err(RecvError::Closed) => return,
            },
            _ = look_up.tick() => if door.hub().end_if_alone() { return },
            _ = door.engine().stopped() => return,
        }
    }
}

/// What became of a job, by torc's word.
fn kind_of(state: JobState) -> Option<(&'static str, Severity)> {
    Some(match state {
        JobState::Running => ("job_started", Severity::Info),
        JobState::Completed => ("job_completed", Severity::Info),
        JobState::Failed => ("job_failed", Severity::Error),
        JobState::Canceled => ("job_canceled", Severity::Warning),
        JobState::Terminated => ("job_terminated", Severity::Warning),
        JobState::PendingFailed => ("job_pending_failed", Severity::Info),
        JobState::Draft
        | JobState::Blocked
        | JobState::Ready
        | JobState::Claimed
        | JobState::Disabled
        | JobState::Scheduled => return None,
    })
}

/// What an event says of a job beside its row.
#[derive(Default)]
struct Around {
    names: HashMap<JobId, Box<str>>,
    return_codes: HashMap<JobId, i64>,
    runs: HashMap<WorkflowId, i64>,
}

async fn tell_jobs(door: &Door, changed: &[JobRow]) {
    let rows: Vec<JobRow> = changed.iter().filter(|row| kind_of(row.state).is_some()).copied().collect();
    if rows.is_empty() {
        return;
    }
    let asked = rows.clone();
    let around = match door.look(move |reader| look_around(reader, &asked)).await {
        Ok(around) => around,
        Err(fault) => {
            tracing::warn!(why = fault.message(), jobs = rows.len(), "events of jobs are told without their names");
            Around::default()
        }
    };
    let now = door.engine().now();
    for (told, row) in rows.into_iter().enumerate() {
        let Some((kind, severity)) = kind_of(row.state) else { continue };
        if told % AT_ONCE == 0 {
            door.hub().keep_pace().await;
        }
        let data = if row.state == JobState::Running {
            json!({
                "job_id": row.id.0,
                "job_name": around.names.get(&row.id),
                "compute_node_id": row.node.map(|node| node.0),
                "run_id": around.runs.get(&row.workflow),
            })
        } else {
            json!({
                "job_id": row.id.0,
                "job_name": around.names.get(&row.id),
                "status": status_of(row.state).as_str(),
                "return_code": around.return_codes.get(&row.id),
            })
        };
        door.hub().tell(now, row.workflow.0, kind, severity, data);
    }
}

fn look_around(reader: &mut dyn Reader, jobs: &[JobRow]) -> Result<Around, Unseen> {
    let ids: Vec<JobId> = jobs.iter().map(|row| row.id).collect();
    let mut around = Around { names: reader.job_names(&ids)?.into_iter().collect(), ..Around::default() };
    for row in jobs {
        if let Some(result) = row.result
            && let Some(result) = reader.get(Table::Result, result.0)?
        {
            around.return_codes.insert(row.id, rows::int(&result, Table::Result, "return_code"));
        }
        if row.state == JobState::Running
            && !around.runs.contains_key(&row.workflow)
            && let Some(workflow) = reader.workflow(row.workflow)?
        {
            around.runs.insert(row.workflow, workflow.run);
        }
    }
    Ok(around)
}

/// The frames of a workflow's stream, until the listener leaves or the server stops.
pub(crate) fn stream(door: &Door, workflow: i64, least: Severity, last: Option<i64>) -> mpsc::Receiver<Bytes> {
    let (frames, body) = mpsc::channel(16);
    let (events, missed) = door.hub().listen(door, last);
    tokio::spawn(write(door.clone(), workflow, least, events, missed, frames));
    body
}

async fn write(
    door: Door,
    workflow: i64,
    least: Severity,
    mut events: broadcast::Receiver<Arc<Told>>,
    missed: Missed,
    frames: mpsc::Sender<Bytes>,
) {
    let is_wanted = |told: &Told| told.workflow == workflow && told.severity >= least;
    let mut next: Vec<Bytes> = vec![Bytes::from_static(b": the stream begins\n\n")];
    if missed.some_are_gone {
        next.push(Bytes::from_static(b"event: warning\ndata: {\"dropped\":null}\n\n"));
    }
    next.extend(missed.events.iter().filter(|told| is_wanted(told)).map(|told| Bytes::from(told.frame.clone())));
    loop {
        for frame in next.drain(..) {
            if frames.send(frame).await.is_err() {
                return;
            }
        }
        tokio::select! {
            event = events.recv() => match event {
                Ok(told) if is_wanted(&told) => next.push(Bytes::from(told.frame.clone())),
                Ok(_) => {}
                Err(RecvError::Lagged(dropped)) => {
                    next.push(Bytes::from(format!("event: warning\ndata: {{\"dropped\":{dropped}}}\n\n")));
                }
                Err(RecvError::Closed) => return,
            },
            () = tokio::time::sleep(KEEP_ALIVE) => next.push(Bytes::from_static(b": nothing happened\n\n")),
            () = frames.closed() => return,
            _ = door.engine().stopped() => return,
        }
    }
}
