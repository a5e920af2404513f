//! One worker's work on one workflow.
//!
//! One loop waits for whatever happens next: a process ended, an answer came, a moment is due,
//! somebody interrupts. It owns all state; requests are tasks that bring back an answer.
//!
//! - `claims`: the stream of reports and claims, and what its answers mean.
//! - `jobs`: from a claimed job to a finished attempt.
//! - `lease`: saying that we live, and beginning anew when the server believed that we did not.
//! - `leave`: when and how it ends.

mod claims;
mod jobs;
mod lease;
mod leave;

use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use forebay_wire::ours::ReportAndClaimResponse;
use forebay_wire::units::{bytes_to_gb, gb_to_bytes};
use forebay_wire::{
    ComputeNodeModel, ExecutionConfig, ExecutionMode, IsCompleteResponse, JobModel, JobMonitorConfig, WorkflowModel,
    WorkflowStatusResponse,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::aside::{Aside, BACKOFF_MIN, Finished, Needs, Sequel};
use crate::client::{CallError, Client, ClientError};
use crate::detect::{self, Amount};
use crate::launcher::protocol::{Command, Notice, Open};
use crate::ledger::{Ask, Ledger, Packing};
use crate::options::{End, Event, Named, Options, Stop, Summary, Unfit};
use crate::outcome::rfc3339;
use crate::processes::{LaunchError, Processes};
use crate::sys;
use jobs::Running;
use lease::Lease;

/// How often the memory of jobs is looked at if the workflow does not say.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// How many times in a row nothing can be started before the worker gives up, if nothing runs.
const PAUSES_MAX: u32 = 6;

/// Why a worker could not begin, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The first requests: nothing was claimed.
    #[error("cannot {doing} at {url}")]
    Server { doing: &'static str, url: String, source: CallError },
    #[error("the workflow asks for execution mode slurm, which this worker does not have")]
    SlurmMode,
    #[error("cannot use the folder {folder}")]
    Folder { folder: String, source: std::io::Error },
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// Nothing runs, and again and again nothing could be started.
    #[error("this machine cannot start processes: {0}")]
    CannotStart(String),
}

/// Works on a workflow until it is complete, canceled or stuck, or the worker is stopped.
/// Calls `events` with what happens.
pub async fn run(options: Options, stop: Stop, events: &mut (dyn FnMut(Event) + Send)) -> Result<Summary, Error> {
    let mut session = Session::begin(options, events).await?;
    match session.work(stop).await {
        Ok(end) => Ok(session.leave(end).await),
        Err(error) => {
            session.abandon().await;
            Err(error)
        }
    }
}

struct Session<'e> {
    options: Options,
    events: &'e mut (dyn FnMut(Event) + Send),
    workflow: WorkflowModel,
    config: ExecutionConfig,
    /// Jobs with more memory than they asked for are killed.
    enforce_memory: bool,
    node: ComputeNodeModel,
    aside: Arc<Aside>,
    give_up: watch::Sender<bool>,
    processes: Processes,
    output_folder: PathBuf,
    began: Instant,

    has: Amount,
    ledger: Ledger,
    needs: HashMap<i64, Needs>,
    last_key: u64,
    running: HashMap<u64, Running>,
    /// Recovery scripts that run.
    scripts: HashMap<u64, Named>,
    /// Attempts that were claimed and not yet settled, by job.
    ours: HashSet<(i64, i64)>,
    /// Jobs whose last attempt still has a sequel or a recovery script.
    unfinished_business: HashSet<i64>,
    /// Claimed jobs whose needs are being read.
    reading_needs: usize,
    /// Jobs that were claimed again before that was over.
    held: HashMap<i64, (Box<JobModel>, Needs)>,
    timers: BinaryHeap<Timer>,

    /// Ended attempts to report.
    outbox: VecDeque<Finished>,
    /// So many reports are sent one by one: among them is one that the server cannot read.
    one_by_one: usize,
    requests: JoinSet<(u64, Result<ReportAndClaimResponse, CallError>)>,
    in_flight: HashMap<u64, InFlight>,
    last_answer: Instant,
    lease: Lease,
    away: Option<Away>,
    /// A claim's answer was lost: from then on, ask what the server believes to run here.
    doubt: Option<Instant>,

    /// This machine cannot start processes: nothing is claimed for a while.
    pause: Option<Pause>,

    sides: JoinSet<Side>,
    checking: bool,
    lull: Lull,
    last_claim: Instant,
    phase: Phase,
    counts: Counts,
}

/// A request for reports and claims that is not answered.
struct InFlight {
    /// The compute node that we were then.
    node: i64,
    reports: Vec<Finished>,
    ask: Option<Ask>,
    /// Only asks, and may wait at the server.
    is_waiting_claim: bool,
    task: tokio::task::AbortHandle,
}

