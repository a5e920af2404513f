//! What every store must do, as checks that are run on each of them.

mod catalog;
mod jobs;
mod random;

use std::num::NonZeroU16;

use forebay_domain::batch::{Batch, Extent, JobDetail, JobWrite, LaneRow, WorkflowRow};
use forebay_domain::catalog::{Kind, Row, Table, Value};
use forebay_domain::claim::Needs;
use forebay_domain::ids::{Grant, JobId, LaneId, Lsn, RequirementId, WorkflowId};
use forebay_domain::job::{JobFlags, JobRow};
use forebay_domain::lane::LabelSet;
use forebay_domain::policy::{Backoff, OnEnd, Policy, Tries};
use forebay_domain::port::{Read, Reader, Rows, Store};
use forebay_domain::state::JobState;

pub use random::differential;

/// An empty store, and what opens readers of it.
pub type Opened<S, R> = (S, Box<dyn Fn() -> R>);

/// Runs every check, each on a store of its own.
///
/// # Panics
/// If one fails: its name is in the message.
pub fn conformance<S: Store, R: Reader>(make: impl Fn() -> Opened<S, R>) {
    let checks = [jobs::checks::<S, R>(), catalog::checks::<S, R>()];
    for (name, check) in checks.into_iter().flatten() {
        let (store, open) = make();
        let reader = open();
        println!("conformance: {name}");
        check(&mut Bench { store, reader, lsn: Lsn::default() });
    }
}

type Check<S, R> = (&'static str, fn(&mut Bench<S, R>));

/// A store under test, a reader beside it, and the last batch's number.
struct Bench<S, R> {
    store: S,
    reader: R,
    lsn: Lsn,
}

impl<S: Store, R: Reader> Bench<S, R> {
    /// Commits it under the next number.
    fn commit(&mut self, batch: Batch) -> forebay_domain::batch::Outcomes {
        self.lsn = self.lsn.next();
        self.store.commit(&Batch { lsn: self.lsn, ..batch }).expect("a good batch commits")
    }

    fn read(&mut self, what: Read) -> Rows {
        let (lsn, rows) = self.reader.read(&what).expect("a read of a good store succeeds");
        assert_eq!(lsn, self.lsn, "a read says which batch is the last that it saw");
        rows
    }

    /// The ids of a page.
    fn page(&mut self, lane: LaneId, after: Option<&JobRow>, limit: u32) -> Vec<i64> {
        match self.read(Read::Page { lane, after: after.map(JobRow::key), limit, payload_max: 1 << 20 }) {
            Rows::Page(rows) => rows.iter().map(|(row, _)| row.id.0).collect(),
            other => panic!("a page was asked for: {other:?}"),
        }
    }
}

const W: WorkflowId = WorkflowId(1);
const LANE: LaneId = LaneId(1);

/// Workflow 1 with requirement 1 and lane 1, to build on.
fn ground() -> Batch {
    workflow_batch(1)
}

/// A workflow, a requirement and a lane, all of this number.
fn workflow_batch(number: i64) -> Batch {
    Batch {
        workflows: vec![workflow_row(number)],
        lanes: vec![lane_row(number, number)],
        requirements: vec![(WorkflowId(number), RequirementId(number), NEEDS)],
        statements: vec![
            insert(Table::Workflow, [row(Table::Workflow, number, number)]),
            insert(Table::Requirement, [row(Table::Requirement, number, number)]),
        ],
        ..Batch::default()
    }
}

const NEEDS: Needs = Needs { cpus: 3, memory_bytes: 1 << 40, gpus: 0, nodes: 1, runtime_seconds: 60 };

fn workflow_row(number: i64) -> WorkflowRow {
    WorkflowRow::new(WorkflowId(number), RequirementId(number))
}

fn lane_row(number: i64, workflow: i64) -> LaneRow {
    LaneRow {
        id: LaneId(number),
        workflow: WorkflowId(workflow),
        requirement: RequirementId(workflow),
        labels: LabelSet::default(),
        scheduler: None,
    }
}

/// A ready job of workflow 1 in lane 1.
fn job_row(id: i64, priority: i64) -> JobRow {
    JobRow {
        id: JobId(id),
        workflow: W,
        lane: LANE,
        state: JobState::Ready,
        priority,
        attempt: 1,
        flags: JobFlags::default(),
        node: None,
        grant: Grant(0),
        started_at: None,
        due_at: None,
        result: None,
        tries: Tries::default(),
        policy: None,
        expires_at: None,
    }
}

/// A policy that says something in each of its fields.
const POLICY: Policy = Policy {
    deadline_ms: 30_000,
    failures_max: NonZeroU16::new(3),
    losses_max: None,
    backoff: Backoff { base_ms: 100, cap_ms: 60_000, factor: 2, jitter_percent: 10 },
    at_most_once: true,
    on_end: OnEnd::DeadLetter,
};

/// New jobs, named `job-ID`, with their id as payload.
fn create(rows: impl IntoIterator<Item = JobRow>) -> Batch {
    let rows: Vec<JobRow> = rows.into_iter().collect();
    Batch {
        jobs: rows.iter().map(|&row| JobWrite { row, extent: Extent::New }).collect(),
        details: rows
            .iter()
            .map(|row| detail(row, &format!("job-{}", row.id), row.id.to_string().as_bytes()))
            .collect(),
        ..Batch::default()
    }
}

fn change(rows: impl IntoIterator<Item = JobRow>) -> Batch {
    Batch { jobs: rows.into_iter().map(|row| JobWrite { row, extent: Extent::Whole }).collect(), ..Batch::default() }
}

fn detail(row: &JobRow, name: &str, payload: &[u8]) -> JobDetail {
    JobDetail { job: row.id, workflow: row.workflow, name: name.into(), payload: payload.into() }
}

fn insert(table: Table, rows: impl IntoIterator<Item = Row>) -> forebay_domain::catalog::Statement {
    forebay_domain::catalog::Statement::Insert { table, rows: rows.into_iter().collect() }
}

/// A row of a table: numbers are its id times ten plus their place, texts name their column.
fn row(table: Table, id: i64, workflow: i64) -> Row {
    let value = |(place, column): (usize, &forebay_domain::catalog::Column)| match (place, column.kind) {
        (0, _) => Value::Int(id),
        (1, _) if table != Table::Workflow => Value::Int(workflow),
        _ if column.nullable && place % 2 == 0 => Value::Null,
        (_, Kind::Int) => Value::Int(id * 10 + place as i64),
        (_, Kind::Real) => Value::Real(id as f64 + 0.25),
        (_, Kind::Text) => Value::Text(format!("{} of {id}", column.name).into()),
    };
    table.columns().iter().enumerate().map(value).collect()
}

/// The same row with one column as given.
fn with(table: Table, mut row: Row, column: &str, value: Value) -> Row {
    row[place(table, column)] = value;
    row
}

fn place(table: Table, column: &str) -> usize {
    table.column(column).expect("a column of this table")
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

/// No ids.
const NONE: [i64; 0] = [];
