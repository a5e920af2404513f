//! jobq's documented behaviour.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use forebay_jobq::{Error, JobQueue, Options, Query};
use serde_json::{Value, json};

/// A queue in memory whose clock the test moves, in milliseconds since 1970.
fn queue() -> (JobQueue, Arc<AtomicI64>) {
    let now = Arc::new(AtomicI64::new(1_000_000));
    let clock = Arc::clone(&now);
    let options = Options { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..Options::default() };
    (JobQueue::open_with(":memory:", options).expect("memory"), now)
}

fn memory() -> JobQueue {
    queue().0
}

fn events(job: &forebay_jobq::Job) -> Value {
    job.events.to().expect("a log is JSON")
}

#[test]
fn a_created_job_has_an_id_its_payload_the_null_state_and_a_log() {
    let (queue, _) = queue();
    let job = queue.create("a basic payload", None::<Value>).expect("created");
    assert_eq!(job.id, 1);
    assert_eq!(job.payload.as_str(), "\"a basic payload\"");
    assert_eq!(job.state.as_str(), "null");
    assert_eq!(job.modified, 1_000);
    assert_eq!(events(&job), json!([["job_created", {"timestamp": "1000"}]]));
}

#[test]
fn get_after_create_gives_the_same_job() {
    let queue = memory();
    let job = queue.create(json!({"a": [1, 2.5, "é"]}), json!(["created"])).expect("created");
    assert_eq!(queue.get(job.id).expect("there"), job);
}

#[test]
fn getting_a_job_that_is_not_there_fails() {
    assert!(matches!(memory().get(7), Err(Error::NoJob(7))));
}

#[test]
fn the_oldest_job_is_polled_and_of_equals_the_first() {
    let (queue, now) = queue();
    let first = queue.create("1", None::<Value>).expect("created");
    let second = queue.create("2", None::<Value>).expect("created");
    now.fetch_add(1_000, Ordering::Relaxed);
    let third = queue.create("3", None::<Value>).expect("created");
    queue.append_event(first.id, "touched").expect("appended");
    let order: Vec<i64> = (0..3)
        .map(|_| queue.poll("state = 'null'", json!(["assigned"])).expect("polled"))
        .map(|job| job.expect("a job").id)
        .collect();
    assert_eq!(order, [second.id, first.id, third.id]);
}

