//! The journal: which attempts a worker has started and not yet settled.
//!
//! A text file, appended to with one `write` a line, never synced: it must survive the death of
//! our processes, not of the machine. Each started process writes its own line between fork and
//! exec, so nothing runs that the journal does not name.
//!
//! ```text
//! open <worker pid> <worker's start> <launcher pid> <launcher's start> <mark>
//! node <workflow> <compute node>
//! start <job> <run> <attempt> <pid> <earliest start> <latest start>
//! settled <job> <run> <attempt>
//! closed
//! ```
//! Times are ticks since boot, as in field 22 of `/proc/PID/stat`: a pid that was used again
//! has another one.

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::CallError;
use crate::launcher::protocol::Attempt;
use crate::launcher::usage::Stat;
use crate::sys::{self, Signal};

/// The journal is emptied at the next moment with nothing unsettled once it is this long.
const LENGTH_MAX: u64 = 1 << 20;

/// How long settling waits for processes to be gone.
const GONE_MAX: Duration = Duration::from_secs(10);

/// The journal of a running launcher, locked for as long as that lives.
#[derive(Debug)]
pub struct Journal {
    file: File,
    header: String,
    length: u64,
    unsettled: HashSet<Attempt>,
}

impl Journal {
    /// Starts an empty journal for the launcher that calls, whose parent is the worker.
    ///
    /// # Errors
    /// `WouldBlock` if another worker uses the file; `AlreadyExists` if the last one was killed or
    /// could not report all, and that was never settled.
    pub fn create(path: &Path, mark: &str) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(io::ErrorKind::WouldBlock, "another worker is using it"),
            TryLockError::Error(error) => error,
        })?;
        let earlier = Record::read(&file)?;
        if !earlier.unsettled.is_empty() || earlier.worker.is_some() && !earlier.closed {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "what an earlier worker left is not settled"));
        }
        let (worker, launcher) = (std::os::unix::process::parent_id(), std::process::id());
        let header = format!(
            "open {worker} {} {launcher} {} {mark}\n",
            start_of(worker).unwrap_or(0),
            start_of(launcher).unwrap_or(0)
        );
        let mut journal = Self { file, header, length: 0, unsettled: HashSet::new() };
        journal.restart()?;
        Ok(journal)
    }

    /// Notes as what the server knows this worker.
    pub fn registered(&mut self, workflow_id: i64, compute_node_id: i64) -> io::Result<()> {
        let line = format!("node {workflow_id} {compute_node_id}\n");
        self.file.write_all(line.as_bytes())?;
        self.length += line.len() as u64;
        self.header += &line;
        Ok(())
    }

    /// Where a child writes its line.
    pub fn file(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Notes that a child is writing its line.
    pub fn started(&mut self, attempt: Attempt) {
        self.unsettled.insert(attempt);
        self.length += StartLine::LENGTH_MAX as u64;
    }

    /// Strikes these attempts.
    pub fn settled(&mut self, attempts: &[Attempt]) -> io::Result<()> {
        let mut lines = String::new();
        for Attempt { job_id, run_id, attempt_id } in attempts {
            lines += &format!("settled {job_id} {run_id} {attempt_id}\n");
        }
        self.file.write_all(lines.as_bytes())?;
        self.length += lines.len() as u64;
        self.unsettled.retain(|attempt| !attempts.contains(attempt));
        if self.unsettled.is_empty() && self.length > LENGTH_MAX { self.restart() } else { Ok(()) }
    }

    /// Says that the worker left in order.
    pub fn close(mut self) -> io::Result<()> {
        self.file.write_all(b"closed\n")
    }

    fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.write_all(self.header.as_bytes())?;
        self.length = self.header.len() as u64;
        Ok(())
    }
}

/// A line of a started process, made before the fork but for what only the child knows.
#[derive(Debug)]
pub struct StartLine {
    text: [u8; Self::LENGTH_MAX],
    length: usize,
    earliest: u64,
}

impl StartLine {
    pub const LENGTH_MAX: usize = 160;

    pub fn new(attempt: Attempt) -> Self {
        let Attempt { job_id, run_id, attempt_id } = attempt;
        let mut line = Self { text: [0; Self::LENGTH_MAX], length: 0, earliest: sys::boot_ticks() };
        line.push(format_args!("start {job_id} {run_id} {attempt_id}"));
        line
    }

