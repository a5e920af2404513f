//! What a worker asks the server beside the stream of reports and claims: it looks after the
//! outputs of a job that completed and the retry of one that failed, and it lists and reads.
//!
//! All of it is asked again until the server answers or the worker gives up.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use forebay_wire::ours::{HeartbeatRequest, HeartbeatResponse};
use forebay_wire::units::{duration_seconds, memory_bytes};
use forebay_wire::{
    ComputeNodeModel, FailureHandlerModel, FailureHandlerRule, FileModel, IsCompleteResponse, JobModel, JobStatus,
    ListResponse, RECORDS_MAX, ResourceRequirementsModel, ResultModel, WorkflowModel, WorkflowStatusResponse,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::client::{CallError, Client};
use crate::detect::Amount;
use crate::launcher::protocol::Attempt;
use crate::options::{Logs, Named, Unfit};
use crate::outcome::matching_rule;

/// The first wait before a request is made again. It doubles up to [`BACKOFF_MAX`].
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How many ready jobs are named when none fits.
const UNFIT_MAX: usize = 20;

/// The server as the side conversations see it. Shared by all of them.
#[derive(Debug)]
pub struct Aside {
    pub client: Client,
    pub workflow_id: i64,
    pub run_id: i64,
    pub compute_node_id: i64,
    pub use_pending_failed: bool,
    /// Where relative paths of files start.
    pub folder: PathBuf,
    /// Becomes true when nothing is to be asked again.
    pub give_up: watch::Receiver<bool>,
    files: Mutex<HashMap<i64, FileModel>>,
    rules: Mutex<HashMap<i64, Arc<[FailureHandlerRule]>>>,
}

/// An attempt whose process ended.
#[derive(Debug)]
pub struct Finished {
    pub job: Box<JobModel>,
    pub attempt: Attempt,
    pub result: ResultModel,
    pub wall: Duration,
    pub logs: Logs,
    pub why: Option<String>,
    /// A report of it was on its way when the server went away: it may know already.
    pub sent_before: bool,
}

impl Finished {
    pub fn named(&self) -> Named {
        let Attempt { job_id, attempt_id, .. } = self.attempt;
        Named { job_id, name: self.job.name.clone(), attempt_id }
    }

    /// Turns success into failure: the process did not do what it should.
    fn fail(&mut self, why: String) {
        self.result.return_code = 1;
        self.result.status = JobStatus::Failed;
        self.why = Some(why);
    }
}

/// What is to be done with an ended attempt.
#[derive(Debug)]
pub enum Sequel {
    Report(Box<Finished>),
    /// The job is ready again. `script` is to be run now.
    Retried {
        finished: Box<Finished>,
        script: Option<String>,
    },
}

/// What a job needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    pub amount: Amount,
    pub num_nodes: i64,
    /// Absent: as long as it likes.
    pub runtime: Option<Duration>,
    /// It is the row that every workflow has, which limits nothing.
    pub is_default: bool,
}

impl From<&ResourceRequirementsModel> for Needs {
    /// The server has checked the strings; what cannot be read limits nothing.
    fn from(model: &ResourceRequirementsModel) -> Self {
        let seconds = duration_seconds(&model.runtime).ok().and_then(|seconds| u64::try_from(seconds).ok());
        Self {
            amount: Amount {
                cpus: model.num_cpus,
                memory_bytes: memory_bytes(&model.memory).unwrap_or(0),
                gpus: model.num_gpus,
            },
            num_nodes: model.num_nodes,
            runtime: seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs),
            is_default: model.name == "default",
        }
    }
}

impl Aside {
    pub fn new(
        client: Client,
        (workflow_id, run_id, compute_node_id): (i64, i64, i64),
        use_pending_failed: bool,
        folder: PathBuf,
        give_up: watch::Receiver<bool>,
    ) -> Self {
        Self {
            client,
            workflow_id,
            run_id,
            compute_node_id,
            use_pending_failed,
            folder,
            give_up,
            files: Mutex::default(),
            rules: Mutex::default(),
        }
    }

    /// The same for a worker that the server knows as another compute node from now on.
    pub fn of_node(&self, compute_node_id: i64, give_up: watch::Receiver<bool>) -> Self {
        let ids = (self.workflow_id, self.run_id, compute_node_id);
        Self::new(self.client.clone(), ids, self.use_pending_failed, self.folder.clone(), give_up)
    }

