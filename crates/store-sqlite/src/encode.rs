//! Rows as the domain has them, from and to columns.

use forebay_domain::batch::{LaneRow, LeaseRow, March, WorkflowRow};
use forebay_domain::catalog::{Kind, Row as CatalogRow, Table, Value};
use forebay_domain::ids::{Grant, JobId, LaneId, NodeId, RequirementId, ResultId, SchedulerId, Timestamp, WorkflowId};
use forebay_domain::job::{JobFlags, JobRow, RelationKind};
use forebay_domain::lane::LabelSet;
use forebay_domain::policy::{Policy, Tries};
use forebay_domain::state::{JobState, STATES};
use rusqlite::types::{ToSqlOutput, Type, ValueRef};
use rusqlite::{Row, ToSql};

/// How many columns the hot row of a job has: what follows it in a list begins here.
pub(crate) const JOB_COLUMNS: usize = 15;

pub(crate) fn job_row(row: &Row) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        id: JobId(row.get(0)?),
        workflow: WorkflowId(row.get(1)?),
        lane: LaneId(row.get(2)?),
        state: state(row, 3)?,
        priority: row.get(4)?,
        attempt: row.get(5)?,
        flags: JobFlags(row.get(6)?),
        node: row.get::<_, Option<i64>>(7)?.map(NodeId),
        grant: Grant(row.get(8)?),
        started_at: row.get::<_, Option<i64>>(9)?.map(Timestamp),
        due_at: row.get::<_, Option<i64>>(10)?.map(Timestamp),
        result: row.get::<_, Option<i64>>(11)?.map(ResultId),
        tries: Tries::from_number(row.get(12)?).ok_or_else(|| unreadable(12, "not a number of tries"))?,
        policy: match row.get_ref(13)? {
            ValueRef::Null => None,
            bytes => Some(Policy::from_bytes(bytes.as_blob()?).ok_or_else(|| unreadable(13, "not a policy"))?),
        },
        expires_at: row.get::<_, Option<i64>>(14)?.map(Timestamp),
    })
}

pub(crate) fn state(row: &Row, column: usize) -> rusqlite::Result<JobState> {
    JobState::from_number(row.get(column)?).ok_or_else(|| unreadable(column, "no job state has this number"))
}

pub(crate) fn workflow_row(row: &Row) -> rusqlite::Result<WorkflowRow> {
    let mut counts = [0; STATES];
    for (state, count) in counts.iter_mut().enumerate() {
        *count = row.get(12 + state)?;
    }
    Ok(WorkflowRow {
        id: WorkflowId(row.get(0)?),
        run: row.get(1)?,
        canceled: row.get(2)?,
        archived: row.get(3)?,
        endless: row.get(9)?,
        paused: row.get(10)?,
        has_edges: row.get(4)?,
        default_requirement: RequirementId(row.get(5)?),
        march: march(row)?,
        graph_bytes: row.get(8)?,
        lanes: row.get(11)?,
        counts,
    })
}

fn march(row: &Row) -> rusqlite::Result<Option<March>> {
    Ok(match row.get::<_, Option<i64>>(6)? {
        None => None,
        Some(number @ (1 | 2)) => Some(March::Initialize { only_drafts: number == 2, done: row.get(7)? }),
        Some(number @ (3 | 4)) => Some(March::Reset { failed_only: number == 4, done: row.get(7)? }),
        Some(5) => Some(March::Delete),
        Some(6) => Some(March::Create { from: JobId(row.get(7)?) }),
        Some(7) => Some(March::Release { job: JobId(row.get(7)?) }),
        Some(_) => return Err(unreadable(6, "no march has this number")),
    })
}

/// The number of a march, and where it is.
pub(crate) fn march_numbers(march: Option<March>) -> [Option<i64>; 2] {
    match march {
        None => [None, None],
        Some(March::Initialize { only_drafts, done }) => [Some(1 + i64::from(only_drafts)), Some(done.into())],
        Some(March::Reset { failed_only, done }) => [Some(3 + i64::from(failed_only)), Some(done.into())],
        Some(March::Delete) => [Some(5), None],
        Some(March::Create { from }) => [Some(6), Some(from.0)],
        Some(March::Release { job }) => [Some(7), Some(job.0)],
    }
}

/// From (workflow, node, length).
pub(crate) fn lease_row(row: &Row) -> rusqlite::Result<LeaseRow> {
    Ok(LeaseRow { workflow: WorkflowId(row.get(0)?), node: NodeId(row.get(1)?), lease_ms: row.get(2)? })
}

/// From (id, requirement, labels, scheduler).
pub(crate) fn lane_row(workflow: WorkflowId, row: &Row) -> rusqlite::Result<LaneRow> {
    Ok(LaneRow {
        id: LaneId(row.get(0)?),
        workflow,
        requirement: RequirementId(row.get(1)?),
        labels: labels(2, row.get_ref(2)?.as_str()?)?,
        scheduler: row.get::<_, Option<i64>>(3)?.map(SchedulerId),
    })
}

fn labels(column: usize, text: &str) -> rusqlite::Result<LabelSet> {
    let labels: Vec<Box<str>> = serde_json::from_str(text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))?;
    Ok(LabelSet::new(labels))
}

/// As a JSON array.
pub(crate) fn labels_text(labels: &LabelSet) -> String {
    serde_json::to_string(&labels.iter().collect::<Vec<_>>()).expect("a list of strings can be written as JSON")
}

pub(crate) fn relation_kind(column: usize, number: i64) -> rusqlite::Result<RelationKind> {
    const KINDS: [RelationKind; 4] =
        [RelationKind::InputFile, RelationKind::OutputFile, RelationKind::InputUserData, RelationKind::OutputUserData];
    let kind = KINDS.into_iter().find(|kind| *kind as i64 == number);
    kind.ok_or_else(|| unreadable(column, "no relation kind has this number"))
}

/// All columns of a catalog table, in their order.
pub(crate) fn catalog_row(table: Table, row: &Row) -> rusqlite::Result<CatalogRow> {
    table
        .columns()
        .iter()
        .enumerate()
        .map(|(place, column)| {
            Ok(match (row.get_ref(place)?, column.kind) {
                (ValueRef::Null, _) => Value::Null,
                (ValueRef::Integer(value), Kind::Int) => Value::Int(value),
                (ValueRef::Real(value), Kind::Real) => Value::Real(value),
                (value @ ValueRef::Text(_), Kind::Text) => Value::Text(value.as_str()?.into()),
                (ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Text(_) | ValueRef::Blob(_), _) => {
                    return Err(unreadable(place, "a value of another type than its column"));
                }
            })
        })
        .collect()
}

/// A catalog value on its way into a statement.
pub(crate) struct Cell<'a>(pub &'a Value);

impl ToSql for Cell<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Real(value) => ValueRef::Real(*value),
            Value::Text(value) => ValueRef::Text(value.as_bytes()),
        }))
    }
}

/// A value that this program cannot have written.
pub(crate) fn unreadable(column: usize, what: &'static str) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, what.into())
}