    /// Appends the line to the journal. Called in the child; does not allocate.
    pub fn write(&self, pid: i32, journal: RawFd) -> io::Result<()> {
        let mut line = Self { text: self.text, ..*self };
        line.push(format_args!(" {pid} {} {}\n", self.earliest, sys::boot_ticks()));
        sys::append(journal, &line.text[..line.length])
    }

    fn push(&mut self, words: std::fmt::Arguments) {
        let mut rest = &mut self.text[self.length..];
        rest.write_fmt(words).expect("seven numbers fit");
        self.length = Self::LENGTH_MAX - rest.len();
    }
}

/// What a journal says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Record {
    worker: Option<Process>,
    launcher: Option<Process>,
    mark: Option<String>,
    /// Workflow and compute node.
    node: Option<(i64, i64)>,
    unsettled: BTreeMap<Attempt, Process>,
    closed: bool,
}

/// A process as the journal names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    earliest: u64,
    latest: u64,
}

impl Process {
    /// Whether the process of this pid is the one that was recorded.
    fn is_alive(&self) -> bool {
        let start = u32::try_from(self.pid).ok().and_then(start_of);
        start.is_some_and(|ticks| (self.earliest..=self.latest).contains(&ticks))
    }
}

impl Record {
    fn read(mut file: &File) -> io::Result<Self> {
        let mut text = String::new();
        io::Seek::rewind(&mut file)?;
        file.read_to_string(&mut text)?;
        Ok(Self::parse(&text))
    }

    /// A line that is cut off or unknown says nothing.
    fn parse(text: &str) -> Self {
        let mut record = Self::default();
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            let words: Vec<&str> = line.split(' ').collect();
            let number = |at: usize| words.get(at).and_then(|word| word.parse::<i64>().ok());
            let process = |pid: usize, earliest: usize, latest: usize| {
                let ticks = |at| number(at).and_then(|ticks| u64::try_from(ticks).ok());
                let pid = number(pid).and_then(|pid| i32::try_from(pid).ok())?;
                Some(Process { pid, earliest: ticks(earliest)?, latest: ticks(latest)? })
            };
            let attempt = || {
                let (job_id, run_id, attempt_id) = (number(1)?, number(2)?, number(3)?);
                Some(Attempt { job_id, run_id, attempt_id })
            };
            match words[0] {
                "open" => {
                    record.worker = process(1, 2, 2);
                    record.launcher = process(3, 4, 4);
                    record.mark = words.get(5).map(|mark| (*mark).to_owned());
                    record.node = None;
                    record.closed = false;
                }
                "node" => record.node = number(1).zip(number(2)),
                "start" => record.unsettled.extend(attempt().zip(process(4, 5, 6))),
                "settled" => record.unsettled.retain(|known, _| Some(*known) != attempt()),
                "closed" => record.closed = true,
                _ => {}
            }
        }
        record
    }
}

/// When the process started, in ticks since boot; `None` if there is none.
#[cfg(target_os = "linux")]
fn start_of(pid: u32) -> Option<u64> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A zombie is dead: it is only waiting to be counted.
    let (_, state) = line.rsplit_once(") ")?;
    if state.starts_with(['Z', 'X']) { None } else { Some(Stat::parse(&line)?.start_ticks) }
}

/// Start times are not known here: a process that exists is the one that was recorded.
#[cfg(not(target_os = "linux"))]
fn start_of(pid: u32) -> Option<u64> {
    let pid = i32::try_from(pid).ok()?;
    sys::signal_process(pid, Signal(0)).then_some(0)
}

/// An attempt that an earlier worker had started and not settled. Its processes are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    pub job_id: i64,
    pub run_id: i64,
    pub attempt_id: i64,
    /// Processes of it were still alive and have been killed.
    pub was_alive: bool,
}

