//! What is said at the end of a run.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use forebay_wire::units::{GIB, memory_string};
use forebay_wire::{
    JobStatus, JobStatusCounts, ListResultsResponse, ResultModel, WorkflowModel, WorkflowStatusResponse,
};
use forebay_worker::{Client, End, Summary, Unfit};
use serde::Serialize;

use crate::args::DisplayArgs;
use crate::exit::Exit;
use crate::look::counts;
use crate::progress::{end_word, seconds, short};
use crate::table::{count_word, jobs};

/// Failed jobs that are named for people, and in JSON.
const SHOWN_MAX: usize = 20;
const TOLD_MAX: usize = 1000;

/// Lines of a failed job's stderr that are shown, out of so many bytes at its end.
const TAIL_LINES: usize = 5;
const TAIL_BYTES: u64 = 4096;

/// How a run ended, for people and for programs.
#[derive(Debug, Serialize)]
pub struct Report {
    pub workflow: i64,
    pub name: String,
    /// One word: complete, canceled, interrupted, nothing_fits, stuck, …
    pub end: &'static str,
    pub exit_code: u8,
    pub run_id: i64,
    pub seconds: f64,
    pub total_jobs: i64,
    pub jobs_by_status: JobStatusCounts,
    /// Attempts of this run alone.
    pub ran: Ran,
    /// Why the run ended before its workflow did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    pub failed_jobs: Vec<FailedJob>,
    #[serde(skip)]
    pub exit: Exit,
}

/// What the worker did.
#[derive(Debug, Default, Serialize)]
pub struct Ran {
    pub completed: u64,
    pub failed: u64,
    pub terminated: u64,
    pub retried: u64,
    pub not_accepted: u64,
    /// Attempts that ended and whose report did not reach the server.
    pub unreported: usize,
}

#[derive(Debug, Serialize)]
pub struct FailedJob {
    pub job_id: i64,
    pub name: String,
    pub status: JobStatus,
    pub run_id: i64,
    pub attempt_id: i64,
    pub return_code: i64,
    pub seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<PathBuf>,
    /// The last lines of its stderr.
    pub stderr_tail: Vec<String>,
}

impl Report {
    /// Asks the server how things stand. `summary` is absent if there was nothing left to run.
    pub async fn gather(
        client: &Client,
        workflow: i64,
        summary: Option<&Summary>,
        output: &Path,
        took: Duration,
    ) -> anyhow::Result<Report> {
        let model: WorkflowModel = client.get(&format!("/workflows/{workflow}")).await?;
        let status: WorkflowStatusResponse = client.get(&format!("/workflows/{workflow}/status?times=false")).await?;
        let run_id = model.run_id.unwrap_or_default();
        let mut failed_jobs = Vec::new();
        for status in [JobStatus::Failed, JobStatus::Terminated, JobStatus::PendingFailed] {
            let limit = TOLD_MAX - failed_jobs.len();
            let path = format!("/results?workflow_id={workflow}&status={status}&limit={limit}");
            let page: ListResultsResponse = client.get(&path).await?;
            failed_jobs.extend(page.items.iter().map(|result| FailedJob::new(result, output)));
        }
        let done = if status.is_canceled { End::Canceled } else { End::Complete };
        let end = summary.map_or(&done, |summary| &summary.end);
        let exit = exit_of(end, &status.jobs_by_status);
        let ran = summary.map(|summary| Ran {
            completed: summary.completed,
            failed: summary.failed,
            terminated: summary.terminated,
            retried: summary.retried,
            not_accepted: summary.not_accepted,
            unreported: summary.unreported.len(),
        });
        Ok(Report {
            workflow,
            name: model.name,
            end: end_word(end),
            exit_code: exit.code(),
            run_id,
            seconds: took.as_secs_f64(),
            total_jobs: status.total_jobs,
            ran: ran.unwrap_or_default(),
            why: why(end),
            failed_jobs,
            jobs_by_status: status.jobs_by_status,
            exit,
        })
    }

    /// Another end than the workflow's own.
    pub fn set_exit(&mut self, exit: Exit) {
        self.exit = exit;
        self.exit_code = exit.code();
    }

