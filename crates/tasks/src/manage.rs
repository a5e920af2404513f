//! What operators look at and do.

use std::collections::HashMap;

use forebay_domain::batch::{ENDLESS_RUN, LaneState, WorkflowRow};
use forebay_domain::command::{Command, Scope};
use forebay_domain::ids::{JobId, LaneId, WorkflowId};
use forebay_domain::lane::LabelSet;
use forebay_domain::port::{JobQuery, JobView, Read, Rows};
use forebay_domain::state::JobState;
use serde::Serialize;

use crate::Door;
use crate::activation::Activation;
use crate::fault::Fault;
use crate::ident;

/// A task, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TaskView {
    pub id: String,
    pub application: String,
    pub namespace: String,
    pub task: String,
    pub state: &'static str,
    pub priority: i64,
    /// Attempts that failed, and that were lost.
    pub failures: u16,
    pub losses: u16,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub received_at_ms: Option<i64>,
    /// Of a delayed one: when it is pending. Of one that is processed: when its attempt is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<i64>,
}

/// An application, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ApplicationView {
    pub name: String,
    pub paused: bool,
    pub waiting: i64,
    pub pending: i64,
    pub processing: i64,
    pub delayed: i64,
    pub dead_letters: i64,
}

/// A namespace of an application, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NamespaceView {
    pub name: String,
    pub paused: bool,
    pub processing: i64,
}

/// Which tasks of an application are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub namespace: Option<String>,
    pub state: Option<State>,
    pub offset: u64,
    pub limit: u64,
}

/// A task's state, by the words of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    Pending,
    Processing,
    Delayed,
    DeadLetter,
}

impl State {
    pub fn read(word: &str) -> Option<State> {
        Some(match word {
            "waiting" => State::Waiting,
            "pending" => State::Pending,
            "processing" => State::Processing,
            "delayed" => State::Delayed,
            "dead_letter" => State::DeadLetter,
            _ => return None,
        })
    }

    fn of_jobs(self) -> JobState {
        match self {
            State::Waiting => JobState::Blocked,
            State::Pending => JobState::Ready,
            State::Processing => JobState::Claimed,
            State::Delayed => JobState::Scheduled,
            State::DeadLetter => JobState::Failed,
        }
    }
}

/// How a task is that its job is in this state.
pub(crate) fn word(state: JobState) -> &'static str {
    match state {
        JobState::Blocked => "waiting",
        JobState::Ready => "pending",
        JobState::Claimed | JobState::Running => "processing",
        JobState::Scheduled => "delayed",
        JobState::Failed => "dead_letter",
        other @ (JobState::Draft
        | JobState::Completed
        | JobState::Canceled
        | JobState::Terminated
        | JobState::Disabled
        | JobState::PendingFailed) => other.name(),
    }
}

impl Door {
    pub(crate) async fn applications_shown(&self) -> Result<Vec<ApplicationView>, Fault> {
        let known = self.applications().all();
        let ids: Vec<WorkflowId> = known.values().copied().collect();
        let rows = self.engine().read_of(Scope::Everything, move |reader| reader.workflows(&ids)).await?;
        let shown = known.iter().filter_map(|(name, id)| Some(show(name, rows.iter().find(|row| row.id == *id)?)));
        Ok(shown.collect())
    }

    /// The namespaces of an application, in the order of their names.
    pub(crate) async fn namespaces_shown(&self, application: &str) -> Result<Vec<NamespaceView>, Fault> {
        let workflow = self.application(application)?;
        let read = self.engine().read_of(Scope::Everything, move |reader| reader.read(&Read::Workflow(workflow)));
        let (_, Rows::Workflow(rows)) = read.await? else { unreachable!("a reader answers what it was asked") };
        let rows = rows.ok_or_else(|| Fault::NotFound(format!("there is no application {application:?}")))?;
        let states: HashMap<LaneId, LaneState> = rows.lane_states.iter().map(|state| (state.lane, *state)).collect();
        let shown = rows.lanes.iter().map(|(lane, _)| {
            let state = states.get(&lane.id);
            NamespaceView {
                name: lane.labels.iter().collect(),
                paused: state.is_some_and(|state| state.paused),
                processing: state.map_or(0, |state| state.held),
            }
        });
        let mut shown: Vec<NamespaceView> = shown.collect();
        shown.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        Ok(shown)
    }

