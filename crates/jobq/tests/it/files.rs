//! Files: in the original's format, shared between handles, and kept.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use forebay_jobq::{Durability, Error, JobQueue, Options, Query};
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What the original wrote, as SQL.
const ORIGINAL: &str = include_str!("../fixtures/original.sql");

fn original(dir: &TempDir) -> PathBuf {
    let path = dir.path().join("original.sqlite3");
    Connection::open(&path).expect("a file").execute_batch(ORIGINAL).expect("a fixture");
    path
}

fn dir() -> TempDir {
    TempDir::new().expect("a directory")
}

fn rows(path: &Path, sql: &str) -> Vec<Vec<String>> {
    let db = Connection::open(path).expect("a file");
    let mut statement = db.prepare(sql).expect("a statement");
    let columns = statement.column_count();
    statement
        .query_map([], |row| {
            (0..columns).map(|n| row.get::<_, rusqlite::types::Value>(n)).collect::<Result<Vec<_>, _>>()
        })
        .expect("rows")
        .map(|row| row.expect("a row").iter().map(|value| format!("{value:?}")).collect())
        .collect()
}

#[test]
fn the_originals_file_is_read_as_the_original_reads_it() {
    let dir = dir();
    let queue = JobQueue::open(original(&dir)).expect("opened");
    let jobs = queue.query("true", None).expect("a query");
    let ids: HashSet<i64> = jobs.iter().map(|job| job.id).collect();
    assert_eq!(ids, HashSet::from([1, 2, 3]));
    let first = queue.get(1).expect("there");
    assert_eq!(first.payload.to::<Value>().expect("JSON"), json!({"a": 1, "b": "é"}));
    assert_eq!(first.state.to::<Value>().expect("JSON"), json!(["assigned", {"node": 1}]));
    let log: Value = first.events.to().expect("JSON");
    assert_eq!(log[1][1]["old"], json!(["CREATED", "é"]));
    assert_eq!(queue.create("next", None::<Value>).expect("created").id, 5);
}

#[test]
fn the_originals_states_are_equal_to_ours() {
    let dir = dir();
    let queue = JobQueue::open(original(&dir)).expect("opened");
    let moved = queue.cas_state(1, json!(["assigned", {"node": 1}]), json!(["é"])).expect("cas");
    assert!(moved.is_some());
    assert!(queue.poll(Query::state(json!(["done"])), json!(1)).expect("polled").is_some());
}

/// What decides whether the original opens a file and finds its jobs in it.
#[test]
fn a_new_file_has_the_originals_tables_and_migrations() {
    let dir = dir();
    let (ours, theirs) = (dir.path().join("ours.sqlite3"), original(&dir));
    JobQueue::open(&ours).expect("opened").close();
    for sql in [
        "SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('job')",
        "SELECT name, type, \"notnull\", pk FROM pragma_table_info('anosql_migration')",
        "SELECT name, sha256sum FROM anosql_migration WHERE committed_at > 0 ORDER BY name",
        "SELECT name, tbl_name FROM sqlite_schema WHERE type = 'index' AND sql NOT NULL",
    ] {
        assert_eq!(rows(&ours, sql), rows(&theirs, sql), "{sql}");
    }
}

#[test]
fn a_row_is_written_as_the_original_writes_it() {
    let dir = dir();
    let (ours, theirs) = (dir.path().join("ours.sqlite3"), original(&dir));
    let options = Options { clock: std::sync::Arc::new(|| 1_000_000), ..Options::default() };
    let queue = JobQueue::open_with(&ours, options).expect("opened");
    queue.create(json!({"a": 1, "b": "é"}), json!(["CREATED", "é"])).expect("created");
    queue.create("x", None::<Value>).expect("created");
    queue.create(json!([1.5, 1e16, null]), json!(["CREATED"])).expect("created");
    let tag = "json_extract(j.state, '$[0]') = 'CREATED'";
    queue.poll(tag, json!(["assigned", {"node": 1}])).expect("polled").expect("a job");
    queue.cas_state(3, json!(["CREATED"]), json!(["done"])).expect("cas").expect("no conflict");
    queue.append_event(2, json!({"foo": "bar"})).expect("appended");
    queue.close();
    // Times differ; so do spaces in payloads, which nobody compares as text.
    let at = rows(&theirs, "SELECT min(modified) FROM job")[0][0].clone();
    let at = at.trim_start_matches("Integer(").trim_end_matches(')');
    let theirs_sql = format!(
        "SELECT id, typeof(payload), json(payload), replace(events, '{at}', '1000'), state, \
         typeof(modified) FROM job"
    );
    let ours_sql = "SELECT id, typeof(payload), json(payload), events, state, typeof(modified) FROM job";
    assert_eq!(rows(&ours, ours_sql), rows(&theirs, &theirs_sql));
}

#[test]
fn what_was_answered_is_there_after_opening_again() {
    let dir = dir();
    for durability in [Durability::Power, Durability::Process] {
        let path = dir.path().join(format!("{durability:?}.sqlite3"));
        let open = || {
            let options = Options { durability, ..Options::default() };
            JobQueue::open_with(&path, options).expect("opened")
        };
        let queue = open();
        let job = queue.create("x", json!(["created"])).expect("created");
        queue.close();
        assert_eq!(open().get(job.id).expect("there"), job);
    }
}