/// The server cannot be reached.
struct Away {
    since: Instant,
    next_try: Instant,
    backoff: Duration,
    why: String,
}

/// A time without claims.
struct Pause {
    until: Instant,
    /// How many there were, with nothing started between them.
    count: u32,
    why: String,
}

/// What a side conversation came to.
enum Side {
    Sequel(Sequel),
    Needs(Box<JobModel>, Result<Needs, CallError>),
    RunningHere(Result<Vec<JobModel>, CallError>),
    Status(Result<Box<WorkflowStatusResponse>, CallError>),
    Unfit(Vec<Unfit>),
    Check(Result<IsCompleteResponse, CallError>),
    Heartbeat(Result<(), CallError>),
    /// We are another compute node, with a lease of its own.
    Registered(Result<Box<ComputeNodeModel>, CallError>),
    Released,
}

/// What is known of a workflow that has nothing for us while we do nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lull {
    /// Nothing: ask for jobs, and do not wait.
    Unknown,
    /// So many claims of all we have found nothing; the status is being read.
    Reading { claims: u32 },
    /// Nothing runs anywhere, and yet the workflow is not complete: ask once more.
    Suspect { claims: u32 },
    /// Others run jobs: wait for what they set free.
    OthersWork,
}

enum Phase {
    Working,
    /// Nothing more is claimed. What runs ends and is reported.
    Leaving(End),
}

#[derive(Debug, Default)]
struct Counts {
    completed: u64,
    failed: u64,
    terminated: u64,
    retried: u64,
    not_accepted: u64,
}

/// Something to do to a process at some time, if it still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Timer {
    at: Instant,
    key: u64,
    what: Due,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    /// It has run as long as it may.
    Runtime,
    /// It was asked to end and did not.
    Kill,
}

impl Ord for Timer {
    /// The soonest is the greatest: a heap gives the greatest.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.key).cmp(&(self.at, self.key))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<'e> Session<'e> {
    /// Reads the workflow, starts the launcher, registers with the server.
    async fn begin(options: Options, events: &'e mut (dyn FnMut(Event) + Send)) -> Result<Self, Error> {
        let client = Client::new(&options.url, &options.access)?;
        let server = |doing| {
            let url = client.base().to_owned();
            move |source| Error::Server { doing, url, source }
        };
        let path = format!("/workflows/{}", options.workflow_id);
        let workflow: WorkflowModel = client.get(&path).await.map_err(server("read the workflow"))?;
        let config = workflow.execution_config.clone().unwrap_or_default();
        let in_slurm = std::env::var_os("SLURM_JOB_ID").is_some();
        if config.mode == ExecutionMode::Slurm || config.mode == ExecutionMode::Auto && in_slurm {
            return Err(Error::SlurmMode);
        }
        let folder = std::path::absolute(&options.folder).map_err(in_folder(&options.folder))?;
        let output_folder = std::path::absolute(&options.output_folder).map_err(in_folder(&options.output_folder))?;
        std::fs::create_dir_all(output_folder.join("job_stdio")).map_err(in_folder(&output_folder))?;

        let detected = detect::machine();
        let has = Amount {
            cpus: options.num_cpus.unwrap_or(detected.cpus),
            memory_bytes: options.memory_gb.map_or(detected.memory_bytes, gb_to_bytes),
            gpus: options.num_gpus.unwrap_or(detected.gpus),
        };
        let run_id = workflow.run_id.unwrap_or(0);
        let monitor = workflow.resource_monitor_config.clone();
        let sample_interval = monitor.as_ref().map_or(SAMPLE_INTERVAL, |config| {
            Duration::from_secs(u64::try_from(config.sample_interval_seconds).unwrap_or(0)).max(SAMPLE_INTERVAL)
        });
        let open = Open {
            journal: std::path::absolute(options.journal_path()).map_err(in_folder(&options.output_folder))?,
            mark: mark(),
            env: environment(&workflow, run_id, client.base(), &output_folder),
            sample_ms: u64::try_from(sample_interval.as_millis()).unwrap_or(u64::MAX),
        };
        let mut processes = Processes::launch(&options.launcher, &folder, open).await?;

        let node = ComputeNodeModel {
            workflow_id: options.workflow_id,
            hostname: sys::hostname(),
            pid: std::process::id().into(),
            start_time: rfc3339(SystemTime::now()),
            is_active: Some(true),
            num_cpus: has.cpus,
            memory_gb: bytes_to_gb(has.memory_bytes),
            num_gpus: has.gpus,
            num_nodes: 1,
            scheduler_config_id: options.scheduler_config_id,
            compute_node_type: "local".to_owned(),
            labels: Some(options.labels.clone()).filter(|labels| !labels.is_empty()),
            ..ComputeNodeModel::default()
        };
        let node = lease::register(&client, &node, options.lease).await.map_err(server("register a compute node"))?;
        let compute_node_id = node.id.unwrap_or_default();
        processes.send(&Command::Registered { workflow_id: options.workflow_id, compute_node_id });
        let (give_up, given_up) = watch::channel(false);
        let ids = (options.workflow_id, run_id, compute_node_id);
        let pending_failed = workflow.use_pending_failed == Some(true);
        let read_needs = server("read the resource requirements");
        let aside = Arc::new(Aside::new(client, ids, pending_failed, folder, given_up));
        let needs = aside.all_needs().await.map_err(read_needs)?;
        events(Event::Registered { compute_node_id, run_id, has });

        let packing = match options.max_parallel_jobs {
            Some(max) => Packing::ByCount { jobs_max: max.into() },
            None => Packing::ByResources,
        };
        let devices = detect::gpu_devices(Some(has.gpus));
        let now = Instant::now();
        let lease = Lease::begun(options.lease, now);
        Ok(Self {
            enforce_memory: config.limit_resources.unwrap_or(true) && monitor.is_some_and(|m| jobs_are_monitored(&m)),
            options,
            events,
            workflow,
            config,
            node,
            aside,
            give_up,
            processes,
            output_folder,
            began: now,
            has,
            ledger: Ledger::new(has, devices, packing),
            needs,
            last_key: 0,
            running: HashMap::new(),
            scripts: HashMap::new(),
            ours: HashSet::new(),
            unfinished_business: HashSet::new(),
            reading_needs: 0,
            held: HashMap::new(),
            timers: BinaryHeap::new(),
            outbox: VecDeque::new(),
            one_by_one: 0,
            requests: JoinSet::new(),
            in_flight: HashMap::new(),
            last_answer: now,
            lease,
            away: None,
            doubt: None,
            pause: None,
            sides: JoinSet::new(),
            checking: false,
            lull: Lull::Unknown,
            last_claim: now,
            phase: Phase::Working,
            counts: Counts::default(),
        })
    }