/// Why an earlier worker's journal cannot be settled.
#[derive(Debug, thiserror::Error)]
pub enum SettleError {
    #[error("another worker (process {pid}) is using the journal {path}")]
    InUse { path: String, pid: i32 },
    #[error("processes of an earlier worker do not end: {0:?}")]
    Unkillable(Vec<i32>),
    #[error("cannot use the journal {path}")]
    Io { path: String, source: io::Error },
    #[error("what an earlier worker was running cannot be given back to the server")]
    GiveBack(#[source] CallError),
}

/// Ends what an earlier worker with this journal left behind, and empties the journal. Returns
/// the attempts that were in flight: they are to be made ready again. Without a file there is
/// nothing to do.
///
/// # Errors
/// If the earlier worker lives, or its processes cannot be killed.
pub fn settle(path: &Path) -> Result<Vec<Settled>, SettleError> {
    let Some(remains) = Remains::end(path)? else { return Ok(Vec::new()) };
    let settled = remains.settled.clone();
    remains.forget()?;
    Ok(settled)
}

/// What an earlier worker left behind. Its processes are gone; its journal is locked and still
/// names its attempts.
#[derive(Debug)]
pub struct Remains {
    pub settled: Vec<Settled>,
    /// The workflow that it worked on and the compute node that it was.
    pub node: Option<(i64, i64)>,
    file: File,
    path: PathBuf,
}

impl Remains {
    /// Kills what is left of the worker with this journal.
    pub fn end(path: &Path) -> Result<Option<Self>, SettleError> {
        let fail = |source| SettleError::Io { path: path.display().to_string(), source };
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(fail(e)),
        };
        lock(&file, path)?;
        let record = Record::read(&file).map_err(fail)?;
        let mut settled = Vec::new();
        for (attempt, process) in &record.unsettled {
            let was_alive = process.is_alive() && sys::signal_group(process.pid, Signal::KILL);
            let Attempt { job_id, run_id, attempt_id } = *attempt;
            settled.push(Settled { job_id, run_id, attempt_id, was_alive });
        }
        if !record.closed || !record.unsettled.is_empty() {
            kill_strays(record.mark.as_deref(), &record.unsettled)?;
        }
        let node = record.node.filter(|_| !record.closed || !settled.is_empty());
        Ok(Some(Self { settled, node, file, path: path.to_owned() }))
    }

    /// Empties the journal.
    pub fn forget(self) -> Result<(), SettleError> {
        let Self { file, path, .. } = self;
        file.set_len(0).map_err(|source| SettleError::Io { path: path.display().to_string(), source })
    }
}

