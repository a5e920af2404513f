//! `forebay tasks`: tasks on a server.

use crate::scratch::{Scratch, Served, until};

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

#[test]
fn a_task_waits_for_others_as_the_command_line_says() {
    let scratch = Scratch::new();
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    let tasks = |args: &[&str]| scratch.forebay(&[&["tasks"], args, &["--url", &server.url]].concat());
    let enqueue = |more: &[&str]| {
        tasks(&[&["enqueue", "--application", "shop", "--namespace", "mail", "--task", "send"], more].concat())
    };
    let state = |id: &str| tasks(&["status", id, "--json"]).exits(0).json()["state"].clone();
    for id in ["a", "b"] {
        enqueue(&["--id", id]).exits(0);
    }
    enqueue(&["--id", "c", "--depends-on", "a", "--depends-on", "b"]).exits(0);
    enqueue(&["--id", "d", "--depends-on", "c", "--dead-letter"]).exits(0);
    enqueue(&["--id", "e", "--depends-on", "nobody", "--met-if-gone"]).exits(0);
    assert_eq!([state("c"), state("d"), state("e")], ["waiting", "waiting", "pending"]);
    let listed = tasks(&["list", "shop", "--state", "waiting", "--json"]).exits(0).json();
    assert_eq!((&listed[0]["id"], &listed[1]["id"]), (&"c".into(), &"d".into()));
    let refused = enqueue(&["--depends-on", "nobody"]).exits(1);
    assert!(refused.err.contains("there is no task \"nobody\" to wait for"), "{refused:?}");
    let refused = enqueue(&["--met-if-gone"]).exits(2);
    assert!(refused.err.contains("--depends-on"), "{refused:?}");
    // What cannot be done to one is done to the others.
    for (verb, why) in [("requeue", "a: the task is pending"), ("cancel", "nobody: there is no task \"nobody\"")] {
        let told = tasks(&[verb, "nobody", "a"]).exits(1);
        assert!(told.err.contains(why), "{told:?}");
    }
    // What waits for one that ends without success ends with it.
    until("what waited has ended", || tasks(&["status", "c"]).code == 1);
    until("and so on", || state("d") == "dead_letter");
}

#[test]
fn what_was_not_enqueued_and_what_is_not_shown_is_told() {
    let scratch = Scratch::new();
    scratch.write("rules.toml", "[[drop]]\ntask = 'spam'\n");
    let server = Served::start(&scratch, &["--db", "jobs.db", "--task-rules", "rules.toml"]);
    let tasks = |args: &[&str]| scratch.forebay(&[&["tasks"], args, &["--url", &server.url]].concat());
    let enqueue = |task: &str, more: &[&str]| {
        tasks(&[&["enqueue", "--application", "shop", "--namespace", "mail", "--task", task], more].concat())
    };
    let dropped = enqueue("spam", &["--count", "3"]).exits(0);
    let told = "3 of 3 were not enqueued: the server's rules drop them\n";
    assert_eq!((dropped.out.as_str(), dropped.err.as_str()), ("", told));
    assert_eq!(enqueue("send", &["--id", "a"]).exits(0).err, "");
    let twice = enqueue("send", &["--id", "a"]).exits(0);
    assert_eq!((twice.out.as_str(), twice.err.as_str()), ("a\n", "a task of this id is there: nothing was enqueued\n"));
    enqueue("send", &["--count", "4", "--quiet"]).exits(0);
    for (args, told) in [
        (&["list", "shop"][..], ""),
        (
            &["list", "shop", "--limit", "2", "--offset", "1"],
            "2 of 5 tasks are shown; `forebay tasks list … --offset 3` goes on\n",
        ),
        (&["list", "shop", "--offset", "3"], ""),
    ] {
        assert_eq!(tasks(args).exits(0).err, told, "{args:?}");
    }
    for (flag, time) in [("--deadline", "1500ms"), ("--retry-delay", "10ms")] {
        let refused = enqueue("send", &[flag, time]).exits(2);
        assert!(refused.err.contains("is not a number of whole seconds"), "{refused:?}");
    }
}
