//! What a worker is told, what it tells, and how it is stopped.

use std::path::PathBuf;
use std::time::Duration;

use forebay_wire::{JobStatus, JobStatusCounts};
use tokio::sync::watch;

use crate::client::Access;
use crate::detect::Amount;
use crate::processes::LauncherProgram;

/// What a worker is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Address of the server, with or without the API's base path.
    pub url: String,
    pub access: Access,
    pub workflow_id: i64,
    /// Where jobs run.
    pub folder: PathBuf,
    /// Where `job_stdio` with the jobs' output is made.
    pub output_folder: PathBuf,
    /// Default: `worker_journal` in the output folder.
    pub journal: Option<PathBuf>,
    pub launcher: LauncherProgram,
    /// What this machine has, where it is not what is detected.
    pub num_cpus: Option<i64>,
    pub memory_gb: Option<f64>,
    pub num_gpus: Option<i64>,
    /// Claim jobs in order, so many at a time, whatever they need.
    pub max_parallel_jobs: Option<u32>,
    /// Without labels only jobs without labels are claimed; with labels only those that have
    /// some, all among these.
    pub labels: Vec<String>,
    pub scheduler_config_id: Option<i64>,
    pub strict_scheduler_match: bool,
    pub on_interrupt: OnInterrupt,
    /// How long this machine is ours. Jobs are terminated in time before its end, as the
    /// workflow's execution config says.
    pub time_limit: Option<Duration>,
    /// Terminate a job that runs longer than its resource requirements say. torc does not.
    pub enforce_runtime: bool,
    /// Leave when there was nothing to claim for so long, though the workflow goes on elsewhere.
    pub idle_max: Option<Duration>,
    /// How long the server believes that this worker lives without hearing of it; it hears of it four
    /// times as often. After that what runs here is others' to run, and is killed here once we hear so.
    /// Without it the server waits for us for ever.
    pub lease: Option<Duration>,
    /// How long one claim waits at the server when nothing runs here.
    pub claim_wait: Duration,
    /// The same while jobs run here. Until it ends, a claim by resources does not ask for what
    /// became free meanwhile together with what was free before.
    pub busy_claim_wait: Duration,
    /// How often a worker whose jobs are long asks whether the workflow was canceled.
    pub check_interval: Duration,
    /// How long the server may be away before the worker gives up.
    pub away_max: Duration,
    /// The same once the worker was told to stop.
    pub stopping_away_max: Duration,
}

impl Options {
    /// The defaults for this workflow of this server, with the current folder for jobs and
    /// `forebay_output` in it for what they write.
    pub fn new(url: impl Into<String>, workflow_id: i64) -> Self {
        Self {
            url: url.into(),
            access: Access::default(),
            workflow_id,
            folder: PathBuf::from("."),
            output_folder: PathBuf::from("forebay_output"),
            journal: None,
            launcher: LauncherProgram::default(),
            num_cpus: None,
            memory_gb: None,
            num_gpus: None,
            max_parallel_jobs: None,
            labels: Vec::new(),
            scheduler_config_id: None,
            strict_scheduler_match: false,
            on_interrupt: OnInterrupt::Wait,
            time_limit: None,
            enforce_runtime: false,
            idle_max: None,
            lease: None,
            claim_wait: Duration::from_secs(20),
            busy_claim_wait: Duration::from_secs(2),
            check_interval: Duration::from_secs(5),
            away_max: Duration::from_secs(20 * 60),
            stopping_away_max: Duration::from_secs(30),
        }
    }

    /// Where the journal is.
    pub fn journal_path(&self) -> PathBuf {
        self.journal.clone().unwrap_or_else(|| self.output_folder.join("worker_journal"))
    }
}

/// What the first interrupt does to running jobs. The second terminates them in any case, the
/// third kills them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    Wait,
    Terminate,
}

/// Stops a worker: call [`interrupt`](Self::interrupt) for each Ctrl-C.
#[derive(Debug, Clone)]
pub struct Stopper(watch::Sender<u32>);

