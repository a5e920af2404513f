//! Whether a database holds together: its pages, and what its rows say of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use forebay_domain::batch::Sequence;
use forebay_domain::catalog::TABLES;
use forebay_domain::state::{JobState, STATES};
use rusqlite::Connection;

use super::{TendError, reading};
use crate::error::OpenError;

/// Something that cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fault {
    /// SQLite finds its pages damaged.
    Damaged(String),
    /// The rows contradict each other.
    Wrong(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Damaged(what) => write!(f, "damaged: {what}"),
            Fault::Wrong(what) => write!(f, "wrong: {what}"),
        }
    }
}

/// Of one kind so many are named; the rest is counted.
const NAMED_MAX: usize = 10;

/// How many faults of its pages SQLite is asked for.
const DAMAGES_MAX: u32 = 100;

/// What must not be found, as (what it is, a statement that finds those that are so, with the workflow
/// of each).
const NOWHERE: &[(&str, &str)] = &[
    (
        "a job without its workflow",
        "SELECT j.id, j.workflow_id FROM job j LEFT JOIN workflow_state w ON w.id = j.workflow_id WHERE w.id IS NULL",
    ),
    (
        "a job whose lane is not one of its workflow",
        "SELECT j.id, j.workflow_id FROM job j LEFT JOIN lane l ON l.id = j.lane_id AND l.workflow_id = j.workflow_id \
         WHERE l.id IS NULL",
    ),
    (
        "a job without its name and payload",
        "SELECT j.id, j.workflow_id FROM job j LEFT JOIN job_detail d ON d.job_id = j.id AND d.workflow_id = j.workflow_id \
         WHERE d.job_id IS NULL",
    ),
    (
        "a name and payload without their job",
        "SELECT d.job_id, d.workflow_id FROM job_detail d LEFT JOIN job j ON j.id = d.job_id WHERE j.id IS NULL",
    ),
    (
        "a job that is not found by its name",
        "SELECT d.job_id, d.workflow_id FROM job_detail d \
         LEFT JOIN job_name n ON n.workflow_id = d.workflow_id AND n.name = d.name AND n.job_id = d.job_id \
         WHERE n.job_id IS NULL",
    ),
    (
        "a name that its job does not have",
        "SELECT n.job_id, n.workflow_id FROM job_name n \
         LEFT JOIN job_detail d ON d.job_id = n.job_id AND d.name = n.name AND d.workflow_id = n.workflow_id \
         WHERE d.job_id IS NULL \
         AND n.job_id NOT IN (SELECT gone.value ->> 2 FROM gone_names g, json_each(g.names) gone)",
    ),
    (
        "a job of a start that never was",
        "SELECT id, workflow_id FROM job WHERE grant_number >> 40 > (SELECT value FROM meta WHERE name = 'epoch')",
    ),
    (
        "a job whose latest outcome is not there",
        "SELECT j.id, j.workflow_id FROM job j LEFT JOIN result r ON r.id = j.result_id AND r.job_id = j.id \
         WHERE j.result_id IS NOT NULL AND r.id IS NULL",
    ),
    (
        "an outcome without its job",
        "SELECT r.id, r.workflow_id FROM result r LEFT JOIN job j ON j.id = r.job_id AND j.workflow_id = r.workflow_id \
         WHERE j.id IS NULL",
    ),
    (
        "a dependency of a job that is not there",
        "SELECT d.job_id, d.workflow_id FROM dependency d LEFT JOIN job j ON j.id = d.job_id AND j.workflow_id = d.workflow_id \
         WHERE j.id IS NULL",
    ),
    (
        "a dependency on a job that is not there",
        "SELECT d.job_id, d.workflow_id FROM dependency d LEFT JOIN job j ON j.id = d.depends_on AND j.workflow_id = d.workflow_id \
         WHERE j.id IS NULL",
    ),
    (
        "a job that waits at a barrier and is not there",
        "SELECT m.job_id, m.workflow_id FROM barrier_member m \
         LEFT JOIN job j ON j.id = m.job_id AND j.workflow_id = m.workflow_id WHERE j.id IS NULL",
    ),
    (
        "a barrier that waits for a job that is not there",
        "SELECT b.barrier_id, b.workflow_id FROM barrier b \
         LEFT JOIN job j ON j.id = b.depends_on AND j.workflow_id = b.workflow_id WHERE j.id IS NULL",
    ),
    (
        "a barrier at which no job waits",
        "SELECT b.barrier_id, b.workflow_id FROM barrier b \
         WHERE NOT EXISTS (SELECT 1 FROM barrier_member m WHERE m.barrier_id = b.barrier_id)",
    ),
    (
        "a tie to files or user data of a job that is not there",
        "SELECT r.job_id, r.workflow_id FROM relation r LEFT JOIN job j ON j.id = r.job_id WHERE j.id IS NULL",
    ),
    (
        "a lane without its workflow",
        "SELECT l.id, l.workflow_id FROM lane l LEFT JOIN workflow_state w ON w.id = l.workflow_id WHERE w.id IS NULL",
    ),
    (
        "a workflow that reserves other lanes than it has, or none though it is not complete",
        "SELECT w.id, w.id FROM workflow_state w LEFT JOIN \
         (SELECT workflow_id, count(*) AS lanes FROM lane GROUP BY workflow_id) l ON l.workflow_id = w.id \
         WHERE w.lanes <> CASE WHEN w.is_canceled = 0 AND (w.is_endless = 1 OR w.draft + w.blocked + w.ready \
         + w.claimed + w.running + w.pending_failed + w.scheduled > 0) THEN coalesce(l.lanes, 0) ELSE 0 END",
    ),
    (
        "a lane whose requirement nobody knows",
        "SELECT l.id, l.workflow_id FROM lane l LEFT JOIN requirement_needs n \
         ON n.workflow_id = l.workflow_id AND n.requirement_id = l.requirement_id WHERE n.requirement_id IS NULL",
    ),
    (
        "a lane that counts its held jobs otherwise than they are",
        "SELECT l.id, l.workflow_id FROM lane l JOIN workflow_state w ON w.id = l.workflow_id AND w.is_endless = 1 \
         LEFT JOIN lane_state s ON s.lane_id = l.id \
         LEFT JOIN (SELECT lane_id, count(*) AS jobs FROM job WHERE state IN (3, 4) GROUP BY lane_id) h \
         ON h.lane_id = l.id WHERE coalesce(s.held, 0) <> coalesce(h.jobs, 0)",
    ),
    (
        "a workflow that only the catalog knows",
        "SELECT w.id, w.id FROM workflow w LEFT JOIN workflow_state s ON s.id = w.id WHERE s.id IS NULL",
    ),
    (
        "a workflow that the catalog does not know",
        "SELECT s.id, s.id FROM workflow_state s LEFT JOIN workflow w ON w.id = s.id \
         WHERE w.id IS NULL AND s.is_endless = 0",
    ),
    (
        "an endless workflow that is of no application",
        "SELECT s.id, s.id FROM workflow_state s LEFT JOIN application a ON a.workflow_id = s.id \
         WHERE s.is_endless = 1 AND a.id IS NULL",
    ),
    (
        "an application without its workflow",
        "SELECT a.id, a.workflow_id FROM application a LEFT JOIN workflow_state s ON s.id = a.workflow_id \
         WHERE s.id IS NULL",
    ),
];

