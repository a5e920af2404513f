//! Server and workers apart, over HTTP.

use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::scratch::{Scratch, Served, finish, until};

const DIAMOND: &str = "name: diamond\njobs:\n  - {name: a, command: echo a >> ran}\n  \
     - {name: b, command: echo b >> ran, depends_on: [a]}\n  - {name: c, command: echo c >> ran, depends_on: [a]}\n  \
     - {name: d, command: echo d >> ran, depends_on: [b, c]}\n";

#[test]
fn what_is_created_on_a_server_is_run_by_a_worker_and_seen_from_both_sides() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", DIAMOND);
    let server = Served::start(&scratch, &["--db", "jobs.db", "--durability", "process"]);
    let id = scratch.forebay(&["create", "w.yaml", "--url", &server.url]).exits(0).out;
    assert_eq!(id, "1\n");
    let before = scratch.forebay(&["status", "--url", &server.url, "--json"]).exits(0).json();
    assert_eq!(before[0]["jobs_by_status"]["ready"], 1, "{before}");

    scratch.forebay(&["worker", "--url", &server.url, "--workflow", "1", "--quiet"]).exits(0);
    let ran = scratch.read("ran");
    assert!(ran.starts_with("a\n") && ran.ends_with("d\n") && ran.len() == 8, "{ran}");

    for listed in ["status", "jobs", "results"] {
        let by_url = scratch.forebay(&[listed, "--url", &server.url, "--json"]).exits(0).json();
        let by_db = scratch.forebay(&[listed, "--db", "jobs.db", "--json"]).exits(0).json();
        assert_eq!(by_url, by_db, "{listed}");
        let table = scratch.forebay(&[listed, "1", "--db", "jobs.db"]).exits(0).out;
        assert!(table.contains("completed"), "{table}");
    }
    let nothing = scratch.forebay(&["worker", "--url", &server.url]).exits(1);
    assert!(nothing.err.contains("nothing") || nothing.err.contains("anything left to do"), "{nothing:?}");

    let said = server.end("TERM");
    assert_eq!(said.code, 0, "{said:?}");
    let after = scratch.forebay(&["jobs", "--db", "jobs.db", "--json"]).exits(0).json();
    assert_eq!(after.as_array().map(Vec::len), Some(4));
}

#[test]
fn two_workers_share_a_workflow() {
    let scratch = Scratch::new();
    let mut text = "name: many\njobs:\n".to_owned();
    for i in 0..40 {
        text += &format!("  - {{name: j{i}, command: 'echo $TORC_JOB_ID >> ran'}}\n");
    }
    scratch.write("w.yaml", &text);
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    scratch.forebay(&["create", "w.yaml", "--url", &server.url]).exits(0);
    let start = |output: &str| {
        scratch.start(&["worker", "--url", &server.url, "--output", output, "--max-parallel-jobs", "2", "--json"])
    };
    let (one, two) = (start("one"), start("two"));
    for said in [finish(one), finish(two)] {
        // Whoever comes when all is done finds nothing.
        assert!(said.code == 0 || said.err.contains("anything left to do"), "{said:?}");
    }
    let mut ran: Vec<String> = scratch.read("ran").lines().map(str::to_owned).collect();
    ran.sort_unstable();
    ran.dedup();
    assert_eq!(ran.len(), 40);
}

#[test]
fn what_a_killed_worker_had_goes_back_when_its_folder_has_a_worker_again() {
    let scratch = Scratch::new();
    scratch.write(
        "w.yaml",
        "name: slow\njobs:\n  - {name: a, command: 'echo $TORC_ATTEMPT_ID >> ran; [ -e go ] || sleep 600'}\n",
    );
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    scratch.forebay(&["create", "w.yaml", "--url", &server.url]).exits(0);
    let worker = ["worker", "--url", &server.url, "--workflow", "1", "--quiet"];
    let mut first = scratch.start(&worker);
    until("the job runs", || scratch.at("ran").exists());
    first.kill().expect("it runs");
    finish(first);
    scratch.write("go", "");
    scratch.forebay(&worker).exits(0);
    assert_eq!(scratch.read("ran"), "1\n2\n");
}