/// Waits for the earlier launcher to let go of the journal. If its worker is dead it is ending
/// its jobs; if that takes long it is killed, and we end them.
fn lock(file: &File, path: &Path) -> Result<(), SettleError> {
    let fail = |source| SettleError::Io { path: path.display().to_string(), source };
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => return Err(fail(e)),
        }
        let record = Record::read(file).map_err(fail)?;
        if let Some(worker) = record.worker.filter(Process::is_alive) {
            return Err(SettleError::InUse { path: path.display().to_string(), pid: worker.pid });
        }
        if let Some(launcher) = record.launcher.filter(|l| since.elapsed() > GONE_MAX / 4 && l.is_alive()) {
            sys::signal_process(launcher.pid, Signal::KILL);
        }
        if since.elapsed() > GONE_MAX {
            return Err(SettleError::Unkillable(record.launcher.map(|l| l.pid).into_iter().collect()));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Kills every process that carries the mark, also those that left their job's group, until
/// they and the recorded ones are gone.
fn kill_strays(mark: Option<&str>, recorded: &BTreeMap<Attempt, Process>) -> Result<(), SettleError> {
    let since = Instant::now();
    loop {
        let mut alive: Vec<i32> = recorded.values().filter(|p| p.is_alive()).map(|p| p.pid).collect();
        alive.extend(mark.map(marked).unwrap_or_default());
        if alive.is_empty() {
            return Ok(());
        }
        if since.elapsed() > GONE_MAX {
            return Err(SettleError::Unkillable(alive));
        }
        for pid in alive {
            sys::signal_process(pid, Signal::KILL);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The processes that have `FOREBAY_WORKER=<mark>` in their environment.
fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}");
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has_mark = |pid: &i32| {
        let env = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        env.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    pids.filter(|pid| *pid != std::process::id() as i32).filter(has_mark).collect()
}

/// The environment variable that marks the processes of a worker.
pub const MARK: &str = "FOREBAY_WORKER";

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const A: Attempt = Attempt { job_id: 1, run_id: 1, attempt_id: 1 };
    const B: Attempt = Attempt { job_id: 2, run_id: 1, attempt_id: 3 };

    fn sleeper(mark: &str) -> Child {
        let mut command = Command::new("sleep");
        command.arg("1000").env(MARK, mark).stdin(Stdio::null()).process_group(0);
        command.spawn().expect("sleep exists")
    }

    fn written(lines: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        std::fs::write(&path, lines).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_started_and_not_settled_is_in_flight() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path, "m").unwrap();
        journal.registered(4, 7).unwrap();
        for attempt in [A, B] {
            StartLine::new(attempt).write(77, journal.file()).unwrap();
            journal.started(attempt);
        }
        journal.settled(&[A]).unwrap();
        let record = Record::read(&File::open(&path).unwrap()).unwrap();
        assert_eq!(record.unsettled.keys().copied().collect::<Vec<_>>(), [B]);
        assert_eq!((record.mark.as_deref(), record.node, record.closed), (Some("m"), Some((4, 7)), false));
        journal.close().unwrap();
        assert!(Record::read(&File::open(&path).unwrap()).unwrap().closed);
    }

    #[test]
    fn a_long_journal_with_nothing_in_flight_starts_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let mut journal = Journal::create(&path, "m").unwrap();
        journal.registered(4, 7).unwrap();
        journal.length = LENGTH_MAX;
        StartLine::new(A).write(77, journal.file()).unwrap();
        journal.started(A);
        journal.settled(&[A]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("open ") && text.ends_with("\nnode 4 7\n") && text.lines().count() == 2, "{text}");
    }

    #[test]
    fn a_line_that_was_cut_off_says_nothing() {
        let record = Record::parse("open 1 2 3 4 m\nstart 1 1 1 50 7 8\nsettled 1 1 1");
        assert_eq!(record.unsettled.keys().copied().collect::<Vec<_>>(), [A]);
    }

    #[test]
    fn a_group_that_still_lives_is_killed_and_its_attempt_returned() {
        let mut child = sleeper("other");
        let start = start_of(child.id()).unwrap();
        let (_folder, path) = written(&format!("open 1 0 1 0 m1\nstart 2 1 3 {} {start} {start}\n", child.id()));
        let reaper = thread::spawn(move || child.wait().unwrap());
        let settled = settle(&path).unwrap();
        assert_eq!(settled, [Settled { job_id: 2, run_id: 1, attempt_id: 3, was_alive: true }]);
        assert!(!reaper.join().unwrap().success());
        assert!(settle(&path).unwrap().is_empty(), "it was settled already");
    }

    #[test]
    fn a_pid_that_was_used_again_is_left_alone() {
        let mut child = sleeper("other");
        let start = start_of(child.id()).unwrap();
        let (_folder, path) =
            written(&format!("open 1 0 1 0 m2\nstart 1 1 1 {} {} {}\n", child.id(), start + 1, start + 9));
        let settled = settle(&path).unwrap();
        assert_eq!(settled, [Settled { job_id: 1, run_id: 1, attempt_id: 1, was_alive: false }]);
        assert!(child.try_wait().unwrap().is_none(), "it lives");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_stray_that_left_its_group_is_found_by_its_mark() {
        let mark = format!("stray-{}", std::process::id());
        let mut child = sleeper(&mark);
        let (_folder, path) = written(&format!("open 1 0 1 0 {mark}\n"));
        let reaper = thread::spawn(move || child.wait().unwrap());
        assert!(settle(&path).unwrap().is_empty());
        assert!(!reaper.join().unwrap().success());
    }

    #[test]
    fn the_journal_of_a_living_worker_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        // The parent of this test is taken for the worker, and it lives.
        let journal = Journal::create(&path, "m").unwrap();
        assert!(matches!(settle(&path), Err(SettleError::InUse { .. })));
        drop(journal);
        assert!(settle(&path).unwrap().is_empty());
    }

    #[test]
    fn without_a_journal_there_is_nothing_to_settle() {
        assert!(settle(Path::new("/nonexistent/journal")).unwrap().is_empty());
    }
}