#[test]
fn two_handles_on_one_file_see_each_others_jobs() {
    let dir = dir();
    let path = dir.path().join("shared.sqlite3");
    let (one, two) = (JobQueue::open(&path).expect("opened"), JobQueue::open(&path).expect("opened"));
    let job = one.create("x", json!(["created"])).expect("created");
    assert_eq!(two.get(job.id).expect("there"), job);
    assert!(two.poll(Query::tag("created"), json!(["two"])).expect("polled").is_some());
    assert!(one.poll(Query::tag("created"), json!(["one"])).expect("polled").is_none());
}

#[test]
fn a_new_file_uses_the_write_ahead_log() {
    let dir = dir();
    let path = dir.path().join("wal.sqlite3");
    drop(JobQueue::open(&path).expect("opened"));
    assert_eq!(rows(&path, "PRAGMA journal_mode"), [["Text(\"wal\")"]]);
}

#[test]
fn a_file_that_another_holds_keeps_its_rollback_journal_and_works() {
    let dir = dir();
    let path = original(&dir);
    let holder = Connection::open(&path).expect("a file");
    holder.execute_batch("BEGIN; SELECT count(*) FROM job").expect("held");
    let mut count = holder.prepare("SELECT id FROM job").expect("a statement");
    let mut held = count.query([]).expect("rows");
    assert!(held.next().expect("a row").is_some());
    let queue = JobQueue::open(&path).expect("opened");
    drop(held);
    drop(count);
    holder.execute_batch("COMMIT").expect("let go");
    queue.create("x", None::<Value>).expect("created");
    assert_eq!(rows(&path, "PRAGMA journal_mode"), [["Text(\"delete\")"]]);
}

#[test]
fn what_is_no_job_queue_is_refused() {
    let dir = dir();
    let text = dir.path().join("text");
    std::fs::write(&text, "this is not a database, whatever its length may be").expect("written");
    assert!(matches!(JobQueue::open(&text), Err(Error::Format(_))));
    let other = dir.path().join("other.sqlite3");
    Connection::open(&other).expect("a file").execute_batch("CREATE TABLE job (x)").expect("made");
    assert!(matches!(JobQueue::open(&other), Err(Error::Format(_))));
}

#[test]
fn a_poll_by_state_searches_an_index_that_it_made() {
    let dir = dir();
    let path = original(&dir);
    let queue = JobQueue::open(&path).expect("opened");
    let before = rows(&path, "SELECT name FROM sqlite_schema WHERE type = 'index'").len();
    for _ in 0..2 {
        queue.poll(Query::tag("CREATED"), json!(["x"])).expect("polled");
        queue.poll(Query::state(json!(["x"])), json!(["y"])).expect("polled");
    }
    let after = rows(&path, "SELECT name FROM sqlite_schema WHERE type = 'index'").len();
    assert_eq!(after, before + 2);
    for (condition, name) in [("(json_extract(j.state, '$[0]')) = 'x'", "job_by_"), ("j.state = 'x'", "job_by_")] {
        let plan = rows(
            &path,
            &format!(
                "EXPLAIN QUERY PLAN SELECT id FROM job AS j WHERE {condition} \
                 ORDER BY modified, id LIMIT 1"
            ),
        );
        let plan = format!("{plan:?}");
        assert!(plan.contains("SEARCH j USING") && plan.contains(name), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "{plan}");
    }
}

#[test]
fn a_queue_gets_only_so_many_indexes() {
    let dir = dir();
    let path = original(&dir);
    let queue = JobQueue::open(&path).expect("opened");
    for n in 0..20 {
        let query = format!("json_extract(payload, '$[{n}]') = 1");
        queue.poll(query.as_str(), json!(1)).expect("polled");
    }
    let made = rows(&path, "SELECT name FROM sqlite_schema WHERE name LIKE 'job_by_%'").len();
    assert_eq!(made, 8);
}

#[test]
fn a_file_with_events_in_a_table_gives_the_same_jobs() {
    let dir = dir();
    let play = |name: &str, events_table| {
        let options = Options { events_table, clock: std::sync::Arc::new(|| 1_000_000), ..Options::default() };
        let queue = JobQueue::open_with(dir.path().join(name), options).expect("opened");
        let job = queue.create("x", json!(["a"])).expect("created");
        let mut seen = vec![job];
        seen.push(queue.poll(Query::tag("a"), json!(["b"])).expect("polled").expect("a job"));
        seen.push(queue.cas_state(1, json!(["b"]), json!(["c"])).expect("cas").expect("moved"));
        seen.push(queue.append_event(1, json!({"n": 1})).expect("appended"));
        queue.log_event(1, json!({"n": 2})).expect("appended");
        seen.push(queue.get(1).expect("there"));
        seen.extend(queue.query("true", None).expect("a query"));
        queue.delete(1).expect("deleted");
        queue.close();
        seen
    };
    assert_eq!(play("table", true), play("column", false));
    assert_eq!(rows(&dir.path().join("table"), "SELECT * FROM job_event").len(), 0);
}

#[test]
fn the_original_cannot_take_a_file_with_events_in_a_table_for_its_own() {
    let dir = dir();
    let path = dir.path().join("table");
    let options = Options { events_table: true, ..Options::default() };
    let queue = JobQueue::open_with(&path, options).expect("opened");
    assert!(matches!(queue.query("events like '%x%'", None), Err(Error::Query(_))));
    queue.close();
    // Its first migration has not run, and cannot.
    let noted = rows(&path, "SELECT name FROM anosql_migration WHERE name LIKE 'migration%'");
    assert!(noted.is_empty(), "{noted:?}");
    JobQueue::open(&path).expect("opened again, as it is");
}
