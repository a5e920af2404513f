//! Batches to fill a store with.

use forebay_domain::batch::{Batch, Extent, JobDetail, JobWrite, LaneRow, Sequence, WorkflowRow};
use forebay_domain::catalog::{Kind, Row, Statement, TABLES, Table, Value};
use forebay_domain::claim::Needs;
use forebay_domain::graph::Edges;
use forebay_domain::ids::{BarrierId, Grant, JobId, LaneId, Lsn, RequirementId, WorkflowId};
use forebay_domain::job::{JobFlags, JobRow, RelationKind};
use forebay_domain::lane::LabelSet;
use forebay_domain::state::JobState;

pub const W: WorkflowId = WorkflowId(1);
pub const LANE: LaneId = LaneId(1);

/// A workflow with a row in every table: four jobs, of which 2 depends on 1.
pub fn everything(lsn: u64) -> Batch {
    let needs = Needs { cpus: 1, memory_bytes: 1 << 30, gpus: 0, nodes: 1, runtime_seconds: 60 };
    let lane = LaneRow {
        id: LANE,
        workflow: W,
        requirement: RequirementId(1),
        labels: LabelSet::new(["fast disk".into(), "gpu\"".into()]),
        scheduler: None,
    };
    let workflow = WorkflowRow { has_edges: true, ..WorkflowRow::new(W, RequirementId(1)) };
    Batch {
        sequences: vec![(Sequence::Job, 100), (Sequence::Row(Table::File), 7)],
        workflows: vec![workflow],
        lanes: vec![lane],
        requirements: vec![(W, RequirementId(1), needs)],
        edges: Edges {
            direct: vec![(JobId(2), JobId(1))],
            barriers: vec![(BarrierId(3), JobId(1)), (BarrierId(3), JobId(2))],
            members: vec![(JobId(3), BarrierId(3)), (JobId(4), BarrierId(3))],
        },
        relations: vec![(JobId(1), RelationKind::OutputFile, 1), (JobId(2), RelationKind::InputFile, 1)],
        statements: TABLES.map(|table| Statement::Insert { table, rows: vec![row(table, 1)] }).to_vec(),
        ..jobs(lsn, 1..=4)
    }
}

/// New ready jobs of workflow 1.
pub fn jobs(lsn: u64, ids: impl Iterator<Item = i64> + Clone) -> Batch {
    Batch {
        lsn: Lsn(lsn),
        jobs: ids.clone().map(|id| JobWrite { row: job(id), extent: Extent::New }).collect(),
        details: ids
            .map(|id| JobDetail {
                job: JobId(id),
                workflow: W,
                name: format!("job {id}").into(),
                payload: vec![b'x'; 1000].into(),
            })
            .collect(),
        ..Batch::default()
    }
}

pub fn job(id: i64) -> JobRow {
    JobRow {
        id: JobId(id),
        workflow: W,
        lane: LANE,
        state: JobState::Ready,
        priority: 0,
        attempt: 1,
        flags: JobFlags::default(),
        node: None,
        grant: Grant(1 << 40),
        started_at: None,
        due_at: None,
        result: None,
        tries: Default::default(),
        policy: None,
        expires_at: None,
    }
}

/// A row of workflow 1; what may be nothing is nothing.
pub fn row(table: Table, id: i64) -> Row {
    let columns = table.columns().iter().enumerate();
    let value = |(place, column): (usize, &forebay_domain::catalog::Column)| match column.kind {
        _ if place == 0 => Value::Int(id),
        _ if column.nullable => Value::Null,
        Kind::Int => Value::Int(1),
        Kind::Real => Value::Real(0.5),
        Kind::Text => Value::Text(column.name.into()),
    };
    columns.map(value).collect()
}
