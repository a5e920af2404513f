//! What the operating system is asked for beyond the standard library: forking jobs from the
//! launcher, reaping them with their resource usage, signalling their groups.
//!
//! The launcher has one thread and a few pages of memory, so a plain `fork` is both safe and
//! cheap: the child may do what it likes before `exec`, and the parent need not wait for that.
#![expect(unsafe_code, reason = "fork, wait4, ppoll, kill and their kin have no safe wrapper in std")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

/// A signal that jobs are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    pub const KILL: Self = Self(libc::SIGKILL);

    /// The signal of this name, with or without `SIG`. What is not known means SIGTERM, as in
    /// torc.
    pub fn named(name: &str) -> Self {
        Self(match name.strip_prefix("SIG").unwrap_or(name) {
            "INT" => libc::SIGINT,
            "USR1" => libc::SIGUSR1,
            "USR2" => libc::SIGUSR2,
            "HUP" => libc::SIGHUP,
            "KILL" => libc::SIGKILL,
            _ => libc::SIGTERM,
        })
    }
}

/// A program to start: what `execve` takes, made before the fork.
pub struct Program<'a> {
    pub path: &'a CStr,
    pub argv: &'a [&'a CStr],
    pub env: &'a [CString],
    pub stdin: RawFd,
    pub stdout: RawFd,
    pub stderr: RawFd,
}

/// A child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    pub pid: i32,
    /// The exit code, or 128 + the signal that killed it.
    pub code: i32,
    /// Processor time of it and of the children that it waited for.
    pub cpu: Duration,
    /// The largest resident size that it or a child that it waited for had.
    pub rss_max_bytes: u64,
}

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    Readable,
    /// A child ended, or the time is up.
    Other,
}

/// Starts `program` as the leader of a new process group. In the child, `record` is called with
/// the child's pid before the program is executed; if it or the execution fails, the child
/// writes why to its stderr and exits with 126.
///
/// `record` runs between fork and exec: it must not allocate, nor take a lock that another
/// thread may hold.
pub fn fork_exec(program: &Program, record: impl Fn(i32) -> io::Result<()>) -> io::Result<i32> {
    let argv: Vec<_> = program.argv.iter().map(|a| a.as_ptr()).chain([std::ptr::null()]).collect();
    let env: Vec<_> = program.env.iter().map(|e| e.as_ptr()).chain([std::ptr::null()]).collect();
    // SAFETY: the child runs only async-signal-safe calls and `record`, and never returns.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let failure = become_program(program, &argv, &env, &record);
            complain(&failure);
            // SAFETY: `_exit` runs no handlers, which belong to the parent.
            unsafe { libc::_exit(126) }
        }
        pid => {
            // Also here, so that the group exists when we return, whoever runs first. It fails
            // once the child has executed, when its own call has already done it.
            // SAFETY: plain system call.
            unsafe { libc::setpgid(pid, pid) };
            Ok(pid)
        }
    }
}

/// The child's way from fork to exec. Returns only if it failed.
fn become_program(
    program: &Program,
    argv: &[*const libc::c_char],
    env: &[*const libc::c_char],
    record: &impl Fn(i32) -> io::Result<()>,
) -> io::Error {
    // SAFETY: async-signal-safe calls on plain values; `argv` and `env` end with null and
    // outlive the call.
    unsafe {
        if libc::setpgid(0, 0) == -1 {
            return io::Error::last_os_error();
        }
        for (from, to) in [(program.stdin, 0), (program.stdout, 1), (program.stderr, 2)] {
            if libc::dup2(from, to) == -1 {
                return io::Error::last_os_error();
            }
        }
        if let Err(error) = record(libc::getpid()) {
            return error;
        }
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        libc::execve(program.path.as_ptr(), argv.as_ptr(), env.as_ptr());
    }
    io::Error::last_os_error()
}

/// Writes to the job's stderr why it could not be started, without allocating.
fn complain(error: &io::Error) {
    let mut text = [0_u8; 64];
    let mut rest = &mut text[..];
    let code = error.raw_os_error().unwrap_or(0);
    if io::Write::write_fmt(&mut rest, format_args!("forebay: cannot start the shell: os error {code}\n")).is_ok() {
        let left = rest.len();
        // SAFETY: writes from a live buffer. If it fails there is nowhere left to say so.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len() - left) };
    }
}

/// Appends `line` to `file` in one `write`. Does not allocate.
pub fn append(file: RawFd, line: &[u8]) -> io::Result<()> {
    // SAFETY: writes from a live buffer.
    let written = unsafe { libc::write(file, line.as_ptr().cast(), line.len()) };
    match usize::try_from(written) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(written) if written < line.len() => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
        Ok(_) => Ok(()),
    }
}

