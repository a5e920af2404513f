//! A run that was cut short goes on.

use std::fs;
use std::process::Child;

use crate::scratch::{Scratch, finish, hear, is_alive, kill, until};

/// Eight jobs that sleep for long in their first attempt. Each writes down its process, and whether
/// the one of its earlier attempt is still there.
const SLEEPERS: &str = r#"
name: sleepers
jobs:
  - name: sleeper_{i}
    command: |
      for pid in $(cat pids/{i} 2>/dev/null); do
        if grep -qs "^State:.[RSDT]" /proc/$pid/status; then echo {i} >> twice; fi
      done
      echo $$ >> pids/{i}
      touch started/{i}_$TORC_ATTEMPT_ID
      if [ "$TORC_ATTEMPT_ID" = 1 ]; then exec sleep 600; fi
    parameters: { i: "1:8" }
  - name: last
    command: echo done
    depends_on_regexes: ["^sleeper_"]
"#;

fn sleepers() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("w.yaml", SLEEPERS);
    for folder in ["pids", "started"] {
        fs::create_dir(scratch.at(folder)).expect("a folder can be made");
    }
    scratch
}

/// Starts a run, and waits until all eight sleep.
fn asleep(scratch: &Scratch, more: &[&str]) -> Child {
    let mut args = vec!["run", "w.yaml", "--max-parallel-jobs", "8", "--quiet"];
    args.extend(more);
    let child = scratch.start(&args);
    until("all eight have started", || (1..=8).all(|i| scratch.at(format!("started/{i}_1")).exists()));
    child
}

fn pids(scratch: &Scratch) -> Vec<u32> {
    let lines = (1..=8).map(|i| scratch.read(&format!("pids/{i}")));
    lines.flat_map(|lines| lines.lines().map(|pid| pid.parse().expect("a pid")).collect::<Vec<_>>()).collect()
}

/// Runs the file once more and asserts that every job completes and none is alive twice.
#[track_caller]
fn goes_on(scratch: &Scratch, first: &[u32]) {
    let report = scratch.forebay(&["run", "w.yaml", "--json", "--max-parallel-jobs", "8"]).exits(0).json();
    assert_eq!(report["jobs_by_status"]["completed"], 9, "{report}");
    assert_eq!(report["ran"]["completed"], 9, "{report}");
    assert_eq!(scratch.read("twice"), "", "a job ran twice at a time");
    assert_eq!(pids(scratch).len(), 16);
    for pid in first {
        assert!(!is_alive(*pid), "{pid} of the first run is alive");
    }
    let attempts = scratch.forebay(&["jobs", "--json"]).exits(0).json();
    assert_eq!(attempts[0]["attempt_id"], 2, "{attempts}");
}

#[test]
fn what_slept_when_the_run_was_killed_runs_again_and_never_twice() {
    let scratch = sleepers();
    let mut child = asleep(&scratch, &[]);
    let first = pids(&scratch);
    child.kill().expect("it runs");
    child.wait().expect("it is our child");
    goes_on(&scratch, &first);
}

#[test]
fn what_outlives_a_killed_run_is_ended_before_its_job_runs_again() {
    let scratch = sleepers();
    let mut child = asleep(&scratch, &[]);
    let first = pids(&scratch);
    // The launcher would end the jobs once the run is gone, even one that is held: what is left without a
    // parent the kernel lets go on. So the run is held while the launcher is killed.
    let launcher = launcher_of(child.id());
    kill(child.id(), "STOP");
    until("the run is held", || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|after| after.trim_start().starts_with('T'))
    });
    kill(launcher, "KILL");
    until("the launcher is gone", || !is_alive(launcher));
    child.kill().expect("it runs");
    child.wait().expect("it is our child");
    assert!(first.iter().all(|pid| is_alive(*pid)), "the jobs outlive their run");
    goes_on(&scratch, &first);
}

fn launcher_of(parent: u32) -> u32 {
    let processes = fs::read_dir("/proc").expect("there is /proc");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_child = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit(')').next().unwrap_or_default();
        after.split_whitespace().nth(1) == Some(&parent.to_string())
    };
    let mut children = pids.filter(is_child);
    let launcher = children.next().expect("the run has a launcher");
    assert_eq!(children.next(), None, "and no other child");
    launcher
}

#[test]
fn an_interrupt_terminates_what_runs_if_it_shall_and_the_next_run_goes_on() {
    let scratch = sleepers();
    let child = asleep(&scratch, &["--on-interrupt", "terminate"]);
    let first = pids(&scratch);
    kill(child.id(), "INT");
    let said = finish(child).exits(130);
    assert!(said.out.contains("interrupted"), "{said:?}");
    assert!(first.iter().all(|pid| !is_alive(*pid)));
    goes_on(&scratch, &first);
}

