//! The same calls for async callers.

use std::time::Duration;

use forebay_jobq::{AsyncJobQueue, CreateOptions, Error, JobQueue, Query};
use serde_json::json;

const LONG: Duration = Duration::from_secs(3600);

fn memory() -> AsyncJobQueue {
    JobQueue::open(":memory:").expect("memory").in_async()
}

#[tokio::test]
async fn each_call_does_what_the_blocking_one_does() {
    let queue = memory();
    let job = queue.create("x", json!(["new"])).await.expect("created");
    assert_eq!(queue.get(job.id).await.expect("there"), job);
    let found = queue.query("true", None).await.expect("a query");
    assert_eq!(found.first(), Some(&job));
    let polled = queue.poll(Query::tag("new"), json!(["a"])).await.expect("polled");
    assert_eq!(polled.map(|polled| polled.id), Some(job.id));
    let moved = queue.cas_state(job.id, json!(["a"]), json!(["b"])).await.expect("cas");
    assert!(moved.is_some());
    assert!(queue.cas_state(job.id, json!(["a"]), json!(["b"])).await.expect("cas").is_none());
    let logged = queue.append_event(job.id, json!(1)).await.expect("appended");
    queue.log_event(job.id, json!(2)).await.expect("appended");
    assert_eq!(queue.blocking().get(job.id).expect("there").state, logged.state);
    assert!(queue.delete(job.id).await.expect("deleted"));
    assert!(matches!(queue.get(job.id).await, Err(Error::NoJob(_))));
    assert!(matches!(queue.poll("nonsense", json!(1)).await, Err(Error::Query(_))));
}

#[tokio::test]
async fn leases_are_for_async_callers_too() {
    let queue = memory();
    let options = CreateOptions { priority: 1, ..CreateOptions::default() };
    queue.create_with("x", json!(["new"]), options).await.expect("created");
    let lease = |limit| queue.lease(Query::tag("new"), json!(["run"]), limit, LONG, Duration::ZERO);
    let leased = lease(5).await.expect("polled");
    assert_eq!(leased.len(), 1);
    assert!(lease(5).await.expect("polled").is_empty());
    queue.renew(&leased[0], LONG).await.expect("renewed");
    queue.finish(&leased[0], json!(["done"])).await.expect("finished");
    assert!(matches!(queue.finish(&leased[0], json!(1)).await, Err(Error::LeaseEnded(_))));
}

#[tokio::test]
async fn a_waiting_poll_gets_a_job_as_soon_as_there_is_one() {
    let queue = memory();
    let waiter = tokio::spawn({
        let queue = queue.clone();
        async move { queue.poll_wait(Query::tag("new"), json!(["taken"]), LONG).await }
    });
    let leaser = tokio::spawn({
        let queue = queue.clone();
        async move { queue.lease(Query::tag("other"), json!(["taken"]), 1, LONG, LONG).await }
    });
    let job = queue.create("x", json!(["new"])).await.expect("created");
    let other = queue.create("x", json!(["other"])).await.expect("created");
    let taken = waiter.await.expect("no panic").expect("polled").expect("a job");
    assert_eq!(taken.id, job.id);
    let leased = leaser.await.expect("no panic").expect("polled");
    assert_eq!(leased[0].job.id, other.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_and_threads_share_one_queue() {
    let queue = memory();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let queue = queue.clone();
            tokio::spawn(async move {
                for n in 0..100 {
                    queue.create(json!(n), json!(["new"])).await.expect("created");
                }
            })
        })
        .collect();
    let blocking = queue.blocking().clone();
    let thread = std::thread::spawn(move || {
        for n in 0..100 {
            blocking.create(json!(n), json!(["new"])).expect("created");
        }
    });
    for task in tasks {
        task.await.expect("no panic");
    }
    thread.join().expect("no panic");
    let jobs = queue.poll_many(Query::tag("new"), json!(["taken"]), 10_000).await.expect("polled");
    assert_eq!(jobs.len(), 900);
}
