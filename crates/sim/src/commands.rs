//! Plain commands, as tests and benchmarks ask them.

use forebay_domain::catalog::{Row, Table, Value};
use forebay_domain::claim::Needs;
use forebay_domain::command::{Claim, ClaimOrder, Command, Completion, NewWorkflow, Report};
use forebay_domain::ids::{Timestamp, WorkflowId};
use forebay_domain::job::{JobRow, NewJob, Outcome};
use forebay_domain::lane::LabelSet;
use forebay_domain::state::JobState;

pub fn create_workflow() -> Command {
    let mut row = blank(Table::Workflow);
    row[1] = Value::Text("test".into());
    row[3] = Value::Text("somebody".into());
    row[4] = Value::Text("2026-01-01T00:00:00Z".into());
    Command::CreateWorkflow(Box::new(NewWorkflow { row, default_requirement: requirement(), needs: NEEDS }))
}

/// Requirements that are all alike: each is a lane of its own once jobs have it.
pub fn create_requirements(workflow: WorkflowId, requirements: usize) -> Command {
    let mut row = requirement();
    row[1] = Value::Int(workflow.0);
    Command::CreateRequirements { workflow, rows: vec![(row, NEEDS); requirements] }
}

pub fn create_jobs(workflow: WorkflowId, jobs: usize) -> Command {
    Command::CreateJobs { workflow, jobs: (0..jobs).map(new_job).collect() }
}

/// The job with this number, of the workflow's default requirement.
pub fn new_job(n: usize) -> NewJob {
    NewJob {
        name: format!("job {n}").into(),
        payload: format!("echo {n}").into_bytes().into(),
        requirement: None,
        labels: LabelSet::default(),
        scheduler: None,
        priority: 0,
        cancel_on_failure: true,
        not_before: None,
        policy: None,
        expires_at: None,
        depends_on: [].into(),
        relations: [].into(),
    }
}

pub fn claim(workflow: WorkflowId, limit: u32, wait_until: Option<Timestamp>) -> Claim {
    Claim {
        workflow,
        limit,
        labels: LabelSet::default(),
        by: ClaimOrder::Queue,
        start_on: None,
        leased: false,
        wait_until,
    }
}

/// The job's outcome: a success.
pub fn completed(workflow: WorkflowId, row: &JobRow) -> Command {
    let outcome = Outcome {
        state: JobState::Completed,
        return_code: 0,
        exec_time_minutes: 0.1,
        completion_time: "2026-01-01T00:00:01Z".into(),
        peak_memory_bytes: None,
        avg_memory_bytes: None,
        peak_cpu_percent: None,
        avg_cpu_percent: None,
    };
    let attempt = Some(row.attempt);
    let completion = Completion { job: row.id, run: 0, attempt, node: None, grant: None, outcome, again: None };
    Command::Report(Report { workflow, completions: vec![completion], claim: None })
}

/// A row with nothing in it.
pub fn blank(table: Table) -> Row {
    let mut row: Row = vec![Value::Null; table.columns().len()].into();
    row[0] = Value::Int(0);
    row
}

const NEEDS: Needs = Needs { cpus: 1, memory_bytes: 1 << 20, gpus: 0, nodes: 1, runtime_seconds: 60 };

fn requirement() -> Row {
    let mut row = blank(Table::Requirement);
    row[2] = Value::Text("default".into());
    row[6] = Value::Text("1m".into());
    row[7] = Value::Text("PT1M".into());
    for column in 3..6 {
        row[column] = Value::Int(1);
    }
    row
}
