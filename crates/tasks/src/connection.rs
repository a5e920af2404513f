//! Connections: taskbroker's wire has no lease, so who got an attempt is known by the connection that it
//! went out on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::Shared;

/// A connection of the gRPC listener. Clones are the same one; it is closed when the last is dropped.
#[derive(Clone)]
pub struct Connection {
    open: Arc<Open>,
}

struct Open {
    number: u64,
    /// What was pushed to whom is reported here: a number, `NOBODY` or `MANY`.
    source: AtomicU64,
    door: Weak<Shared>,
}

/// Who is known to report on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Unknown,
    /// The endpoint of this number.
    One(u64),
    /// Several: it comes through a proxy.
    Many,
}

/// Numbers begin at 1.
const NOBODY: u64 = 0;
const MANY: u64 = u64::MAX;

impl Connection {
    pub(crate) fn new(door: Weak<Shared>) -> Connection {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let source = AtomicU64::new(NOBODY);
        Connection { open: Arc::new(Open { number, source, door }) }
    }

    /// No other connection of this process has it.
    pub(crate) fn number(&self) -> u64 {
        self.open.number
    }

    pub(crate) fn source(&self) -> Source {
        match self.open.source.load(Ordering::Relaxed) {
            NOBODY => Source::Unknown,
            MANY => Source::Many,
            number => Source::One(number),
        }
    }

    /// Something was reported here that the endpoint of this number alone got.
    pub(crate) fn speaks_for(&self, endpoint: u64) {
        let source = match self.source() {
            Source::Unknown => endpoint,
            Source::One(known) if known == endpoint => return,
            Source::One(_) | Source::Many => MANY,
        };
        self.open.source.store(source, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.open.number).finish()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(door) = self.door.upgrade() {
            door.grants.closed(self.number);
        }
    }
}
