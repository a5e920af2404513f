//! Looking after a database.

use crate::scratch::{Scratch, Served};

const TWO: &str = "name: two\njobs:\n  - {name: a, command: 'true'}\n  - {name: b, command: 'true', depends_on: [a]}\n";

/// A database with a workflow that ran.
fn ran() -> Scratch {
    let scratch = Scratch::new();
    scratch.write("w.yaml", TWO);
    scratch.forebay(&["run", "w.yaml", "--db", "jobs.db", "--quiet"]).exits(0);
    scratch
}

#[test]
fn a_served_database_is_checked_listed_and_copied() {
    let scratch = ran();
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    let db = |args: &[&str]| scratch.forebay(&[&["db", "--db", "jobs.db"], args].concat());
    assert_eq!(db(&["check"]).exits(0).out, "jobs.db: nothing is wrong\n");
    assert_eq!(db(&["check", "--json"]).exits(0).out, "[]\n");
    assert_eq!(db(&["plans", "--scans"]).exits(0).out, "");
    let plans = db(&["plans"]).exits(0).out;
    assert!(plans.contains("    SEARCH j USING INDEX job_page (lane_id=?)\n"), "{plans}");
    let indexes = db(&["indexes", "--json"]).exits(0).json();
    let job = indexes.as_array().unwrap().iter().find(|one| one["table"] == "job" && one["index"].is_null());
    assert_eq!(job.unwrap()["entries"], 2, "{indexes}");

    let copied = db(&["backup", "copy.db"]).exits(0).out;
    assert!(copied.starts_with("copy.db: ") && copied.ends_with(" bytes\n"), "{copied}");
    let again = db(&["backup", "copy.db"]).exits(1).err;
    assert_eq!(again, "forebay: copy.db is there already: a copy takes a new name\n");
    for refused in [&["vacuum"][..], &["optimize"], &["migrate", "--down"]] {
        let err = db(refused).exits(1).err;
        assert!(err.contains("jobs.db is in use by another process ("), "{refused:?}: {err}");
    }
    assert_eq!(server.end("TERM").code, 0);

    scratch.forebay(&["db", "check", "--db", "copy.db"]).exits(0);
    assert_eq!(scratch.states("copy.db"), scratch.states("jobs.db"));
}

#[test]
fn a_database_that_nobody_serves_is_put_in_order() {
    let scratch = ran();
    let before = scratch.states("jobs.db");
    let db = |args: &[&str]| scratch.forebay(&[&["db", "--db", "jobs.db"], args].concat()).exits(0).out;
    assert!(db(&["vacuum"]).contains(" bytes before, "));
    db(&["optimize"]);
    assert_eq!(db(&["plans", "--scans"]), "");
    assert!(db(&["migrate"]).contains("already"));
    assert_eq!(db(&["check"]), "jobs.db: nothing is wrong\n");
    assert_eq!(scratch.states("jobs.db"), before);
}

#[test]
fn a_database_goes_back_a_version_and_comes_forward_with_the_next_server() {
    let scratch = ran();
    let said = scratch.forebay(&["db", "migrate", "--down", "--db", "jobs.db"]).exits(0).out;
    assert!(said.starts_with("the schema was at version "), "{said}");
    let older = scratch.forebay(&["status", "--db", "jobs.db"]).exits(1).err;
    assert!(older.contains("was written by an older forebay"), "{older}");
    let server = Served::start(&scratch, &["--db", "jobs.db"]);
    assert_eq!(server.end("TERM").code, 0);
    scratch.forebay(&["status", "--db", "jobs.db"]).exits(0);
}

#[test]
fn what_is_wrong_is_said_and_is_an_error() {
    let scratch = Scratch::new();
    let missing = scratch.forebay(&["db", "check", "--db", "no.db"]).exits(1).err;
    assert_eq!(missing, "forebay: there is no database at no.db\n");
    scratch.write("notes.txt", &"not a database ".repeat(100));
    for command in [&["check"][..], &["plans"], &["indexes"], &["vacuum"], &["backup", "b.db"], &["migrate"]] {
        let err = scratch.forebay(&[&["db", "--db", "notes.txt"], command].concat()).exits(1).err;
        assert!(err.contains("notes.txt is not a Forebay database"), "{command:?}: {err}");
    }
    scratch.forebay(&["db", "migrate", "--to", "1"]).exits(2);
}

#[test]
fn slow_statements_are_logged_by_their_names_if_asked_for() {
    let scratch = Scratch::new();
    scratch.write("w.yaml", TWO);
    let server = Served::start(&scratch, &["--db", "jobs.db", "--slow-statement", "0s"]);
    scratch.forebay(&["create", "w.yaml", "--url", &server.url]).exits(0);
    let said = server.end("TERM");
    for wanted in ["slow statement statement=\"NEW_JOB\" took=", "statement=\"WORKFLOW\"", "rows=1 "] {
        assert!(said.err.contains(wanted), "{wanted}: {said:?}");
    }
    let server = Served::start(&scratch, &["--db", "jobs.db", "--slow-statement", "1h"]);
    scratch.forebay(&["create", "w.yaml", "--url", &server.url]).exits(0);
    assert!(!server.end("TERM").err.contains("slow statement"));
}