#[test]
fn sigterm_terminates_what_runs() {
    let scratch = sleepers();
    let child = asleep(&scratch, &[]);
    let first = pids(&scratch);
    kill(child.id(), "TERM");
    finish(child).exits(130);
    assert!(first.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn an_interrupt_lets_running_jobs_end_and_takes_no_more() {
    let scratch = Scratch::new();
    scratch.write(
        "w.yaml",
        "name: w\njobs:\n  - {name: a, command: 'touch a; until [ -e go ]; do sleep 0.01; done'}\n  \
         - {name: b, command: 'touch b', depends_on: [a]}\n",
    );
    let mut child = scratch.start(&["run", "w.yaml"]);
    until("a runs", || scratch.at("a").exists());
    kill(child.id(), "INT");
    hear(&mut child, "no more jobs are taken");
    scratch.write("go", "");
    finish(child).exits(130);
    assert!(!scratch.at("b").exists());
    assert_eq!(scratch.states("forebay.db")[0].1, "completed");
    scratch.forebay(&["run", "w.yaml"]).exits(0);
    assert!(scratch.at("b").exists());
}

#[test]
fn a_second_interrupt_terminates_what_runs() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", "name: w\njobs:\n  - {name: a, command: 'touch a; exec sleep 600'}\n");
    let mut child = scratch.start(&["run", "w.yaml"]);
    until("a runs", || scratch.at("a").exists());
    kill(child.id(), "INT");
    hear(&mut child, "no more jobs are taken");
    kill(child.id(), "INT");
    hear(&mut child, "are being terminated");
    finish(child).exits(130);
    assert_eq!(scratch.states("forebay.db")[0].1, "terminated");
}

#[test]
fn what_is_done_is_not_repeated() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", "name: w\njobs:\n  - {name: a, command: echo a >> ran}\n");
    scratch.forebay(&["run", "w.yaml"]).exits(0);
    let again = scratch.forebay(&["run", "w.yaml"]).exits(0);
    assert!(again.err.contains("goes on: 1 of 1 job done"), "{again:?}");
    // By another name it is the same file.
    fs::create_dir(scratch.at("folder")).expect("a folder can be made");
    scratch.forebay(&["run", "folder/../w.yaml"]).exits(0);
    assert_eq!(scratch.read("ran"), "a\n");
}

#[test]
fn a_changed_file_is_refused_until_it_is_to_begin_anew() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", "name: w\njobs:\n  - {name: a, command: echo a >> ran}\n");
    scratch.forebay(&["run", "w.yaml"]).exits(0);
    // A comment changes nothing of what it means.
    scratch.write("w.yaml", "# the same\nname: w\njobs:\n  - {name: a, command: echo a >> ran}\n");
    scratch.forebay(&["run", "w.yaml"]).exits(0);
    scratch.write("w.yaml", "name: w\njobs:\n  - {name: a, command: echo b >> ran}\n");
    let refused = scratch.forebay(&["run", "w.yaml"]).exits(1);
    assert!(refused.err.contains("has changed") && refused.err.contains("--fresh"), "{refused:?}");
    scratch.forebay(&["run", "w.yaml", "--fresh"]).exits(0);
    assert_eq!(scratch.read("ran"), "a\nb\n");
    let left = scratch.forebay(&["status", "--json"]).json();
    assert_eq!(left.as_array().map(Vec::len), Some(1), "the old one is gone: {left}");
}

#[test]
fn failed_jobs_stay_failed_until_they_are_to_run_again() {
    let scratch = Scratch::new();
    scratch.write(
        "w.yaml",
        "name: w\njobs:\n  - {name: a, command: 'echo a >> ran; test -e good'}\n  \
         - {name: b, command: echo b >> ran, depends_on: [a]}\n  - {name: c, command: echo c >> other}\n",
    );
    let failed = scratch.forebay(&["run", "w.yaml"]).exits(4);
    assert!(failed.out.contains("--retry-failed"), "{failed:?}");
    scratch.write("good", "");
    scratch.forebay(&["run", "w.yaml"]).exits(4);
    assert_eq!(scratch.read("ran"), "a\n");
    scratch.forebay(&["run", "w.yaml", "--retry-failed"]).exits(0);
    assert_eq!((&*scratch.read("ran"), &*scratch.read("other")), ("a\na\nb\n", "c\n"));
}

#[test]
fn a_database_has_one_owner_and_many_readers() {
    let scratch = sleepers();
    let mut child = asleep(&scratch, &[]);
    let refused = scratch.forebay(&["run", "w.yaml"]).exits(1);
    assert!(refused.err.contains(&format!("in use by another process ({})", child.id())), "{refused:?}");
    let seen = scratch.forebay(&["status", "--json"]).exits(0).json();
    assert_eq!(seen[0]["jobs_by_status"]["running"], 8, "{seen}");
    child.kill().expect("it runs");
    child.wait().expect("it is our child");
}
