//! A batch, applied within a transaction in the order that its description gives.

use std::collections::HashMap;

use forebay_domain::batch::{Batch, Extent, JobWrite, LaneState, LeaseRow, Outcomes};
use forebay_domain::catalog::{Row, Statement, StatementOutcome, TABLES, Table};
use forebay_domain::graph::Edges;
use forebay_domain::ids::{JobId, WorkflowId};
use forebay_domain::job::RelationKind;
use forebay_domain::policy::Policy;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use crate::catalog;
use crate::encode::{self, Cell};
use crate::error::is_refusal;
use crate::names::{GoneNames, Name, NamesChange};
use crate::sql::{self, TOGETHER};

/// What it does to the names of jobs that are over is for when it is committed.
pub(crate) fn apply(db: &Connection, batch: &Batch, gone: &GoneNames) -> rusqlite::Result<(Outcomes, NamesChange)> {
    let mut names = NamesChange::default();
    sequences(db, batch)?;
    workflows(db, batch)?;
    lanes(db, batch)?;
    lane_states(db, &batch.lane_states)?;
    requirements(db, batch)?;
    jobs(db, &batch.jobs)?;
    details(db, batch, gone, &mut names)?;
    edges_and_relations(db, batch)?;
    leases(db, &batch.leases)?;
    appends(db, &batch.appends)?;
    let outcomes =
        batch.statements.iter().map(|statement| execute(db, statement)).collect::<rusqlite::Result<Outcomes>>()?;
    for job in &batch.jobs_deleted {
        delete_job(db, *job)?;
    }
    gone.pass(db, &mut names, batch.lsn.0.cast_signed(), over(db, &batch.jobs_over)?)?;
    for workflow in &batch.workflows_deleted {
        delete_workflow(db, *workflow)?;
    }
    Ok((outcomes, names))
}

fn sequences(db: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    for (sequence, next) in &batch.sequences {
        sql::PUT_SEQUENCE.on(db)?.execute(params![sequence.name(), next])?;
    }
    Ok(())
}

fn workflows(db: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    if batch.workflows.is_empty() {
        return Ok(());
    }
    let mut put = sql::PUT_WORKFLOW.on(db)?;
    for row in &batch.workflows {
        let [march, march_from] = encode::march_numbers(row.march);
        let facts = [
            Some(row.id.0),
            Some(row.run),
            Some(i64::from(row.canceled)),
            Some(i64::from(row.archived)),
            Some(i64::from(row.has_edges)),
            Some(row.default_requirement.0),
            march,
            march_from,
            Some(row.graph_bytes),
            Some(i64::from(row.endless)),
            Some(i64::from(row.paused)),
            Some(row.lanes),
        ];
        put.execute(params_from_iter(facts.into_iter().chain(row.counts.map(Some))))?;
    }
    Ok(())
}

fn lanes(db: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    for lane in &batch.lanes {
        sql::NEW_LANE.on(db)?.execute(params![
            lane.id.0,
            lane.workflow.0,
            lane.requirement.0,
            encode::labels_text(&lane.labels),
            lane.scheduler.map(|scheduler| scheduler.0),
        ])?;
    }
    Ok(())
}

fn lane_states(db: &Connection, states: &[LaneState]) -> rusqlite::Result<()> {
    for state in states {
        sql::PUT_LANE_STATE.on(db)?.execute([state.lane.0, state.held, i64::from(state.paused)])?;
    }
    Ok(())
}

fn requirements(db: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    for (workflow, requirement, needs) in &batch.requirements {
        sql::PUT_NEEDS.on(db)?.execute([
            workflow.0,
            requirement.0,
            needs.cpus,
            needs.memory_bytes,
            needs.gpus,
            needs.nodes,
            needs.runtime_seconds,
        ])?;
    }
    Ok(())
}

fn jobs(db: &Connection, writes: &[JobWrite]) -> rusqlite::Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    let (mut step, mut node, mut set) = (sql::STEP_JOB.on(db)?, sql::NODE_JOB.on(db)?, sql::SET_JOB.on(db)?);
    for alike in writes.chunk_by(|one, next| one.extent == next.extent) {
        let statement = match alike[0].extent {
            Extent::Step => &mut step,
            Extent::Node => &mut node,
            Extent::Whole => &mut set,
            Extent::New => {
                new_jobs(db, alike)?;
                continue;
            }
        };
        for write in alike {
            bind_job(statement, 0, write)?;
            if statement.raw_execute()? != 1 {
                return Err(no_such_job(write.row.id));
            }
        }
    }
    Ok(())
}