    /// Prints it as asked: quiet is silent when all went well.
    pub fn print(&self, args: &DisplayArgs) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if args.json {
            serde_json::to_writer(&mut out, self)?;
            return writeln!(out);
        }
        if !args.quiet || self.exit != Exit::Done {
            self.write(&mut out)?;
        }
        Ok(())
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Report { workflow, name, .. } = self;
        let by_state = counts(&self.jobs_by_status);
        let colon = if by_state.is_empty() { "" } else { ": " };
        let took = seconds(Duration::from_secs_f64(self.seconds));
        writeln!(out, "workflow {workflow} ({name}): {}{colon}{by_state}; {took}", jobs(self.total_jobs))?;
        for job in self.failed_jobs.iter().take(SHOWN_MAX) {
            job.write(out)?;
        }
        if self.failed_jobs.len() > SHOWN_MAX {
            writeln!(out, "\nand more: forebay results --failed {workflow}")?;
        }
        if self.ran.unreported > 0 {
            let count = count_word(i64::try_from(self.ran.unreported).unwrap_or(i64::MAX), "attempts");
            writeln!(out, "\n{count} ended, but their end could not be reported; they will run again")?;
        }
        if let Some(why) = &self.why {
            writeln!(out, "\n{why}")?;
        }
        Ok(())
    }
}

impl FailedJob {
    fn new(result: &ResultModel, output: &Path) -> FailedJob {
        let (run_id, attempt_id) = (result.run_id, result.attempt_id.unwrap_or(1));
        let log = |end: &str| {
            let (workflow, job) = (result.workflow_id, result.job_id);
            let path = output.join(format!("job_stdio/job_wf{workflow}_j{job}_r{run_id}_a{attempt_id}.{end}"));
            path.exists().then_some(path)
        };
        let both = log("log");
        let stdout = log("o").or_else(|| both.clone());
        let stderr = log("e").or(both);
        let stderr_tail = stderr.as_deref().and_then(|path| tail(path).ok()).unwrap_or_default();
        FailedJob {
            job_id: result.job_id,
            name: result.job_name.clone().unwrap_or_default(),
            status: result.status,
            run_id,
            attempt_id,
            return_code: result.return_code,
            seconds: result.exec_time_minutes * 60.0,
            stdout,
            stderr,
            stderr_tail,
        }
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let FailedJob { job_id, name, status, attempt_id, return_code, .. } = self;
        let took = seconds(Duration::from_secs_f64(self.seconds.max(0.0)));
        writeln!(out, "\n{name} (job {job_id}, attempt {attempt_id}) {status}: exit code {return_code} after {took}")?;
        let is_one = self.stdout == self.stderr;
        let stdout = self.stdout.as_ref().filter(|path| !is_one && has_content(path));
        let stderr = self.stderr.as_ref().filter(|path| has_content(path));
        for (word, path) in [("stdout", stdout), (if is_one { "output" } else { "stderr" }, stderr)] {
            if let Some(path) = path {
                writeln!(out, "  {word}: {}", short(path))?;
            }
        }
        for line in &self.stderr_tail {
            writeln!(out, "    {line}")?;
        }
        Ok(())
    }
}

fn exit_of(end: &End, counts: &JobStatusCounts) -> Exit {
    match end {
        End::Complete if counts.completed + counts.disabled == counts.total() => Exit::Done,
        End::Complete | End::Canceled => Exit::SomeFailed,
        End::Interrupted => Exit::Interrupted,
        End::NothingFits { .. } | End::Stuck(_) => Exit::CannotGoOn,
        End::Idle | End::TimeLimit => Exit::CannotGoOn,
        End::Away { .. } | End::Refused { .. } => Exit::Error,
    }
}

/// Why a run ended before its workflow did.
fn why(end: &End) -> Option<String> {
    match end {
        End::Complete => None,
        End::Canceled => Some("the workflow was canceled".to_owned()),
        End::Interrupted => Some("interrupted; the same command goes on, and runs again what was cut short".to_owned()),
        End::TimeLimit => Some("the time limit is over".to_owned()),
        End::NothingFits { jobs, has } => {
            let mut text = format!("cannot go on: no ready job fits what there is here: {}", amount(has));
            for job in jobs {
                text += &format!("\n  {} (job {}) needs {}", job.name, job.job_id, needs(job));
            }
            if jobs.iter().any(|job| !job.labels.is_empty()) {
                text += "\njobs with labels are run by a worker with --label";
            }
            if jobs.iter().any(|job| job.labels.is_empty()) {
                text += "\n--num-cpus, --memory-gb and --num-gpus say that there is more than was detected";
            }
            Some(text)
        }
        End::Stuck(counts) => Some(stuck(counts)),
        End::Idle => Some("there was nothing to do for --idle-max".to_owned()),
        End::Away { why } => Some(format!("the server cannot be reached: {why}")),
        End::Refused { why } => Some(format!("the server refuses this worker: {why}")),
    }
}

