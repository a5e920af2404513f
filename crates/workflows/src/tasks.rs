//! Asynchronous initializes, as torc's clients follow them. What a task has come to is stored; which
//! ones are being carried out is known here alone.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_domain::catalog::{Row, Statement, StatementOutcome, Table, Value};
use forebay_domain::command::{Answer, Command};
use forebay_domain::ids::WorkflowId;
use forebay_wire::{TaskModel, TaskStatus};

use crate::fault::Fault;
use crate::routes::unexpected;
use crate::{Door, rows};

/// Tasks that run at a time; one more is refused.
const RUNNING_MAX: usize = 1000;

const INITIALIZE_JOBS: &str = "initialize_jobs";

/// The tasks that are being carried out, by their workflow.
#[derive(Default)]
pub(crate) struct Tasks {
    running: Mutex<HashMap<i64, Running>>,
    /// Held while a task is stored, so that a workflow gets one at a time.
    beginning: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Running {
    task: TaskModel,
    only_drafts: bool,
}

/// What became of a request for a task.
#[derive(Debug)]
pub(crate) enum Begun {
    /// It is to be carried out now.
    New(TaskModel),
    /// The same already runs.
    Running(TaskModel),
    /// One with other parameters runs.
    Conflict(TaskModel),
    /// Too many run.
    Full,
}

/// Stores that a workflow is being initialized.
pub(crate) async fn begin(door: &Door, workflow: i64, only_drafts: bool) -> Result<Begun, Fault> {
    let _one_at_a_time = door.tasks().beginning.lock().await;
    if let Some(running) = door.tasks().lock().get(&workflow).cloned() {
        let same = running.only_drafts == only_drafts;
        return Ok(if same { Begun::Running(running.task) } else { Begun::Conflict(running.task) });
    }
    if door.tasks().lock().len() >= RUNNING_MAX {
        return Ok(Begun::Full);
    }
    let now = door.engine().now().0;
    let mut task = TaskModel {
        id: 0,
        workflow_id: workflow,
        operation: INITIALIZE_JOBS.to_owned(),
        status: TaskStatus::Running,
        created_at_ms: now,
        started_at_ms: Some(now),
        finished_at_ms: None,
        error: None,
    };
    let rows = vec![rows::to_row(Table::Task, &task)?];
    let command = Command::Insert { table: Table::Task, workflow: WorkflowId(workflow), rows };
    task.id = match door.engine().call(command).await? {
        Answer::Created(id) => id,
        other => unexpected(&other),
    };
    door.tasks().lock().insert(workflow, Running { task: task.clone(), only_drafts });
    Ok(Begun::New(task))
}

/// The statement by which a task has ended; `error` says why it failed.
pub(crate) fn ended(door: &Door, id: i64, error: Option<&str>) -> Statement {
    let place = |column| Table::Task.column(column).expect("only columns of the table are set");
    let status = if error.is_none() { "succeeded" } else { "failed" };
    let mut set = vec![
        (place("status"), Value::Text(status.into())),
        (place("finished_at_ms"), Value::Int(door.engine().now().0)),
    ];
    set.extend(error.map(|error| (place("error"), Value::Text(error.into()))));
    Statement::Update { table: Table::Task, id, only_if: Vec::new(), set }
}

/// A task failed: it is stored, unless its workflow is gone.
pub(crate) async fn fail(door: &Door, id: i64, error: &str) -> Result<(), Fault> {
    match door.engine().call(Command::Apply(ended(door, id, Some(error)))).await? {
        Answer::Outcome(StatementOutcome::Row(_)) => Ok(()),
        other => unexpected(&other),
    }
}

impl Tasks {
    /// It is not being carried out any more.
    pub fn end(&self, workflow: i64) {
        self.lock().remove(&workflow);
    }

    /// The task of a workflow that runs.
    pub fn active(&self, workflow: i64) -> Option<TaskModel> {
        self.lock().get(&workflow).map(|running| running.task.clone())
    }

    /// A task as it is stored. One that runs though nobody carries it out was cut off by a restart.
    pub fn model(&self, row: &Row) -> TaskModel {
        let text = |column| rows::text(row, Table::Task, column);
        let int = |column| rows::int(row, Table::Task, column);
        let mut task = TaskModel {
            id: int("id"),
            workflow_id: int("workflow_id"),
            operation: text("operation").unwrap_or_default().to_owned(),
            status: match text("status") {
                Some("succeeded") => TaskStatus::Succeeded,
                Some("running") => TaskStatus::Running,
                _ => TaskStatus::Failed,
            },
            created_at_ms: int("created_at_ms"),
            started_at_ms: Some(int("started_at_ms")),
            finished_at_ms: Some(int("finished_at_ms")).filter(|at| *at != 0),
            error: text("error").map(str::to_owned),
        };
        let is_carried_out = || self.active(task.workflow_id).is_some_and(|running| running.id == task.id);
        if task.status == TaskStatus::Running && !is_carried_out() {
            task.status = TaskStatus::Failed;
            task.error = Some("the server was restarted before it ended: initialize again".to_owned());
        }
        task
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Running>> {
        // No holder panics between two changes.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