    /// Whether something is left to ask about this attempt before it is reported.
    pub fn has_sequel(&self, finished: &Finished) -> bool {
        match finished.result.status {
            JobStatus::Completed => finished.job.output_file_ids.as_ref().is_some_and(|ids| !ids.is_empty()),
            JobStatus::Failed | JobStatus::Terminated => {
                finished.job.failure_handler_id.is_some() || self.use_pending_failed
            }
            _ => false,
        }
    }

    /// Checks the outputs of a completed attempt, and tries to have a failed one retried.
    pub async fn sequel(&self, mut finished: Box<Finished>) -> Sequel {
        if finished.result.status == JobStatus::Completed
            && let Err(why) = self.check_outputs(&finished.job).await
        {
            finished.fail(why);
        }
        if finished.result.status == JobStatus::Completed {
            return Sequel::Report(finished);
        }
        match self.recover(&finished).await {
            Recovery::Retried { script } => Sequel::Retried { finished, script },
            Recovery::NoRule => {
                if self.use_pending_failed {
                    finished.result.status = JobStatus::PendingFailed;
                }
                Sequel::Report(finished)
            }
            Recovery::NotRetried(why) => {
                finished.why = finished.why.or(why);
                Sequel::Report(finished)
            }
        }
    }

    /// Every output file must be there; their modification times are told to the server.
    async fn check_outputs(&self, job: &JobModel) -> Result<(), String> {
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for id in job.output_file_ids.iter().flatten() {
            let file = self.file(*id).await.map_err(|e| format!("cannot read about output file {id}: {e}"))?;
            match std::fs::metadata(self.folder.join(&file.path)).and_then(|meta| meta.modified()) {
                Ok(modified) => found.push(FileModel { st_mtime: Some(seconds_since_1970(modified)), ..file }),
                Err(_) => missing.push(file.path),
            }
        }
        if !missing.is_empty() {
            return Err(format!("expected output files are missing: {}", missing.join(", ")));
        }
        for file in found {
            let path = format!("/files/{}", file.id.unwrap_or_default());
            // Only the time is at stake, and the job did its work: a refusal does not fail it.
            if self.insist(|| self.client.put::<FileModel>(&path, &file)).await.is_ok() {
                self.files.lock().expect("nobody panics with it").insert(file.id.unwrap_or_default(), file);
            }
        }
        Ok(())
    }

    async fn file(&self, id: i64) -> Result<FileModel, CallError> {
        let known = self.files.lock().expect("nobody panics with it").get(&id).cloned();
        if let Some(file) = known {
            return Ok(file);
        }
        let path = format!("/files/{id}");
        let file: FileModel = self.insist(|| self.client.get(&path)).await?;
        let file = FileModel { id: Some(id), ..file };
        self.files.lock().expect("nobody panics with it").insert(id, file.clone());
        Ok(file)
    }

    /// torc's order: first the retry is reserved, then the recovery script runs.
    async fn recover(&self, finished: &Finished) -> Recovery {
        let Some(handler) = finished.job.failure_handler_id else { return Recovery::NoRule };
        let rules = match self.rules(handler).await {
            Ok(rules) => rules,
            Err(why) => return Recovery::NotRetried(Some(why)),
        };
        let Some(rule) = matching_rule(&rules, finished.result.return_code) else { return Recovery::NoRule };
        if finished.attempt.attempt_id >= rule.max_retries.into() {
            return Recovery::NotRetried(None);
        }
        match self.retry(finished.attempt, rule.max_retries).await {
            Ok(()) => Recovery::Retried { script: rule.recovery_script.clone() },
            Err(error) => Recovery::NotRetried(Some(format!("not retried: {error}"))),
        }
    }

    async fn rules(&self, handler: i64) -> Result<Arc<[FailureHandlerRule]>, String> {
        let known = self.rules.lock().expect("nobody panics with it").get(&handler).cloned();
        if let Some(rules) = known {
            return Ok(rules);
        }
        let path = format!("/failure_handlers/{handler}");
        let model: FailureHandlerModel = self
            .insist(|| self.client.get(&path))
            .await
            .map_err(|e| format!("cannot read failure handler {handler}: {e}"))?;
        let rules: Arc<[FailureHandlerRule]> = serde_json::from_str::<Vec<_>>(&model.rules)
            .map_err(|e| format!("failure handler {:?} cannot be read: {e}", model.name))?
            .into();
        self.rules.lock().expect("nobody panics with it").insert(handler, rules.clone());
        Ok(rules)
    }