    /// A part of an application's tasks in the order of their coming, and how many there are.
    pub(crate) async fn list(&self, application: &str, filter: Filter) -> Result<(Vec<TaskView>, u64), Fault> {
        let workflow = self.application(application)?;
        let Filter { namespace, state, offset, limit } = filter;
        let query = JobQuery { state: state.map(State::of_jobs), ..JobQuery::of(workflow, offset, limit) };
        let views = self.engine().read_of(Scope::Everything, move |reader| {
            let lanes = match namespace {
                None => None,
                Some(namespace) => {
                    let labels = LabelSet::new([namespace.into()]);
                    let (_, rows) = reader.read(&Read::Workflow(workflow))?;
                    let Rows::Workflow(rows) = rows else { unreachable!("a reader answers what it was asked") };
                    let lanes = rows.into_iter().flat_map(|rows| rows.lanes);
                    Some(
                        lanes
                            .filter(|(lane, _)| lane.labels == labels)
                            .map(|(lane, _)| lane.id)
                            .collect::<Vec<LaneId>>(),
                    )
                }
            };
            reader.jobs(&JobQuery { lanes, ..query })
        });
        let (views, total) = views.await?;
        Ok((views.iter().map(|view| task_view(view, application)).collect(), total))
    }

    pub(crate) async fn task(&self, id: &str) -> Result<TaskView, Fault> {
        let view = self.find_task(id).await?;
        Ok(task_view(&view, &self.name_of(view.row.workflow)))
    }

    /// It is not done any more; whoever does it now is not listened to.
    pub(crate) async fn cancel(&self, id: &str) -> Result<(), Fault> {
        let job = self.find_task(id).await?.row.id;
        self.engine().call(Command::SetState { job, run: ENDLESS_RUN, state: JobState::Canceled }).await?;
        Ok(())
    }

    /// A dead letter is pending again, and so is what somebody has and may have lost.
    pub(crate) async fn requeue(&self, id: &str) -> Result<TaskView, Fault> {
        let job: JobId = self.find_task(id).await?.row.id;
        let retry = Command::Retry { job, run: ENDLESS_RUN, attempts_max: i64::MAX, delay_ms: 0 };
        self.engine().call(retry).await?;
        let again = self
            .engine()
            .read_of(Scope::Job(job), move |reader| reader.task(&forebay_domain::port::TaskName::Job(job)));
        let view = again.await?.ok_or_else(|| not_there(id))?;
        Ok(task_view(&view, &self.name_of(view.row.workflow)))
    }

    /// An application, or one of its namespaces.
    pub(crate) async fn pause(&self, application: &str, namespace: Option<&str>, paused: bool) -> Result<(), Fault> {
        let workflow = self.application(application)?;
        let labels = LabelSet::new(namespace.map(Into::into));
        self.engine().call(Command::Pause { workflow, labels, paused }).await?;
        Ok(())
    }

    fn application(&self, name: &str) -> Result<WorkflowId, Fault> {
        self.applications().find(name).ok_or_else(|| Fault::NotFound(format!("there is no application {name:?}")))
    }

    fn name_of(&self, workflow: WorkflowId) -> String {
        let known = self.applications().all();
        known.iter().find(|(_, id)| **id == workflow).map(|(name, _)| name.clone()).unwrap_or_default()
    }

    async fn find_task(&self, id: &str) -> Result<JobView, Fault> {
        let found = self.look_up(id).await?;
        found.map(|(view, _)| view).ok_or_else(|| not_there(id))
    }
}

fn not_there(id: &str) -> Fault {
    Fault::NotFound(format!("there is no task {id:?}: it never was, or has ended"))
}

fn show(name: &str, row: &WorkflowRow) -> ApplicationView {
    let count = |state: JobState| row.counts[state as usize];
    ApplicationView {
        name: name.to_owned(),
        paused: row.paused,
        waiting: count(JobState::Blocked),
        pending: count(JobState::Ready),
        processing: count(JobState::Claimed),
        delayed: count(JobState::Scheduled),
        dead_letters: count(JobState::Failed),
    }
}

fn task_view(view: &JobView, application: &str) -> TaskView {
    let row = &view.row;
    // It was looked at when it came.
    let known = Activation::from_bytes(&*view.payload).known().unwrap_or_default();
    TaskView {
        id: ident::of_attempt(row, &view.name),
        application: application.to_owned(),
        namespace: known.namespace,
        task: known.taskname,
        state: word(row.state),
        priority: row.priority,
        failures: row.tries.failures,
        losses: row.tries.losses,
        received_at_ms: known.received_at.map(|at| at.ms()),
        due_at_ms: row.due_at.map(|at| at.0),
        expires_at_ms: row.expires_at.map(|at| at.0),
    }
}