    /// The loop. Ends when nothing is left to do.
    async fn work(&mut self, mut stop: Stop) -> Result<End, Error> {
        loop {
            self.report_and_claim();
            self.processes.flush()?;
            if let Some(end) = self.is_over() {
                return Ok(end);
            }
            if let Some(pause) = self.pause.as_ref().filter(|pause| pause.count > PAUSES_MAX && self.running.is_empty())
            {
                return Err(Error::CannotStart(pause.why.clone()));
            }
            let due = self.next_due();
            tokio::select! {
                notices = self.processes.next() => for notice in notices? {
                    self.on_notice(notice);
                },
                Some(answer) = self.requests.join_next() => match answer {
                    Ok((id, answer)) => self.on_answer(id, answer),
                    Err(e) if e.is_cancelled() => {}
                    Err(e) => std::panic::resume_unwind(e.into_panic()),
                },
                Some(side) = self.sides.join_next() => match side {
                    Ok(side) => self.on_side(side),
                    Err(e) => std::panic::resume_unwind(e.into_panic()),
                },
                count = stop.interrupted() => self.on_interrupt(count),
                () = tokio::time::sleep_until(due) => self.on_due(Instant::now()),
            }
        }
    }

    fn on_notice(&mut self, notice: Notice) {
        match notice {
            Notice::Started { key, pid } => self.on_started(key, pid),
            Notice::NotStarted { key, error, never: true } => self.on_not_startable(key, error),
            Notice::NotStarted { key, error, never: false } => self.on_cannot_start(key, error),
            Notice::Ended(ended) => self.on_ended(&ended),
            // Said once, while the launcher is opened.
            Notice::Opened | Notice::Refused(_) => {}
        }
    }

    fn on_side(&mut self, side: Side) {
        match side {
            Side::Sequel(sequel) => self.on_sequel(sequel),
            Side::Needs(job, needs) => self.on_needs(job, needs),
            Side::RunningHere(jobs) => self.on_running_here(jobs),
            Side::Status(status) => self.on_status(status),
            Side::Unfit(jobs) => self.leave_because(End::NothingFits { jobs, has: self.has }),
            Side::Check(answer) => self.on_check(answer),
            Side::Heartbeat(answer) => self.on_heartbeat(answer),
            Side::Registered(node) => self.on_registered(node),
            Side::Released => {}
        }
    }

