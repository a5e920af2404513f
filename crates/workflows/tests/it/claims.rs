//! Claims: their order, their answers, those that wait, and those that reach nobody.

use std::time::{Duration, Instant};

use hyper::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{BASE, World, id, result};

fn names(jobs: &[Value]) -> Vec<&str> {
    jobs.iter().map(|job| job["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn claims_by_order_go_by_priority_and_then_by_id() {
    let world = World::start().await;
    let w = world.workflow().await;
    let jobs = vec![json!({"name": "a"}), json!({"name": "b", "priority": 2}), json!({"name": "c", "priority": 2})];
    world.jobs(w, jobs).await;
    world.run(w).await;
    let claimed = world.claim(w, 2).await;
    assert_eq!(names(&claimed), ["b", "c"]);
    assert_eq!((&claimed[0]["status"], &claimed[0]["priority"]), (&json!("pending"), &json!(2)));
    assert_eq!((&claimed[0]["attempt_id"], &claimed[0]["command"]), (&json!(1), &json!("true")));
    assert!(claimed[0]["resource_requirements_id"].is_i64());
    assert_eq!(world.claim(w, 0).await, Vec::<Value>::new());
    // Without a limit it is 10.
    let claimed = world.post(&format!("/workflows/{w}/claim_next_jobs"), json!({})).await;
    assert_eq!(names(claimed["jobs"].as_array().unwrap()), ["a"]);
    assert_eq!(world.post(&format!("/workflows/{w}/claim_next_jobs"), json!({})).await, json!({"jobs": []}));
    world.stop().await;
}

#[tokio::test]
async fn claims_by_resources_take_what_fits_and_say_why_there_is_nothing() {
    let world = World::start().await;
    let w = world.workflow().await;
    let need = |name: &str, cpus: i64, runtime: &str| json!({"workflow_id": w, "name": name, "num_cpus": cpus, "memory": "1g", "runtime": runtime});
    let large = id(&world.post("/resource_requirements", need("large", 3, "PT1H")).await);
    let small = id(&world.post("/resource_requirements", need("small", 2, "PT1M")).await);
    let job = |name: &str, need: i64| json!({"name": name, "resource_requirements_id": need});
    world.jobs(w, vec![job("s1", small), job("l", large), job("s2", small)]).await;
    world.run(w).await;
    let path = format!("/workflows/{w}/claim_jobs_based_on_resources");
    let free = |limit: Option<&str>| json!({"num_cpus": 4, "memory_gb": 8.0, "num_gpus": 0, "num_nodes": 1, "time_limit": limit});
    // The longer one first; beside it no other fits.
    let claimed = world.post(&format!("{path}/4"), free(None)).await;
    assert_eq!(names(claimed["jobs"].as_array().unwrap()), ["l"]);
    assert_eq!(claimed.get("reason"), None);
    assert_eq!(world.post(&format!("{path}/4"), free(Some("PT10S"))).await["jobs"], json!([]));
    assert_eq!(world.post(&format!("{path}/-1"), free(None)).await["jobs"], json!([]));
    let bad = world.send(Method::POST, &format!("{path}/4"), Some(free(Some("soon")))).await;
    assert_eq!((bad.status, &bad.json()["error"]["field"]), (422, &json!("time_limit")));
    world.ok(Method::PUT, &format!("/workflows/{w}/cancel"), None).await;
    let canceled = world.post(&format!("{path}/4"), free(None)).await;
    assert_eq!(canceled, json!({"jobs": [], "reason": "Workflow is canceled"}));
    world.stop().await;
}

#[tokio::test]
async fn labels_decide_who_gets_what() {
    let world = World::start().await;
    let w = world.workflow().await;
    world.jobs(w, vec![json!({"name": "plain"}), json!({"name": "gpu", "labels": ["gpu"]})]).await;
    world.run(w).await;
    let status = world.get(&format!("/workflows/{w}/status")).await;
    assert_eq!(status["unserved_ready_labels"], json!({"gpu": 1}));
    let listed = world.get(&format!("/jobs?workflow_id={w}&labels=gpu,big")).await;
    assert_eq!(names(listed["items"].as_array().unwrap()), ["gpu"]);
    let claimed = world.post(&format!("/workflows/{w}/claim_next_jobs?limit=5&labels=gpu,big"), json!({})).await;
    assert_eq!(names(claimed["jobs"].as_array().unwrap()), ["gpu"]);
    assert_eq!(names(&world.claim(w, 5).await), ["plain"]);
    let path = format!("/workflows/{w}/claim_next_jobs?labels=%20gpu");
    let (status, text) = world.refused(Method::POST, &path, None).await;
    assert_eq!((status, text.starts_with("label must be non-empty")), (422, true));
    world.stop().await;
}

#[tokio::test]
async fn reports_and_claims_go_in_one_request() {
    let world = World::start().await;
    let (w, jobs) = world.ready_jobs(3).await;
    let node = world.node(w).await;
    let path = format!("/workflows/{w}/report_and_claim");
    let first = world.post(&path, json!({"claim": {"limit": 1, "start_on": node}})).await;
    assert_eq!((&first["jobs"][0]["status"], &first["jobs"][0]["compute_node_id"]), (&json!("running"), &json!(node)));
    let entry = |job: i64| json!({"job_id": job, "status": "completed", "run_id": 1, "result": result(w, job, node, "completed")});
    let mut wrong = entry(jobs[1]);
    wrong["result"]["run_id"] = json!(4);
    let body = json!({"completions": [entry(jobs[0]), wrong, entry(99_999)], "claim": {"limit": 5}});
    let second = world.post(&path, body).await;
    assert_eq!(second["completed"], json!([jobs[0]]));
    assert_eq!(
        second["errors"],
        json!([{"job_id": jobs[1], "message": "ResultModel run_id=4 does not match target run_id=1"},
               {"job_id": 99_999, "message": "Job not found with ID: 99999"}])
    );
    assert_eq!(names(second["jobs"].as_array().unwrap()), ["j1", "j2"]);
    assert_eq!((&second["is_complete"], &second["is_canceled"]), (&json!(false), &json!(false)));
    let last = world.post(&path, json!({"completions": [entry(jobs[1]), entry(jobs[2])]})).await;
    assert_eq!((&last["is_complete"], &last["jobs"]), (&json!(true), &json!([])));
    world.stop().await;
}

#[tokio::test]
async fn a_claim_that_waits_gets_the_job_as_soon_as_there_is_one() {
    let world = World::start().await;
    let w = world.workflow().await;
    let a = world.jobs(w, vec![json!({"name": "a"})]).await[0];
    world.jobs(w, vec![json!({"name": "b", "depends_on_job_ids": [a]})]).await;
    world.run(w).await;
    let node = world.node(w).await;
    assert_eq!(names(&world.claim(w, 5).await), ["a"]);
    let path = format!("/workflows/{w}/claim_next_jobs?wait_ms=60000");
    let wait = world.post(&path, json!({}));
    let report = async {
        world.post(&format!("/jobs/{a}/complete_job/completed/1"), result(w, a, node, "completed")).await;
    };
    let (claimed, ()) = tokio::join!(wait, report);
    assert_eq!(names(claimed["jobs"].as_array().unwrap()), ["b"]);
    world.stop().await;
}

#[tokio::test]
async fn a_claim_that_waits_in_vain_ends_empty() {
    let world = World::start().await;
    let w = world.workflow().await;
    world.jobs(w, vec![json!({"name": "draft"})]).await;
    let begun = Instant::now();
    let claimed = world.post(&format!("/workflows/{w}/claim_next_jobs?wait_ms=30"), json!({})).await;
    assert_eq!(claimed["jobs"], json!([]));
    assert!(begun.elapsed() >= Duration::from_millis(25));
    world.stop().await;
}

/// A connection that has asked for a job and waits.
async fn waiting(world: &World, workflow: i64) -> TcpStream {
    let before = world.engine.counters().callers;
    let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
    let ask = format!(
        "POST {BASE}/workflows/{workflow}/claim_next_jobs?wait_ms=600000 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(ask.as_bytes()).await.unwrap();
    until(|| world.engine.counters().callers > before).await;
    stream
}

/// Comes back when it is so.
async fn until(is_so: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < patience, "it does not come to be so");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_claim_whose_client_left_is_removed() {
    let world = World::start().await;
    let w = world.workflow().await;
    world.jobs(w, vec![json!({"name": "a"})]).await;
    let closed = waiting(&world, w).await;
    drop(closed);
    until(|| world.engine.counters().callers == 0).await;
    // One that will send no more has left as well: it is not told from one that is gone.
    let mut half_closed = waiting(&world, w).await;
    half_closed.shutdown().await.unwrap();
    until(|| world.engine.counters().callers == 0).await;
    world.run(w).await;
    assert_eq!(names(&world.claim(w, 5).await), ["a"]);
    world.stop().await;
}

#[tokio::test]
async fn jobs_of_an_answer_that_is_not_written_go_back() {
    let world = World::start().await;
    let (w, jobs) = world.ready_jobs(1).await;
    let door = forebay_workflows::Door::new(world.engine.clone(), forebay_workflows::Options::default());
    let ask = hyper::Request::post(format!("{BASE}/workflows/{w}/claim_next_jobs"))
        .body(http_body_util::Full::<hyper::body::Bytes>::default())
        .unwrap();
    let answer = door.answer(ask).await;
    assert_eq!(world.status_of(jobs[0]).await, "pending");
    drop(answer);
    until(|| world.engine.counters().given_back > 0).await;
    assert_eq!(names(&world.claim(w, 5).await), ["j0"]);
    world.stop().await;
}

#[tokio::test]
async fn a_claim_that_waits_ends_when_the_server_stops() {
    let world = World::start().await;
    let w = world.workflow().await;
    world.jobs(w, vec![json!({"name": "draft"})]).await;
    let mut stream = waiting(&world, w).await;
    world.stop().await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    // At these words torc's client asks again at once: the next server may be there.
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("stopping"), "{answer}");
    assert!(answer.contains("database is locked"), "{answer}");
}
