//! Push mode: tasks go to workers that listen, the moment that they are there.
//!
//! Each worker that is configured is served by a loop of its own (`endpoint`), which takes tasks as a
//! worker that pulls does, and gives back at once what was not taken. The endpoint that got an attempt is
//! its fence.

mod call;
mod endpoint;
mod options;

pub use options::{Endpoints, Options};

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Door;
use crate::connection::{Connection, Source};
use crate::grants::Attempt;
use crate::push::endpoint::{Endpoint, State};

/// What the door knows of the workers that it pushes to.
#[derive(Default)]
pub(crate) struct Pushes {
    endpoints: Vec<Arc<Endpoint>>,
    counts: Arc<Counts>,
    /// Applications that came and have no endpoint.
    unmapped: AtomicU64,
}

/// What became of pushes, since the start.
#[derive(Debug, Default)]
struct Counts {
    in_flight: AtomicU64,
    taken: AtomicU64,
    busy: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// How it stands with pushes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Pushes that have no answer yet.
    pub in_flight: u64,
    /// Since the start: tasks that workers took.
    pub taken: u64,
    /// Since the start: pushes that met a worker without room.
    pub busy: u64,
    /// Since the start: pushes that a worker refused for another reason.
    pub refused: u64,
    /// Since the start: pushes that did not get through, or got no answer.
    pub failed: u64,
    /// Endpoints that take tasks.
    pub ready: u64,
    /// Endpoints that have no room at the moment.
    pub full: u64,
    /// Endpoints that are not there, or refuse.
    pub away: u64,
    /// Applications whose tasks nobody pushes, though others' are pushed.
    pub unmapped: u64,
}

/// Pushes that go on. Dropped, they break off.
#[derive(Debug)]
pub struct Pushing {
    stopping: watch::Sender<bool>,
    endpoints: JoinSet<()>,
}

/// How long a stop waits for workers to answer: what they have not answered by then may be with them, and
/// stays theirs.
const LAST_WORD: Duration = Duration::from_millis(300);

impl Door {
    /// Begins to push. Workers are to report to `listening`, unless the options name another address.
    #[must_use = "dropped, it ends"]
    pub fn push(&self, listening: SocketAddr) -> Pushing {
        let (stopping, watched) = watch::channel(false);
        let mut endpoints = JoinSet::new();
        for endpoint in &self.pushes().endpoints {
            endpoints.spawn(endpoint::serve(self.clone(), Arc::clone(endpoint), listening, watched.clone()));
        }
        if !endpoints.is_empty() {
            endpoints.spawn(look_for_unmapped(self.clone()));
        }
        Pushing { stopping, endpoints }
    }

    /// How it stands with pushes; `None` if there are none.
    #[must_use]
    pub fn pushed(&self) -> Option<Standing> {
        let Pushes { endpoints, counts, unmapped } = self.pushes();
        if endpoints.is_empty() {
            return None;
        }
        let in_state = |state| endpoints.iter().filter(|endpoint| endpoint.state() == state).count() as u64;
        Some(Standing {
            in_flight: counts.in_flight.load(Relaxed),
            taken: counts.taken.load(Relaxed),
            busy: counts.busy.load(Relaxed),
            refused: counts.refused.load(Relaxed),
            failed: counts.failed.load(Relaxed),
            ready: in_state(State::Ready),
            full: in_state(State::Full),
            away: in_state(State::Away),
            unmapped: unmapped.load(Relaxed),
        })
    }

    /// Whether workers ask for tasks of this application; of none: whether there is one for which they do.
    pub(crate) fn is_pulled(&self, application: Option<&str>) -> bool {
        let pushed = &self.options().push.endpoints;
        match application {
            Some(name) => !pushed.contains(name),
            None => pushed.is_empty() || self.applications().all().keys().any(|name| !pushed.contains(name)),
        }
    }

    /// The attempt of this id that was pushed to whoever is behind this connection, as far as that is known.
    pub(crate) fn pushed_to(&self, connection: &Connection, id: &str) -> Option<Attempt> {
        let holders = self.holders(id);
        let (holder, attempt) = match holders[..] {
            [] => return None,
            [one] => one,
            // From an earlier attempt and a later one: whoever it is counts.
            _ => *holders.iter().find(|(number, _)| connection.source() == Source::One(*number))?,
        };
        connection.speaks_for(holder);
        Some(attempt)
    }

    /// What was reported of an attempt is settled: who had it has room again.
    pub(crate) fn push_settled(&self, id: &str, attempt: &Attempt) {
        for (number, _) in self.holders(id).iter().filter(|(_, held)| held == attempt) {
            self.grants().reported(*number, id);
            for endpoint in self.pushes().endpoints.iter().filter(|endpoint| endpoint.number() == *number) {
                endpoint.has_room();
            }
        }
    }

    fn holders(&self, id: &str) -> Vec<(u64, Attempt)> {
        let endpoints = &self.pushes().endpoints;
        if endpoints.is_empty() {
            return Vec::new();
        }
        self.grants().holders(endpoints.iter().map(|endpoint| endpoint.number()), id)
    }
}

impl Pushes {
    pub fn new(options: &Options, mut connection: impl FnMut() -> Connection) -> Pushes {
        let counts = Arc::<Counts>::default();
        let endpoint = |(application, address): (&str, &str)| {
            let endpoint = Endpoint::new(application, address, connection(), Arc::clone(&counts));
            Arc::new(endpoint)
        };
        let endpoints = options.endpoints.iter().map(endpoint).collect();
        Pushes { endpoints, counts, unmapped: AtomicU64::new(0) }
    }
}

impl Pushing {
    /// Takes no more tasks; those that are on their way may still arrive.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        let ended = async { while self.endpoints.join_next().await.is_some() {} };
        // Whatever has not ended is broken off: what it had sent stays with whom it was sent to.
        drop(tokio::time::timeout(LAST_WORD, ended).await);
    }
}

/// Tells of applications that have no endpoint: nobody gets their tasks who does not ask.
async fn look_for_unmapped(door: Door) {
    let mut told = BTreeSet::new();
    loop {
        let known = door.applications().all();
        for name in known.keys().filter(|name| door.is_pulled(Some(name))) {
            if told.insert(name.clone()) {
                door.pushes().unmapped.fetch_add(1, Relaxed);
                tracing::warn!(application = name, "its tasks are not pushed: no endpoint is named for it");
            }
        }
        door.applications().changed(&known).await;
    }
}