/// A child that has ended, if there is one.
pub fn reap() -> Option<Reaped> {
    let mut status = 0;
    // SAFETY: a zeroed rusage is a valid one; both pointers are live.
    let (pid, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage), usage)
    };
    if pid <= 0 {
        return None;
    }
    let code = if libc::WIFEXITED(status) { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) };
    let rss = u64::try_from(usage.ru_maxrss).unwrap_or(0);
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Some(Reaped { pid, code, cpu: duration(usage.ru_utime) + duration(usage.ru_stime), rss_max_bytes: rss * unit })
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u32::try_from(time.tv_usec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), micros * 1000)
}

/// Makes SIGCHLD wake [`wait_readable`] and nothing else, and orphans of jobs ours to reap.
pub fn prepare_reaping() -> io::Result<()> {
    extern "C" fn wake(_: libc::c_int) {}
    // SAFETY: the handler does nothing; the structures are zeroed and then filled in.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = wake as extern "C" fn(libc::c_int) as usize;
        let mut child = std::mem::zeroed();
        libc::sigemptyset(&raw mut child);
        libc::sigaddset(&raw mut child, libc::SIGCHLD);
        if libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) == -1
            || libc::pthread_sigmask(libc::SIG_BLOCK, &raw const child, std::ptr::null_mut()) != 0
        {
            return Err(io::Error::last_os_error());
        }
        #[cfg(target_os = "linux")]
        {
            // A name in `ps`; whether it is taken does not matter.
            libc::prctl(libc::PR_SET_NAME, c"forebay-launch".as_ptr());
            if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) == -1 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

/// Waits until `file` can be read, a child ends, or `timeout` passes (`None`: for ever).
/// SIGCHLD is let in only here, so no end of a child is missed.
pub fn wait_readable(file: BorrowedFd, timeout: Option<Duration>) -> io::Result<Woken> {
    // SAFETY: the set is zeroed and filled in; all pointers are live.
    let ready = unsafe {
        let mut set: libc::fd_set = std::mem::zeroed();
        libc::FD_ZERO(&raw mut set);
        libc::FD_SET(file.as_raw_fd(), &raw mut set);
        let mut mask = std::mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        let limit = timeout.map(timespec);
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let null = std::ptr::null_mut();
        libc::pselect(file.as_raw_fd() + 1, &raw mut set, null, null, limit, &raw const mask)
    };
    match ready {
        1.. => Ok(Woken::Readable),
        0 => Ok(Woken::Other),
        _ => match io::Error::last_os_error() {
            e if e.kind() == io::ErrorKind::Interrupted => Ok(Woken::Other),
            e => Err(e),
        },
    }
}

fn timespec(duration: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// Sends `signal` to every process of the group; `false` if there is none.
pub fn signal_group(group: i32, signal: Signal) -> bool {
    // SAFETY: plain system call.
    unsafe { libc::kill(-group, signal.0) == 0 }
}

/// Sends `signal` to the process; `false` if there is none.
pub fn signal_process(pid: i32, signal: Signal) -> bool {
    // SAFETY: plain system call.
    unsafe { libc::kill(pid, signal.0) == 0 }
}

/// Time since boot in the kernel's clock ticks, the unit of field 22 of `/proc/PID/stat`.
#[cfg(target_os = "linux")]
pub fn boot_ticks() -> u64 {
    let mut now = timespec(Duration::ZERO);
    // SAFETY: the pointer is live. The clock exists on every Linux that we run on.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    let ticks = ticks_per_second();
    let (seconds, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * ticks + nanos * ticks / 1_000_000_000
}

/// There is no such clock here: every process is taken for the one that was recorded.
#[cfg(not(target_os = "linux"))]
pub fn boot_ticks() -> u64 {
    0
}

/// Clock ticks of a second in `/proc`.
pub fn ticks_per_second() -> u64 {
    // SAFETY: plain library call.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1)
}

/// Bytes of a page of memory.
pub fn page_bytes() -> u64 {
    // SAFETY: plain library call.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The name of this machine.
pub fn hostname() -> String {
    let mut name = [0_u8; 256];
    // SAFETY: the buffer is live and one byte longer than what we offer, so it ends with 0.
    unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let name = CStr::from_bytes_until_nul(&name).map(CStr::to_string_lossy);
    name.map_or_else(|_| "localhost".to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_found_with_and_without_its_prefix() {
        assert_eq!(Signal::named("SIGUSR1"), Signal(libc::SIGUSR1));
        assert_eq!(Signal::named("HUP"), Signal(libc::SIGHUP));
        assert_eq!(Signal::named("SIGNONE"), Signal(libc::SIGTERM));
    }

    #[test]
    fn the_machine_has_a_name() {
        assert!(!hostname().is_empty());
    }
}