fn new_jobs(db: &Connection, writes: &[JobWrite]) -> rusqlite::Result<()> {
    let (together, rest) = writes.as_chunks::<TOGETHER>();
    if !together.is_empty() {
        let mut insert = sql::NEW_JOBS.on(db)?;
        for writes in together {
            for (row, write) in writes.iter().enumerate() {
                bind_job(&mut insert, row * NEW_JOB_COLUMNS, write)?;
            }
            insert.raw_execute()?;
        }
    }
    let mut insert = sql::NEW_JOB.on(db)?;
    for write in rest {
        bind_job(&mut insert, 0, write)?;
        insert.raw_execute()?;
    }
    Ok(())
}

const NEW_JOB_COLUMNS: usize = 16;

/// Gives a statement what it writes of a job, behind so many places.
fn bind_job(statement: &mut rusqlite::Statement<'_>, behind: usize, write: &JobWrite) -> rusqlite::Result<()> {
    let JobWrite { row, extent } = write;
    statement.raw_bind_parameter(behind + 1, row.id.0)?;
    statement.raw_bind_parameter(behind + 2, row.state.number())?;
    statement.raw_bind_parameter(behind + 3, row.attempt)?;
    statement.raw_bind_parameter(behind + 4, row.flags.0)?;
    statement.raw_bind_parameter(behind + 5, row.grant.0)?;
    statement.raw_bind_parameter(behind + 6, row.started_at.map(|at| at.0))?;
    statement.raw_bind_parameter(behind + 7, row.due_at.map(|at| at.0))?;
    statement.raw_bind_parameter(behind + 8, row.result.map(|result| result.0))?;
    statement.raw_bind_parameter(behind + 9, row.tries.number())?;
    if *extent >= Extent::Node {
        statement.raw_bind_parameter(behind + 10, row.node.map(|node| node.0))?;
    }
    if *extent >= Extent::Whole {
        statement.raw_bind_parameter(behind + 11, row.lane.0)?;
        statement.raw_bind_parameter(behind + 12, row.priority)?;
        statement.raw_bind_parameter(behind + 13, row.timer().map(|at| at.0))?;
        statement.raw_bind_parameter(behind + 14, row.expires_at.map(|at| at.0))?;
    }
    if *extent == Extent::New {
        statement.raw_bind_parameter(behind + 15, row.policy.map(Policy::to_bytes))?;
        statement.raw_bind_parameter(behind + 16, row.workflow.0)?;
    }
    Ok(())
}

fn details(db: &Connection, batch: &Batch, gone: &GoneNames, names: &mut NamesChange) -> rusqlite::Result<()> {
    if batch.details.is_empty() {
        return Ok(());
    }
    let (mut new, mut put, mut name) = (sql::NEW_DETAIL.on(db)?, sql::PUT_DETAIL.on(db)?, sql::NEW_NAME.on(db)?);
    // Those of new jobs come in the order of these; where one does not, nothing is lost but time.
    let mut created =
        batch.jobs.iter().filter(|write| write.extent == Extent::New).map(|write| write.row.id).peekable();
    for detail in &batch.details {
        let is_new = created.next_if_eq(&detail.job).is_some();
        gone.clear(db, names, detail.workflow.0, &detail.name)?;
        if !is_new {
            // It may have been called otherwise.
            sql::DELETE_JOB_NAME.on(db)?.execute([detail.workflow.0, detail.job.0])?;
        }
        let statement = if is_new { &mut new } else { &mut put };
        statement.execute(params![detail.job.0, detail.workflow.0, detail.name, &*detail.payload])?;
        name.execute(params![detail.workflow.0, detail.name, detail.job.0])?;
    }
    Ok(())
}

