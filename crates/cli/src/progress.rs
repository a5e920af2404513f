//! What is shown while a run goes on: a line that changes at a terminal, else a line now and then.
//! All of it is on stderr, but the events as JSON, which are on stdout.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use forebay_wire::{JobStatus, JobStatusCounts};
use forebay_worker::{End, Event, Logs, Named};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use crate::args::DisplayArgs;
use crate::table::{count_word, jobs};

/// How often the counts are shown.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(200);
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// The rate is that of this time past.
const RATE_WINDOW: Duration = Duration::from_secs(20);

/// So many failures are shown as they happen; the others wait for the summary.
const FAILURES_SHOWN_MAX: usize = 10;

/// Shows a run. May be told from several tasks.
#[derive(Debug)]
pub struct Progress {
    style: Style,
    events: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
enum Style {
    Terminal(ProgressBar),
    Plain,
    Quiet,
}

#[derive(Debug)]
struct State {
    rate: Rate,
    failures: usize,
}

impl Progress {
    pub fn new(args: &DisplayArgs) -> Progress {
        let style = if args.quiet {
            Style::Quiet
        } else if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {wide_msg}");
            let style = style.expect("the template is well-formed").progress_chars("━╾─");
            // Hidden until there is something to show.
            Style::Terminal(ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden()).with_style(style))
        } else {
            Style::Plain
        };
        Progress { style, events: args.events, state: Mutex::new(State { rate: Rate::default(), failures: 0 }) }
    }

    /// How often [`counts`](Progress::counts) is to be called; `None` if never.
    pub fn interval(&self) -> Option<Duration> {
        match &self.style {
            Style::Terminal(_) => Some(TERMINAL_INTERVAL),
            Style::Plain => Some(PLAIN_INTERVAL),
            Style::Quiet => None,
        }
    }

    /// How many jobs are in which state now.
    pub fn counts(&self, counts: &JobStatusCounts) {
        let (total, done) = (counts.total(), settled(counts));
        let rate = {
            let mut state = self.state();
            state.rate.add(Instant::now(), done);
            state.rate.per_second()
        };
        let message = describe(counts, rate);
        match &self.style {
            Style::Terminal(bar) => {
                bar.set_length(total.unsigned_abs());
                bar.set_position(done.unsigned_abs());
                bar.set_message(message);
                if bar.is_hidden() {
                    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
                }
            }
            Style::Plain => eprintln!("{done}/{total} {message}"),
            Style::Quiet => {}
        }
    }

    /// Something that the user should know at once.
    pub fn say(&self, line: &str) {
        match &self.style {
            Style::Terminal(bar) => bar.suspend(|| eprintln!("{line}")),
            Style::Plain => eprintln!("{line}"),
            Style::Quiet => {}
        }
    }

    /// Something that the worker did.
    pub fn event(&self, event: &Event) {
        if self.events {
            self.write_event(event);
        }
        match event {
            Event::Finished { job, outcome, logs } if outcome.status != JobStatus::Completed => {
                let why = outcome.why.clone().unwrap_or_else(|| format!("exit code {}", outcome.return_code));
                self.failed(job, &outcome.status.to_string(), &why, logs);
            }
            Event::Retried { job, return_code, logs } => {
                self.failed(job, "to be retried", &format!("exit code {return_code}"), logs);
            }
            Event::NotAccepted { job, message } => {
                self.say(&format!("{} (job {}): its report was refused: {message}", job.name, job.job_id));
            }
            Event::LeaseOver { killed, .. } => self.say(&format!(
                "the server had not heard of this worker for the length of its lease: {} killed here, for others to run",
                jobs(i64::try_from(killed.len()).unwrap_or(i64::MAX)),
            )),
            Event::Away { why } => self.say(&format!("the server cannot be reached; running jobs go on: {why}")),
            Event::Back => self.say("the server is there again"),
            Event::Registered { .. }
            | Event::Started { .. }
            | Event::Finished { .. }
            | Event::RecoveryEnded { .. }
            | Event::Stopping { .. } => {}
        }
    }

    /// Takes the changing line away.
    pub fn finish(&self) {
        if let Style::Terminal(bar) = &self.style {
            bar.finish_and_clear();
        }
    }

    fn failed(&self, job: &Named, what: &str, why: &str, logs: &Logs) {
        let failures = {
            let mut state = self.state();
            state.failures += 1;
            state.failures
        };
        if failures <= FAILURES_SHOWN_MAX {
            let log = logs.stderr.as_ref().map(|path| format!(", see {}", short(path))).unwrap_or_default();
            self.say(&format!("{} (job {}, attempt {}) {what}: {why}{log}", job.name, job.job_id, job.attempt_id));
        }
        if failures == FAILURES_SHOWN_MAX {
            self.say("more failures are told at the end");
        }
    }

    fn write_event(&self, event: &Event) {
        let line = match &self.style {
            Style::Terminal(bar) => bar.suspend(|| writeln!(io::stdout(), "{}", as_json(event))),
            Style::Plain | Style::Quiet => writeln!(io::stdout(), "{}", as_json(event)),
        };
        if let Err(error) = line {
            // Whoever read them is gone; the run goes on.
            tracing::debug!(%error, "an event could not be printed");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No holder runs code that can panic between two changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many jobs are done, in a way that a run does not change by itself.
fn settled(counts: &JobStatusCounts) -> i64 {
    counts.completed + counts.failed + counts.canceled + counts.terminated + counts.disabled
}

/// `8 running, 80 ready, 2 failed; 3.2/s, 28s left`.
fn describe(counts: &JobStatusCounts, rate: Option<f64>) -> String {
    let shown = [
        (counts.running + counts.pending, "running"),
        (counts.ready, "ready"),
        (counts.blocked, "blocked"),
        (counts.uninitialized, "uninitialized"),
        (counts.failed, "failed"),
        (counts.canceled, "canceled"),
        (counts.terminated, "terminated"),
        (counts.pending_failed, "pending_failed"),
    ];
    let words: Vec<String> =
        shown.into_iter().filter(|(count, _)| *count > 0).map(|(count, word)| count_word(count, word)).collect();
    let mut text = words.join(", ");
    if let Some(rate) = rate.filter(|rate| *rate > 0.0) {
        let left = (counts.total() - settled(counts)) as f64 / rate;
        text += &format!("; {rate:.1}/s, {} left", seconds(Duration::from_secs_f64(left.min(1e9))));
    }
    text
}

/// A time for people: tenths below ten seconds, seconds below a day, then minutes.
pub fn seconds(time: Duration) -> String {
    if time < Duration::from_secs(10) {
        return format!("{:.1}s", time.as_secs_f64());
    }
    let whole = time.as_secs();
    let rounded = if whole > 86_400 { whole / 60 * 60 } else { whole };
    humantime::format_duration(Duration::from_secs(rounded)).to_string()
}

/// A path as it is seen from here.
pub fn short(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    let below = here.as_ref().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path).display().to_string()
}

/// How fast jobs are done.
#[derive(Debug, Default)]
struct Rate {
    /// When how many were done, over the window. Calls come with an interval, so they are few.
    seen: VecDeque<(Instant, i64)>,
}

impl Rate {
    fn add(&mut self, now: Instant, done: i64) {
        while self.seen.len() > 1 && self.seen.front().is_some_and(|(at, _)| now.duration_since(*at) > RATE_WINDOW) {
            self.seen.pop_front();
        }
        self.seen.push_back((now, done));
    }

    fn per_second(&self) -> Option<f64> {
        let ((from, before), (to, after)) = (self.seen.front()?, self.seen.back()?);
        let time = to.duration_since(*from).as_secs_f64();
        (time > 0.0).then(|| (after - before) as f64 / time)
    }
}

fn as_json(event: &Event) -> Value {
    let named = |kind: &str, job: &Named| json!({ "event": kind, "job_id": job.job_id, "name": job.name, "attempt_id": job.attempt_id });
    let with = |mut value: Value, more: Value| {
        if let (Value::Object(fields), Value::Object(more)) = (&mut value, more) {
            fields.extend(more);
        }
        value
    };
    let paths = |logs: &Logs| json!({ "stdout": logs.stdout, "stderr": logs.stderr });
    match event {
        Event::Registered { compute_node_id, run_id, has } => json!({
            "event": "registered", "compute_node_id": compute_node_id, "run_id": run_id,
            "num_cpus": has.cpus, "memory_bytes": has.memory_bytes, "num_gpus": has.gpus,
        }),
        Event::Started { job, pid, logs } => with(with(named("started", job), paths(logs)), json!({ "pid": pid })),
        Event::Finished { job, outcome, logs } => {
            let ended = json!({
                "status": outcome.status, "return_code": outcome.return_code,
                "seconds": outcome.wall.as_secs_f64(), "peak_memory_bytes": outcome.peak_memory_bytes,
                "why": outcome.why,
            });
            with(with(named("finished", job), paths(logs)), ended)
        }
        Event::Retried { job, return_code, logs } => {
            with(with(named("retried", job), paths(logs)), json!({ "return_code": return_code }))
        }
        Event::RecoveryEnded { job, return_code } => {
            with(named("recovery_ended", job), json!({ "return_code": return_code }))
        }
        Event::LeaseOver { compute_node_id, killed } => {
            let killed: Vec<Value> = killed.iter().map(|job| json!([job.job_id, job.attempt_id])).collect();
            json!({ "event": "lease_over", "compute_node_id": compute_node_id, "killed": killed })
        }
        Event::NotAccepted { job, message } => with(named("not_accepted", job), json!({ "message": message })),
        Event::Away { why } => json!({ "event": "away", "why": why }),
        Event::Back => json!({ "event": "back" }),
        Event::Stopping { why } => json!({ "event": "stopping", "why": end_word(why) }),
    }
}

/// One word for why a worker ended.
pub fn end_word(end: &End) -> &'static str {
    match end {
        End::Complete => "complete",
        End::Canceled => "canceled",
        End::Interrupted => "interrupted",
        End::TimeLimit => "time_limit",
        End::NothingFits { .. } => "nothing_fits",
        End::Stuck(_) => "stuck",
        End::Idle => "idle",
        End::Away { .. } => "away",
        End::Refused { .. } => "refused",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_window() {
        let mut rate = Rate::default();
        let begin = Instant::now();
        assert_eq!(rate.per_second(), None);
        rate.add(begin, 0);
        assert_eq!(rate.per_second(), None);
        rate.add(begin + Duration::from_secs(10), 50);
        assert_eq!(rate.per_second(), Some(5.0));
        rate.add(begin + Duration::from_secs(31), 50);
        assert_eq!(rate.per_second(), Some(0.0));
    }

    #[test]
    fn what_is_left_is_told_by_the_rate() {
        let counts = JobStatusCounts { completed: 80, running: 8, ready: 10, failed: 2, ..JobStatusCounts::default() };
        assert_eq!(describe(&counts, Some(2.0)), "8 running, 10 ready, 2 failed; 2.0/s, 9.0s left");
        assert_eq!(describe(&counts, Some(0.0)), "8 running, 10 ready, 2 failed");
        assert_eq!(describe(&counts, None), "8 running, 10 ready, 2 failed");
    }

    #[test]
    fn times_are_as_fine_as_they_are_short() {
        assert_eq!(seconds(Duration::from_millis(1240)), "1.2s");
        assert_eq!(seconds(Duration::from_secs(3661)), "1h 1m 1s");
        assert_eq!(seconds(Duration::from_secs(90_061)), "1day 1h 1m");
    }
}
