//! The read side.

use std::path::Path;
use std::time::Duration;

use forebay_domain::batch::{LaneState, WorkflowRow};
use forebay_domain::catalog::{Paging, Query, Row as CatalogRow, Table};
use forebay_domain::claim::Needs;
use forebay_domain::graph::Edges;
use forebay_domain::ids::{BarrierId, JobId, LaneId, Lsn, RequirementId, Timestamp, WorkflowId};
use forebay_domain::job::{JobRow, Payload, RelationKind};
use forebay_domain::lane::OrderKey;
use forebay_domain::port::{
    Dependency, Dependents, GraphRows, JobQuery, JobView, Moment, Read, Reader, Rows, StoreError, TaskName,
    WorkflowRows,
};
use forebay_domain::state::STATES;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row};

use crate::Options;
use crate::catalog::{self, List, Of, bound};
use crate::encode::{self, JOB_COLUMNS};
use crate::error::{OpenError, sorted};
use crate::jobs::{JobList, job_view};
use crate::place::Place;
use crate::schema::{self, SCHEMA_VERSION};
use crate::slow;
use crate::sql;

/// How long a read waits for a lock. There is none in its way but at the first open after a crash,
/// and in a database in memory.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A read-only connection of its own. It sees what is committed when a call begins.
#[derive(Debug)]
pub struct SqliteReader {
    db: Connection,
    place: Place,
}

/// Opens readers of one database, from any thread.
#[derive(Debug, Clone)]
pub struct SqliteReaders {
    pub(crate) place: Place,
    pub(crate) options: Options,
}

impl SqliteReaders {
    /// One more reader. A database in memory is there as long as its store or a reader is.
    ///
    /// # Errors
    /// If the database cannot be opened, or is not of this program's version.
    pub fn open(&self) -> Result<SqliteReader, OpenError> {
        SqliteReader::at(&self.place, &self.options)
    }
}

impl SqliteReader {
    /// Opens the database in this file, whether it is being served or not.
    pub fn open(path: impl AsRef<Path>) -> Result<SqliteReader, OpenError> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(OpenError::Missing { path: path.to_owned() });
        }
        SqliteReader::at(&Place::new(path)?, &Options::default())
    }

    /// Writes what is committed into a new file, as a database without gaps that needs no log. An
    /// empty file is filled, another is refused.
    ///
    /// Meanwhile the log cannot be folded in; a database in memory takes no commits.
    ///
    /// # Errors
    /// `Busy` if the file cannot be written to for now; `Broken` otherwise.
    pub fn copy_into(&self, path: &Path) -> Result<(), StoreError> {
        let name = self.place.name_of_file(path).map_err(|error| StoreError::Broken(Box::new(error)))?;
        let copied = sql::COPY.on(&self.db).and_then(|mut copy| copy.execute([name]));
        copied.map(|_| ()).map_err(sorted)
    }

    pub(crate) fn at(place: &Place, options: &Options) -> Result<SqliteReader, OpenError> {
        let failed = |source| OpenError::sqlite(place.path(), source);
        let db = place.open_reader().map_err(failed)?;
        db.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        let (mut db, found) = match schema::version(&db, place.path()) {
            Ok(found) => (db, found),
            Err(OpenError::Sqlite { source, .. } | OpenError::ReadOnly { source, .. }) if is_unwritable(&source) => {
                let db = place.open_without_log().map_err(failed)?.ok_or_else(|| failed(source))?;
                let found = schema::version(&db, place.path())?;
                (db, found)
            }
            Err(error) => return Err(error),
        };
        match found {
            0 => return Err(OpenError::NotForebay { path: place.path().to_owned(), source: None }),
            SCHEMA_VERSION => {}
            _ => return Err(OpenError::Older { path: place.path().to_owned(), found, known: SCHEMA_VERSION }),
        }
        db.pragma_update(None, "cache_size", -i64::from(options.reader_cache_kib)).map_err(failed)?;
        if let Some(over) = options.slow_statement {
            slow::log(&mut db, over).map_err(failed)?;
        }
        Ok(SqliteReader { db, place: place.clone() })
    }

    pub(crate) fn into_connection(self) -> Connection {
        self.db
    }

    /// Several statements, one snapshot.
    fn snapshot<T>(&mut self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let db = &self.db;
        let answer = sql::BEGIN_READ.on(db).and_then(|mut begin| begin.execute([])).and_then(|_| read(db));
        if db.is_autocommit() {
            return answer.map_err(sorted);
        }
        let ended = sql::COMMIT.on(db).and_then(|mut commit| commit.execute([]));
        answer.and_then(|answer| ended.map(|_| answer)).map_err(sorted)
    }
}