fn stuck(left: &JobStatusCounts) -> String {
    let mut reasons = Vec::new();
    if left.disabled > 0 {
        reasons.push(format!("{} disabled", jobs(left.disabled)));
    }
    if left.pending_failed > 0 {
        reasons.push(format!("{} failed and wait to be judged", jobs(left.pending_failed)));
    }
    if left.uninitialized > 0 {
        reasons.push(format!("{} not initialized", jobs(left.uninitialized)));
    }
    let because = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
    format!("cannot go on: nothing runs, nothing is ready, and {} blocked{because}", jobs(left.blocked))
}

fn needs(job: &Unfit) -> String {
    let mut text = amount(&job.needs);
    if job.num_nodes > 1 {
        text += &format!(", on each of {} nodes", job.num_nodes);
    }
    if !job.labels.is_empty() {
        text += &format!(", a worker with the label {}", job.labels.join(", "));
    }
    text
}

fn amount(amount: &forebay_worker::Amount) -> String {
    let gib = amount.memory_bytes as f64 / GIB as f64;
    let memory = if amount.memory_bytes % GIB != 0 && amount.memory_bytes > GIB {
        format!("{gib:.1}g")
    } else {
        memory_string(amount.memory_bytes)
    };
    let mut text = format!("{} CPUs, {memory} of memory", amount.cpus);
    if amount.gpus > 0 {
        text += &format!(", {} GPUs", amount.gpus);
    }
    text
}

/// What a job did not write need not be looked at.
fn has_content(log: &Path) -> bool {
    log.metadata().is_ok_and(|log| log.len() > 0)
}

/// The last lines of a file, without anything that a terminal would obey.
fn tail(path: &Path) -> io::Result<Vec<String>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(last_lines(&String::from_utf8_lossy(&bytes), length > TAIL_BYTES))
}

/// The first line of a text that was cut is not whole; it is left out if there are others.
fn last_lines(text: &str, is_cut: bool) -> Vec<String> {
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if is_cut && lines.len() > 1 {
        lines.remove(0);
    }
    let plain = |line: &&str| {
        let line = console::strip_ansi_codes(line);
        line.chars().filter(|c| !c.is_control() || *c == '\t').collect::<String>().trim_end().to_owned()
    };
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use forebay_worker::Amount;

    use super::*;

    #[test]
    fn a_run_is_done_only_if_every_job_completed() {
        let counts =
            |completed, failed, disabled| JobStatusCounts { completed, failed, disabled, ..JobStatusCounts::default() };
        assert_eq!(exit_of(&End::Complete, &counts(3, 0, 0)), Exit::Done);
        assert_eq!(exit_of(&End::Complete, &counts(3, 0, 1)), Exit::Done);
        assert_eq!(exit_of(&End::Complete, &counts(3, 1, 0)), Exit::SomeFailed);
        assert_eq!(exit_of(&End::Interrupted, &counts(3, 1, 0)), Exit::Interrupted);
        assert_eq!(exit_of(&End::Stuck(Box::default()), &counts(3, 1, 0)), Exit::CannotGoOn);
    }

    #[test]
    fn what_does_not_fit_is_told_with_what_there_is() {
        let has = Amount { cpus: 2, memory_bytes: 5 * GIB / 2, gpus: 0 };
        let needs = Amount { cpus: 4, memory_bytes: 16 * GIB, gpus: 1 };
        let unfit = Unfit { job_id: 7, name: "big".into(), needs, num_nodes: 1, labels: vec![] };
        let told = why(&End::NothingFits { jobs: vec![unfit], has }).unwrap();
        assert!(told.contains("here: 2 CPUs, 2.5g of memory\n"), "{told}");
        assert!(told.contains("big (job 7) needs 4 CPUs, 16g of memory, 1 GPUs"), "{told}");
    }

    #[test]
    fn a_stuck_run_says_what_it_waits_for() {
        let left = JobStatusCounts { blocked: 2, disabled: 1, ..JobStatusCounts::default() };
        assert_eq!(stuck(&left), "cannot go on: nothing runs, nothing is ready, and 2 jobs blocked (1 job disabled)");
    }

    #[test]
    fn the_end_of_stderr_is_shown_without_its_colours() {
        let text = "one\n\n\u{1b}[31mtwo\u{1b}[0m\r\nthree\nfour\nfive\nsix\u{7}\n";
        assert_eq!(last_lines(text, false), ["two", "three", "four", "five", "six"]);
        assert_eq!(last_lines("cut\nwhole", true), ["whole"]);
        assert_eq!(last_lines("only", true), ["only"]);
    }
}
