//! What the original does not have: leases, retries, priorities, delays, waiting, other queues.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use forebay_jobq::{CreateOptions, DEAD, Error, Job, JobQueue, Leased, Options, Query};
use serde_json::{Value, json};
use tempfile::TempDir;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

struct Rig {
    queue: JobQueue,
    now: Arc<AtomicI64>,
}

impl Rig {
    fn new() -> Self {
        let now = Arc::new(AtomicI64::new(1_000_000));
        let clock = Arc::clone(&now);
        let options = Options { clock: Arc::new(move || clock.load(Ordering::Relaxed)), ..Options::default() };
        Rig { queue: JobQueue::open_with(":memory:", options).expect("memory"), now }
    }

    fn pass(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    fn create(&self, options: CreateOptions) -> Job {
        self.queue.create_with("x", json!(["new"]), options).expect("created")
    }

    fn lease(&self) -> Option<Leased> {
        let leased = self.queue.lease(Query::tag("new"), json!(["running"]), 1, MINUTE, NOW);
        leased.expect("polled").pop()
    }
}

#[test]
fn many_jobs_are_polled_in_one_call_oldest_first() {
    let rig = Rig::new();
    let ids: Vec<i64> = (0..5).map(|_| rig.create(CreateOptions::default()).id).collect();
    let polled = rig.queue.poll_many(Query::tag("new"), json!(["taken"]), 3).expect("polled");
    assert_eq!(polled.iter().map(|job| job.id).collect::<Vec<_>>(), ids[..3]);
    let rest = rig.queue.poll_many(Query::tag("new"), json!(["taken"]), 3).expect("polled");
    assert_eq!(rest.iter().map(|job| job.id).collect::<Vec<_>>(), ids[3..]);
}

#[test]
fn a_job_of_higher_priority_is_polled_first() {
    let rig = Rig::new();
    let old = rig.create(CreateOptions::default());
    rig.pass(1_000);
    let urgent = rig.create(CreateOptions { priority: 5, ..CreateOptions::default() });
    let late = rig.create(CreateOptions { priority: -5, ..CreateOptions::default() });
    let order: Vec<i64> = rig.queue.poll_many("true", json!(1), 9).expect("polled").iter().map(|j| j.id).collect();
    assert_eq!(order, [urgent.id, old.id, late.id]);
}

#[test]
fn a_delayed_job_is_not_polled_before_its_time() {
    let rig = Rig::new();
    let job = rig.create(CreateOptions { delay_ms: 1_500, ..CreateOptions::default() });
    rig.pass(1_499);
    assert!(rig.queue.poll("true", json!(1)).expect("polled").is_none());
    assert_eq!(rig.queue.get(job.id).expect("there").id, job.id);
    rig.pass(1);
    assert_eq!(rig.queue.poll("true", json!(1)).expect("polled").map(|j| j.id), Some(job.id));
}

#[test]
fn a_job_whose_lease_ends_goes_back_to_the_state_that_it_had() {
    let rig = Rig::new();
    let job = rig.create(CreateOptions::default());
    let first = rig.lease().expect("a job");
    assert_eq!(first.attempt, 1);
    rig.pass(59_999);
    assert!(rig.lease().is_none());
    rig.pass(1);
    let second = rig.lease().expect("it came back");
    assert_eq!((second.job.id, second.attempt), (job.id, 2));
    let log: Value = second.job.events.to().expect("JSON");
    assert_eq!(log[2][1]["old"], json!(["running"]));
    assert_eq!(log[2][1]["new"], json!(["new"]));
}

#[test]
fn a_report_of_an_earlier_attempt_is_refused() {
    let rig = Rig::new();
    rig.create(CreateOptions::default());
    let first = rig.lease().expect("a job");
    rig.pass(60_000);
    let second = rig.lease().expect("it came back");
    assert!(matches!(rig.queue.finish(&first, json!(["done"])), Err(Error::LeaseEnded(_))));
    assert!(matches!(rig.queue.renew(&first, MINUTE), Err(Error::LeaseEnded(_))));
    let done = rig.queue.finish(&second, json!(["done"])).expect("finished");
    assert_eq!(done.state.as_str(), r#"["done"]"#);
    rig.pass(600_000);
    assert!(rig.lease().is_none(), "a finished job does not come back");
    assert_eq!(rig.queue.get(done.id).expect("there"), done);
}

#[test]
fn a_renewed_lease_lasts_longer() {
    let rig = Rig::new();
    rig.create(CreateOptions::default());
    let leased = rig.lease().expect("a job");
    rig.pass(59_000);
    rig.queue.renew(&leased, MINUTE).expect("renewed");
    rig.pass(59_000);
    assert!(rig.lease().is_none());
    rig.pass(1_000);
    assert!(rig.lease().is_some());
}

#[test]
fn moving_a_job_ends_its_lease() {
    let rig = Rig::new();
    rig.create(CreateOptions::default());
    let leased = rig.lease().expect("a job");
    let moved = rig.queue.cas_state(leased.job.id, json!(["running"]), json!(["done"]));
    assert!(moved.expect("cas").is_some());
    rig.pass(600_000);
    assert!(rig.queue.poll("false", json!(1)).expect("polled").is_none());
    assert_eq!(rig.queue.get(leased.job.id).expect("there").state.as_str(), r#"["done"]"#);
    assert!(matches!(rig.queue.finish(&leased, json!(1)), Err(Error::LeaseEnded(_))));
}

#[test]
fn a_job_without_retries_left_is_dead() {
    let rig = Rig::new();
    let job = rig.create(CreateOptions { retries: Some(1), ..CreateOptions::default() });
    for _ in 0..2 {
        assert!(rig.lease().is_some());
        rig.pass(60_000);
    }
    assert!(rig.lease().is_none());
    assert_eq!(rig.queue.get(job.id).expect("there").state.as_str(), DEAD);
}

#[test]
fn plain_calls_work_on_where_leases_are_used() {
    let rig = Rig::new();
    let leased = rig.create(CreateOptions { retries: Some(0), ..CreateOptions::default() });
    let plain = rig.queue.create("y", json!(["plain"])).expect("created");
    let polled = rig.queue.poll(Query::tag("plain"), json!(["plain", 2])).expect("polled");
    assert_eq!(polled.map(|job| job.id), Some(plain.id));
    rig.queue.append_event(plain.id, json!(1)).expect("appended");
    assert_eq!(rig.queue.query("true", None).expect("a query").len(), 2);
    assert!(rig.queue.delete(leased.id).expect("deleted"));
}

#[test]
fn queues_in_one_file_have_their_own_jobs() {
    let rig = Rig::new();
    let mail = rig.queue.queue("mail").expect("made");
    let again = rig.queue.queue("mail").expect("found");
    let job = mail.create("x", json!(["new"])).expect("created");
    rig.queue.create("y", json!(["new"])).expect("created");
    assert_eq!(again.query("true", None).expect("a query"), [job]);
    assert_eq!(rig.queue.query("true", None).expect("a query").len(), 1);
    assert_eq!(rig.queue.queues().expect("names"), ["mail"]);
    assert!(mail.poll(Query::tag("new"), json!(1)).expect("polled").is_some());
    assert!(rig.queue.drop_queue("mail").expect("dropped"));
    assert!(!rig.queue.drop_queue("mail").expect("dropped"));
    assert!(matches!(mail.get(1), Err(Error::NoQueue(_))));
    for name in ["", "a b", "\"", "-x", &"x".repeat(65), "é"] {
        assert!(matches!(rig.queue.queue(name), Err(Error::Name(_))), "{name:?}");
    }
}

#[test]
fn a_waiting_poll_gets_a_job_as_soon_as_there_is_one() {
    let rig = Rig::new();
    let (started, has_started) = mpsc::channel();
    let waiter = thread::spawn({
        let queue = rig.queue.clone();
        move || {
            started.send(()).expect("the test listens");
            queue.poll_wait(Query::tag("new"), json!(["taken"]), LONG)
        }
    });
    has_started.recv().expect("the waiter starts");
    let job = rig.create(CreateOptions::default());
    let taken = waiter.join().expect("no panic").expect("polled").expect("a job");
    assert_eq!(taken.id, job.id);
}

#[test]
fn a_waiting_poll_gets_a_job_of_another_process() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("shared.sqlite3");
    let (here, there) = (JobQueue::open(&path).expect("opened"), JobQueue::open(&path).expect("opened"));
    let waiter = thread::spawn(move || here.poll_wait(Query::tag("new"), json!(["taken"]), LONG));
    let job = there.create("x", json!(["new"])).expect("created");
    let taken = waiter.join().expect("no panic").expect("polled").expect("a job");
    assert_eq!(taken.id, job.id);
}

#[test]
fn a_wait_that_is_over_gives_nothing() {
    let rig = Rig::new();
    let polled = rig.queue.poll_wait("true", json!(1), Duration::from_millis(1));
    assert!(polled.expect("polled").is_none());
}

#[test]
fn a_table_gets_its_columns_for_leases_from_another_process_in_time() {
    let dir = TempDir::new().expect("a directory");
    let path = dir.path().join("shared.sqlite3");
    let (one, two) = (JobQueue::open(&path).expect("opened"), JobQueue::open(&path).expect("opened"));
    one.create("x", json!(["new"])).expect("created");
    two.get(1).expect("there");
    let leased = one.lease(Query::tag("new"), json!(["running"]), 1, MINUTE, NOW).expect("polled");
    assert_eq!(leased.len(), 1);
    // The other learns of the lease, and ends it.
    two.cas_state(1, json!(["running"]), json!(["done"])).expect("cas").expect("no conflict");
    assert!(matches!(one.finish(&leased[0], json!(1)), Err(Error::LeaseEnded(_))));
}
