//! What clients ask for, made by chance.

use std::num::NonZeroU16;

use forebay_domain::catalog::{Column, Kind, Row, Table, Value};
use forebay_domain::claim::{Capacity, Needs};
use forebay_domain::command::{Claim, ClaimOrder, Command, NewWorkflow};
use forebay_domain::ids::{NodeId, SchedulerId, Timestamp, WorkflowId};
use forebay_domain::lane::LabelSet;
use forebay_domain::policy::{Backoff, OnEnd, Policy};

use crate::plan::Plan;
use crate::random::Random;

pub(super) fn create_workflow(plan: &Plan, random: &mut Random) -> Command {
    if plan.endless && random.chance(1, 2) {
        return Command::CreateApplication { name: "app".into() };
    }
    let row = row(Table::Workflow, WorkflowId(0));
    let default_requirement = self::row(Table::Requirement, WorkflowId(0));
    Command::CreateWorkflow(Box::new(NewWorkflow { row, default_requirement, needs: needs(random) }))
}

/// A claim that may be anybody's.
pub(crate) fn claim(workflow: WorkflowId, now: Timestamp, plan: &Plan, random: &mut Random) -> Claim {
    let by = if random.chance(1, 2) {
        ClaimOrder::Queue
    } else {
        ClaimOrder::Fitting {
            capacity: Capacity {
                cpus: random.between(0, 8),
                memory_bytes: random.between(1, 8),
                gpus: random.between(0, 2),
                nodes: random.between(0, 3),
                seconds_left: if random.chance(1, 2) { i64::MAX } else { 15 },
            },
            scheduler: (plan.schedulers && random.chance(1, 2)).then(|| SchedulerId(random.between(1, 2))),
            strict: random.chance(1, 3),
        }
    };
    Claim {
        workflow,
        limit: if random.chance(1, 30) { 0 } else { random.between(1, 4) as u32 },
        labels: labels(plan, random),
        by,
        start_on: random.chance(1, 4).then(|| NodeId(random.between(1, 3))),
        leased: false,
        wait_until: random.chance(2, 5).then(|| now.after(random.between(-5, 200))),
    }
}

pub(super) fn policy(random: &mut Random) -> Policy {
    Policy {
        deadline_ms: [0, 40, 400][random.below(3)],
        failures_max: NonZeroU16::new(random.between(0, 3) as u16),
        // Nobody reports in the end: a job whose attempts are all lost must end by itself.
        losses_max: NonZeroU16::new(random.between(1, 3) as u16),
        backoff: Backoff {
            base_ms: random.between(0, 60) as u32,
            cap_ms: 200,
            factor: random.between(0, 3) as u8,
            jitter_percent: random.between(0, 60) as u8,
        },
        at_most_once: random.chance(1, 5),
        on_end: if random.chance(1, 2) { OnEnd::DeadLetter } else { OnEnd::Discard },
    }
}

pub(super) fn labels(plan: &Plan, random: &mut Random) -> LabelSet {
    if !plan.labels || random.chance(1, 2) {
        return LabelSet::default();
    }
    let all = ["gpu", "fast"];
    LabelSet::new(all.into_iter().filter(|_| random.chance(2, 3)).map(Into::into).collect::<Vec<_>>())
}

pub(super) fn needs(random: &mut Random) -> Needs {
    Needs {
        cpus: random.between(1, 4),
        memory_bytes: random.between(1, 4),
        gpus: i64::from(random.chance(1, 4)),
        nodes: if random.chance(1, 6) { 2 } else { 1 },
        runtime_seconds: if random.chance(1, 2) { 10 } else { 20 },
    }
}

pub(super) fn row(table: Table, workflow: WorkflowId) -> Row {
    let columns = table.columns().iter().enumerate();
    let value = |(place, column): (usize, &Column)| match (place, column.kind) {
        (1, _) if table != Table::Workflow => Value::Int(workflow.0),
        _ if column.nullable => Value::Null,
        (_, Kind::Int) => Value::Int(0),
        (_, Kind::Real) => Value::Real(0.0),
        (_, Kind::Text) => Value::Text("text".into()),
    };
    columns.map(value).collect()
}