    /// When [`on_due`](Self::on_due) has something to do.
    fn next_due(&self) -> Instant {
        let give_up = self.away.as_ref().map(|away| away.since + self.away_max());
        let dues = [
            self.timers.peek().map(|timer| timer.at),
            self.lease.next(),
            self.away.as_ref().map(|away| away.next_try).filter(|_| !self.checking && self.in_flight.is_empty()),
            give_up.filter(|_| self.running.is_empty()),
            self.doubt.filter(|_| self.away.is_none() && !self.checking),
            Some(self.last_answer + self.options.check_interval).filter(|_| !self.checking && self.away.is_none()),
            self.pause.as_ref().map(|pause| pause.until).filter(|until| *until > Instant::now()),
            self.termination_at().filter(|_| self.is_working()),
            self.options.idle_max.map(|max| self.last_claim + max).filter(|_| self.is_working()),
        ];
        let never = Instant::now() + Duration::from_secs(3600);
        dues.into_iter().flatten().min().unwrap_or(never)
    }

    fn on_due(&mut self, now: Instant) {
        while let Some(timer) = self.timers.peek().copied().filter(|timer| timer.at <= now) {
            self.timers.pop();
            self.on_timer(timer);
        }
        self.say_we_live(now);
        if self.is_working() && self.termination_at().is_some_and(|at| at <= now) {
            self.leave_because(End::TimeLimit);
            self.terminate_all();
        }
        let idle = self.options.idle_max.is_some_and(|max| self.last_claim + max <= now);
        if idle && self.is_working() && self.has_nothing() {
            self.leave_because(End::Idle);
        }
        if idle {
            self.last_claim = now;
        }
        self.look_around(now);
    }

    /// Asks what the stream of claims does not tell us now: whether the workflow was canceled,
    /// and after a lost answer what we are believed to run.
    fn look_around(&mut self, now: Instant) {
        let must_wait = |away: &Away| now < away.next_try || !self.in_flight.is_empty();
        if self.checking || self.away.as_ref().is_some_and(must_wait) {
            return;
        }
        let aside = self.aside.clone();
        if self.doubt.is_some_and(|since| since <= now) {
            self.checking = true;
            self.sides.spawn(async move { Side::RunningHere(aside.running_here().await) });
        } else if self.away.is_some() || self.last_answer + self.options.check_interval <= now {
            self.checking = true;
            self.sides.spawn(async move { Side::Check(aside.is_complete().await) });
        }
    }

    fn on_check(&mut self, answer: Result<IsCompleteResponse, CallError>) {
        self.checking = false;
        self.last_answer = Instant::now();
        if answer.is_ok() {
            self.on_back();
        }
        match answer {
            Ok(answer) if answer.is_canceled => self.on_canceled(),
            Ok(answer) if answer.is_complete && self.has_nothing() => self.leave_because(End::Complete),
            Ok(_) => {}
            Err(CallError::Away { why, .. }) => self.on_away(why),
            Err(CallError::Refused { message, .. }) => self.on_refused(message),
        }
    }

    /// Nothing runs, is about to run, or is to be reported.
    fn has_nothing(&self) -> bool {
        self.running.is_empty()
            && self.scripts.is_empty()
            && self.held.is_empty()
            && self.outbox.is_empty()
            && self.unfinished_business.is_empty()
            && self.reading_needs == 0
    }

    fn is_working(&self) -> bool {
        matches!(self.phase, Phase::Working)
    }

    fn tell(&mut self, event: Event) {
        (self.events)(event);
    }
}

/// The environment that all processes of a worker have in common.
fn environment(
    workflow: &WorkflowModel,
    run_id: i64,
    api_url: &str,
    output: &std::path::Path,
) -> Vec<(String, String)> {
    let text = |name: &str, value: &dyn std::fmt::Display| (name.to_owned(), value.to_string());
    let mut env = vec![
        text("TORC_WORKFLOW_ID", &workflow.id.unwrap_or_default()),
        text("TORC_RUN_ID", &run_id),
        text("TORC_API_URL", &api_url),
        text("TORC_OUTPUT_DIR", &output.display()),
    ];
    env.extend(workflow.submission_directory.as_ref().map(|folder| text("TORC_WORKFLOW_SUBMISSION_DIR", folder)));
    env
}

/// A name that no other worker has: processes that carry it are ours.
fn mark() -> String {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{}-{}-{nanos:x}", sys::hostname(), std::process::id())
}

fn jobs_are_monitored(config: &forebay_wire::ResourceMonitorConfig) -> bool {
    config.jobs.as_ref().map_or(config.enabled, |JobMonitorConfig { enabled, .. }| *enabled)
}

fn in_folder(folder: &std::path::Path) -> impl Fn(std::io::Error) -> Error {
    let folder = folder.display().to_string();
    move |source| Error::Folder { folder: folder.clone(), source }
}
