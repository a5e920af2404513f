//! The launcher: a small process of its own that starts the jobs and reaps them.
//!
//! It exists for three reasons. A process inherits the peak memory of the one that executed it,
//! so jobs started from a process of 500 MB would seem to need 500 MB. A fork of a small process
//! is cheap. And when the worker dies, however it dies, the launcher sees its socket close and
//! kills what it started.
//!
//! It is one thread that waits for three things: commands, ends of children, and the moment to
//! sample what the jobs use.

mod groups;
pub mod journal;
pub mod protocol;
mod usage;

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use groups::{Entrance, Group, Groups};
use journal::{Journal, MARK, StartLine};
use protocol::{Command, Ended, Notice, Open, Output, Start};
use usage::{Meter, Sampler};

use crate::sys::{self, Program, Reaped, Signal, Woken};

/// The first argument of a process that is to be a launcher.
pub const ARGUMENT: &str = "__launcher";

/// How long the launcher waits for killed jobs when its worker is gone.
const LAST_REAP_MAX: Duration = Duration::from_secs(2);

/// Turns this process into a launcher if it was started as one, and then does not return. Call
/// it first in `main`, before threads and memory.
pub fn launch_if_asked() -> Option<ExitCode> {
    (std::env::args_os().nth(1)? == ARGUMENT).then(launch)
}

/// Is a launcher until the worker at the other end of stdin is gone.
pub fn launch() -> ExitCode {
    let socket = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(file) => UnixStream::from(file),
        Err(_) => return ExitCode::FAILURE,
    };
    let Ok(mut launcher) = Launcher::open(socket) else { return ExitCode::FAILURE };
    // However it ends, nothing is left running.
    let served = launcher.serve();
    match launcher.end().and(served) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[derive(Debug)]
struct Launcher {
    socket: UnixStream,
    /// Bytes from the worker that are not yet a whole line.
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    journal: Journal,
    shell: CString,
    /// Environment of every process: ours, and over it what the worker gave.
    env: Vec<CString>,
    /// The names that the worker gave; a job cannot set them.
    fixed: Vec<CString>,
    null: File,
    jobs: HashMap<i32, Running>,
    pids: HashMap<u64, i32>,
    sampler: Sampler,
    sample_interval: Duration,
    /// Where the kernel counts memory, if it does for us.
    groups: Option<Groups>,
}

#[derive(Debug)]
struct Running {
    key: u64,
    since: Instant,
    meter: Meter,
    memory_max_bytes: Option<u64>,
    over_memory: bool,
    group: Option<Group>,
}

impl Launcher {
    /// Hears what holds for all processes and answers whether it can be had.
    fn open(mut socket: UnixStream) -> io::Result<Self> {
        let mut inbox = Vec::new();
        let open = loop {
            match take_commands(&mut inbox)?.into_iter().next() {
                Some(Command::Open(open)) => break open,
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
                None => read_some(&mut socket, &mut inbox)?,
            }
        };
        match Self::with(&socket, open) {
            Ok(mut launcher) => {
                launcher.say(&Notice::Opened);
                launcher.flush()?;
                Ok(launcher)
            }
            Err(error) => {
                let mut line = encode(&Notice::Refused(error.to_string()));
                line.push(b'\n');
                socket.write_all(&line)?;
                Err(error)
            }
        }
    }

    fn with(socket: &UnixStream, open: Open) -> io::Result<Self> {
        sys::prepare_reaping()?;
        let journal = Journal::create(&open.journal, &open.mark)
            .map_err(|e| io::Error::new(e.kind(), format!("journal {}: {e}", open.journal.display())))?;
        let given: Vec<(String, String)> = open.env.into_iter().chain([(MARK.to_owned(), open.mark)]).collect();
        let own = std::env::vars_os().filter(|(name, _)| !given.iter().any(|(over, _)| name == OsStr::new(over)));
        let mut env: Vec<CString> = own.filter_map(|(name, value)| entry(name.as_bytes(), value.as_bytes())).collect();
        env.extend(given.iter().filter_map(|(name, value)| entry(name.as_bytes(), value.as_bytes())));
        Ok(Self {
            socket: socket.try_clone()?,
            inbox: Vec::new(),
            outbox: Vec::new(),
            journal,
            shell: find_shell()?,
            env,
            fixed: given.into_iter().filter_map(|(name, _)| CString::new(name + "=").ok()).collect(),
            null: File::options().read(true).write(true).open("/dev/null")?,
            jobs: HashMap::new(),
            pids: HashMap::new(),
            sampler: Sampler::new(),
            sample_interval: Duration::from_millis(open.sample_ms.max(50)),
            groups: Groups::open(),
        })
    }

