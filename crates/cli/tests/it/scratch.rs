//! A folder of a test's own, and the binary in it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Nothing that a test starts may take longer.
const LONGEST: Duration = Duration::from_secs(120);

pub struct Scratch {
    folder: TempDir,
}

/// What a finished program said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Said {
    /// Its stdout as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the exit code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Said {
        assert_eq!(self.code, code, "{self:?}");
        self
    }
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch { folder: tempfile::tempdir().expect("a folder can be made") }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("it lies in the scratch folder")).expect("a folder can be made");
        fs::write(path, text).expect("a file can be written");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        command
            .env_remove("RUST_LOG")
            .env_remove("DATABASE_URL")
            .env_remove("FOREBAY_CREDENTIALS")
            .env("USER", "tester");
        command
    }

    /// Runs the binary to its end.
    pub fn forebay(&self, args: &[&str]) -> Said {
        finish(self.start(args))
    }

    /// Starts the binary, its output piped.
    pub fn start(&self, args: &[&str]) -> Child {
        let mut command = self.command(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary can be started")
    }

    /// The state of each job of a workflow, by name, in the order of their ids.
    pub fn states(&self, db: &str) -> Vec<(String, String)> {
        let jobs = self.forebay(&["jobs", "--db", db, "--json"]).exits(0).json();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        jobs.as_array().expect("a list").iter().map(|job| (text(&job["name"]), text(&job["status"]))).collect()
    }
}

/// Waits for a program's end.
pub fn finish(mut child: Child) -> Said {
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            pipe.map(|mut pipe| pipe.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let out = read(child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let err = read(child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>));
    let status = wait(&mut child);
    let [out, err] = [out, err].map(|text| text.join().expect("reading does not panic"));
    Said { code: status.code().unwrap_or(-1), out, err }
}

/// Reads a program's stderr until a line of it says this. What follows is left.
#[track_caller]
pub fn hear(child: &mut Child, wanted: &str) {
    let err = child.stderr.as_mut().expect("it is piped");
    let mut heard = Vec::new();
    let mut byte = [0];
    loop {
        let count = err.read(&mut byte).expect("a pipe can be read");
        assert!(count > 0, "it ended without {wanted:?}: {}", String::from_utf8_lossy(&heard));
        heard.push(byte[0]);
        let text = String::from_utf8_lossy(&heard);
        if byte[0] == b'\n' && text.lines().last().is_some_and(|line| line.contains(wanted)) {
            return;
        }
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    watched(child.id(), || child.wait().expect("it is our child"))
}

/// Does what ends with the process at the latest, and kills that if it takes too long.
fn watched<T>(pid: u32, work: impl FnOnce() -> T) -> T {
    let (ended, watched) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if watched.recv_timeout(LONGEST) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("process {pid} takes too long");
            kill(pid, "KILL");
        }
    });
    let done = work();
    drop(ended);
    watchdog.join().expect("the watchdog does not panic");
    done
}

/// Sends a signal, such as `INT`.
pub fn kill(pid: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status();
    assert!(status.expect("kill can be started").success(), "kill -{signal} {pid}");
}

/// Whether a process of this number lives; one that only waits to be reaped does not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next())
        .is_some_and(|state| state != "Z" && state != "X")
}

/// Waits until something is so, by looking again and again.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < LONGEST, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A server of a database; killed when dropped.
pub struct Served {
    child: Child,
    stdout: BufReader<ChildStdout>,
    pub url: String,
    /// Where its workers of tasks find it, if it listens for them.
    pub grpc: Option<String>,
}

impl Served {
    pub fn start(scratch: &Scratch, args: &[&str]) -> Served {
        let mut all = vec!["serve", "--http", "127.0.0.1:0"];
        all.extend(args);
        Served::listening(scratch.start(&all))
    }

    /// A server that was started in some other way.
    pub fn listening(child: Child) -> Served {
        let (mut served, address) = Served::saying(child, "listening http=");
        let (address, grpc) = address.split_once(" grpc=").unwrap_or((&address, ""));
        served.url = format!("http://{address}");
        served.grpc = (!grpc.is_empty()).then(|| format!("http://{grpc}"));
        served
    }

    /// A server with TLS, whose certificate is for this name.
    pub fn listening_secured(child: Child) -> Served {
        let (mut served, address) = Served::saying(child, "listening https=");
        let (_, port) = address.rsplit_once(':').expect("an address has a port");
        served.url = format!("https://localhost:{port}");
        served
    }

    /// A server that was started as torc-server is.
    pub fn as_torc_server(child: Child) -> Served {
        let (mut served, port) = Served::saying(child, "TORC_SERVER_PORT=");
        served.url = format!("http://127.0.0.1:{port}");
        served
    }

    /// A server whose first line begins so; what stands after it.
    fn saying(mut child: Child, wanted: &str) -> (Served, String) {
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut served = Served { child, stdout, url: String::new(), grpc: None };
        let line = served.line();
        let Some(rest) = line.strip_prefix(wanted) else {
            panic!("it said {line:?}, and {:?}", finish_err(&mut served.child));
        };
        (served, rest.to_owned())
    }

    /// The next line of its stdout; empty if it has ended.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        let stdout = &mut self.stdout;
        watched(self.child.id(), || stdout.read_line(&mut line).expect("its stdout can be read"));
        line.trim_end().to_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: &str) {
        kill(self.child.id(), signal);
    }

    /// Closes its stdin and waits for the end.
    pub fn end_stdin(mut self) -> Said {
        drop(self.child.stdin.take().expect("it is piped"));
        self.ended()
    }

    /// Waits until a line of its log says this.
    #[track_caller]
    pub fn hear(&mut self, wanted: &str) {
        hear(&mut self.child, wanted);
    }

    /// Sends a signal and waits for the end.
    pub fn end(mut self, signal: &str) -> Said {
        self.signal(signal);
        self.ended()
    }

    fn ended(&mut self) -> Said {
        let status = wait(&mut self.child);
        let mut out = String::new();
        self.stdout.read_to_string(&mut out).expect("its end closes the pipe");
        Said { code: status.code().unwrap_or(-1), out, err: finish_err(&mut self.child) }
    }
}

fn finish_err(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(mut err) = child.stderr.take() {
        err.read_to_string(&mut text).expect("its end closes the pipe");
    }
    text
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