/// Looks through a whole database, served or not, in one snapshot: it takes as long as to read all of
/// it. An empty list is a good sign.
///
/// # Errors
/// If it cannot be opened or read.
pub fn check(path: impl AsRef<Path>) -> Result<Vec<Fault>, TendError> {
    let checked = reading(path.as_ref(), "it cannot be checked", |db| {
        let mut faults = damages(db)?;
        if faults.is_empty() {
            // On damaged pages these would only say so again, or nothing that is so.
            contradictions(db, &mut faults)?;
        }
        Ok(faults)
    });
    match checked {
        // Even what says where all else is.
        Err(TendError::Open(OpenError::Damaged { source, .. })) => Ok(vec![Fault::Damaged(source.to_string())]),
        checked => checked,
    }
}

fn damages(db: &Connection) -> rusqlite::Result<Vec<Fault>> {
    let mut check = db.prepare(&format!("PRAGMA integrity_check({DAMAGES_MAX})"))?;
    let found = check.query_map([], |row| row.get::<_, String>(0))?;
    let mut faults = Vec::new();
    for what in found {
        match what {
            Ok(what) if what == "ok" => {}
            Ok(what) => faults.push(Fault::Damaged(what)),
            // Too damaged to be looked through.
            Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseCorrupt) => {
                faults.push(Fault::Damaged(error.to_string()));
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(faults)
}

fn contradictions(db: &Connection, faults: &mut Vec<Fault>) -> rusqlite::Result<()> {
    let moving = moving(db)?;
    counts(db, &moving, faults)?;
    for (what, sql) in NOWHERE {
        let mut find = db.prepare(sql)?;
        let mut rows = find.query([])?;
        let mut ids = Vec::new();
        while let Some(row) = rows.next()? {
            if !moving.contains(&row.get(1)?) {
                ids.push(row.get(0)?);
            }
        }
        named(what, &ids, faults);
    }
    sequences(db, faults)
}

/// Workflows on the march, and deleted ones whose rows are not all gone: they agree at the end.
fn moving(db: &Connection) -> rusqlite::Result<BTreeSet<i64>> {
    let mut moving =
        db.prepare("SELECT id FROM workflow_state WHERE march > 0 UNION SELECT workflow_id FROM doomed")?;
    moving.query_map([], |row| row.get(0))?.collect()
}

/// The counters of each workflow against its jobs.
fn counts(db: &Connection, moving: &BTreeSet<i64>, faults: &mut Vec<Fault>) -> rusqlite::Result<()> {
    let mut counted: BTreeMap<i64, [i64; STATES]> = BTreeMap::new();
    let mut count = db.prepare("SELECT workflow_id, state, count(*) FROM job GROUP BY workflow_id, state")?;
    let mut rows = count.query([])?;
    while let Some(row) = rows.next()? {
        let (workflow, state, jobs) = (row.get(0)?, row.get::<_, i64>(1)?, row.get(2)?);
        match JobState::from_number(state) {
            Some(state) => counted.entry(workflow).or_insert([0; STATES])[state as usize] = jobs,
            None => faults.push(Fault::Wrong(format!("{jobs} jobs of workflow {workflow} are in state {state}"))),
        }
    }
    let mut workflows = db.prepare(crate::sql::WORKFLOWS)?;
    for workflow in workflows.query_map([], crate::encode::workflow_row)? {
        let workflow = workflow?;
        let counted = counted.get(&workflow.id.0).copied().unwrap_or([0; STATES]);
        if counted != workflow.counts && !moving.contains(&workflow.id.0) {
            let what = format!(
                "workflow {} counts its jobs by state as {:?}: they are {counted:?}",
                workflow.id, workflow.counts
            );
            faults.push(Fault::Wrong(what));
        }
    }
    Ok(())
}

/// No id that is in use may be given out again.
fn sequences(db: &Connection, faults: &mut Vec<Fault>) -> rusqlite::Result<()> {
    let of_rows = TABLES.map(|table| (Sequence::Row(table), table.name()));
    for (sequence, table) in [(Sequence::Job, "job"), (Sequence::Lane, "lane")].into_iter().chain(of_rows) {
        let last: Option<i64> = db.query_row(&format!("SELECT max(id) FROM {table}"), [], |row| row.get(0))?;
        let next: i64 = db.query_row(
            "SELECT coalesce((SELECT next FROM sequence WHERE name = ?1), 1)",
            [sequence.name()],
            |row| row.get(0),
        )?;
        if let Some(last) = last.filter(|last| *last >= next) {
            faults.push(Fault::Wrong(format!("{table} {last} is there, and {next} is to be the next one")));
        }
    }
    Ok(())
}

fn named(what: &str, ids: &[i64], faults: &mut Vec<Fault>) {
    faults.extend(ids.iter().take(NAMED_MAX).map(|id| Fault::Wrong(format!("{what}: {id}"))));
    if ids.len() > NAMED_MAX {
        faults.push(Fault::Wrong(format!("{what}: {} more", ids.len() - NAMED_MAX)));
    }
}