impl Stopper {
    /// Asks the worker to stop; once more to terminate the jobs, once more to kill them.
    pub fn interrupt(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

/// The worker's end of a [`Stopper`].
#[derive(Debug)]
pub struct Stop {
    count: watch::Receiver<u32>,
    /// Of a worker that cannot be stopped: keeps the channel open.
    _sender: Option<watch::Sender<u32>>,
}

impl Stop {
    /// A worker that is stopped by the [`Stopper`].
    pub fn channel() -> (Stopper, Self) {
        let (sender, count) = watch::channel(0);
        (Stopper(sender), Self { count, _sender: None })
    }

    /// A worker that is not stopped.
    pub fn never() -> Self {
        let (sender, count) = watch::channel(0);
        Self { count, _sender: Some(sender) }
    }

    /// The number of interrupts so far, when there is a new one. May be dropped and called again.
    pub(crate) async fn interrupted(&mut self) -> u32 {
        if self.count.changed().await.is_err() {
            // Nobody can interrupt us any more.
            std::future::pending::<()>().await;
        }
        *self.count.borrow_and_update()
    }
}

/// What happens, for someone to show.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Registered {
        compute_node_id: i64,
        run_id: i64,
        has: Amount,
    },
    Started {
        job: Named,
        pid: i32,
        logs: Logs,
    },
    /// The attempt ended and will be reported so.
    Finished {
        job: Named,
        outcome: Outcome,
        logs: Logs,
    },
    /// The attempt failed and the job is ready again.
    Retried {
        job: Named,
        return_code: i64,
        logs: Logs,
    },
    /// The script that a failure handler has after a retry ended.
    RecoveryEnded {
        job: Named,
        return_code: i64,
    },
    /// The server had not heard of this worker for the length of its lease: what it held is others' to
    /// run, and what runs here is killed.
    LeaseOver {
        compute_node_id: i64,
        killed: Vec<Named>,
    },
    /// The server did not take the report.
    NotAccepted {
        job: Named,
        message: String,
    },
    /// The server cannot be reached; running jobs go on.
    Away {
        why: String,
    },
    /// The server is there again.
    Back,
    /// No more jobs are claimed.
    Stopping {
        why: End,
    },
}

/// An attempt, with the job's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub job_id: i64,
    pub name: String,
    pub attempt_id: i64,
}

/// Where the output of an attempt is. The same path twice is one file; `None` is nowhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logs {
    pub stdout: Option<PathBuf>,
    pub stderr: Option<PathBuf>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub status: JobStatus,
    pub return_code: i64,
    pub wall: Duration,
    pub peak_memory_bytes: Option<i64>,
    /// Why it is a failure, if its return code alone does not say.
    pub why: Option<String>,
}

/// Why a worker ended.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    /// All jobs of the workflow are done, with success or without.
    Complete,
    Canceled,
    Interrupted,
    TimeLimit,
    /// Jobs are ready, nothing runs, and none of them fits this machine.
    NothingFits {
        jobs: Vec<Unfit>,
        has: Amount,
    },
    /// Jobs are left, none is ready, nothing runs.
    Stuck(Box<JobStatusCounts>),
    /// Nothing to claim for as long as the options say.
    Idle,
    /// The server was away for too long.
    Away {
        why: String,
    },
    /// The server refuses us.
    Refused {
        why: String,
    },
}

/// A ready job that this machine cannot run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub job_id: i64,
    pub name: String,
    pub needs: Amount,
    pub num_nodes: i64,
    pub labels: Vec<String>,
}

/// What a worker did.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    pub end: End,
    pub compute_node_id: i64,
    pub run_id: i64,
    /// Attempts by how they were reported.
    pub completed: u64,
    pub failed: u64,
    pub terminated: u64,
    pub retried: u64,
    /// Reports that the server did not take.
    pub not_accepted: u64,
    /// Attempts that ended and whose report never reached the server. The journal names them.
    pub unreported: Vec<Named>,
}
