//! What callers ask of the file, each in a transaction that it may share with others.

use std::fmt::Write;
use std::sync::Arc;

use forebay_flusher::Failure;
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension, Row, params};

use crate::conn::Conn;
use crate::error::{Severity, severity};
use crate::job::DEAD;
use crate::query::Compiled;
use crate::table::{Events, Table};
use crate::{CreateOptions, Error, Job, Json, Leased};

/// One call.
pub(crate) struct Op {
    pub(crate) queue: Arc<str>,
    pub(crate) ask: Ask,
}

pub(crate) enum Ask {
    Create { payload: Json, state: Json, options: CreateOptions },
    Get { id: i64 },
    Query { query: Arc<Compiled>, limit: Option<u64> },
    Poll { query: Arc<Compiled>, state: Json, limit: u32, lease_ms: Option<i64> },
    Cas { id: i64, old: Json, new: Json },
    Append { id: i64, event: Json, wants_job: bool },
    Delete { id: i64 },
    Renew { id: i64, attempt: i64, lease_ms: i64 },
    Finish { id: i64, attempt: i64, state: Json },
    CreateQueue { events: Events },
    DropQueue,
    Queues,
}

/// What an operation gives.
pub(crate) enum Given {
    Job(Job),
    /// A new job, without its payload and state, which the operation has.
    Created {
        id: i64,
        events: Json,
        modified: i64,
    },
    Jobs(Vec<Job>),
    Polled(Polled),
    /// What was asked for was not there.
    Nothing,
    Done,
    Names(Vec<String>),
}

/// The jobs of a poll, and when the next delay or lease ends.
pub(crate) struct Polled {
    pub(crate) jobs: Vec<Leased>,
    pub(crate) next_due_ms: Option<i64>,
}

pub(crate) type Answer = Result<Given, Error>;

/// A failure inside an operation.
enum Fault {
    Caller(Error),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sql(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Caller(error)
    }
}

/// How a failed statement ends: alone, or with its whole transaction.
pub(crate) fn sort(error: rusqlite::Error) -> Result<Answer, Failure> {
    match severity(&error) {
        Severity::Busy => Err(Failure::Busy(error.into())),
        Severity::Broken => Err(Failure::Broken(error.into())),
        Severity::Alone => Ok(Err(Error::from(error))),
    }
}

impl Op {
    /// The operation changes nothing that is stored.
    pub(crate) fn only_reads(&self) -> bool {
        match self.ask {
            Ask::Get { .. } | Ask::Query { .. } | Ask::Queues => true,
            Ask::Create { .. }
            | Ask::Poll { .. }
            | Ask::Cas { .. }
            | Ask::Append { .. }
            | Ask::Delete { .. }
            | Ask::Renew { .. }
            | Ask::Finish { .. }
            | Ask::CreateQueue { .. }
            | Ask::DropQueue => false,
        }
    }

    /// The operation is one statement, which is all or nothing without a transaction around it.
    pub(crate) fn is_one_statement(&self, conn: &mut Conn) -> bool {
        let Ok(Some(table)) = conn.table(&self.queue) else {
            return false;
        };
        match &self.ask {
            Ask::Get { .. } | Ask::Query { .. } => true,
            Ask::Create { options, .. } => options.is_plain() && table.events == Events::Column,
            Ask::Append { wants_job, .. } => !wants_job && table.events == Events::Column,
            Ask::Renew { .. } => table.has_extras,
            Ask::Poll { .. }
            | Ask::Cas { .. }
            | Ask::Delete { .. }
            | Ask::Finish { .. }
            | Ask::CreateQueue { .. }
            | Ask::DropQueue
            | Ask::Queues => false,
        }
    }

    /// The operation writes with one statement at most, whatever it reads.
    pub(crate) fn is_one_write(&self, conn: &mut Conn) -> bool {
        let Ok(Some(table)) = conn.table(&self.queue) else {
            return false;
        };
        match &self.ask {
            Ask::Poll { limit: 1, lease_ms: None, .. } => !table.has_extras && table.events == Events::Column,
            Ask::Append { .. } | Ask::Cas { .. } => table.events == Events::Column,
            _ => self.is_one_statement(conn),
        }
    }

    /// Completes a new job with what was given for it.
    pub(crate) fn complete(self, given: Given) -> Given {
        match (given, self.ask) {
            (Given::Created { id, events, modified }, Ask::Create { payload, state, .. }) => {
                Given::Job(Job { id, payload, events, state, modified })
            }
            (given, _) => given,
        }
    }

