//! Which connection got which attempt. It is only a fence: what is forgotten here is looked up.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_domain::ids::{Grant, JobId, WorkflowId};
use forebay_domain::job::JobRow;

/// An attempt of a job, and the claim that gave it out if it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    pub workflow: WorkflowId,
    pub job: JobId,
    pub attempt: i64,
    pub grant: Option<Grant>,
}

impl Attempt {
    pub fn of(row: &JobRow) -> Attempt {
        Attempt { workflow: row.workflow, job: row.id, attempt: row.attempt, grant: row.held_by() }
    }
}

pub struct Grants {
    inner: Mutex<Inner>,
    most: usize,
}

#[derive(Default)]
struct Inner {
    /// By the connection, and what the attempt was called there; with its place in the order.
    granted: HashMap<u64, HashMap<Arc<str>, (Attempt, u64)>>,
    /// All of them in the order of their coming, the oldest first.
    order: BTreeMap<u64, (u64, Arc<str>)>,
    next: u64,
}

impl Grants {
    pub fn new(most: usize) -> Grants {
        Grants { inner: Mutex::default(), most: most.max(1) }
    }

    /// A connection got an attempt, called so.
    pub fn granted(&self, connection: u64, id: &str, attempt: Attempt) {
        let mut inner = self.lock();
        inner.remove(connection, id);
        while inner.order.len() >= self.most
            && let Some((connection, id)) = inner.order.values().next().cloned()
        {
            inner.remove(connection, &id);
        }
        let (id, number): (Arc<str>, u64) = (id.into(), inner.next);
        inner.order.insert(number, (connection, Arc::clone(&id)));
        inner.granted.entry(connection).or_default().insert(id, (attempt, number));
        inner.next += 1;
    }

    /// The attempt that a connection got last by this id.
    pub fn find(&self, connection: u64, id: &str) -> Option<Attempt> {
        self.lock().find(connection, id)
    }

    /// Those of these that have an attempt by this id.
    pub fn holders(&self, connections: impl Iterator<Item = u64>, id: &str) -> Vec<(u64, Attempt)> {
        let inner = self.lock();
        connections.filter_map(|number| Some((number, inner.find(number, id)?))).collect()
    }

    /// It was reported.
    pub fn reported(&self, connection: u64, id: &str) {
        self.lock().remove(connection, id);
    }

    pub fn closed(&self, connection: u64) {
        let mut inner = self.lock();
        for (_, number) in inner.granted.remove(&connection).unwrap_or_default().values() {
            inner.order.remove(number);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No holder panics between two changes.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn find(&self, connection: u64, id: &str) -> Option<Attempt> {
        self.granted.get(&connection)?.get(id).map(|(attempt, _)| *attempt)
    }

    /// What is kept for the connection stays, empty, until it is closed: it soon gets the next one.
    fn remove(&mut self, connection: u64, id: &str) {
        let removed = self.granted.get_mut(&connection).and_then(|granted| granted.remove(id));
        if let Some((_, number)) = removed {
            self.order.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(job: i64, attempt: i64) -> Attempt {
        Attempt { workflow: WorkflowId(1), job: JobId(job), attempt, grant: None }
    }

    #[test]
    fn a_connection_has_what_it_got_last_until_it_reports_or_closes() {
        let grants = Grants::new(10);
        grants.granted(1, "a", attempt(1, 1));
        grants.granted(2, "a", attempt(1, 2));
        grants.granted(2, "b", attempt(2, 1));
        grants.granted(1, "a", attempt(1, 3));
        assert_eq!(grants.find(1, "a"), Some(attempt(1, 3)));
        assert_eq!(grants.find(2, "a"), Some(attempt(1, 2)));
        assert_eq!(grants.find(1, "b"), None);
        grants.reported(2, "a");
        assert_eq!(grants.find(2, "a"), None);
        grants.closed(2);
        assert_eq!((grants.find(2, "b"), grants.find(1, "a")), (None, Some(attempt(1, 3))));
        grants.closed(1);
        let inner = grants.lock();
        assert!(inner.granted.is_empty() && inner.order.is_empty());
    }

    #[test]
    fn of_too_many_the_oldest_is_forgotten() {
        let grants = Grants::new(2);
        for job in 1..=3 {
            grants.granted(1, &job.to_string(), attempt(job, 1));
        }
        assert_eq!(grants.find(1, "1"), None);
        assert_eq!(grants.find(1, "3"), Some(attempt(3, 1)));
    }
}