#[test]
fn what_a_killed_worker_had_is_with_another_one_within_a_lease() {
    let scratch = Scratch::new();
    scratch.write(
        "w.yaml",
        "name: slow\njobs:\n  - {name: a, command: 'echo $TORC_ATTEMPT_ID >> ran; [ $TORC_ATTEMPT_ID -gt 1 ] || sleep 600'}\n",
    );
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    scratch.forebay(&["create", "w.yaml", "--url", &server.url]).exits(0);
    let worker = |output: &'static str| {
        scratch.start(&["worker", "--url", &server.url, "--workflow", "1", "--output", output, "--lease", "2s"])
    };
    let mut first = worker("one");
    until("the job runs", || scratch.at("ran").exists());
    let second = worker("two");
    first.kill().expect("it runs");
    let killed = Instant::now();
    finish(first);
    assert_eq!(finish(second).code, 0);
    assert_eq!(scratch.read("ran"), "1\n2\n");
    assert!(killed.elapsed() < Duration::from_secs(20), "{:?}", killed.elapsed());
}

#[test]
fn a_killed_server_goes_on_where_it_was() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", DIAMOND);
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    scratch.forebay(&["create", "w.yaml", "--url", &server.url]).exits(0);
    server.end("KILL");
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    scratch.forebay(&["worker", "--url", &server.url, "--quiet"]).exits(0);
    assert_eq!(server.end("INT").code, 0);
}

#[test]
fn a_worker_that_is_not_told_a_server_or_finds_none_says_so() {
    let scratch = Scratch::new();
    scratch.forebay(&["worker"]).exits(2);
    let nobody = scratch.forebay(&["worker", "--url", "http://127.0.0.1:1", "--workflow", "1"]).exits(1);
    assert!(nobody.err.contains("127.0.0.1:1"), "{nobody:?}");
    let bad = scratch.forebay(&["status", "--url", "ftp://x"]).exits(1);
    assert!(bad.err.contains("http://"), "{bad:?}");
    let none = scratch.forebay(&["status", "--db", "none.db"]).exits(1);
    assert!(none.err.contains("there is no database at"), "{none:?}");
    assert!(!scratch.at("none.db").exists(), "to look creates nothing");
}

#[test]
fn a_workflow_that_is_not_there_is_not_found() {
    let scratch = Scratch::new();
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    for place in [["--url", &server.url], ["--db", "jobs.db"]] {
        let said = scratch.forebay(&["status", "7", place[0], place[1]]).exits(1);
        assert!(said.err.contains("there is no workflow 7"), "{said:?}");
    }
    until("nothing is there", || scratch.forebay(&["status", "--url", &server.url]).out.contains("no workflow yet"));
}

#[test]
fn a_server_whose_disk_is_full_says_how_much_it_did_not_write() {
    let scratch = Scratch::new();
    let long = "x".repeat(1000);
    scratch.write(
        "w.yaml",
        &format!("name: w\njobs:\n  - {{name: 'j{{i}}', command: 'echo {long}', parameters: {{i: '1:2000'}}}}\n"),
    );
    // A file that may not grow is a full disk to SQLite.
    let serve = "trap '' XFSZ; ulimit -f 1000; exec \"$0\" serve --http 127.0.0.1:0 --db jobs.db --stop-timeout 200ms";
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", serve, env!("CARGO_BIN_EXE_forebay")]).current_dir(scratch.path()).env_remove("RUST_LOG");
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut server = Served::listening(shell.spawn().expect("bash can be started"));
    let create = scratch.start(&["create", "w.yaml", "--url", &server.url]);
    server.hear("the store is busy");
    let said = server.end("TERM");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("changes were not written"), "{said:?}");
    let refused = finish(create);
    assert_eq!(refused.code, 1, "nothing was acknowledged: {refused:?}");
}
