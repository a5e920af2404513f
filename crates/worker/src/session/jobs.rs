//! From a claimed job to a finished attempt.

use super::*;

use std::collections::BTreeMap;

use forebay_wire::{JobStatus, ResultModel, StdioMode};

use crate::launcher::protocol::{Attempt, Command, Ended, Output, Start};
use crate::options::{Logs, Outcome};
use crate::outcome::{Terminated, measure, verdict};
use crate::sys::Signal;

/// The return code of what could not be started, as shells have it.
const NOT_STARTED: i32 = 126;

/// Half of how long nothing is claimed after this machine could not start a process. It doubles.
const PAUSE_MIN: Duration = Duration::from_millis(250);

/// An attempt whose process runs.
pub(super) struct Running {
    job: Box<JobModel>,
    pub(super) attempt: Attempt,
    needs: Amount,
    logs: Logs,
    pub(super) terminated: Terminated,
}

impl Session<'_> {
    /// Takes a job that the server has started here.
    pub(super) fn take(&mut self, job: Box<JobModel>) {
        let attempt = self.attempt(&job);
        if !self.is_working() {
            return self.release(attempt.job_id);
        }
        if !self.ours.insert((attempt.job_id, attempt.attempt_id)) {
            return;
        }
        let id = job.resource_requirements_id;
        match id.and_then(|id| self.needs.get(&id)).filter(|_| attempt.attempt_id == 1) {
            Some(needs) => {
                let needs = needs.clone();
                self.start(job, needs);
            }
            // New to us; or a failure handler may have changed it since the last attempt.
            None => {
                self.reading_needs += 1;
                let aside = self.aside.clone();
                self.sides.spawn(async move {
                    let needs = match id {
                        Some(id) => aside.needs(id).await,
                        None => Ok(Needs::default()),
                    };
                    Side::Needs(job, needs)
                });
            }
        }
    }

    pub(super) fn on_needs(&mut self, job: Box<JobModel>, needs: Result<Needs, CallError>) {
        let Attempt { job_id, attempt_id, .. } = self.attempt(&job);
        self.reading_needs -= 1;
        match needs {
            // Without requirements there are no needs.
            Err(CallError::Refused { .. }) if self.is_working() => self.start(job, Needs::default()),
            Ok(needs) if self.is_working() => {
                if let Some(id) = job.resource_requirements_id {
                    self.needs.insert(id, needs.clone());
                }
                self.start(job, needs);
            }
            Ok(_) | Err(_) => {
                self.ours.remove(&(job_id, attempt_id));
                self.release(job_id);
            }
        }
    }

    /// Starts a job, unless its last attempt has something left to do here.
    fn start(&mut self, job: Box<JobModel>, needs: Needs) {
        self.ledger.take(needs.amount);
        let job_id = job.id.unwrap_or_default();
        if self.unfinished_business.contains(&job_id) {
            self.held.insert(job_id, (job, needs));
        } else {
            self.launch(job, needs);
        }
    }

    fn launch(&mut self, job: Box<JobModel>, needs: Needs) {
        self.last_key += 1;
        let key = self.last_key;
        let attempt = self.attempt(&job);
        let mut env = job.env.clone().unwrap_or_default();
        if let Some(devices) = self.ledger.take_devices(key, needs.amount.gpus) {
            let names =
                ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "TORC_GPU_VISIBLE_DEVICES"];
            env.extend(names.map(|name| (name.to_owned(), devices.clone())));
        }
        let logs = self.logs(&job, attempt);
        name_attempt(&mut env, &job.name, attempt);
        let memory_max = u64::try_from(needs.amount.memory_bytes).ok();
        let start = Start {
            key,
            attempt: Some(attempt),
            command: command_line(job.invocation_script.as_deref(), &job.command),
            env: env.into_iter().collect(),
            output: Output { stdout: logs.stdout.clone(), stderr: logs.stderr.clone() },
            memory_max_bytes: memory_max.filter(|max| self.enforce_memory && !needs.is_default && *max > 0),
        };
        self.processes.send(&Command::Start(start));
        if let Some(runtime) = needs.runtime.filter(|_| self.options.enforce_runtime && !needs.is_default) {
            self.timers.push(Timer { at: Instant::now() + runtime, key, what: Due::Runtime });
        }
        let running = Running { job, attempt, needs: needs.amount, logs, terminated: Terminated::Not };
        self.running.insert(key, running);
    }

    pub(super) fn on_started(&mut self, key: u64, pid: i32) {
        self.pause = None;
        if let Some(running) = self.running.get(&key) {
            let (job, logs) = (running.named(), running.logs.clone());
            self.tell(Event::Started { job, pid, logs });
        }
    }

    /// The process cannot be started anywhere: the attempt failed.
    pub(super) fn on_not_startable(&mut self, key: u64, error: String) {
        self.on_process_gone(&never_ran(key), Some(error));
    }

    /// This machine cannot start a process now, through no fault of the job: it is given back,
    /// and for a while nothing is claimed.
    pub(super) fn on_cannot_start(&mut self, key: u64, error: String) {
        let now = Instant::now();
        let count = match &self.pause {
            Some(pause) if now < pause.until => pause.count,
            Some(pause) => pause.count + 1,
            None => 1,
        };
        self.pause = Some(Pause { until: now + PAUSE_MIN * (1 << count.min(5)), count, why: error });
        match self.running.remove(&key) {
            Some(Running { attempt, needs, terminated, .. }) => {
                self.ledger.give_back(needs);
                self.ledger.give_devices_back(key);
                self.ours.remove(&(attempt.job_id, attempt.attempt_id));
                if terminated != Terminated::Lost {
                    self.release(attempt.job_id);
                }
            }
            None => self.on_process_gone(&never_ran(key), None),
        }
    }

    pub(super) fn on_ended(&mut self, ended: &Ended) {
        let why = ended.over_memory.then(|| "it used more memory than it asked for".to_owned());
        self.on_process_gone(ended, why);
    }

    fn on_process_gone(&mut self, ended: &Ended, why: Option<String>) {
        if let Some(job) = self.scripts.remove(&ended.key) {
            let job_id = job.job_id;
            self.tell(Event::RecoveryEnded { job, return_code: ended.code.into() });
            return self.start_held(job_id);
        }
        let Some(running) = self.running.remove(&ended.key) else { return };
        self.ledger.give_back(running.needs);
        self.ledger.give_devices_back(ended.key);
        self.lull = Lull::Unknown;
        if running.terminated == Terminated::Lost {
            // It is somebody else's, as another attempt.
            return self.settle(&[running.attempt]);
        }
        let (status, return_code) = verdict(ended, running.terminated, &self.config);
        let mut result = ResultModel {
            job_id: running.attempt.job_id,
            workflow_id: self.aside.workflow_id,
            run_id: running.attempt.run_id,
            attempt_id: Some(running.attempt.attempt_id),
            compute_node_id: self.aside.compute_node_id,
            return_code,
            completion_time: rfc3339(SystemTime::now()),
            status,
            ..ResultModel::default()
        };
        measure(&mut result, ended);
        let finished = Finished {
            job: running.job,
            attempt: running.attempt,
            result,
            wall: Duration::from_micros(ended.wall_us),
            logs: running.logs,
            why,
            sent_before: false,
        };
        if running.terminated != Terminated::Canceled && self.aside.has_sequel(&finished) {
            self.unfinished_business.insert(finished.attempt.job_id);
            let aside = self.aside.clone();
            self.sides.spawn(async move { Side::Sequel(aside.sequel(Box::new(finished)).await) });
        } else {
            self.finish(finished);
        }
    }

    pub(super) fn on_sequel(&mut self, sequel: Sequel) {
        match sequel {
            Sequel::Report(finished) => {
                self.unfinished_business.remove(&finished.attempt.job_id);
                self.finish(*finished);
            }
            Sequel::Retried { finished, script } => {
                self.counts.retried += 1;
                self.settle(&[finished.attempt]);
                let (job, return_code) = (finished.named(), finished.result.return_code);
                self.tell(Event::Retried { job, return_code, logs: finished.logs.clone() });
                match script {
                    Some(script) => self.run_recovery(&finished, script),
                    None => self.start_held(finished.attempt.job_id),
                }
            }
        }
    }

    fn finish(&mut self, finished: Finished) {
        let outcome = Outcome {
            status: finished.result.status,
            return_code: finished.result.return_code,
            wall: finished.wall,
            peak_memory_bytes: finished.result.peak_memory_bytes,
            why: finished.why.clone(),
        };
        self.tell(Event::Finished { job: finished.named(), outcome, logs: finished.logs.clone() });
        self.outbox.push_back(finished);
    }

    /// The server has the report.
    pub(super) fn on_accepted(&mut self, finished: &Finished) {
        match finished.result.status {
            JobStatus::Completed => self.counts.completed += 1,
            JobStatus::Terminated => self.counts.terminated += 1,
            _ => self.counts.failed += 1,
        }
        let deletes = self.config.stdio_of(&finished.job.name).delete_on_success == Some(true);
        if finished.result.return_code == 0 && deletes {
            for path in [&finished.logs.stdout, &finished.logs.stderr].into_iter().flatten() {
                // It may be one file under both names, or deleted by somebody else.
                drop(std::fs::remove_file(path));
            }
        }
    }

    /// Runs a failure handler's script. The job's next attempt waits for it if it comes here.
    fn run_recovery(&mut self, finished: &Finished, script: String) {
        self.last_key += 1;
        let key = self.last_key;
        let mut env = BTreeMap::from([("TORC_RETURN_CODE".to_owned(), finished.result.return_code.to_string())]);
        name_attempt(&mut env, &finished.job.name, finished.attempt);
        let log = self.log_path(finished.attempt, "recovery.log");
        let output = Output { stdout: Some(log.clone()), stderr: Some(log) };
        let start = Start {
            key,
            attempt: None,
            command: script,
            env: env.into_iter().collect(),
            output,
            memory_max_bytes: None,
        };
        self.processes.send(&Command::Start(start));
        self.scripts.insert(key, finished.named());
    }

    /// Nothing is left of a job's last attempt: if it was claimed again meanwhile, it starts.
    fn start_held(&mut self, job_id: i64) {
        self.unfinished_business.remove(&job_id);
        if let Some((job, needs)) = self.held.remove(&job_id) {
            self.launch(job, needs);
        }
    }

    /// Gives back what was claimed and has not started.
    pub(super) fn release_held(&mut self) {
        for (job_id, (job, needs)) in std::mem::take(&mut self.held) {
            self.ledger.give_back(needs.amount);
            let attempt = self.attempt(&job);
            self.ours.remove(&(job_id, attempt.attempt_id));
            self.release(job_id);
        }
    }

    pub(super) fn release(&mut self, job_id: i64) {
        let aside = self.aside.clone();
        self.sides.spawn(async move {
            aside.release(job_id).await;
            Side::Released
        });
    }

    pub(super) fn on_timer(&mut self, timer: Timer) {
        let Some(running) = self.running.get_mut(&timer.key) else {
            if timer.what == Due::Kill && self.scripts.contains_key(&timer.key) {
                self.signal(timer.key, Signal::KILL);
            }
            return;
        };
        match (timer.what, running.terminated) {
            (Due::Runtime, Terminated::Not) => {
                running.terminated = Terminated::Runtime;
                self.ask_to_end(timer.key);
            }
            (Due::Kill, terminated) => {
                if let Terminated::Stopping { forced } = &mut running.terminated {
                    *forced = true;
                }
                if terminated != Terminated::Not {
                    self.signal(timer.key, Signal::KILL);
                }
            }
            (
                Due::Runtime,
                Terminated::Runtime | Terminated::Stopping { .. } | Terminated::Canceled | Terminated::Lost,
            ) => {}
        }
    }

    /// Asks all processes to end, and kills those that do not in time.
    pub(super) fn terminate_all(&mut self) {
        for running in self.running.values_mut().filter(|running| running.terminated == Terminated::Not) {
            running.terminated = Terminated::Stopping { forced: false };
        }
        let keys: Vec<u64> = self.running.keys().chain(self.scripts.keys()).copied().collect();
        keys.into_iter().for_each(|key| self.ask_to_end(key));
    }

    pub(super) fn kill_all(&mut self, terminated: Terminated) {
        for running in self.running.values_mut().filter(|running| running.terminated != Terminated::Lost) {
            running.terminated = terminated;
        }
        let keys: Vec<u64> = self.running.keys().chain(self.scripts.keys()).copied().collect();
        keys.into_iter().for_each(|key| self.signal(key, Signal::KILL));
    }

    /// Kills what is not ours any more; which attempts that are.
    pub(super) fn kill_lost(&mut self) -> Vec<Named> {
        self.running.values_mut().for_each(|running| running.terminated = Terminated::Lost);
        let keys: Vec<u64> = self.running.keys().copied().collect();
        keys.into_iter().for_each(|key| self.signal(key, Signal::KILL));
        self.running.values().map(Running::named).collect()
    }

    fn ask_to_end(&mut self, key: u64) {
        let name = self.config.termination_signal.as_deref().unwrap_or(ExecutionConfig::TERMINATION_SIGNAL);
        self.signal(key, Signal::named(name));
        let lead = self.config.sigterm_lead_seconds.unwrap_or(ExecutionConfig::SIGTERM_LEAD_SECONDS);
        let lead = Duration::from_secs(u64::try_from(lead).unwrap_or(0));
        self.timers.push(Timer { at: Instant::now() + lead, key, what: Due::Kill });
    }

    fn signal(&mut self, key: u64, Signal(signal): Signal) {
        self.processes.send(&Command::Signal { key, signal });
    }

    fn attempt(&self, job: &JobModel) -> Attempt {
        Attempt {
            job_id: job.id.unwrap_or_default(),
            run_id: self.aside.run_id,
            attempt_id: job.attempt_id.unwrap_or(1),
        }
    }

    fn logs(&self, job: &JobModel, attempt: Attempt) -> Logs {
        let file = |end| Some(self.log_path(attempt, end));
        match self.config.stdio_of(&job.name).mode {
            StdioMode::Separate => Logs { stdout: file("o"), stderr: file("e") },
            StdioMode::Combined => Logs { stdout: file("log"), stderr: file("log") },
            StdioMode::NoStdout => Logs { stdout: None, stderr: file("e") },
            StdioMode::NoStderr => Logs { stdout: file("o"), stderr: None },
            StdioMode::None => Logs::default(),
        }
    }

    fn log_path(&self, attempt: Attempt, end: &str) -> PathBuf {
        let Attempt { job_id, run_id, attempt_id } = attempt;
        let workflow = self.aside.workflow_id;
        self.output_folder.join(format!("job_stdio/job_wf{workflow}_j{job_id}_r{run_id}_a{attempt_id}.{end}"))
    }
}

