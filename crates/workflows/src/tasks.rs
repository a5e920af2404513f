//! Asynchronous initializes, as torc's clients follow them.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use forebay_domain::ids::Timestamp;
use forebay_wire::{TaskModel, TaskStatus};

/// Ended tasks that are remembered.
const ENDED_MAX: usize = 1000;

/// Tasks that run at a time; one more is refused.
const RUNNING_MAX: usize = 1000;

const INITIALIZE_JOBS: &str = "initialize_jobs";

/// The tasks of this run of the server. A restart forgets them: what they did is in the workflow.
pub(crate) struct Tasks(Mutex<State>);

struct State {
    next_id: i64,
    /// With the parameter that they were started with.
    running: Vec<(TaskModel, bool)>,
    ended: VecDeque<TaskModel>,
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

impl Tasks {
    /// Ids go on from the time of the start, so that they differ between runs of the server.
    pub fn new(now: Timestamp) -> Tasks {
        Tasks(Mutex::new(State { next_id: now.0, running: Vec::new(), ended: VecDeque::new() }))
    }

    /// Begins to initialize a workflow.
    pub fn begin(&self, now: Timestamp, workflow: i64, only_uninitialized: bool) -> Begun {
        let mut state = self.lock();
        if let Some((task, other)) = state.running.iter().find(|(task, _)| task.workflow_id == workflow) {
            let same = *other == only_uninitialized;
            return if same { Begun::Running(task.clone()) } else { Begun::Conflict(task.clone()) };
        }
        if state.running.len() >= RUNNING_MAX {
            return Begun::Full;
        }
        let task = TaskModel {
            id: state.next_id,
            workflow_id: workflow,
            operation: INITIALIZE_JOBS.to_owned(),
            status: TaskStatus::Running,
            created_at_ms: now.0,
            started_at_ms: Some(now.0),
            finished_at_ms: None,
            error: None,
        };
        state.next_id += 1;
        state.running.push((task.clone(), only_uninitialized));
        Begun::New(task)
    }

    /// Ends a task; `error` says why it failed.
    pub fn end(&self, now: Timestamp, id: i64, error: Option<String>) {
        let mut state = self.lock();
        let Some(place) = state.running.iter().position(|(task, _)| task.id == id) else { return };
        let (mut task, _) = state.running.swap_remove(place);
        task.status = if error.is_none() { TaskStatus::Succeeded } else { TaskStatus::Failed };
        task.finished_at_ms = Some(now.0);
        task.error = error;
        if state.ended.len() >= ENDED_MAX {
            state.ended.pop_front();
        }
        state.ended.push_back(task);
    }

    pub fn get(&self, id: i64) -> Option<TaskModel> {
        let state = self.lock();
        let running = state.running.iter().map(|(task, _)| task);
        running.chain(&state.ended).find(|task| task.id == id).cloned()
    }

    /// The task of a workflow that runs.
    pub fn active(&self, workflow: i64) -> Option<TaskModel> {
        let state = self.lock();
        state.running.iter().map(|(task, _)| task).find(|task| task.workflow_id == workflow).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No holder panics between two changes of the state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_has_one_task_at_a_time() {
        let tasks = Tasks::new(Timestamp(1000));
        let Begun::New(task) = tasks.begin(Timestamp(1000), 7, false) else { panic!("nothing runs") };
        assert!(matches!(tasks.begin(Timestamp(1001), 7, false), Begun::Running(same) if same.id == task.id));
        assert!(matches!(tasks.begin(Timestamp(1001), 7, true), Begun::Conflict(_)));
        assert!(matches!(tasks.begin(Timestamp(1001), 8, true), Begun::New(_)));
        assert_eq!(tasks.active(7).map(|task| task.status), Some(TaskStatus::Running));
        tasks.end(Timestamp(1005), task.id, Some("no".into()));
        assert_eq!(tasks.active(7), None);
        let ended = tasks.get(task.id).unwrap();
        assert_eq!((ended.status, ended.finished_at_ms), (TaskStatus::Failed, Some(1005)));
    }

    #[test]
    fn only_so_many_ended_tasks_are_remembered() {
        let tasks = Tasks::new(Timestamp(0));
        for workflow in 0..2000 {
            let Begun::New(task) = tasks.begin(Timestamp(0), workflow, false) else { panic!("one at a time") };
            tasks.end(Timestamp(0), task.id, None);
        }
        assert_eq!(tasks.get(0), None);
        assert!(tasks.get(1999).is_some());
        assert_eq!(tasks.0.lock().unwrap().ended.len(), ENDED_MAX);
    }
}