    /// Carries the operation out at `now_ms`, milliseconds since 1970.
    pub(crate) fn apply(&self, conn: &mut Conn, now_ms: i64) -> Result<Answer, Failure> {
        match self.try_apply(conn, now_ms) {
            Ok(given) => Ok(Ok(given)),
            Err(Fault::Caller(error)) => Ok(Err(error)),
            Err(Fault::Sql(error)) => sort(error),
        }
    }

    fn try_apply(&self, conn: &mut Conn, now_ms: i64) -> Result<Given, Fault> {
        match &self.ask {
            Ask::CreateQueue { events } => {
                conn.create_queue(&self.queue, *events)?;
                return Ok(Given::Done);
            }
            Ask::DropQueue => {
                let was_there = conn.table(&self.queue)?.is_some();
                conn.drop_queue(&self.queue)?;
                return Ok(if was_there { Given::Done } else { Given::Nothing });
            }
            Ask::Queues => return Ok(Given::Names(conn.queues()?)),
            _ => {}
        }
        let Some(mut table) = conn.table(&self.queue)? else {
            return Err(Error::NoQueue(self.queue.to_string()).into());
        };
        if self.needs_extras() && !table.has_extras {
            conn.add_extras(&table)?;
            table = conn.table(&self.queue)?.expect("the table was there a moment ago");
        }
        let call = Call { conn, queue: &self.queue, table: &table, now_ms };
        match &self.ask {
            Ask::Create { payload, state, options } => call.create(payload, state, options),
            Ask::Get { id } => call.get(*id).map(Given::Job),
            Ask::Query { query, limit } => call.query(query, *limit),
            Ask::Poll { query, state, limit, lease_ms } => call.poll(query, state, *limit, *lease_ms),
            Ask::Cas { id, old, new } => call.cas(*id, old, new),
            Ask::Append { id, event, wants_job } => call.append(*id, event, *wants_job),
            Ask::Delete { id } => call.delete(*id),
            Ask::Renew { id, attempt, lease_ms } => call.renew(*id, *attempt, *lease_ms),
            Ask::Finish { id, attempt, state } => call.finish(*id, *attempt, state),
            Ask::CreateQueue { .. } | Ask::DropQueue | Ask::Queues => {
                unreachable!("answered above")
            }
        }
    }

    fn needs_extras(&self) -> bool {
        match &self.ask {
            Ask::Create { options, .. } => !options.is_plain(),
            Ask::Poll { lease_ms, .. } => lease_ms.is_some(),
            Ask::Renew { .. } | Ask::Finish { .. } => true,
            Ask::Get { .. }
            | Ask::Query { .. }
            | Ask::Cas { .. }
            | Ask::Append { .. }
            | Ask::Delete { .. }
            | Ask::CreateQueue { .. }
            | Ask::DropQueue
            | Ask::Queues => false,
        }
    }
}

/// An operation on its queue's table.
struct Call<'a> {
    conn: &'a mut Conn,
    queue: &'a Arc<str>,
    table: &'a Table,
    now_ms: i64,
}

/// What a job on lease is marked with, beside the state to go back to.
struct Lease {
    until_ms: i64,
    attempt: i64,
}