impl Running {
    fn named(&self) -> Named {
        let Attempt { job_id, attempt_id, .. } = self.attempt;
        Named { job_id, name: self.job.name.clone(), attempt_id }
    }
}

fn never_ran(key: u64) -> Ended {
    Ended {
        key,
        code: NOT_STARTED,
        wall_us: 0,
        cpu_us: 0,
        peak_bytes: 0,
        mean_bytes: None,
        peak_cpu_percent: 0.0,
        over_memory: false,
    }
}

/// The variables that tell a process which attempt it is. They win over the job's own.
fn name_attempt(env: &mut BTreeMap<String, String>, name: &str, attempt: Attempt) {
    env.insert("TORC_JOB_ID".to_owned(), attempt.job_id.to_string());
    env.insert("TORC_JOB_NAME".to_owned(), name.to_owned());
    env.insert("TORC_ATTEMPT_ID".to_owned(), attempt.attempt_id.to_string());
}

/// What the shell is given: the invocation script before the command, on lines of its own if it
/// has several, else on the same line.
fn command_line(script: Option<&str>, command: &str) -> String {
    match script.filter(|script| !script.trim().is_empty()) {
        None => command.to_owned(),
        Some(script) if script.contains(['\n', '\r']) => format!("{}\n{command}", script.trim_end()),
        Some(script) => format!("{} {command}", script.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invocation_script_goes_before_the_command() {
        assert_eq!(command_line(None, "a b"), "a b");
        assert_eq!(command_line(Some("  "), "a b"), "a b");
        assert_eq!(command_line(Some(" nice -n 5 "), "a b"), "nice -n 5 a b");
        assert_eq!(command_line(Some("module load x\nexport Y=1\n"), "a b"), "module load x\nexport Y=1\na b");
    }

    #[test]
    fn a_job_cannot_change_who_it_is() {
        let mut env = BTreeMap::from([("TORC_JOB_ID".to_owned(), "7".to_owned())]);
        name_attempt(&mut env, "n", Attempt { job_id: 3, run_id: 1, attempt_id: 2 });
        assert_eq!(env["TORC_JOB_ID"], "3");
    }
}
