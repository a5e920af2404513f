//! The requests that create a workflow on a server.

use forebay_wire::{
    BASE_PATH, CreateFilesResponse, CreateJobsResponse, CreateUserDataListResponse, ExecutionConfig,
    FailureHandlerModel, FileModel, JobModel, JobStatus, RECORDS_MAX, ResourceRequirementsModel, SlurmSchedulerModel,
    UserDataModel, WorkflowActionModel, WorkflowModel,
};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use crate::workflow::{Action, Workflow};

/// The most bytes of one bulk request; servers take at least this much.
const BODY_MAX: usize = 128 << 20;

/// One request: a POST of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// With the base path.
    pub path: String,
    pub body: Vec<u8>,
}

/// An answer that does not tell the ids of what was created.
#[derive(Debug, thiserror::Error)]
pub enum BadAnswer {
    #[error("the server's answer cannot be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("the server's answer names {found} ids where {expected} were asked for")]
    Ids { expected: usize, found: usize },
}

/// Creates a workflow request by request. The caller sends each, in turn, and hands in the
/// answer; if one fails, it deletes the workflow (its id is in [`Creation::workflow_id`]).
///
/// ```
/// # fn post(request: forebay_spec::Request) -> Vec<u8> { br#"{"id": 7, "jobs": [{"id": 1, "workflow_id": 7, "name": "a", "command": "b"}]}"#.to_vec() }
/// # let workflow = forebay_spec::parse("w.json", r#"{"name": "w", "jobs": [{"name": "a", "command": "b"}]}"#, forebay_spec::Format::Json, ".".as_ref()).unwrap();
/// let mut creation = workflow.create("me", "/home/me");
/// while let Some(request) = creation.next_request() {
///     creation.accept(&post(request))?;
/// }
/// assert_eq!(creation.workflow_id(), Some(7));
/// # Ok::<(), forebay_spec::BadAnswer>(())
/// ```
#[derive(Debug)]
pub struct Creation<'w> {
    workflow: &'w Workflow,
    user: String,
    directory: PathBuf,
    stage: Stage,
    workflow_id: Option<i64>,
    files: Vec<i64>,
    user_data: Vec<i64>,
    resource_requirements: Vec<i64>,
    slurm_schedulers: Vec<i64>,
    failure_handlers: Vec<i64>,
    jobs: Vec<i64>,
    actions: usize,
    /// How many ids the request that is out will give.
    awaited: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Workflow,
    Files,
    UserData,
    ResourceRequirements,
    SlurmSchedulers,
    FailureHandlers,
    Jobs,
    Actions,
    Done,
}

impl Workflow {
    /// The requests that create this workflow. `user` owns it if the file names nobody;
    /// `submission_directory` is where relative paths start: input files that are there get
    /// their modification times from it.
    pub fn create(&self, user: &str, submission_directory: impl AsRef<Path>) -> Creation<'_> {
        Creation {
            workflow: self,
            user: user.to_owned(),
            directory: submission_directory.as_ref().to_owned(),
            stage: Stage::Workflow,
            workflow_id: None,
            files: Vec::new(),
            user_data: Vec::new(),
            resource_requirements: Vec::new(),
            slurm_schedulers: Vec::new(),
            failure_handlers: Vec::new(),
            jobs: Vec::new(),
            actions: 0,
            awaited: 0,
        }
    }
}

