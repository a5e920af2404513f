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
    door: Weak<Shared>,
}

impl Connection {
    pub(crate) fn new(door: &Arc<Shared>) -> Connection {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Connection { open: Arc::new(Open { number, door: Arc::downgrade(door) }) }
    }

    /// No other connection of this process has it.
    pub(crate) fn number(&self) -> u64 {
        self.open.number
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