fn edges_and_relations(db: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    if batch.edges_cut.is_empty() && batch.edges == Edges::default() && batch.relations.is_empty() {
        return Ok(());
    }
    let mut workflows: HashMap<JobId, WorkflowId> =
        batch.jobs.iter().map(|write| (write.row.id, write.row.workflow)).collect();
    let mut find = sql::WORKFLOW_OF_JOB.on(db)?;
    let mut workflow_of = |job: JobId| -> rusqlite::Result<i64> {
        if let Some(workflow) = workflows.get(&job) {
            return Ok(workflow.0);
        }
        let found = find.query_row([job.0], |row| row.get(0)).optional()?.ok_or_else(|| no_such_job(job))?;
        workflows.insert(job, WorkflowId(found));
        Ok(found)
    };
    for job in &batch.edges_cut {
        let workflow = workflow_of(*job)?;
        sql::DELETE_JOB_PREREQUISITES.on(db)?.execute([workflow, job.0])?;
        leave_barrier(db, workflow, *job)?;
    }
    let mut new_edge = sql::NEW_EDGE.on(db)?;
    for (job, on) in &batch.edges.direct {
        new_edge.execute([workflow_of(*job)?, job.0, on.0])?;
    }
    let mut new_barrier = sql::NEW_BARRIER.on(db)?;
    for (barrier, on) in &batch.edges.barriers {
        new_barrier.execute([workflow_of(*on)?, barrier.0, on.0])?;
    }
    let mut new_member = sql::NEW_MEMBER.on(db)?;
    for (job, barrier) in &batch.edges.members {
        new_member.execute([workflow_of(*job)?, job.0, barrier.0])?;
    }
    let mut new_relation = sql::NEW_RELATION.on(db)?;
    for (job, kind, item) in &batch.relations {
        new_relation.execute([workflow_of(*job)?, job.0, *kind as i64, *item])?;
    }
    Ok(())
}

fn leases(db: &Connection, leases: &[(LeaseRow, bool)]) -> rusqlite::Result<()> {
    for (lease, begins) in leases {
        if *begins {
            sql::NEW_LEASE.on(db)?.execute([lease.workflow.0, lease.node.0, lease.lease_ms])?;
        } else {
            sql::DELETE_LEASE.on(db)?.execute([lease.workflow.0, lease.node.0])?;
        }
    }
    Ok(())
}

/// Rows of a table mostly follow each other.
fn appends(db: &Connection, appends: &[(Table, Row)]) -> rusqlite::Result<()> {
    for rows in appends.chunk_by(|(before, _), (after, _)| before == after) {
        let table = rows[0].0;
        let (together, rest) = rows.as_chunks::<TOGETHER>();
        if !together.is_empty() {
            let mut insert = db.prepare_cached(catalog::insert_together(table))?;
            for rows in together {
                insert.execute(params_from_iter(rows.iter().flat_map(|(_, row)| row.iter().map(Cell))))?;
            }
        }
        let mut insert = db.prepare_cached(catalog::insert(table))?;
        for (_, row) in rest {
            insert.execute(params_from_iter(row.iter().map(Cell)))?;
        }
    }
    Ok(())
}

fn execute(db: &Connection, statement: &Statement) -> rusqlite::Result<StatementOutcome> {
    let done = match statement {
        // One row goes in whole or not at all; SQLite sees to it.
        Statement::Insert { table, rows } if rows.len() == 1 => insert(db, *table, rows),
        Statement::Insert { table, rows } => in_savepoint(db, || insert(db, *table, rows)),
        Statement::Update { table, id, only_if, set } => catalog::update(db, *table, *id, only_if, set),
        Statement::Delete { table, id } => {
            for kind in ties(*table) {
                sql::DELETE_TIES.on(db)?.execute([kind, *id])?;
            }
            catalog::delete(db, *table, *id)
        }
        Statement::DeleteAll { table, workflow } => {
            for kind in ties(*table) {
                sql::DELETE_WORKFLOW_TIES.on(db)?.execute([workflow.0, kind])?;
            }
            let gone = db.prepare_cached(catalog::delete_all(*table))?.execute([workflow.0])?;
            Ok(StatementOutcome::Count(gone as u64))
        }
    };
    match done {
        Err(error) if is_refusal(&error) => Ok(StatementOutcome::Refused(error.to_string().into())),
        done => done,
    }
}

/// How jobs are tied to rows of a table.
fn ties(table: Table) -> impl Iterator<Item = i64> {
    RelationKind::of(table).iter().map(|kind| *kind as i64)
}

fn insert(db: &Connection, table: Table, rows: &[Row]) -> rusqlite::Result<StatementOutcome> {
    let columns = table.columns().len();
    let mut insert = db.prepare_cached(catalog::insert(table))?;
    for row in rows {
        if row.len() != columns {
            let why = format!("{} has {columns} columns, not {}", table.name(), row.len());
            return Ok(StatementOutcome::Refused(why.into()));
        }
        insert.execute(params_from_iter(row.iter().map(Cell)))?;
    }
    Ok(StatementOutcome::Inserted)
}

fn in_savepoint(
    db: &Connection,
    work: impl FnOnce() -> rusqlite::Result<StatementOutcome>,
) -> rusqlite::Result<StatementOutcome> {
    sql::SAVEPOINT.on(db)?.execute([])?;
    let done = work();
    if !matches!(done, Ok(StatementOutcome::Inserted)) {
        // If this fails as well, the whole transaction is to be taken back, for the first reason.
        if let (Err(error), Ok(_)) = (sql::ROLLBACK_TO.on(db)?.execute([]), &done) {
            return Err(error);
        }
    }
    sql::RELEASE.on(db)?.execute([])?;
    done
}

