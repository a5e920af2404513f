//! The worker's end of the launcher: starts it, talks to it.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::launcher::ARGUMENT;
use crate::launcher::protocol::{Command, Notice, Open};

/// How long a launcher may take to answer for the first time.
const OPEN_MAX: Duration = Duration::from_secs(20);

/// The program that is to be the launcher. By default this one, which then calls
/// [`launch_if_asked`](crate::launcher::launch_if_asked) first in its `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LauncherProgram {
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

impl Default for LauncherProgram {
    fn default() -> Self {
        // The link leads to this very program, also when its file was replaced meanwhile.
        let this = || std::env::current_exe().unwrap_or_else(|_| "forebay".into());
        let program = if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { this() };
        Self { program, arguments: vec![ARGUMENT.to_owned()] }
    }
}

/// Why there is no launcher.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    #[error("cannot start the launcher")]
    Start(#[source] io::Error),
    #[error("the launcher refused: {0}")]
    Refused(String),
    #[error("the launcher did not answer: its program must call launch_if_asked first")]
    Silent,
    #[error("the launcher is gone")]
    Gone(#[source] io::Error),
}

/// A launcher and the line to it. When it is dropped, the launcher kills what it runs.
#[derive(Debug)]
pub struct Processes {
    socket: UnixStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// The same socket, to close it in `drop`, which may run outside of the runtime.
    closer: std::os::unix::net::UnixStream,
    child: Child,
}

impl Processes {
    /// Starts a launcher whose processes run in `folder`.
    pub async fn launch(program: &LauncherProgram, folder: &PathBuf, open: Open) -> Result<Self, LaunchError> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(LaunchError::Start)?;
        ours.set_nonblocking(true).map_err(LaunchError::Start)?;
        let child = std::process::Command::new(&program.program)
            .args(&program.arguments)
            .current_dir(folder)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            // Its own group: Ctrl-C at the terminal is for the worker to hear.
            .process_group(0)
            .spawn()
            .map_err(LaunchError::Start)?;
        let closer = ours.try_clone().map_err(LaunchError::Start)?;
        let socket = UnixStream::from_std(ours).map_err(LaunchError::Start)?;
        let mut processes = Self { socket, inbox: Vec::new(), outbox: Vec::new(), closer, child };
        processes.send(&Command::Open(open));
        let first = tokio::time::timeout(OPEN_MAX, processes.next()).await.map_err(|_| LaunchError::Silent)?;
        match first.map(|notices| notices.into_iter().next()) {
            Ok(Some(Notice::Opened)) => Ok(processes),
            Ok(Some(Notice::Refused(why))) => Err(LaunchError::Refused(why)),
            Ok(_) | Err(_) => Err(LaunchError::Silent),
        }
    }

    /// Gives the launcher a command: now if it takes it, else while [`next`](Self::next) waits.
    pub fn send(&mut self, command: &Command) {
        serde_json::to_writer(&mut self.outbox, command).expect("a command has only numbers and text");
        self.outbox.push(b'\n');
    }

    /// Waits for notices and returns all that have come. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Vec<Notice>, LaunchError> {
        loop {
            self.flush()?;
            let interest =
                if self.outbox.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            let ready = self.socket.ready(interest).await.map_err(LaunchError::Gone)?;
            if ready.is_readable() {
                match self.socket.try_read_buf(&mut self.inbox) {
                    Ok(0) => return Err(LaunchError::Gone(io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {
                        let notices = self.take_notices()?;
                        if !notices.is_empty() {
                            return Ok(notices);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err(LaunchError::Gone(e)),
                }
            }
        }
    }

    /// Writes what can be written without waiting.
    pub fn flush(&mut self) -> Result<(), LaunchError> {
        while !self.outbox.is_empty() {
            match self.socket.try_write(&self.outbox) {
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(LaunchError::Gone(e)),
            }
        }
        Ok(())
    }

    fn take_notices(&mut self) -> Result<Vec<Notice>, LaunchError> {
        let Some(end) = self.inbox.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let lines = self.inbox[..end].split(|byte| *byte == b'\n').map(serde_json::from_slice);
        let notices = lines.collect::<Result<_, _>>().map_err(|e| LaunchError::Gone(e.into()))?;
        self.inbox.drain(..=end);
        Ok(notices)
    }
}

impl Drop for Processes {
    /// Waits for the launcher to end, so that the journal is free again when we return. It kills
    /// its processes within a bounded time. If it is gone already there is nothing to do.
    fn drop(&mut self) {
        drop(self.closer.shutdown(Shutdown::Both));
        drop(self.child.wait());
    }
}