    /// Asks for another attempt. A repeated request could count twice, so after an answer that
    /// was lost the job is looked at first.
    async fn retry(&self, attempt: Attempt, max_retries: i32) -> Result<(), CallError> {
        let Attempt { job_id, run_id, attempt_id } = attempt;
        let path = format!("/jobs/{job_id}/retry/{run_id}?max_retries={max_retries}");
        let job = format!("/jobs/{job_id}");
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match self.client.post_empty::<JobModel>(&path).await {
                Ok(_) => return Ok(()),
                Err(error @ CallError::Refused { .. }) => return Err(error),
                Err(error) => error,
            };
            if !self.wait(backoff).await {
                return Err(error);
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
            if matches!(error, CallError::Away { reached: true, .. }) {
                let now: JobModel = self.insist(|| self.client.get(&job)).await?;
                if now.attempt_id.unwrap_or(1) > attempt_id {
                    return Ok(());
                }
            }
        }
    }

    pub async fn workflow_status(&self) -> Result<WorkflowStatusResponse, CallError> {
        let path = format!("/workflows/{}/status?times=false", self.workflow_id);
        self.insist(|| self.client.get(&path)).await
    }

    pub async fn is_complete(&self) -> Result<IsCompleteResponse, CallError> {
        self.client.get(&format!("/workflows/{}/is_complete", self.workflow_id)).await
    }

    pub async fn needs(&self, id: i64) -> Result<Needs, CallError> {
        let path = format!("/resource_requirements/{id}");
        let model: ResourceRequirementsModel = self.insist(|| self.client.get(&path)).await?;
        Ok(Needs::from(&model))
    }

    /// What every set of resource requirements of the workflow needs, by id.
    pub async fn all_needs(&self) -> Result<HashMap<i64, Needs>, CallError> {
        let models: Vec<ResourceRequirementsModel> =
            self.list(&format!("/resource_requirements?workflow_id={}", self.workflow_id), usize::MAX).await?;
        Ok(models.iter().filter_map(|model| Some((model.id?, Needs::from(model)))).collect())
    }

    /// The jobs that the server believes to run here.
    pub async fn running_here(&self) -> Result<Vec<JobModel>, CallError> {
        let (workflow, node) = (self.workflow_id, self.compute_node_id);
        let path = format!("/jobs?workflow_id={workflow}&active_compute_node_id={node}&include_relationships=true");
        self.list(&path, usize::MAX).await
    }

    /// The first ready jobs, with what they need.
    pub async fn unfit(&self) -> Result<Vec<Unfit>, CallError> {
        let path = format!("/jobs?workflow_id={}&status=ready", self.workflow_id);
        let mut unfit = Vec::new();
        for job in self.list::<JobModel>(&path, UNFIT_MAX).await? {
            let needs = match job.resource_requirements_id {
                Some(id) => self.needs(id).await?,
                None => Needs::default(),
            };
            unfit.push(Unfit {
                job_id: job.id.unwrap_or_default(),
                name: job.name,
                needs: needs.amount,
                num_nodes: needs.num_nodes,
                labels: job.labels.unwrap_or_default(),
            });
        }
        Ok(unfit)
    }

    /// Gives a job back that was claimed and not started. If the server has taken it back
    /// itself there is nothing to do.
    pub async fn release(&self, job_id: i64) {
        let path = format!("/jobs/{job_id}/manage_status_change/ready/{}", self.run_id);
        // A refusal says that the job is not ours any more.
        drop(self.insist(|| self.client.put_empty::<JobModel>(&path)).await);
    }

    /// Gives back all that the server believes to run on our node.
    pub async fn release_all(&self) -> Result<(), CallError> {
        for job in self.running_here().await? {
            if let Some(id) = job.id {
                self.release(id).await;
            }
        }
        Ok(())
    }

    /// Says that our node lives still.
    pub async fn heartbeat(&self, lease: Duration) -> Result<(), CallError> {
        heartbeat(&self.client, self.workflow_id, self.compute_node_id, lease, false).await
    }