    /// Carries out commands until the worker is gone.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            let due = self.jobs.values().map(|job| job.meter.due).min();
            let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
            let woken = sys::wait_readable(self.socket.as_fd(), timeout)?;
            // Ends first and told at once: they free the slots that the commands fill.
            self.reap();
            self.flush()?;
            if woken == Woken::Readable {
                if read_some(&mut self.socket, &mut self.inbox).is_err() {
                    return Ok(());
                }
                for command in take_commands(&mut self.inbox)? {
                    self.obey(command)?;
                }
                self.flush()?;
            }
            self.sample();
        }
    }

    fn obey(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Open(_) => Err(io::ErrorKind::InvalidData.into()),
            Command::Start(start) => {
                let key = start.key;
                let notice = match self.start(start) {
                    Ok(pid) => Notice::Started { key, pid },
                    Err(NotStarted { error, never }) => Notice::NotStarted { key, error, never },
                };
                self.say(&notice);
                Ok(())
            }
            Command::Signal { key, signal } => {
                if let Some(pid) = self.pids.get(&key) {
                    sys::signal_group(*pid, Signal(signal));
                }
                Ok(())
            }
            Command::Registered { workflow_id, compute_node_id } => {
                self.journal.registered(workflow_id, compute_node_id)
            }
            Command::Settled(attempts) => self.journal.settled(&attempts),
        }
    }

    fn start(&mut self, start: Start) -> Result<i32, NotStarted> {
        let command = CString::new(start.command).map_err(|_| NotStarted::never("the command holds a NUL byte"))?;
        let env = self.environment(&start.env)?;
        let (stdout, stderr) = open_output(&start.output).map_err(NotStarted::now)?;
        let null = self.null.as_raw_fd();
        let stdout_fd = stdout.as_ref().map_or(null, AsRawFd::as_raw_fd);
        let program = Program {
            path: &self.shell,
            argv: &[c"bash", c"-c", &command],
            env: env.as_deref().unwrap_or(&self.env),
            stdin: null,
            stdout: stdout_fd,
            stderr: match &stderr {
                Stderr::Nowhere => null,
                Stderr::AsStdout => stdout_fd,
                Stderr::File(file) => file.as_raw_fd(),
            },
        };
        let journal = self.journal.file();
        let line = start.attempt.map(StartLine::new);
        let (group, entrance) = self.groups.as_ref().and_then(|groups| groups.make(start.key)).unzip();
        let record = |pid| {
            entrance.iter().for_each(Entrance::join);
            line.as_ref().map_or(Ok(()), |line| line.write(pid, journal))
        };
        let pid = match sys::fork_exec(&program, record) {
            Ok(pid) => pid,
            Err(error) => {
                self.close(group);
                return Err(NotStarted::now(format!("cannot fork: {error}")));
            }
        };
        if let Some(attempt) = start.attempt {
            self.journal.started(attempt);
        }
        let since = Instant::now();
        let running = Running {
            key: start.key,
            since,
            meter: Meter::new(since, self.sample_interval),
            memory_max_bytes: start.memory_max_bytes,
            over_memory: false,
            group,
        };
        self.jobs.insert(pid, running);
        self.pids.insert(start.key, pid);
        Ok(pid)
    }

    /// The environment of one process; `None` if it is the common one.
    fn environment(&self, own: &[(String, String)]) -> Result<Option<Vec<CString>>, NotStarted> {
        let mut over = Vec::with_capacity(own.len());
        for (name, value) in own {
            let entry = entry(name.as_bytes(), value.as_bytes())
                .ok_or_else(|| NotStarted::never(format!("the environment variable {name:?} cannot be set")))?;
            let name = entry.as_bytes().split_at(name.len() + 1).0.to_vec();
            if !self.fixed.iter().any(|fixed| fixed.as_bytes() == name) {
                over.push((name, entry));
            }
        }
        if over.is_empty() {
            return Ok(None);
        }
        let is_over = |entry: &&CString| over.iter().any(|(name, _)| entry.as_bytes().starts_with(name));
        let mut env: Vec<CString> = self.env.iter().filter(|e| !is_over(e)).cloned().collect();
        env.extend(over.iter().map(|(_, entry)| entry.clone()));
        Ok(Some(env))
    }

    fn reap(&mut self) {
        while let Some(reaped) = sys::reap() {
            // Others are orphans of jobs, which are only to be counted.
            if let Some(mut running) = self.jobs.remove(&reaped.pid) {
                self.pids.remove(&running.key);
                let counted_bytes = self.close(running.group.take());
                self.say(&Notice::Ended(ended(&running, &reaped, counted_bytes)));
            }
        }
    }

    /// Lets a group go; what the kernel counted in it.
    fn close(&mut self, group: Option<Group>) -> Option<u64> {
        self.groups.as_mut()?.close(group?)
    }

    fn sample(&mut self) {
        let now = Instant::now();
        for (pid, job) in self.jobs.iter_mut().filter(|(_, job)| job.meter.due <= now) {
            let used = self.sampler.sample(*pid);
            job.meter.add(now, used);
            if job.memory_max_bytes.is_some_and(|max| used.rss_bytes > max) {
                job.over_memory = true;
                sys::signal_group(*pid, Signal::KILL);
            }
        }
    }

    /// The worker is gone, and so is now everything that it had us start.
    fn end(mut self) -> io::Result<()> {
        if self.jobs.is_empty() {
            return self.journal.close();
        }
        for pid in self.jobs.keys() {
            sys::signal_group(*pid, Signal::KILL);
        }
        let since = Instant::now();
        while !self.jobs.is_empty() && since.elapsed() < LAST_REAP_MAX {
            match sys::reap() {
                Some(reaped) => {
                    let group = self.jobs.remove(&reaped.pid).and_then(|running| running.group);
                    self.close(group);
                }
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Ok(())
    }

    fn say(&mut self, notice: &Notice) {
        self.outbox.extend(encode(notice));
        self.outbox.push(b'\n');
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.outbox.is_empty() {
            return Ok(());
        }
        let sent = self.socket.write_all(&self.outbox);
        self.outbox.clear();
        match sent {
            // The next read says that the worker is gone.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        }
    }
}

fn ended(running: &Running, reaped: &Reaped, counted_bytes: Option<u64>) -> Ended {
    let wall = running.since.elapsed();
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Ended {
        key: running.key,
        code: reaped.code,
        wall_us: micros(wall),
        cpu_us: micros(reaped.cpu),
        // Without a group: samples see all processes together but miss what is short; the kernel
        // misses nothing but knows each process by itself.
        peak_bytes: counted_bytes.unwrap_or_else(|| running.meter.peak_bytes().max(reaped.rss_max_bytes)),
        mean_bytes: running.meter.mean_bytes(),
        peak_cpu_percent: running.meter.peak_cpu_percent(),
        over_memory: running.over_memory,
    }
}

/// Why a process was not started.
struct NotStarted {
    error: String,
    never: bool,
}

impl NotStarted {
    /// It cannot be, anywhere.
    fn never(error: impl Into<String>) -> Self {
        Self { error: error.into(), never: true }
    }

    /// This machine cannot, for now.
    fn now(error: String) -> Self {
        Self { error, never: false }
    }
}

enum Stderr {
    Nowhere,
    AsStdout,
    File(File),
}

fn open_output(output: &Output) -> Result<(Option<File>, Stderr), String> {
    let create = |path: &PathBuf| File::create(path).map_err(|e| format!("cannot create {}: {e}", path.display()));
    let stdout = output.stdout.as_ref().map(create).transpose()?;
    let stderr = match &output.stderr {
        None => Stderr::Nowhere,
        path if *path == output.stdout => Stderr::AsStdout,
        Some(path) => Stderr::File(create(path)?),
    };
    Ok((stdout, stderr))
}

/// `name=value`, if it can be one.
fn entry(name: &[u8], value: &[u8]) -> Option<CString> {
    if name.is_empty() || name.contains(&b'=') {
        return None;
    }
    CString::new([name, b"=", value].concat()).ok()
}

fn find_shell() -> io::Result<CString> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let found = std::env::split_paths(&path).map(|folder| folder.join("bash")).find(|bash| is_program(bash));
    let bash = found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no bash on the PATH"))?;
    Ok(CString::new(bash.into_os_string().into_encoded_bytes())?)
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Reads what there is, at least one byte.
fn read_some(socket: &mut UnixStream, inbox: &mut Vec<u8>) -> io::Result<()> {
    let mut chunk = [0; 1 << 16];
    match socket.read(&mut chunk) {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(count) => {
            inbox.extend_from_slice(&chunk[..count]);
            Ok(())
        }
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(e) => Err(e),
    }
}

/// Takes the whole lines out of the inbox.
fn take_commands(inbox: &mut Vec<u8>) -> io::Result<Vec<Command>> {
    let Some(end) = inbox.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
    let lines = inbox.drain(..=end).collect::<Vec<u8>>();
    let commands = lines[..end].split(|byte| *byte == b'\n').map(serde_json::from_slice);
    Ok(commands.collect::<Result<_, _>>()?)
}

fn encode(notice: &Notice) -> Vec<u8> {
    serde_json::to_vec(notice).expect("a notice has only numbers and text")
}
