//! `forebay tasks`: tasks on a server.

use crate::scratch::{Scratch, Served};

#[test]
fn tasks_are_enqueued_and_looked_after_from_the_command_line() {
    let scratch = Scratch::new();
    let server = Served::start(&scratch, &["--db", "jobs.db", "--grpc", "127.0.0.1:0"]);
    let tasks = |args: &[&str]| scratch.forebay(&[&["tasks"], args, &["--url", &server.url]].concat());
    let enqueue = ["enqueue", "--application", "shop", "--namespace", "mail", "--task", "send"];
    let many = tasks(&[&enqueue[..], &["--args", "[1, \"a\"]", "--count", "1002"]].concat()).exits(0);
    assert_eq!(many.out.lines().count(), 1002);
    let later = tasks(&[&enqueue[..], &["--id", "later", "--delay", "1h", "--priority", "3"]].concat()).exits(0);
    assert_eq!(later.out, "later\n");
    tasks(&[&enqueue[..], &["--args", "{}"]].concat()).exits(2);

    let applications = tasks(&["applications", "--json"]).exits(0).json();
    assert_eq!((&applications[0]["pending"], &applications[0]["delayed"]), (&1002.into(), &1.into()));
    let shown = tasks(&["status", "later", "--json"]).exits(0).json();
    assert_eq!((&shown["state"], &shown["priority"]), (&"delayed".into(), &3.into()));
    let listed = tasks(&["list", "shop", "--state", "pending", "--limit", "2", "--json"]).exits(0).json();
    assert_eq!(listed.as_array().expect("a list").len(), 2);

    tasks(&["cancel", "later"]).exits(0);
    let gone = tasks(&["status", "later"]).exits(1);
    assert!(gone.err.contains("there is no task \"later\""), "{gone:?}");
    tasks(&["pause", "shop"]).exits(0);
    assert!(tasks(&["applications"]).exits(0).out.contains("paused"));
    tasks(&["resume", "shop"]).exits(0);
    assert_eq!(tasks(&["dead-letters", "shop", "--json"]).exits(0).out, "[]\n");
    let other = tasks(&["list", "other"]).exits(1);
    assert!(other.err.contains("there is no application \"other\""), "{other:?}");
    // Nothing of them is a workflow.
    assert!(scratch.forebay(&["status", "--url", &server.url]).exits(0).out.contains("no workflow yet"));
    assert_eq!(server.end("TERM").code, 0);
    assert!(scratch.forebay(&["db", "check", "--db", "jobs.db"]).exits(0).err.is_empty());
}