impl Call<'_> {
    /// Seconds since 1970, as jobs and events have them.
    fn now(&self) -> i64 {
        self.now_ms.div_euclid(1_000)
    }

    fn create(self, payload: &Json, state: &Json, options: &CreateOptions) -> Result<Given, Fault> {
        let modified = self.now();
        let mut events = String::with_capacity(64);
        write!(events, r#"[["job_created",{{"timestamp":"{modified}"}}]]"#).expect("a string takes any text");
        let logged = match self.table.events {
            Events::Column => Some(&events),
            Events::Table => None,
        };
        let mut insert = self.conn.prepare(&self.table.insert)?;
        match logged {
            Some(events) => insert.execute(params![payload.as_str(), state.as_str(), events, modified])?,
            None => {
                insert.raw_bind_parameter(1, payload.as_str())?;
                insert.raw_bind_parameter(2, state.as_str())?;
                insert.raw_bind_parameter(4, modified)?;
                insert.raw_execute()?
            }
        };
        let id = self.conn.db().last_insert_rowid();
        drop(insert);
        if logged.is_none() {
            self.log(id, &events[1..events.len() - 1])?;
        }
        if !options.is_plain() {
            let due = (options.delay_ms > 0).then(|| self.now_ms + options.delay_ms);
            let hidden = i64::from(due.is_some());
            let values = params![options.priority, hidden, due, options.retries, id];
            self.conn.prepare(&self.table.set_options)?.execute(values)?;
        }
        Ok(Given::Created { id, events: Json::from_trusted(events), modified })
    }

    fn get(&self, id: i64) -> Result<Job, Fault> {
        self.find_one(id)?.ok_or_else(|| Error::NoJob(id).into())
    }

    fn find_one(&self, id: i64) -> Result<Option<Job>, Fault> {
        let mut statement = self.conn.prepare(&self.table.get)?;
        Ok(statement.query_row([id], job_of).optional()?)
    }

    fn query(&self, query: &Compiled, limit: Option<u64>) -> Result<Given, Fault> {
        self.check(query)?;
        let mut statement = self.conn.prepare_query(&self.table.query(&query.sql, limit))?;
        let jobs = statement.query_map(rusqlite::params_from_iter(&query.values), job_of)?;
        Ok(Given::Jobs(jobs.collect::<Result<_, _>>()?))
    }

    fn poll(self, query: &Compiled, state: &Json, limit: u32, lease_ms: Option<i64>) -> Result<Given, Fault> {
        self.check(query)?;
        if self.table.has_extras {
            self.fire_timers()?;
        }
        if let Some(expression) = &query.index {
            self.conn.ensure_index(self.queue, self.table, expression)?;
        }
        let found = self.find(query, limit)?;
        let until_ms = lease_ms.map(|lease| self.now_ms.saturating_add(lease));
        let mut jobs = Vec::with_capacity(found.len());
        for (job, attempt) in found {
            let lease = until_ms.map(|until_ms| Lease { until_ms, attempt: attempt + 1 });
            let (attempt, until_ms) =
                lease.as_ref().map_or((attempt, i64::MAX), |lease| (lease.attempt, lease.until_ms));
            let job = self.advance(job, state, lease)?;
            jobs.push(Leased { job, attempt, until_ms });
        }
        let next_due_ms = if jobs.is_empty() && self.table.has_extras {
            self.conn.prepare(&self.table.next_due)?.query_row([], |row| row.get(0))?
        } else {
            None
        };
        Ok(Given::Polled(Polled { jobs, next_due_ms }))
    }

    /// The jobs that a poll takes, and how often each was leased.
    fn find(&self, query: &Compiled, limit: u32) -> Result<Vec<(Job, i64)>, Fault> {
        let mut statement = self.conn.prepare_query(&self.table.poll(&query.sql, limit))?;
        let mut rows = statement.query(rusqlite::params_from_iter(&query.values))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push((job_of(row)?, row.get(5)?));
        }
        Ok(found)
    }

    /// Moves a job to another state and logs it; on lease, or with any lease ended.
    fn advance(&self, mut job: Job, state: &Json, lease: Option<Lease>) -> Result<Job, Fault> {
        let now = self.now();
        let event = advanced(&job.state, state, now);
        job.events = appended(job.events, &event);
        let old = std::mem::replace(&mut job.state, state.clone());
        job.modified = now;
        let mut update = self.conn.prepare(&self.table.move_to)?;
        if self.table.events == Events::Column {
            update.raw_bind_parameter(1, job.events.as_str())?;
        }
        update.raw_bind_parameter(2, job.state.as_str())?;
        update.raw_bind_parameter(3, now)?;
        update.raw_bind_parameter(4, job.id)?;
        if let Some(Lease { until_ms, attempt }) = lease {
            update.raw_bind_parameter(5, until_ms)?;
            update.raw_bind_parameter(6, old.as_str())?;
            update.raw_bind_parameter(7, attempt)?;
        } else if self.table.has_extras {
            (5..=7).try_for_each(|n| update.raw_bind_parameter(n, rusqlite::types::Null))?;
        }
        update.raw_execute()?;
        drop(update);
        if self.table.events == Events::Table {
            self.log(job.id, &event)?;
        }
        Ok(job)
    }

    /// Shows the jobs whose delay is over, and takes those back whose lease is.
    fn fire_timers(&self) -> Result<(), Fault> {
        let mut statement = self.conn.prepare(&self.table.due)?;
        let due: Vec<(i64, Option<String>, i64, Option<i64>)> = statement
            .query_map([self.now_ms], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<Result<_, _>>()?;
        for (id, back, attempt, retries) in due {
            let Some(back) = back else {
                self.conn.prepare(&self.table.show)?.execute([id])?;
                continue;
            };
            let is_dead = retries.is_some_and(|retries| attempt > retries);
            let state = Json::from_trusted(if is_dead { DEAD.to_owned() } else { back });
            let job = self.get(id)?;
            self.advance(job, &state, None)?;
        }
        Ok(())
    }

    fn cas(self, id: i64, old: &Json, new: &Json) -> Result<Given, Fault> {
        match self.find_one(id)? {
            Some(job) if job.state == *old => self.advance(job, new, None).map(Given::Job),
            Some(_) | None => Ok(Given::Nothing),
        }
    }

    fn append(self, id: i64, event: &Json, wants_job: bool) -> Result<Given, Fault> {
        let now = self.now();
        let event = format!(r#"["user_event",{{"event":{event},"timestamp":"{now}"}}]"#);
        let mut update = self.conn.prepare(&self.table.append)?;
        if self.table.events == Events::Column {
            update.raw_bind_parameter(1, &event)?;
        }
        update.raw_bind_parameter(2, now)?;
        update.raw_bind_parameter(3, id)?;
        if update.raw_execute()? == 0 {
            return Err(Error::NoJob(id).into());
        }
        drop(update);
        if self.table.events == Events::Table {
            self.log(id, &event)?;
        }
        if wants_job { self.get(id).map(Given::Job) } else { Ok(Given::Done) }
    }

    fn finish(self, id: i64, attempt: i64, state: &Json) -> Result<Given, Fault> {
        let job = self.get(id)?;
        if !self.conn.prepare(&self.table.is_leased)?.exists([id, attempt])? {
            return Err(Error::LeaseEnded(id).into());
        }
        self.advance(job, state, None).map(Given::Job)
    }

    fn renew(self, id: i64, attempt: i64, lease_ms: i64) -> Result<Given, Fault> {
        let until = self.now_ms.saturating_add(lease_ms);
        if self.conn.prepare(&self.table.renew)?.execute([until, id, attempt])? == 0 {
            self.get(id)?;
            return Err(Error::LeaseEnded(id).into());
        }
        Ok(Given::Done)
    }

    fn delete(self, id: i64) -> Result<Given, Fault> {
        if self.table.events == Events::Table {
            self.conn.prepare(&self.table.drop_log)?.execute([id])?;
        }
        let deleted = self.conn.prepare(&self.table.delete)?.execute([id])?;
        Ok(if deleted == 0 { Given::Nothing } else { Given::Done })
    }

    /// Adds an event to the log in a table.
    fn log(&self, id: i64, event: &str) -> Result<(), Fault> {
        self.conn.prepare(&self.table.log)?.execute(params![id, event])?;
        Ok(())
    }

    /// A log in a table is not a column that a query can read.
    fn check(&self, query: &Compiled) -> Result<(), Fault> {
        if query.reads_events && self.table.events == Events::Table {
            return Err(Error::Query(crate::QueryError::events_in_a_table(&query.sql)).into());
        }
        Ok(())
    }
}

fn advanced(old: &Json, new: &Json, now: i64) -> String {
    format!(r#"["job_state_advanced",{{"old":{old},"new":{new},"timestamp":"{now}"}}]"#)
}

/// Adds an event to a log's text without parsing it.
fn appended(log: Json, event: &str) -> Json {
    let mut text = log.into_string();
    text.truncate(text.trim_end().len());
    match text.pop() {
        Some(']') => {}
        // What is not an array is not a log; keep it as the first of one.
        Some(other) => {
            text.push(other);
            text.insert(0, '[');
        }
        None => text.push('['),
    }
    if text.trim_end() != "[" {
        text.push(',');
    }
    text.push_str(event);
    text.push(']');
    Json::from_trusted(text)
}

fn job_of(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        id: row.get(0)?,
        payload: json_of(row.get_ref(1)?),
        events: json_of(row.get_ref(2)?),
        state: json_of(row.get_ref(3)?),
        modified: row.get::<_, Option<i64>>(4)?.unwrap_or(0),
    })
}

/// What a JSON column holds; other programs may have put in what is not text.
fn json_of(value: ValueRef<'_>) -> Json {
    Json::from_trusted(match value {
        ValueRef::Null => "null".to_owned(),
        ValueRef::Integer(integer) => integer.to_string(),
        ValueRef::Real(real) => real.to_string(),
        ValueRef::Text(text) | ValueRef::Blob(text) => String::from_utf8_lossy(text).into_owned(),
    })
}
