//! torc's own example files, unmodified, each in a scratch copy of what they need of the crate.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::Value;

use crate::scratch::{Said, Scratch};
use crate::torc_crate::torc_crate;

/// What `fan_in_regional_summary.py` uses of numpy, for machines that do not have it.
const NUMPY: &str = "
import math

class array(list):
    def mean(self):
        return sum(self) / len(self)
    def std(self):
        mean = self.mean()
        return math.sqrt(sum((x - mean) ** 2 for x in self) / len(self))
    def min(self):
        return min(iter(self))
    def max(self):
        return max(iter(self))
";

/// A copy of the crate's examples and of the scripts that they call.
fn copy() -> Scratch {
    static CRATE: OnceLock<std::path::PathBuf> = OnceLock::new();
    let root = CRATE.get_or_init(torc_crate);
    let scratch = Scratch::new();
    copy_folder(&root.join("examples"), &scratch.at("examples"));
    fs::create_dir_all(scratch.at("tests")).expect("a folder can be made");
    copy_folder(&root.join("tests/scripts"), &scratch.at("tests/scripts"));
    scratch.write("f1.json", "{\"value\": 1}\n");
    scratch
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the crate has this folder") {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

fn run(scratch: &Scratch, file: &str, more: &[&str]) -> Said {
    let file = format!("examples/{file}");
    let mut args = vec!["run", &file, "--json", "--quiet"];
    args.extend(more);
    scratch.forebay(&args)
}

/// Asserts that the file runs to completion with so many jobs.
#[track_caller]
fn completes(scratch: &Scratch, file: &str, jobs: u64, more: &[&str]) {
    let report = run(scratch, file, more).exits(0).json();
    assert_eq!(report["total_jobs"], jobs, "{report}");
    assert_eq!(report["jobs_by_status"]["completed"], jobs, "{report}");
}

/// Asserts that the run comes to its end with these jobs failed, by name, and so many canceled.
#[track_caller]
fn fails(scratch: &Scratch, file: &str, more: &[&str], failed: &[&str], canceled: u64) {
    let report = run(scratch, file, more).exits(4).json();
    let jobs = report["failed_jobs"].as_array().expect("a list");
    let mut names: Vec<&str> = jobs.iter().map(|job| job["name"].as_str().expect("a name")).collect();
    names.sort_unstable();
    assert_eq!(names, failed, "{report}");
    assert_eq!(report["jobs_by_status"]["canceled"], canceled, "{report}");
    for job in jobs {
        // bash says 127 without a python, python says 2 without the script.
        assert!([2, 127].contains(&job["return_code"].as_i64().expect("a code")), "{job}");
        assert!(!job["stderr_tail"].as_array().expect("lines").is_empty(), "{job}");
    }
}

#[test]
fn the_diamond_completes_and_its_files_are_made() {
    let scratch = copy();
    completes(&scratch, "yaml/diamond_workflow.yaml", 4, &[]);
    let last: Value = serde_json::from_str(&scratch.read("f6.json")).expect("JSON");
    assert_eq!(last["inputs"][1]["processed"]["input"]["value"], 1, "{last}");
}

#[test]
fn a_hundred_jobs_complete() {
    let scratch = copy();
    for file in ["json/hundred_jobs_workflow.json5", "yaml/hundred_jobs_parameterized.yaml"] {
        completes(&scratch, file, 100, &[]);
    }
}

#[test]
fn a_table_makes_a_job_of_each_row() {
    completes(&copy(), "yaml/parameterized_from_csv.yaml", 4, &[]);
}

#[test]
fn output_is_kept_as_the_file_says() {
    let scratch = copy();
    completes(&scratch, "yaml/stdio_configuration.yaml", 4, &["--num-cpus", "4", "--memory-gb", "8"]);
    let kept = fs::read_dir(scratch.at("forebay_output/job_stdio")).expect("jobs had output");
    let mut ends: Vec<String> = kept
        .map(|entry| entry.expect("the folder can be read").path())
        .map(|path| path.extension().expect("logs have one").to_string_lossy().into_owned())
        .collect();
    ends.sort_unstable();
    // Two are combined and deleted on success, one is kept apart, one has none.
    assert_eq!(ends, ["e", "o"]);
}

#[test]
fn regexes_gather_what_many_jobs_wrote() {
    let scratch = copy();
    let has_numpy = std::process::Command::new("python3").args(["-c", "import numpy"]).output();
    if !has_numpy.is_ok_and(|said| said.status.success()) {
        scratch.write("examples/scripts/numpy.py", NUMPY);
    }
    completes(&scratch, "yaml/fan_in_with_regexes.yaml", 30, &["--num-cpus", "4", "--memory-gb", "16"]);
    assert!(scratch.read("output/global_report.json").contains("north"));
}

#[test]
fn zipped_jobs_fail_without_their_scripts_and_what_follows_is_canceled() {
    let train = ["train_cifar10_resnet", "train_imagenet_transformer", "train_mnist_cnn"];
    fails(&copy(), "kdl/zip_parameter_mode.kdl", &["--num-cpus", "4", "--memory-gb", "8"], &train, 3);
}

#[test]
fn priorities_do_not_help_where_the_first_script_is_missing() {
    let machine = ["--num-cpus", "4", "--memory-gb", "8"];
    fails(&copy(), "yaml/priority_workflow.yaml", &machine, &["preprocess"], 4);
}

#[test]
fn variables_are_in_place_where_the_first_script_is_missing() {
    let machine = ["--num-cpus", "4", "--memory-gb", "16", "--num-gpus", "1"];
    let scratch = copy();
    fails(&scratch, "yaml/variables_demo.yaml", &machine, &["prepare_inputs"], 5);
    let jobs = scratch.forebay(&["jobs", "--json"]).exits(0).json();
    assert_eq!(jobs[0]["command"], "python prepare.py --in /scratch/proj42/raw --out /scratch/proj42/clean");
}

#[test]
fn a_job_is_retried_until_it_succeeds_or_has_no_retry_left() {
    let scratch = copy();
    let said = run(&scratch, "yaml/simple_retry.yaml", &[]);
    ends_follow_from_exit_codes(&scratch, &said, &|_| Some(3));
    let states = scratch.states("forebay.db");
    let expected = if said.code == 0 { ["completed", "completed"] } else { ["failed", "canceled"] };
    assert_eq!([&*states[0].1, &*states[1].1], expected, "{states:?}");
}

#[test]
fn each_exit_code_is_retried_as_its_rule_says() {
    let scratch = copy();
    let said = run(&scratch, "yaml/failure_handler_simulation.yaml", &[]);
    let max_retries = |code| match code {
        10 | 12 => Some(3),
        11 => Some(2),
        _ => None,
    };
    ends_follow_from_exit_codes(&scratch, &said, &max_retries);
    let states = scratch.states("forebay.db");
    assert_eq!(states.len(), 18);
    for model in 0..3 {
        for scenario in 0..3 {
            let state = |what: &str| {
                let name = format!("{what}_m{model}_s{scenario}");
                &states.iter().find(|(job, _)| *job == name).expect("it is there").1
            };
            let expected = if state("simulate") == "completed" { "completed" } else { "canceled" };
            assert_eq!(state("aggregate_results"), expected, "{states:?}");
        }
    }
}

/// torc counts attempts: the attempt of this number is the last that a rule retries.
fn ends_follow_from_exit_codes(scratch: &Scratch, said: &Said, max_retries: &dyn Fn(i64) -> Option<i64>) {
    let report = said.json();
    let results = scratch.forebay(&["results", "--json"]).exits(0).json();
    let mut any_failed = false;
    for result in results.as_array().expect("a list") {
        let number = |field: &str| result[field].as_i64().expect("a number");
        let (code, attempt) = (number("return_code"), number("attempt_id"));
        assert!(attempt <= 4, "{result}");
        match result["status"].as_str().expect("a state") {
            "completed" => assert_eq!(code, 0, "{result}"),
            "failed" => {
                any_failed = true;
                assert!(max_retries(code).is_none_or(|max| attempt >= max), "{result}");
            }
            // It waited for one that failed.
            "canceled" => assert_eq!((code, attempt), (-1, 1), "{result}"),
            other => panic!("{other}: {result}"),
        }
    }
    assert_eq!(said.code, if any_failed { 4 } else { 0 }, "{report}");
}