impl Creation<'_> {
    /// The workflow's id, once it is created.
    pub fn workflow_id(&self) -> Option<i64> {
        self.workflow_id
    }

    /// The ids of the jobs created so far, in the order of [`Workflow::jobs`].
    pub fn job_ids(&self) -> &[i64] {
        &self.jobs
    }

    /// The next request; `None` when everything is created.
    pub fn next_request(&mut self) -> Option<Request> {
        loop {
            if let Some(request) = self.request() {
                return Some(request);
            }
            self.stage = match self.stage {
                Stage::Workflow => Stage::Files,
                Stage::Files => Stage::UserData,
                Stage::UserData => Stage::ResourceRequirements,
                Stage::ResourceRequirements => Stage::SlurmSchedulers,
                Stage::SlurmSchedulers => Stage::FailureHandlers,
                Stage::FailureHandlers => Stage::Jobs,
                Stage::Jobs => Stage::Actions,
                Stage::Actions => Stage::Done,
                Stage::Done => return None,
            };
        }
    }

    /// Takes the answer to the request that was handed out last.
    pub fn accept(&mut self, answer: &[u8]) -> Result<(), BadAnswer> {
        match self.stage {
            Stage::Workflow => self.workflow_id = Some(single_id(answer)?),
            Stage::Files => {
                let answer: CreateFilesResponse = read(answer)?;
                let ids = answer.files.unwrap_or_default().into_iter().filter_map(|file| file.id);
                extend(&mut self.files, ids, self.awaited)?;
            }
            Stage::UserData => {
                let answer: CreateUserDataListResponse = read(answer)?;
                let ids = answer.user_data.unwrap_or_default().into_iter().filter_map(|data| data.id);
                extend(&mut self.user_data, ids, self.awaited)?;
            }
            Stage::Jobs => {
                let answer: CreateJobsResponse = read(answer)?;
                let ids = answer.jobs.unwrap_or_default().into_iter().filter_map(|job| job.id);
                extend(&mut self.jobs, ids, self.awaited)?;
            }
            Stage::ResourceRequirements => self.resource_requirements.push(single_id(answer)?),
            Stage::SlurmSchedulers => self.slurm_schedulers.push(single_id(answer)?),
            Stage::FailureHandlers => self.failure_handlers.push(single_id(answer)?),
            Stage::Actions => {
                single_id(answer)?;
                self.actions += 1;
            }
            Stage::Done => {}
        }
        Ok(())
    }

    fn request(&mut self) -> Option<Request> {
        let workflow = self.workflow;
        let done = self.jobs.len();
        match self.stage {
            Stage::Workflow if self.workflow_id.is_none() => Some(post("/workflows", &self.workflow_model())),
            Stage::Workflow | Stage::Done => None,
            Stage::Files => self.bulk("/bulk_files", "files", self.files.len()..workflow.files.len(), Self::file),
            Stage::UserData => {
                let range = self.user_data.len()..workflow.user_data.len();
                self.bulk("/bulk_user_data", "user_data", range, Self::user_data)
            }
            Stage::ResourceRequirements => {
                let index = self.resource_requirements.len();
                (index < workflow.resource_requirements.len())
                    .then(|| post("/resource_requirements", &self.requirements(index)))
            }
            Stage::SlurmSchedulers => {
                let index = self.slurm_schedulers.len();
                (index < workflow.slurm_schedulers.len()).then(|| post("/slurm_schedulers", &self.scheduler(index)))
            }
            Stage::FailureHandlers => {
                let index = self.failure_handlers.len();
                (index < workflow.failure_handlers.len()).then(|| post("/failure_handlers", &self.handler(index)))
            }
            Stage::Jobs => {
                // A job names the ids of jobs of earlier levels, so a request stays in one.
                let level_end = workflow.level_ends.iter().copied().find(|end| *end > done).unwrap_or(done);
                self.bulk("/bulk_jobs", "jobs", done..level_end, Self::job)
            }
            Stage::Actions => {
                let action = workflow.actions.get(self.actions)?;
                Some(post(&format!("/workflows/{}/actions", self.id()), &self.action(action)))
            }
        }
    }

    /// As many of `range` as one request takes; `None` if it is empty.
    fn bulk<T: Serialize>(
        &mut self,
        path: &str,
        field: &str,
        range: std::ops::Range<usize>,
        model: fn(&Self, usize) -> T,
    ) -> Option<Request> {
        let count_max = usize::try_from(RECORDS_MAX).expect("a positive constant");
        if range.is_empty() {
            return None;
        }
        let mut body = format!("{{\"{field}\":[").into_bytes();
        let mut count = 0;
        for index in range.take(count_max) {
            if count > 0 {
                body.push(b',');
            }
            serde_json::to_writer(&mut body, &model(self, index)).expect("models are plain data");
            count += 1;
            if body.len() >= BODY_MAX {
                break;
            }
        }
        body.extend_from_slice(b"]}");
        self.awaited = count;
        Some(Request { path: format!("{BASE_PATH}{path}"), body })
    }

    fn id(&self) -> i64 {
        self.workflow_id.expect("the workflow is created first")
    }

    fn workflow_model(&self) -> WorkflowModel {
        /// torc's client asks for this, so that a runner outlasts the gap between two levels.
        const WAIT_FOR_NEW_JOBS_SECONDS: i64 = 90;
        let settings = &self.workflow.settings;
        let env = &self.workflow.env;
        WorkflowModel {
            name: settings.name.clone(),
            user: settings.user.clone().unwrap_or_else(|| self.user.clone()),
            description: settings.description.clone(),
            env: (!env.is_empty()).then(|| env.clone()),
            compute_node_wait_for_new_jobs_seconds: Some(
                settings.compute_node_wait_for_new_jobs_seconds.unwrap_or(WAIT_FOR_NEW_JOBS_SECONDS),
            ),
            compute_node_ignore_workflow_completion: settings.compute_node_ignore_workflow_completion,
            compute_node_wait_for_healthy_database_minutes: settings.compute_node_wait_for_healthy_database_minutes,
            resource_monitor_config: settings.resource_monitor.clone(),
            slurm_defaults: settings.slurm_defaults.clone(),
            use_pending_failed: settings.use_pending_failed,
            enable_ro_crate: settings.enable_ro_crate,
            project: settings.project.clone(),
            metadata: settings.metadata.clone(),
            execution_config: settings.execution_config.clone().filter(|config| *config != ExecutionConfig::default()),
            dynamic_jobs: settings.dynamic_jobs.clone(),
            access_groups: settings.access_groups.clone(),
            submission_directory: Some(self.directory.to_string_lossy().into_owned()),
            ..WorkflowModel::default()
        }
    }

    fn file(&self, index: usize) -> FileModel {
        let file = &self.workflow.files[index];
        // A time marks a file that is there before the workflow runs, so only what jobs read
        // gets one.
        let on_disk = || file.is_input.then(|| modified(&self.directory.join(&file.path))).flatten();
        FileModel {
            id: None,
            workflow_id: self.id(),
            name: file.name.clone(),
            path: file.path.clone(),
            st_mtime: file.st_mtime.or_else(on_disk),
        }
    }

    fn user_data(&self, index: usize) -> UserDataModel {
        let data = &self.workflow.user_data[index];
        UserDataModel {
            id: None,
            workflow_id: self.id(),
            is_ephemeral: data.is_ephemeral,
            name: data.name.clone(),
            data: data.data.clone(),
        }
    }

    fn requirements(&self, index: usize) -> ResourceRequirementsModel {
        let needs = &self.workflow.resource_requirements[index];
        ResourceRequirementsModel {
            id: None,
            workflow_id: self.id(),
            name: needs.name.clone(),
            num_cpus: needs.num_cpus,
            num_gpus: needs.num_gpus,
            num_nodes: needs.num_nodes,
            memory: needs.memory.clone(),
            runtime: needs.runtime.clone(),
        }
    }

    fn scheduler(&self, index: usize) -> SlurmSchedulerModel {
        let scheduler = self.workflow.slurm_schedulers[index].clone();
        SlurmSchedulerModel {
            id: None,
            workflow_id: self.id(),
            name: Some(scheduler.name),
            account: scheduler.account,
            gres: scheduler.gres,
            mem: scheduler.mem,
            nodes: scheduler.nodes,
            ntasks_per_node: scheduler.ntasks_per_node,
            partition: scheduler.partition,
            qos: scheduler.qos,
            tmp: scheduler.tmp,
            walltime: scheduler.walltime,
            extra: scheduler.extra,
            serialize_allocations: scheduler.serialize_allocations,
        }
    }

    fn handler(&self, index: usize) -> FailureHandlerModel {
        let handler = &self.workflow.failure_handlers[index];
        FailureHandlerModel {
            id: None,
            workflow_id: self.id(),
            name: handler.name.clone(),
            rules: serde_json::to_string(&handler.rules).expect("rules are plain data"),
        }
    }

    fn job(&self, index: usize) -> JobModel {
        let job = &self.workflow.jobs[index];
        let ids = |indexes: &[u32], ids: &[i64]| {
            (!indexes.is_empty()).then(|| indexes.iter().map(|index| ids[*index as usize]).collect())
        };
        JobModel {
            workflow_id: self.id(),
            name: job.name.clone(),
            command: job.command.clone(),
            invocation_script: job.invocation_script.clone(),
            env: (!job.env.is_empty()).then(|| job.env.clone()),
            status: Some(JobStatus::Uninitialized),
            cancel_on_blocking_job_failure: Some(job.cancel_on_blocking_job_failure),
            supports_termination: Some(false),
            depends_on_job_ids: ids(&job.depends_on, &self.jobs),
            input_file_ids: ids(&job.input_files, &self.files),
            output_file_ids: ids(&job.output_files, &self.files),
            input_user_data_ids: ids(&job.input_user_data, &self.user_data),
            output_user_data_ids: ids(&job.output_user_data, &self.user_data),
            resource_requirements_id: job.resource_requirements.map(|index| self.resource_requirements[index]),
            scheduler_id: job.scheduler.map(|index| self.slurm_schedulers[index]),
            failure_handler_id: job.failure_handler.map(|index| self.failure_handlers[index]),
            attempt_id: Some(1),
            priority: job.priority,
            labels: (!job.labels.is_empty()).then(|| job.labels.clone()),
            ..JobModel::default()
        }
    }

    fn action(&self, action: &Action) -> WorkflowActionModel {
        let mut config = serde_json::Map::new();
        if action.action_type == "run_commands" {
            config.insert("commands".to_owned(), action.commands.clone().into());
        } else {
            let scheduler_id = action.scheduler.map_or(0, |index| self.slurm_schedulers[index]);
            config.insert("scheduler_type".to_owned(), action.scheduler_type.clone().into());
            config.insert("scheduler_id".to_owned(), scheduler_id.into());
            config.insert("num_allocations".to_owned(), action.num_allocations.unwrap_or(1).into());
            let one_per_node = action.start_one_worker_per_node.unwrap_or(false);
            config.insert("start_one_worker_per_node".to_owned(), one_per_node.into());
            config.extend(action.max_parallel_jobs.map(|jobs| ("max_parallel_jobs".to_owned(), jobs.into())));
        }
        WorkflowActionModel {
            workflow_id: self.id(),
            trigger_type: action.trigger_type.clone(),
            action_type: action.action_type.clone(),
            action_config: config.into(),
            job_ids: action.jobs.as_ref().map(|jobs| jobs.iter().map(|job| self.jobs[*job as usize]).collect()),
            required_triggers: 1,
            persistent: action.persistent,
            ..WorkflowActionModel::default()
        }
    }
}