#[test]
fn a_poll_moves_the_job_and_logs_it() {
    let (queue, now) = queue();
    queue.create("x", json!(["created"])).expect("created");
    now.fetch_add(5_000, Ordering::Relaxed);
    let job = queue.poll("true", json!(["assigned", {"node": 1}])).expect("polled").expect("a job");
    assert_eq!(job.state.as_str(), r#"["assigned",{"node":1}]"#);
    assert_eq!(job.modified, 1_005);
    assert_eq!(
        events(&job),
        json!([
            ["job_created", {"timestamp": "1000"}],
            ["job_state_advanced",
             {"old": ["created"], "new": ["assigned", {"node": 1}], "timestamp": "1005"}],
        ])
    );
    assert_eq!(queue.get(job.id).expect("there"), job);
}

#[test]
fn polling_for_nothing_gives_nothing() {
    let queue = memory();
    queue.create("x", None::<Value>).expect("created");
    assert!(queue.poll("false", json!(["assigned"])).expect("polled").is_none());
}

#[test]
fn an_event_is_appended_and_keeps_the_state() {
    let (queue, now) = queue();
    let before = queue.create("x", json!(["s"])).expect("created");
    now.fetch_add(1_000, Ordering::Relaxed);
    let after = queue.append_event(before.id, json!({"foo": "bar"})).expect("appended");
    assert_eq!(after.state, before.state);
    assert_eq!(after.modified, before.modified + 1);
    assert_eq!(
        events(&after),
        json!([
            ["job_created", {"timestamp": "1000"}],
            ["user_event", {"event": {"foo": "bar"}, "timestamp": "1001"}],
        ])
    );
    assert_eq!(queue.get(before.id).expect("there"), after);
    assert!(matches!(queue.append_event(9, json!(1)), Err(Error::NoJob(9))));
}

#[test]
fn cas_moves_a_job_from_the_state_that_it_has() {
    let queue = memory();
    let job = queue.create("x", json!(["state", 2])).expect("created");
    let moved = queue.cas_state(job.id, json!(["state", 2]), json!(["state", 3])).expect("cas");
    let moved = moved.expect("no conflict");
    assert_eq!(moved.state.as_str(), r#"["state",3]"#);
    assert_eq!(
        events(&moved)[1],
        json!(["job_state_advanced",
               {"old": ["state", 2], "new": ["state", 3], "timestamp": "1000"}])
    );
}

#[test]
fn cas_from_another_state_is_a_conflict_and_changes_nothing() {
    let queue = memory();
    let job = queue.create("x", json!(["state", 2])).expect("created");
    let moved = queue.cas_state(job.id, json!(["state", 1]), json!(["state", 2])).expect("cas");
    assert!(moved.is_none());
    assert_eq!(queue.get(job.id).expect("there"), job);
    assert!(queue.cas_state(9, json!(1), json!(2)).expect("cas").is_none());
}

#[test]
fn states_are_equal_as_json_whoever_wrote_them() {
    let queue = memory();
    let job = queue.create("x", json!(["é", 1.0, {"k": "v"}])).expect("created");
    assert_eq!(job.state.as_str(), "[\"\\u00e9\",1.0,{\"k\":\"v\"}]");
    let spaced = forebay_jobq::Json::parse("[ \"\\u00e9\", 1.0, {\"k\": \"v\"} ]").expect("JSON");
    assert!(queue.cas_state(job.id, spaced, json!(2)).expect("cas").is_some());
}

#[test]
fn a_deleted_job_is_gone_whatever_its_state() {
    let queue = memory();
    let job = queue.create("x", json!(["running"])).expect("created");
    assert!(queue.delete(job.id).expect("deleted"));
    assert!(!queue.delete(job.id).expect("deleted"));
    assert!(matches!(queue.get(job.id), Err(Error::NoJob(_))));
    assert_eq!(queue.create("y", None::<Value>).expect("created").id, 2, "ids are not used again");
}

#[test]
fn a_query_gives_what_matches_in_order_up_to_its_limit() {
    let queue = memory();
    for n in 0..5 {
        queue.create(json!({"n": n}), json!([if n % 2 == 0 { "even" } else { "odd" }])).expect("ok");
    }
    let ids = |query: Query, limit| -> Vec<i64> {
        queue.query(query, limit).expect("a query").iter().map(|job| job.id).collect()
    };
    assert_eq!(ids(Query::tag("even"), None), [1, 3, 5]);
    assert_eq!(ids(Query::tag("even"), Some(2)), [1, 3]);
    assert_eq!(ids(Query::all(), None), [1, 2, 3, 4, 5]);
    assert_eq!(ids("json_extract(payload, '$.n') between 1 and 2".into(), None), [2, 3]);
    let triples = json!([["=", "json_extract(j.state, '$[0]')", "odd"], [">", "id", 2]]);
    assert_eq!(ids(Query::from_value(&triples).expect("a query"), None), [4]);
    assert_eq!(ids(Query::state(json!(["odd"])), None), [2, 4]);
}

#[test]
fn a_query_outside_the_grammar_is_refused_and_the_queue_goes_on() {
    let queue = memory();
    for query in ["true; delete from job", "id in (select id from job)", "nonsense"] {
        assert!(matches!(queue.query(query, None), Err(Error::Query(_))), "{query}");
        assert!(matches!(queue.poll(query, json!(1)), Err(Error::Query(_))), "{query}");
    }
    queue.create("x", None::<Value>).expect("created");
}

#[test]
fn a_query_that_fails_on_a_row_fails_alone() {
    let queue = memory();
    queue.create("x", None::<Value>).expect("created");
    let failed = queue.poll("json_extract(payload, 'no path') = 1", json!(1));
    assert!(matches!(failed, Err(Error::Refused(_))), "{failed:?}");
    assert!(queue.poll("true", json!(["assigned"])).expect("polled").is_some());
}

#[test]
fn a_closed_queue_takes_no_calls() {
    let queue = memory();
    queue.create("x", None::<Value>).expect("created");
    queue.close();
    assert!(matches!(queue.create("y", None::<Value>), Err(Error::Closed)));
    assert!(matches!(queue.get(1), Err(Error::Closed)));
}
