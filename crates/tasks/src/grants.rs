//! Which connection got which attempt. It is only a fence: what is forgotten here is looked up.

use std::collections::{BTreeMap, HashMap, HashSet};
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

/// Who got an attempt: a connection, and what the attempt was called there.
type Key = (u64, Arc<str>);

#[derive(Default)]
struct Inner {
    granted: HashMap<Key, (Attempt, u64)>,
    by_connection: HashMap<u64, HashSet<Arc<str>>>,
    /// In the order of their coming, the oldest first.
    order: BTreeMap<u64, Key>,
    next: u64,
}

impl Grants {
    pub fn new(most: usize) -> Grants {
        Grants { inner: Mutex::default(), most: most.max(1) }
    }

    /// A connection got an attempt, called so.
    pub fn granted(&self, connection: u64, id: &str, attempt: Attempt) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let id: Arc<str> = id.into();
        inner.remove(&(connection, Arc::clone(&id)));
        while inner.granted.len() >= self.most
            && let Some(oldest) = inner.order.values().next().cloned()
        {
            inner.remove(&oldest);
        }
        let key = (connection, Arc::clone(&id));
        inner.order.insert(inner.next, key.clone());
        inner.granted.insert(key, (attempt, inner.next));
        inner.by_connection.entry(connection).or_default().insert(id);
        inner.next += 1;
    }

    /// The attempt that a connection got last by this id.
    pub fn find(&self, connection: u64, id: &str) -> Option<Attempt> {
        self.lock().granted.get(&(connection, id.into())).map(|(attempt, _)| *attempt)
    }

    /// Those of these that have an attempt by this id.
    pub fn holders(&self, connections: impl Iterator<Item = u64>, id: &str) -> Vec<(u64, Attempt)> {
        let id: Arc<str> = id.into();
        let inner = self.lock();
        let attempt = |number| inner.granted.get(&(number, Arc::clone(&id))).map(|(attempt, _)| *attempt);
        connections.filter_map(|number| Some((number, attempt(number)?))).collect()
    }

    /// It was reported.
    pub fn reported(&self, connection: u64, id: &str) {
        self.lock().remove(&(connection, id.into()));
    }

    pub fn closed(&self, connection: u64) {
        let mut inner = self.lock();
        for id in inner.by_connection.remove(&connection).unwrap_or_default() {
            inner.remove(&(connection, id));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No holder panics between two changes.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, key: &Key) {
        let Some((_, number)) = self.granted.remove(key) else { return };
        self.order.remove(&number);
        if let Some(ids) = self.by_connection.get_mut(&key.0) {
            ids.remove(&key.1);
            if ids.is_empty() {
                self.by_connection.remove(&key.0);
            }
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
        assert!(inner.granted.is_empty() && inner.order.is_empty() && inner.by_connection.is_empty());
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