fn delete_job(db: &Connection, job: JobId) -> rusqlite::Result<()> {
    let workflow: Option<i64> = sql::WORKFLOW_OF_JOB.on(db)?.query_row([job.0], |row| row.get(0)).optional()?;
    let Some(workflow) = workflow else { return Ok(()) };
    for delete in [
        sql::DELETE_JOB_PREREQUISITES,
        sql::DELETE_JOB_DEPENDENTS,
        sql::DELETE_BARRIER_PREREQUISITE,
        sql::DELETE_JOB_RELATIONS,
        sql::DELETE_JOB_RESULTS,
        sql::DELETE_JOB_NAME,
        sql::DELETE_JOB_DETAIL,
        sql::DELETE_JOB,
    ] {
        delete.on(db)?.execute([workflow, job.0])?;
    }
    leave_barrier(db, workflow, job)
}

/// A job waits at no barrier any more; one at which nobody waits goes.
fn leave_barrier(db: &Connection, workflow: i64, job: JobId) -> rusqlite::Result<()> {
    let left: Option<i64> = sql::DELETE_MEMBER.on(db)?.query_row([workflow, job.0], |row| row.get(0)).optional()?;
    if let Some(barrier) = left {
        sql::DELETE_LEFT_BARRIER.on(db)?.execute([workflow, barrier])?;
    }
    Ok(())
}

/// Nothing hangs on them but what was written once. Their names stay.
fn over(db: &Connection, jobs: &[JobId]) -> rusqlite::Result<Vec<Name>> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let mut names = Vec::with_capacity(jobs.len());
    let (mut name, mut job) = (sql::OVER_NAME.on(db)?, sql::DELETE_OVER.on(db)?);
    let mut detail = sql::DELETE_OVER_DETAIL.on(db)?;
    for JobId(id) in jobs {
        let named = name.query_row([id], |row| Ok(Name::new(row.get(0)?, row.get_ref(1)?.as_str()?, *id)));
        names.extend(named.optional()?);
        job.execute([id])?;
        detail.execute([id])?;
    }
    Ok(names)
}

/// It is gone for everybody at once; its many rows go with `bury`.
fn delete_workflow(db: &Connection, workflow: WorkflowId) -> rusqlite::Result<()> {
    for delete in [
        sql::DELETE_WORKFLOW_LEASES,
        sql::DELETE_WORKFLOW_LANE_STATES,
        sql::DELETE_WORKFLOW_LANES,
        sql::DELETE_WORKFLOW_NEEDS,
        sql::DELETE_WORKFLOW_STATE,
        sql::DOOM,
    ] {
        delete.on(db)?.execute([workflow.0])?;
    }
    for table in TABLES.into_iter().filter(|table| !matches!(table, Table::Event | Table::Result)) {
        db.prepare_cached(catalog::delete_all(table))?.execute([workflow.0])?;
    }
    Ok(())
}

/// Rows of deleted workflows that go with one commit: more would hold everybody up.
const BURIED_MAX: usize = 1000;

/// Removes some of what deleted workflows left; whether there may be more.
pub(crate) fn bury(db: &Connection) -> rusqlite::Result<bool> {
    let mut left = BURIED_MAX;
    while let Some(workflow) = sql::DOOMED.on(db)?.query_one([], |row| row.get::<_, Option<i64>>(0))? {
        let mut some = sql::SOME_JOBS.on(db)?;
        let jobs = some.query_map([workflow, left as i64], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
        for job in &jobs {
            for delete in [
                sql::DELETE_JOB_PREREQUISITES,
                sql::DELETE_JOB_RELATIONS,
                sql::DELETE_JOB_NAME,
                sql::DELETE_JOB_DETAIL,
                sql::DELETE_JOB,
            ] {
                delete.on(db)?.execute([workflow, *job])?;
            }
        }
        left -= jobs.len();
        for delete in [sql::DELETE_SOME_RESULTS, sql::DELETE_SOME_EVENTS] {
            left -= delete.on(db)?.execute([workflow, left as i64])?;
        }
        if left == 0 {
            return Ok(true);
        }
        sql::UNDOOM.on(db)?.execute([workflow])?;
    }
    Ok(false)
}

/// A batch names a job that is not there: it is not one that a machine may make.
fn no_such_job(job: JobId) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(format!("job {job} is to be changed, but is not there").into())
}
