//! `forebay run`: what it says, and how it ends.

use crate::scratch::Scratch;

fn with(text: &str) -> Scratch {
    let scratch = Scratch::new();
    scratch.write("w.yaml", text);
    scratch
}

#[test]
fn a_run_says_what_became_of_its_jobs() {
    let scratch = with("name: w\njobs:\n  - {name: a, command: echo hello}\n");
    let said = scratch.forebay(&["run", "w.yaml"]).exits(0);
    assert!(said.out.starts_with("workflow 1 (w): 1 job: 1 completed; "), "{said:?}");
    assert_eq!(said.out.lines().count(), 1, "{said:?}");
    assert_eq!(scratch.read("forebay_output/job_stdio/job_wf1_j1_r1_a1.o"), "hello\n");
}

#[test]
fn a_failed_job_is_told_with_the_end_of_its_stderr_and_its_logs() {
    let scratch = with(
        "name: w\njobs:\n  - {name: a, command: 'seq 1 9 >&2; printf \"\\033[31mred\\033[0m\\n\" >&2; exit 3'}\n  \
         - {name: b, command: 'true', depends_on: [a]}\n",
    );
    let said = scratch.forebay(&["run", "w.yaml", "--output", "logs"]).exits(4);
    assert!(said.out.contains("2 jobs: 1 failed, 1 canceled; "), "{said:?}");
    assert!(said.out.contains("a (job 1, attempt 1) failed: exit code 3 after "), "{said:?}");
    assert!(
        said.out.contains("  stderr: logs/job_stdio/job_wf1_j1_r1_a1.e\n    6\n    7\n    8\n    9\n    red\n"),
        "{said:?}"
    );
    assert!(said.err.contains("a (job 1, attempt 1) failed: exit code 3, see logs/"), "{said:?}");
}

#[test]
fn nothing_that_a_terminal_would_obey_is_written_to_a_pipe() {
    let scratch = with("name: w\njobs:\n  - {name: a, command: sleep 0.1}\n  - {name: b, command: 'exit 1'}\n");
    let said = scratch.forebay(&["run", "w.yaml"]).exits(4);
    assert!(!said.out.contains('\u{1b}') && !said.err.contains('\u{1b}'), "{said:?}");
    assert!(!said.err.contains('\r'), "{said:?}");
}

#[test]
fn quiet_is_silent_when_all_went_well() {
    let scratch = with("name: w\njobs:\n  - {name: a, command: 'true'}\n");
    let said = scratch.forebay(&["run", "w.yaml", "--quiet"]).exits(0);
    assert_eq!((&*said.out, &*said.err), ("", ""));
}

#[test]
fn json_is_one_object_and_events_are_lines_before_it() {
    let scratch = with("name: w\njobs:\n  - {name: a, command: 'exit 7'}\n");
    let report = scratch.forebay(&["run", "w.yaml", "--json"]).exits(4).json();
    assert_eq!((&report["end"], &report["exit_code"]), (&"complete".into(), &4.into()), "{report}");
    assert_eq!(report["failed_jobs"][0]["return_code"], 7, "{report}");
    let said = scratch.forebay(&["run", "w.yaml", "--fresh", "--json", "--events"]).exits(4);
    let lines: Vec<serde_json::Value> =
        said.out.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect();
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["registered", "started", "finished", "stopping"]);
    assert_eq!(lines.last().map(|line| &line["exit_code"]), Some(&4.into()));
}

#[test]
fn a_job_that_can_never_fit_ends_the_run_once_nothing_else_can_go_on() {
    let scratch = with(
        "name: w\njobs:\n  - {name: big, command: 'true', resource_requirements: big}\n  \
         - {name: small, command: touch small}\n  - {name: after, command: 'true', depends_on: [big]}\n\
         resource_requirements:\n  - {name: big, num_cpus: 64, memory: 900g, runtime: PT1M, num_gpus: 2}\n",
    );
    let said = scratch.forebay(&["run", "w.yaml", "--num-cpus", "2", "--memory-gb", "4"]).exits(3);
    assert!(scratch.at("small").exists());
    assert!(said.out.contains("no ready job fits what there is here: 2 CPUs, 4g of memory"), "{said:?}");
    assert!(said.out.contains("big (job 1) needs 64 CPUs, 900g of memory, 2 GPUs"), "{said:?}");
    // With more it goes on.
    let more = ["run", "w.yaml", "--num-cpus", "64", "--memory-gb", "900", "--num-gpus", "2"];
    scratch.forebay(&more).exits(0);
}

#[test]
fn a_job_whose_label_nobody_has_ends_the_run() {
    let scratch = with("name: w\njobs:\n  - {name: a, command: 'true', labels: [windows]}\n");
    let said = scratch.forebay(&["run", "w.yaml"]).exits(3);
    assert!(said.out.contains("a worker with the label windows"), "{said:?}");
    scratch.forebay(&["run", "w.yaml", "--label", "windows"]).exits(0);
}