    /// Ends our node's lease: what it still has is ready again, as new attempts.
    pub async fn say_goodbye(&self) -> Result<(), CallError> {
        self.heartbeat(Duration::ZERO).await
    }

    /// Makes all that the server believes to run on our node ready as new attempts: their processes
    /// had begun, and are gone.
    async fn begin_anew(&self) -> Result<(), CallError> {
        for job in self.running_here().await? {
            let Some(id) = job.id else { continue };
            let path = format!("/jobs/{id}/retry/{}?max_retries={}", self.run_id, i32::MAX);
            match self.insist(|| self.client.post_empty::<JobModel>(&path)).await {
                // A refusal says that the job is not ours any more.
                Ok(_) | Err(CallError::Refused { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn list<T: DeserializeOwned>(&self, path: &str, max: usize) -> Result<Vec<T>, CallError> {
        let limit = max.min(RECORDS_MAX as usize);
        let mut items: Vec<T> = Vec::new();
        loop {
            let page = format!("{path}&offset={}&limit={limit}", items.len());
            let page: ListResponse<T> = self.insist(|| self.client.get(&page)).await?;
            let more = page.has_more && !page.items.is_empty();
            items.extend(page.items);
            if !more || items.len() >= max {
                return Ok(items);
            }
        }
    }

    /// Asks until there is an answer, or a refusal, or the worker gives up.
    pub async fn insist<T, F: Future<Output = Result<T, CallError>> + Send>(
        &self,
        ask: impl Fn() -> F,
    ) -> Result<T, CallError> {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match ask().await {
                Err(error @ CallError::Away { .. }) => error,
                other => return other,
            };
            if !self.wait(backoff).await {
                return Err(error);
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// Waits; `false` if the worker gives up meanwhile.
    async fn wait(&self, time: Duration) -> bool {
        let mut give_up = self.give_up.clone();
        let given_up = give_up.wait_for(|up| *up);
        tokio::time::timeout(time, given_up).await.is_err()
    }
}

/// Begins, renews or, with no time at all, ends the lease of a compute node.
pub async fn heartbeat(
    client: &Client,
    workflow_id: i64,
    compute_node_id: i64,
    lease: Duration,
    begin: bool,
) -> Result<(), CallError> {
    let lease_ms = i64::try_from(lease.as_millis()).unwrap_or(i64::MAX);
    let path = format!("/workflows/{workflow_id}/heartbeat");
    let request = HeartbeatRequest { compute_node_id, lease_ms, begin };
    client.post::<HeartbeatResponse>(&path, &request).await.map(drop)
}

/// How long an earlier worker's jobs may take to be given back.
const GIVE_BACK_MAX: Duration = Duration::from_secs(30);

/// Gives back what the server believes to run on a node that is dead, and signs that node off.
pub async fn give_back(client: &Client, workflow_id: i64, compute_node_id: i64) -> Result<(), CallError> {
    let (give_up, given_up) = watch::channel(false);
    let path = format!("/workflows/{workflow_id}");
    let work = async {
        let workflow: WorkflowModel = client.get(&path).await?;
        let ids = (workflow_id, workflow.run_id.unwrap_or(0), compute_node_id);
        let aside = Aside::new(client.clone(), ids, false, PathBuf::new(), given_up);
        // With a lease that is not over, the server makes all of it ready itself.
        match aside.insist(|| aside.say_goodbye()).await {
            Ok(()) => {}
            Err(CallError::Refused { .. }) => aside.begin_anew().await?,
            Err(away) => return Err(away),
        }
        let path = format!("/compute_nodes/{compute_node_id}");
        let node: ComputeNodeModel = client.get(&path).await?;
        let node = ComputeNodeModel { is_active: Some(false), ..node };
        client.put::<ComputeNodeModel>(&path, &node).await.map(drop)
    };
    let done = tokio::time::timeout(GIVE_BACK_MAX, work).await;
    give_up.send_replace(true);
    match done {
        // Somebody has deleted it all: there is nothing to give back.
        Ok(Err(CallError::Refused { status: 404, .. })) => Ok(()),
        Ok(done) => done,
        Err(_) => Err(CallError::Away { why: "no answer in time".to_owned(), reached: false }),
    }
}

enum Recovery {
    Retried {
        script: Option<String>,
    },
    /// No failure handler, or none of its rules is for this code.
    NoRule,
    NotRetried(Option<String>),
}

fn seconds_since_1970(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