fn post(path: &str, body: &impl Serialize) -> Request {
    let body = serde_json::to_vec(body).expect("models are plain data");
    Request { path: format!("{BASE_PATH}{path}"), body }
}

fn read<'a, T: Deserialize<'a>>(answer: &'a [u8]) -> Result<T, BadAnswer> {
    serde_json::from_slice(answer).map_err(BadAnswer::Unreadable)
}

fn single_id(answer: &[u8]) -> Result<i64, BadAnswer> {
    #[derive(Deserialize)]
    struct Created {
        id: Option<i64>,
    }
    let created: Created = read(answer)?;
    created.id.ok_or(BadAnswer::Ids { expected: 1, found: 0 })
}

/// Appends the ids of an answer, which come in the order of the request.
fn extend(known: &mut Vec<i64>, ids: impl Iterator<Item = i64>, expected: usize) -> Result<(), BadAnswer> {
    let before = known.len();
    known.extend(ids);
    let found = known.len() - before;
    if found != expected {
        known.truncate(before);
        return Err(BadAnswer::Ids { expected, found });
    }
    Ok(())
}

/// When a file was last changed, in seconds since 1970; `None` if it is not there.
fn modified(path: &Path) -> Option<f64> {
    let time = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    time.duration_since(std::time::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
}
