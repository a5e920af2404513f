//! Workers with real processes against a small server in memory.

mod ends;
mod failures;
mod leases;
mod lost;
mod rate;
mod runs;
mod server;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use forebay_worker::{Event, Options, Outcome, Stop, Summary, Worker};
use server::Server;
use tokio::sync::watch;

/// This very program is the launcher when it is started as one: before the test harness has made
/// its threads, for a launcher has only one.
#[expect(unsafe_code, reason = "nothing else runs before the harness")]
mod before_main {
    extern "C" fn launch_if_asked() {
        if forebay_worker::launcher::launch_if_asked().is_some() {
            std::process::exit(0);
        }
    }

    #[used]
    #[unsafe(link_section = ".init_array")]
    static LAUNCH_IF_ASKED: extern "C" fn() = launch_if_asked;
}

/// This very program is also a worker of its own, to be killed: the server's address and the
/// folder are in the environment.
#[test]
fn be_a_worker() {
    let Ok(url) = std::env::var("TEST_WORKER_URL") else { return };
    let folder = PathBuf::from(std::env::var_os("TEST_WORKER_FOLDER").unwrap());
    let options = Options { output_folder: folder.join("out"), folder, ..Options::new(url, 1) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Worker::run(options, Stop::never(), |_| {})).unwrap();
}

/// Starts a worker that can be killed.
fn worker_process(server: &Server, site: &Site) -> std::process::Child {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(["be_a_worker", "--exact"]).stdout(std::process::Stdio::null());
    command.env("TEST_WORKER_URL", server.url()).env("TEST_WORKER_FOLDER", site.folder.path());
    command.spawn().unwrap()
}

/// A worker's folder and what it told.
struct Site {
    folder: tempfile::TempDir,
    events: Arc<Mutex<Vec<Event>>>,
    /// How many events there were.
    count: watch::Sender<usize>,
}

impl Site {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), events: Arc::default(), count: watch::channel(0).0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until a job has written this file, and reads it.
    async fn written(&self, name: &str) -> String {
        loop {
            match std::fs::read_to_string(self.path(name)) {
                Ok(text) if text.ends_with('\n') => return text,
                _ => tokio::task::yield_now().await,
            }
        }
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn options(&self, server: &Server) -> Options {
        Options {
            folder: self.folder.path().to_owned(),
            output_folder: self.path("out"),
            num_cpus: Some(4),
            memory_gb: Some(8.0),
            num_gpus: Some(0),
            ..Options::new(server.url(), 1)
        }
    }

    async fn run(&self, options: Options, stop: Stop) -> Summary {
        let (events, count) = (self.events.clone(), self.count.clone());
        let sink = move |event| {
            events.lock().unwrap().push(event);
            count.send_modify(|count| *count += 1);
        };
        Worker::run(options, stop, sink).await.expect("the worker can begin")
    }

    /// Waits until an event that `is_it` says yes to has been told.
    async fn told(&self, is_it: impl Fn(&Event) -> bool) {
        let mut count = self.count.subscribe();
        while !self.events.lock().unwrap().iter().any(&is_it) {
            count.changed().await.unwrap();
        }
    }

    async fn started(&self, name: &str) {
        self.told(|event| matches!(event, Event::Started { job, .. } if job.name == name)).await;
    }

    fn outcome(&self, name: &str) -> Outcome {
        let events = self.events.lock().unwrap();
        let found = events.iter().rev().find_map(|event| match event {
            Event::Finished { job, outcome, .. } if job.name == name => Some(outcome.clone()),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("{name} did not finish: {events:?}"))
    }

    fn pid(&self, name: &str) -> i32 {
        let events = self.events.lock().unwrap();
        let found = events.iter().rev().find_map(|event| match event {
            Event::Started { job, pid, .. } if job.name == name => Some(*pid),
            _ => None,
        });
        found.expect("it started")
    }
}

/// Whether a process runs; one that is dead and not yet counted does not.
fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"));
    stat.is_ok_and(|stat| !stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')))
}
