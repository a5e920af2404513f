//! `forebay run` without FILE: what torc's client and its scripts start as torc-server.

use std::fs::File;
use std::process::{Command, Stdio};

use crate::scratch::{Scratch, Served};

const WORKFLOW: &str = "name: one\njobs:\n  - {name: a, command: 'true'}\n";

/// Started as `torc -s` starts it.
fn standalone(command: &mut Command) -> Served {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Served::as_torc_server(command.spawn().expect("the binary can be started"))
}

const STANDALONE: [&str; 6] = ["run", "--host", "127.0.0.1", "--port", "0", "--shutdown-on-stdin-eof"];

#[test]
fn it_serves_an_empty_file_and_stops_when_stdin_ends() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", WORKFLOW);
    File::create(scratch.at("torc.db")).expect("a file can be made");
    let mut command = scratch.command(&STANDALONE);
    let server = standalone(command.args(["--database", "torc.db"]));
    assert_eq!(scratch.forebay(&["create", "w.yaml", "--url", &server.url]).exits(0).out, "1\n");
    let said = server.end_stdin();
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{said:?}");
    assert_eq!(scratch.states("torc.db"), [("a".to_owned(), "ready".to_owned())]);
}

#[test]
fn a_database_in_memory_is_copied_when_it_is_asked_for_and_can_be_served_from_the_copy() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", WORKFLOW);
    let mut command = scratch.command(&STANDALONE);
    command.args(["--database", ":memory:"]);
    command.env("TORC_SERVER_SNAPSHOT_PATH", "out/torc.db").env("TORC_SERVER_SNAPSHOT_KEEP", "1");
    let mut server = standalone(&mut command);
    for id in ["1\n", "2\n"] {
        assert_eq!(scratch.forebay(&["create", "w.yaml", "--url", &server.url]).exits(0).out, id);
        server.signal("USR1");
        let copy = scratch.path().canonicalize().expect("it is there").join("out/torc.db");
        assert_eq!(server.line(), format!("TORC_SNAPSHOT_DONE={}", copy.display()));
    }
    assert_eq!(server.end_stdin().code, 0);
    assert!(!scratch.at("out/torc.db.1").exists(), "one is kept");
    let again = standalone(scratch.command(&STANDALONE).args(["--database", "out/torc.db"]));
    let status = scratch.forebay(&["status", "--url", &again.url, "--json"]).exits(0).json();
    assert_eq!(status.as_array().map(Vec::len), Some(2));
}

#[test]
fn a_copy_that_cannot_be_written_is_logged_and_the_server_goes_on() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", WORKFLOW);
    let mut command = scratch.command(&STANDALONE);
    command.args(["--database", "torc.db"]).env("TORC_SERVER_SNAPSHOT_PATH", "w.yaml/torc.db");
    let mut server = standalone(&mut command);
    server.signal("USR1");
    server.hear("no snapshot was taken");
    scratch.forebay(&["status", "--url", &server.url]).exits(0);
}

#[test]
fn the_environment_names_the_database_and_all_of_torc_servers_flags_are_taken() {
    let scratch = Scratch::new();
    let flags = ["run", "-H", "127.0.0.1", "-p", "0", "-t", "2", "-c", "30", "--log-level", "warn"];
    let mut command = scratch.command(&flags);
    let server = standalone(command.env("DATABASE_URL", "sqlite:named.db"));
    // Without being told to, it does not mind its stdin.
    let said = server.end("TERM");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert!(scratch.at("named.db").exists());
}

#[test]
fn without_a_file_or_a_database_there_is_nothing_to_run_and_both_are_too_much() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", WORKFLOW);
    let nothing = scratch.forebay(&["run"]).exits(2);
    assert!(nothing.err.contains("FILE") && nothing.err.contains("--database"), "{nothing:?}");
    scratch.forebay(&["run", "w.yaml", "--database", "torc.db"]).exits(2);
    scratch.forebay(&["run", "--database", "torc.db", "--max-parallel-jobs", "2"]).exits(2);
    scratch.forebay(&["run", "--database", "torc.db", "--fresh"]).exits(2);
}