#[test]
fn a_job_that_waits_for_a_judgement_ends_the_run() {
    let scratch = with(
        "name: w\nuse_pending_failed: true\njobs:\n  - {name: a, command: 'exit 1'}\n  \
         - {name: b, command: 'true', depends_on: [a]}\n",
    );
    let said = scratch.forebay(&["run", "w.yaml"]).exits(3);
    assert!(said.out.contains("1 job blocked (1 job failed and wait to be judged)"), "{said:?}");
}

#[test]
fn a_bad_file_is_told_with_its_line_and_creates_nothing() {
    for (text, message) in [
        ("name: w\njobs:\n  - {name: a, comand: 'true'}\n", "w.yaml:3:"),
        ("name: w\njobs:\n  - {name: a, comand: 'true'}\n", "did you mean `command`?"),
        ("name: w\njobs:\n  - {name: a, command: 'true', depends_on: [b]}\n", "w.yaml:3:"),
        (
            "name: w\njobs:\n  - {name: a, command: 'true', depends_on: [b]}\n  \
             - {name: b, command: 'true', depends_on: [a]}\n",
            "a",
        ),
        ("name: w\njobs:\n  - {name: a, command: 'true'}\n  - {name: a, command: 'true'}\n", "w.yaml:4:"),
        ("name: w\njobs:\n  - {name: 'a{i}', command: 'true', parameters: {i: '9:1'}}\n", "9:1"),
        ("name: w\njobs:\n  - {name: a, command: 'true'\n", "w.yaml"),
    ] {
        let scratch = with(text);
        let said = scratch.forebay(&["run", "w.yaml"]).exits(1);
        assert!(said.err.contains(message), "{message}: {said:?}");
        assert!(!scratch.at("forebay.db").exists(), "nothing is created");
    }
}

#[test]
fn an_input_that_nobody_makes_is_missed_before_anything_starts() {
    let scratch = with(
        "name: w\njobs:\n  - {name: a, command: 'cat ${files.input.there} ${files.input.gone}'}\n\
         files:\n  - {name: there, path: there.txt}\n  - {name: gone, path: gone.txt}\n",
    );
    scratch.write("there.txt", "");
    let said = scratch.forebay(&["run", "w.yaml"]).exits(1);
    assert!(said.err.contains("not there") && said.err.contains("gone.txt"), "{said:?}");
    assert!(!said.err.contains("there.txt"), "{said:?}");
}

#[test]
fn what_the_file_asks_for_in_vain_is_said() {
    let scratch = with("name: w\nenable_ro_crate: true\njobs:\n  - {name: a, command: 'true'}\n");
    let said = scratch.forebay(&["run", "w.yaml"]).exits(0);
    assert!(said.err.contains("w.yaml:2: note: `enable_ro_crate`"), "{said:?}");
}

#[test]
fn the_help_tells_the_exit_codes_and_wrong_flags_are_errors() {
    let scratch = Scratch::new();
    let help = scratch.forebay(&["--help"]).exits(0).out;
    for code in ["    0  ", "    1  ", "    2  ", "    3  ", "    4  ", "  130  "] {
        assert!(help.contains(code), "{help}");
    }
    let run = scratch.forebay(&["run", "--help"]).exits(0).out;
    assert!(run.contains("Exit codes:") && run.contains("Examples:") && run.contains("--retry-failed"), "{run}");
    scratch.forebay(&["run", "w.yaml", "--max-paralel-jobs", "8"]).exits(2);
    scratch.forebay(&["run", "w.yaml", "--max-parallel-jobs", "0"]).exits(2);
    scratch.forebay(&["run"]).exits(2);
    let synced = scratch.forebay(&["run", "w.yaml", "--sync-interval", "10ms"]).exits(2);
    assert!(synced.err.contains("--durability process"), "{synced:?}");
    scratch.forebay(&["run", "w.yaml", "--durability", "process", "--sync-interval", "10"]).exits(2);
    let read = scratch.forebay(&["run", "w.yaml", "--read-flush-min", "10ms"]).exits(2);
    assert!(read.err.contains("--durability memory"), "{read:?}");
}

#[test]
fn a_chain_of_a_hundred_jobs_runs_in_its_order() {
    let mut text = "name: chain\njobs:\n".to_owned();
    for i in 0..100 {
        text += &format!("  - name: j{i}\n    command: echo {i} >> order\n");
        if i > 0 {
            text += &format!("    depends_on: [j{}]\n", i - 1);
        }
    }
    let scratch = with(&text);
    scratch.forebay(&["run", "w.yaml", "--quiet"]).exits(0);
    let expected: String = (0..100).map(|i| format!("{i}\n")).collect();
    assert_eq!(scratch.read("order"), expected);
}

#[test]
fn a_file_with_actions_is_refused_since_they_would_not_be_carried_out() {
    let scratch = with(
        "name: w\njobs:\n  - {name: a, command: 'true'}\nactions:\n  \
         - {trigger_type: on_workflow_start, action_type: run_commands, commands: [mkdir out]}\n",
    );
    let said = scratch.forebay(&["run", "w.yaml"]).exits(1);
    assert!(said.err.contains("`actions`, which are not carried out yet"), "{said:?}");
    assert!(!scratch.at("forebay.db").exists(), "nothing is created");
}