fn task(db: &Connection, by: &TaskName) -> rusqlite::Result<Option<JobView>> {
    match by {
        TaskName::Job(id) => sql::TASK.on(db)?.query_row([id.0], job_view).optional(),
        TaskName::Named { workflow, name } => {
            sql::TASK_NAMED.on(db)?.query_row((workflow.0, name), job_view).optional()
        }
    }
}

/// The folder cannot be written to, and a log is to be looked at.
fn is_unwritable(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

impl Reader for SqliteReader {
    fn read(&mut self, what: &Read) -> Result<(Lsn, Rows), StoreError> {
        self.snapshot(|db| {
            let lsn = sql::LSN.on(db)?.query_one([], |row| Ok(Lsn(row.get::<_, i64>(0)?.cast_unsigned())))?;
            let rows = match what {
                Read::Page { lane, after, limit, payload_max } => {
                    Rows::Page(page(db, *lane, *after, *limit, *payload_max)?)
                }
                Read::Due { after, limit } => Rows::Due(moments(db, *after, *limit)?),
                Read::Workflow(id) => Rows::Workflow(workflow_rows(db, *id)?.map(Box::new)),
                Read::Graph(id) => Rows::Graph(Box::new(graph(db, *id)?)),
                Read::Jobs(ids) => {
                    let mut job = sql::JOB.on(db)?;
                    Rows::Jobs(found(ids, |id| job.query_row([id.0], encode::job_row).optional())?)
                }
                Read::Held(node) => {
                    let held = |row: &Row| Ok(JobId(row.get(0)?));
                    Rows::Held(sql::HELD.on(db)?.query_map([node.0], held)?.collect::<Result<_, _>>()?)
                }
                Read::Dependents { job, after, limit } => Rows::Dependents(dependents(db, *job, *after, *limit)?),
                Read::Payloads(ids) => {
                    let mut payload = sql::PAYLOAD.on(db)?;
                    let read = |row: &Row| Ok(Payload::from(row.get_ref(0)?.as_blob()?));
                    Rows::Payloads(found(ids, |id| {
                        Ok(payload.query_row([id.0], read).optional()?.map(|payload| (*id, payload)))
                    })?)
                }
            };
            Ok((lsn, rows))
        })
    }

    fn get(&mut self, table: Table, id: i64) -> Result<Option<CatalogRow>, StoreError> {
        catalog::get(&self.db, table, id).map_err(sorted)
    }

    fn list(&mut self, query: &Query) -> Result<(Vec<CatalogRow>, u64), StoreError> {
        self.snapshot(|db| List::new(Of::Table, query).read(db, query.table))
    }

    fn workflow(&mut self, id: WorkflowId) -> Result<Option<WorkflowRow>, StoreError> {
        workflow(&self.db, id).map(|found| found.filter(|row| !row.endless)).map_err(sorted)
    }

    fn workflows(&mut self, ids: &[WorkflowId]) -> Result<Vec<WorkflowRow>, StoreError> {
        self.snapshot(|db| found(ids, |id| workflow(db, *id)))
    }

    fn totals(&mut self) -> Result<[i64; STATES], StoreError> {
        let read = |row: &Row| {
            let mut totals = [0; STATES];
            for (state, total) in totals.iter_mut().enumerate() {
                *total = row.get(state)?;
            }
            Ok(totals)
        };
        let totals = sql::TOTALS.on(&self.db);
        totals.and_then(|mut totals| totals.query_one([], read)).map_err(sorted)
    }

    fn job(&mut self, id: JobId) -> Result<Option<JobView>, StoreError> {
        let job = sql::JOB_WITH_DETAIL.on(&self.db);
        job.and_then(|mut job| job.query_row([id.0], job_view).optional()).map_err(sorted)
    }

    fn task(&mut self, by: &TaskName) -> Result<Option<JobView>, StoreError> {
        task(&self.db, by).map_err(sorted)
    }

    /// In one snapshot: each costs much more than one of these reads.
    fn tasks(&mut self, by: &[TaskName]) -> Result<Vec<Option<JobView>>, StoreError> {
        self.snapshot(|db| by.iter().map(|by| task(db, by)).collect())
    }

    fn jobs(&mut self, query: &JobQuery) -> Result<(Vec<JobView>, u64), StoreError> {
        self.snapshot(|db| JobList::new(query, hidden_from(db, query.workflow)?).read(db))
    }

    fn dependencies(&mut self, workflow: WorkflowId, paging: Paging) -> Result<(Vec<Dependency>, u64), StoreError> {
        let read = |row: &Row| {
            Ok(Dependency {
                job: JobId(row.get(0)?),
                job_name: row.get_ref(1)?.as_str()?.into(),
                depends_on: JobId(row.get(2)?),
                depends_on_name: row.get_ref(3)?.as_str()?.into(),
            })
        };
        self.snapshot(|db| {
            let mut part = sql::DEPENDENCIES.on(db)?;
            let below = hidden_from(db, workflow)?.unwrap_or(JobId(i64::MAX)).0;
            let part = part.query_map((workflow.0, bound(paging.limit), bound(paging.offset), below), read)?;
            let total: i64 = sql::DEPENDENCIES_COUNT.on(db)?.query_one([workflow.0, below], |row| row.get(0))?;
            Ok((part.collect::<Result<_, _>>()?, total.unsigned_abs()))
        })
    }

    fn prerequisites(&mut self, jobs: &[JobId]) -> Result<Vec<(JobId, JobId)>, StoreError> {
        let mut jobs = jobs.to_vec();
        jobs.sort_unstable();
        jobs.dedup();
        self.snapshot(|db| {
            let mut find = sql::JOB_PREREQUISITES.on(db)?;
            let mut edges = Vec::new();
            for job in jobs {
                for on in find.query_map([job.0], |row| Ok(JobId(row.get(0)?)))? {
                    edges.push((job, on?));
                }
            }
            Ok(edges)
        })
    }

    fn relations(&mut self, workflow: WorkflowId) -> Result<Vec<(JobId, RelationKind, i64)>, StoreError> {
        let read = |row: &Row| Ok((JobId(row.get(0)?), encode::relation_kind(1, row.get(1)?)?, row.get(2)?));
        self.snapshot(|db| {
            let below = hidden_from(db, workflow)?.unwrap_or(JobId(i64::MAX)).0;
            sql::WORKFLOW_RELATIONS.on(db)?.query_map([workflow.0, below], read)?.collect()
        })
    }

    fn latest_results(&mut self, query: &Query) -> Result<(Vec<CatalogRow>, u64), StoreError> {
        self.snapshot(|db| List::new(Of::LatestResults, query).read(db, query.table))
    }

    fn job_names(&mut self, ids: &[JobId]) -> Result<Vec<(JobId, Box<str>)>, StoreError> {
        self.snapshot(|db| {
            let mut name = sql::JOB_NAME.on(db)?;
            let read = |row: &Row| Ok(Box::from(row.get_ref(0)?.as_str()?));
            found(ids, |id| Ok(name.query_row([id.0], read).optional()?.map(|name| (*id, name))))
        })
    }
}

/// What is there of these, in their order.
fn found<I, T>(ids: &[I], mut find: impl FnMut(&I) -> rusqlite::Result<Option<T>>) -> rusqlite::Result<Vec<T>> {
    ids.iter().filter_map(|id| find(id).transpose()).collect()
}

/// All rows that a statement gives for a workflow.
fn all<T>(
    db: &Connection,
    sql: sql::Sql,
    workflow: WorkflowId,
    read: impl FnMut(&Row) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    sql.on(db)?.query_map([workflow.0], read)?.collect()
}

/// Rows after a key: first the rest of its priority, then the lower ones.
fn page(
    db: &Connection,
    lane: LaneId,
    after: Option<OrderKey>,
    limit: u32,
    payload_max: u32,
) -> rusqlite::Result<Vec<(JobRow, Option<Payload>)>> {
    let read = |row: &Row| {
        let payload = row.get_ref(JOB_COLUMNS)?.as_blob_or_null()?.map(Payload::from);
        Ok((encode::job_row(row)?, payload))
    };
    let Some(after) = after else {
        let mut page = sql::PAGE.on(db)?;
        return page.query_map([lane.0, payload_max.into(), limit.into()], read)?.collect();
    };
    let (priority, id) = (after.priority(), after.id().0);
    let mut same = sql::PAGE_SAME.on(db)?;
    let mut rows: Vec<_> = same
        .query_map([lane.0, payload_max.into(), limit.into(), priority, id], read)?
        .collect::<rusqlite::Result<_>>()?;
    let left = i64::from(limit) - rows.len() as i64;
    if left > 0 {
        let mut below = sql::PAGE_BELOW.on(db)?;
        for row in below.query_map([lane.0, payload_max.into(), left, priority], read)? {
            rows.push(row?);
        }
    }
    Ok(rows)
}

/// Moments after one, or from the first: the rest of its time, then the later ones.
fn moments(db: &Connection, after: Option<Moment>, limit: u32) -> rusqlite::Result<Vec<Moment>> {
    let read = |row: &Row| Ok(Moment { at: Timestamp(row.get(0)?), job: JobId(row.get(1)?) });
    // Nothing is due before the beginning of time.
    let Moment { at, job } = after.unwrap_or(Moment { at: Timestamp(i64::MIN), job: JobId(i64::MAX) });
    let mut same = sql::DUE_SAME.on(db)?;
    let mut found: Vec<Moment> = same.query_map([limit.into(), at.0, job.0], read)?.collect::<rusqlite::Result<_>>()?;
    let left = i64::from(limit) - found.len() as i64;
    if left > 0 {
        for moment in sql::DUE_AFTER.on(db)?.query_map([left, at.0], read)? {
            found.push(moment?);
        }
    }
    Ok(found)
}

/// The first job of a creation that is not over: from there on none is there for anybody.
fn hidden_from(db: &Connection, workflow: WorkflowId) -> rusqlite::Result<Option<JobId>> {
    let from = sql::HIDDEN_FROM.on(db)?.query_row([workflow.0], |row| row.get::<_, Option<i64>>(0)).optional()?;
    Ok(from.flatten().map(JobId))
}

fn dependents(db: &Connection, job: JobId, after: Option<JobId>, limit: u32) -> rusqlite::Result<Dependents> {
    let of = sql::JOB.on(db)?.query_row([job.0], encode::job_row).optional()?;
    let after = after.map_or(i64::MIN, |after| after.0);
    let mut waiting = sql::DEPENDENTS.on(db)?;
    let waiting = waiting.query_map([job.0, after, limit.into()], encode::job_row)?;
    let mut states = sql::PREREQUISITE_STATES.on(db)?;
    let mut rows = Vec::new();
    for row in waiting {
        let row = row?;
        let state = |row: &Row| Ok((JobId(row.get(0)?), encode::state(row, 1)?));
        let on = states.query_map([row.workflow.0, row.id.0], state)?.collect::<Result<_, _>>()?;
        rows.push((row, on));
    }
    Ok(Dependents { of, rows })
}

fn workflow(db: &Connection, id: WorkflowId) -> rusqlite::Result<Option<WorkflowRow>> {
    sql::WORKFLOW.on(db)?.query_row([id.0], encode::workflow_row).optional()
}

fn workflow_rows(db: &Connection, id: WorkflowId) -> rusqlite::Result<Option<WorkflowRows>> {
    let Some(row) = workflow(db, id)? else { return Ok(None) };
    let needs = |row: &Row| {
        let needs = Needs {
            cpus: row.get(1)?,
            memory_bytes: row.get(2)?,
            gpus: row.get(3)?,
            nodes: row.get(4)?,
            runtime_seconds: row.get(5)?,
        };
        Ok((RequirementId(row.get(0)?), needs))
    };
    Ok(Some(WorkflowRows {
        row,
        requirements: all(db, sql::WORKFLOW_NEEDS, id, needs)?,
        lanes: all(db, sql::WORKFLOW_LANES, id, |row| Ok((encode::lane_row(id, row)?, row.get(4)?)))?,
        lane_states: all(db, sql::WORKFLOW_LANE_STATES, id, |row| {
            Ok(LaneState { lane: LaneId(row.get(0)?), held: row.get(1)?, paused: row.get(2)? })
        })?,
    }))
}

fn graph(db: &Connection, id: WorkflowId) -> rusqlite::Result<GraphRows> {
    let pair = |row: &Row| Ok((JobId(row.get(0)?), JobId(row.get(1)?)));
    let mut implied = all(db, sql::WORKFLOW_IMPLIED, id, pair)?;
    implied.sort_unstable();
    implied.dedup();
    Ok(GraphRows {
        jobs: all(db, sql::WORKFLOW_JOBS, id, encode::job_row)?,
        edges: Edges {
            direct: all(db, sql::WORKFLOW_EDGES, id, pair)?,
            barriers: all(db, sql::WORKFLOW_BARRIERS, id, |row| Ok((BarrierId(row.get(0)?), JobId(row.get(1)?))))?,
            members: all(db, sql::WORKFLOW_MEMBERS, id, |row| Ok((JobId(row.get(0)?), BarrierId(row.get(1)?))))?,
        },
        implied,
    })
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::SqliteStore;

    #[test]
    fn a_statement_is_prepared_once_whatever_it_is_asked_about() {
        let store = SqliteStore::open(":memory:", Options::default()).expect("a database");
        let reader = store.reader().expect("a reader");
        let mut named = sql::TASK_NAMED.on(&reader.db).expect("it is known");
        // The first workflow is number 1, of which SQLite thinks that it may be in most rows.
        for name in ["a", "b", "c"] {
            assert!(!named.exists((1, name)).expect("a search"));
        }
        assert_eq!(named.get_status(StatementStatus::RePrepare), 0);
    }
}
