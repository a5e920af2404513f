//! The reference store: plain maps in memory, obviously right, with switches that make it fail.

mod db;
mod lists;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_domain::batch::{Batch, Outcomes, WorkflowRow};
use forebay_domain::catalog::{Paging, Query, Row, Table};
use forebay_domain::ids::{JobId, Lsn, WorkflowId};
use forebay_domain::job::RelationKind;
use forebay_domain::port::{Dependency, JobQuery, JobView, Read, Reader, Recovered, Rows, Store, StoreError, TaskName};
use forebay_domain::state::STATES;

pub use db::Db;

/// What goes wrong with one commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommitFault {
    /// Nothing is written; the same batch may be tried again.
    Busy,
    /// Everything is written, but its caller is told `Busy`: a commit whose answer was lost.
    BusyAfterWriting,
    /// Nothing is written, and the store is not to be used on.
    Broken,
}

/// The write side. Clones share one database, as connections share a file.
///
/// What is committed stays; all else lives with its owner. So a crash is to drop the machine, and
/// a start is to call `recover` again.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shared>>,
}

/// The read side. It sees what is committed when it is called.
#[derive(Clone, Debug)]
pub struct MemoryReader {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    db: Db,
    /// For the next commits, one each.
    faults: VecDeque<Option<CommitFault>>,
}

impl MemoryStore {
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    pub fn reader(&self) -> MemoryReader {
        MemoryReader { shared: Arc::clone(&self.shared) }
    }

    /// One of the next commits meets this, after those that were arranged before; `None` succeeds.
    pub fn arrange(&self, fault: Option<CommitFault>) {
        lock(&self.shared).faults.push_back(fault);
    }

    /// A look at what is committed.
    pub fn look<T>(&self, f: impl FnOnce(&Db) -> T) -> T {
        f(&lock(&self.shared).db)
    }

    /// Puts back what was committed at an earlier time, as a power loss does to commits without fsync.
    pub fn restore(&self, db: Db) {
        lock(&self.shared).db = db;
    }
}

impl Store for MemoryStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        Ok(lock(&self.shared).db.recover())
    }

    fn commit(&mut self, batch: &Batch) -> Result<Outcomes, StoreError> {
        let mut shared = lock(&self.shared);
        match shared.faults.pop_front().flatten() {
            None => shared.db.apply(batch).map_err(|wrong| StoreError::Broken(wrong.into())),
            Some(CommitFault::Busy) => Err(StoreError::Busy("arranged: nothing was written".into())),
            Some(CommitFault::BusyAfterWriting) => {
                shared.db.apply(batch).map_err(|wrong| StoreError::Broken(wrong.into()))?;
                Err(StoreError::Busy("arranged: the answer was lost".into()))
            }
            Some(CommitFault::Broken) => Err(StoreError::Broken("arranged: broken".into())),
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn close(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}

impl Reader for MemoryReader {
    fn read(&mut self, what: &Read) -> Result<(Lsn, Rows), StoreError> {
        Ok(lock(&self.shared).db.read(what))
    }

    fn get(&mut self, table: Table, id: i64) -> Result<Option<Row>, StoreError> {
        Ok(lock(&self.shared).db.get(table, id))
    }

    fn list(&mut self, query: &Query) -> Result<(Vec<Row>, u64), StoreError> {
        Ok(lock(&self.shared).db.list(query))
    }

    fn workflow(&mut self, id: WorkflowId) -> Result<Option<WorkflowRow>, StoreError> {
        Ok(lock(&self.shared).db.workflow(id).filter(|row| !row.endless))
    }

    fn workflows(&mut self, ids: &[WorkflowId]) -> Result<Vec<WorkflowRow>, StoreError> {
        let shared = lock(&self.shared);
        Ok(ids.iter().filter_map(|&id| shared.db.workflow(id)).collect())
    }

    fn totals(&mut self) -> Result<[i64; STATES], StoreError> {
        let mut totals = [0; STATES];
        for row in lock(&self.shared).db.workflows.values() {
            for (total, count) in totals.iter_mut().zip(row.counts) {
                *total += count;
            }
        }
        Ok(totals)
    }

    fn job(&mut self, id: JobId) -> Result<Option<JobView>, StoreError> {
        Ok(lock(&self.shared).db.job(id))
    }

    fn task(&mut self, by: &TaskName) -> Result<Option<JobView>, StoreError> {
        Ok(lock(&self.shared).db.task(by))
    }

    fn jobs(&mut self, query: &JobQuery) -> Result<(Vec<JobView>, u64), StoreError> {
        Ok(lock(&self.shared).db.jobs(query))
    }

    fn dependencies(&mut self, workflow: WorkflowId, paging: Paging) -> Result<(Vec<Dependency>, u64), StoreError> {
        Ok(lock(&self.shared).db.dependencies(workflow, paging))
    }

    fn prerequisites(&mut self, jobs: &[JobId]) -> Result<Vec<(JobId, JobId)>, StoreError> {
        Ok(lock(&self.shared).db.prerequisites(jobs))
    }

    fn relations(&mut self, workflow: WorkflowId) -> Result<Vec<(JobId, RelationKind, i64)>, StoreError> {
        Ok(lock(&self.shared).db.relations(workflow))
    }

    fn latest_results(&mut self, query: &Query) -> Result<(Vec<Row>, u64), StoreError> {
        Ok(lock(&self.shared).db.latest_results(query))
    }

    fn job_names(&mut self, ids: &[JobId]) -> Result<Vec<(JobId, Box<str>)>, StoreError> {
        Ok(lock(&self.shared).db.job_names(ids))
    }
}

/// A panic of another test thread leaves the maps as they were: each call is whole or not at all.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
