//! What is asked for from outside: SIGINT and SIGTERM as a stream, the end of stdin.

use std::io::{self, Read};
use std::thread;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// What was asked for from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Ctrl-C.
    Interrupt,
    /// SIGTERM: whoever sent it may send SIGKILL next.
    Terminate,
}

/// SIGINT and SIGTERM. From its making on they do not end the process by themselves.
#[derive(Debug)]
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    pub fn listen() -> io::Result<Signals> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next signal. May be dropped and called again.
    pub async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.interrupt.recv() => Asked::Interrupt,
            _ = self.terminate.recv() => Asked::Terminate,
        }
    }
}

/// Is told once when stdin has ended: whoever held the other end is gone.
pub fn end_of_stdin() -> io::Result<oneshot::Receiver<()>> {
    let (tell, told) = oneshot::channel();
    // A thread of its own, which the end of the program does not wait for, as it would for the
    // runtime's.
    thread::Builder::new().name("forebay-stdin".to_owned()).spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut ignored = [0; 512];
        loop {
            match stdin.read(&mut ignored) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::Interrupted => break,
                Ok(_) | Err(_) => {}
            }
        }
        // If nobody waits for it, the program ends already.
        tell.send(()).unwrap_or_default();
    })?;
    Ok(told)
}
