//! What is refused, with which status and text.

use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request};
use serde_json::{Value, json};

use crate::world::{BASE, World, id, node, result};

const NOWHERE: i64 = 999_999;

#[tokio::test]
async fn what_is_not_there_is_404() {
    let world = World::start().await;
    let w = world.workflow().await;
    let node = world.node(w).await;
    let result = result(w, NOWHERE, node, "completed");
    let needs = json!({"workflow_id": w, "name": "n"});
    let cases: Vec<(Method, String, Option<Value>, &str)> = vec![
        (Method::GET, format!("/workflows/{NOWHERE}"), None, "Workflow"),
        (Method::PUT, format!("/workflows/{NOWHERE}/cancel"), None, "Workflow"),
        (Method::DELETE, format!("/workflows/{NOWHERE}"), None, "Workflow"),
        (Method::GET, format!("/workflows/{NOWHERE}/status"), None, "Workflow"),
        (Method::GET, format!("/workflows/{NOWHERE}/is_complete"), None, "Workflow"),
        (Method::GET, format!("/workflows/{NOWHERE}/job_dependencies"), None, "Workflow"),
        (Method::POST, format!("/workflows/{NOWHERE}/claim_next_jobs"), None, "Workflow"),
        (Method::POST, format!("/workflows/{NOWHERE}/initialize_jobs"), None, "Workflow"),
        (Method::POST, format!("/workflows/{NOWHERE}/initialize_jobs?async=true"), None, "Workflow"),
        (Method::POST, format!("/workflows/{NOWHERE}/reset_status"), None, "Workflow"),
        (Method::GET, format!("/files?workflow_id={NOWHERE}"), None, "Workflow"),
        (Method::GET, format!("/jobs?workflow_id={NOWHERE}"), None, "Workflow"),
        (Method::GET, format!("/results?workflow_id={NOWHERE}"), None, "Workflow"),
        (Method::GET, format!("/jobs/{NOWHERE}"), None, "Job"),
        (Method::DELETE, format!("/jobs/{NOWHERE}"), None, "Job"),
        (Method::PUT, format!("/jobs/{NOWHERE}/start_job/1/1"), None, "Job"),
        (Method::POST, format!("/jobs/{NOWHERE}/complete_job/completed/1"), Some(result), "Job"),
        (Method::POST, format!("/jobs/{NOWHERE}/retry/1?max_retries=2"), None, "Job"),
        (Method::PUT, format!("/jobs/{NOWHERE}/manage_status_change/ready/1"), None, "Job"),
        (Method::GET, format!("/files/{NOWHERE}"), None, "File"),
        (Method::DELETE, format!("/files/{NOWHERE}"), None, "File"),
        (Method::GET, format!("/user_data/{NOWHERE}"), None, "User data"),
        (Method::GET, format!("/compute_nodes/{NOWHERE}"), None, "Compute node"),
        (Method::GET, format!("/events/{NOWHERE}"), None, "Event"),
        (Method::GET, format!("/failure_handlers/{NOWHERE}"), None, "Failure handler"),
        (Method::PUT, format!("/resource_requirements/{NOWHERE}"), Some(needs), "Resource requirements"),
        (Method::GET, format!("/results/{NOWHERE}"), None, "Result"),
        (Method::GET, format!("/tasks/{NOWHERE}"), None, "Task"),
    ];
    for (method, path, body, noun) in cases {
        let answered = world.send(method.clone(), &path, body).await;
        let text = format!("{noun} not found with ID: {NOWHERE}");
        assert_eq!((answered.status, answered.message()), (404, text), "{method} {path}");
        assert_eq!(answered.json()["error"]["error"], "NotFound");
    }
    world.stop().await;
}

#[tokio::test]
async fn the_fence_refuses_reports_of_others() {
    let world = World::start().await;
    let (w, jobs) = world.ready_jobs(2).await;
    let other = world.workflow().await;
    let here = world.node(w).await;
    let there = world.node(w).await;
    let job = jobs[0];
    let complete = |status: &str| format!("/jobs/{job}/complete_job/{status}/1");
    world.claim(w, 1).await;

    let text = "Run ID mismatch: provided 7 but workflow status has 1".to_owned();
    assert_eq!(world.refused(Method::PUT, &format!("/jobs/{job}/start_job/7/{here}"), None).await, (422, text.clone()));
    world.ok(Method::PUT, &format!("/jobs/{job}/start_job/1/{here}"), None).await;
    let text = format!("job_id={job} has invalid status=running. Expected SubmittedPending for job start.");
    assert_eq!(world.refused(Method::PUT, &format!("/jobs/{job}/start_job/1/{here}"), None).await, (422, text));

    let mut late = result(w, job, here, "completed");
    late["run_id"] = json!(7);
    let text = "Run ID mismatch: provided 7 but workflow status has 1".to_owned();
    assert_eq!(
        world.refused(Method::POST, &format!("/jobs/{job}/complete_job/completed/7"), Some(late)).await,
        (422, text)
    );
    let mut late = result(w, job, here, "completed");
    late["attempt_id"] = json!(3);
    let text = format!("Attempt ID mismatch: provided 3 but job_id={job} is at attempt 1");
    assert_eq!(world.refused(Method::POST, &complete("completed"), Some(late)).await, (422, text));
    let text = format!("Compute node mismatch: provided {there} but job_id={job} runs on compute node {here}");
    let body = result(w, job, there, "completed");
    assert_eq!(world.refused(Method::POST, &complete("completed"), Some(body)).await, (422, text));
    let text = format!("ResultModel workflow_id={other} does not match the workflow of job_id={job}");
    let body = result(other, job, here, "completed");
    assert_eq!(world.refused(Method::POST, &complete("completed"), Some(body)).await, (422, text));
    let text = "ResultModel status='failed' does not match target status='completed'".to_owned();
    let body = result(w, job, here, "failed");
    assert_eq!(world.refused(Method::POST, &complete("completed"), Some(body)).await, (422, text));
    let text = format!("ResultModel job_id={} does not match target job_id={job}", jobs[1]);
    let body = result(w, jobs[1], here, "completed");
    assert_eq!(world.refused(Method::POST, &complete("completed"), Some(body)).await, (422, text));
    let text = "Status 'ready' is not a terminal status for job completion".to_owned();
    let body = result(w, job, here, "ready");
    assert_eq!(world.refused(Method::POST, &complete("ready"), Some(body)).await, (422, text));

    let body = result(w, job, here, "completed");
    world.post(&complete("completed"), body.clone()).await;
    let text = format!("job_id={job} is already complete with status=completed");
    assert_eq!(world.refused(Method::POST, &complete("completed"), Some(body.clone())).await, (422, text.clone()));
    let entry = json!({"job_id": job, "status": "completed", "run_id": 1, "result": body});
    let batch = world.post(&format!("/workflows/{w}/batch_complete_jobs"), json!({"completions": [entry]})).await;
    assert_eq!(batch, json!({"completed": [], "errors": [{"job_id": job, "message": text}]}));
    world.stop().await;
}

#[tokio::test]
async fn retries_and_hand_set_states_have_their_rules() {
    let world = World::start().await;
    let (w, jobs) = world.ready_jobs(2).await;
    let job = jobs[0];
    let retry = |run: i64, most: i64| format!("/jobs/{job}/retry/{run}?max_retries={most}");
    let text = "Job cannot be retried: status is Ready, must be Running, Failed, or Terminated".to_owned();
    assert_eq!(world.refused(Method::POST, &retry(1, 3), None).await, (422, text));
    let text = "Run ID mismatch: provided 9 but workflow is at run 1".to_owned();
    assert_eq!(world.refused(Method::POST, &retry(9, 3), None).await, (422, text));
    world.claim(w, 1).await;
    world.ok(Method::PUT, &format!("/jobs/{job}/start_job/1/1"), None).await;
    let text = "Job cannot be retried: attempt_id=1 >= max_retries=1".to_owned();
    assert_eq!(world.refused(Method::POST, &retry(1, 1), None).await, (422, text));
    let missing = world.refused(Method::POST, &format!("/jobs/{job}/retry/1"), None).await;
    assert_eq!(missing, (400, "Failed to deserialize query string: missing field `max_retries`".to_owned()));

    let change = |status: &str| format!("/jobs/{}/manage_status_change/{status}/1", jobs[1]);
    let text =
        "Cannot set completion status 'completed' via manage_status_change. Use complete_job API instead.".to_owned();
    assert_eq!(world.refused(Method::PUT, &change("completed"), None).await, (422, text));
    assert_eq!(world.ok(Method::PUT, &change("ready"), None).await["status"], "ready");
    assert_eq!(world.ok(Method::PUT, &change("disabled"), None).await["status"], "disabled");
    let text = "Cannot reset workflow status: jobs are currently running or pending submission".to_owned();
    assert_eq!(world.refused(Method::POST, &format!("/workflows/{w}/reset_status"), None).await, (422, text));
    world.post(&format!("/workflows/{w}/archive"), json!({"is_archived": true})).await;
    let text = "Cannot reset archived workflow status. Unarchive the workflow first.".to_owned();
    assert_eq!(
        world.refused(Method::POST, &format!("/workflows/{w}/reset_status?force=true"), None).await,
        (422, text)
    );
    world.stop().await;
}

#[tokio::test]
async fn bad_jobs_are_refused_and_none_of_their_batch_is_created() {
    let world = World::start().await;
    let w = world.workflow().await;
    let job = |name: &str, more: Value| {
        let mut job = json!({"workflow_id": w, "name": name, "command": "true"});
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        job
    };
    let good = job("good", json!({}));
    let cases = [
        (json!([]), "Bulk job creation requires a non-empty `jobs` array".to_owned()),
        (
            json!([good, job("b", json!({"workflow_id": 77}))]),
            format!("All jobs in a batch must have the same workflow_id. Found workflow_ids: {w} and 77"),
        ),
        (json!([good, good]), "Duplicate job name 'good' in bulk create request".to_owned()),
        (json!([good, job("b", json!({"priority": -1}))]), "priority must be >= 0, got -1 for job 'b'".to_owned()),
        (
            json!([good, job("b", json!({"env": {"A-B": "1"}}))]),
            "Invalid job env key 'A-B'; expected [A-Za-z_][A-Za-z0-9_]*".to_owned(),
        ),
        (
            json!([good, job("b", json!({"labels": ["a,b"]}))]),
            "label must be non-empty with no comma and no leading or trailing whitespace, got \"a,b\" for job 'b'"
                .to_owned(),
        ),
        (
            json!([good, job("b", json!({"depends_on_job_ids": [NOWHERE]}))]),
            format!("depends_on_job_ids: Job not found in this workflow with ID: {NOWHERE}"),
        ),
        (
            json!([good, job("b", json!({"resource_requirements_id": NOWHERE}))]),
            format!("Resource requirements not found with ID: {NOWHERE}"),
        ),
    ];
    for (jobs, text) in cases {
        let refused = world.refused(Method::POST, "/bulk_jobs", Some(json!({"jobs": jobs}))).await;
        assert_eq!(refused, (422, text));
    }
    let other = world.refused(Method::POST, "/jobs", Some(job("b", json!({"workflow_id": NOWHERE})))).await;
    assert_eq!(other, (404, format!("Workflow not found with ID: {NOWHERE}")));
    assert_eq!(world.get(&format!("/jobs?workflow_id={w}")).await["total_count"], 0);
    world.stop().await;
}

#[tokio::test]
async fn a_circle_of_files_is_refused_at_the_initialize() {
    let world = World::start().await;
    let w = world.workflow().await;
    let file = |name: &str| json!({"workflow_id": w, "name": name, "path": name});
    let one = id(&world.post("/files", file("one")).await);
    let two = id(&world.post("/files", file("two")).await);
    let jobs = vec![
        json!({"name": "a", "input_file_ids": [one], "output_file_ids": [two]}),
        json!({"name": "b", "input_file_ids": [two], "output_file_ids": [one]}),
    ];
    world.jobs(w, jobs).await;
    let (status, text) = world.refused(Method::POST, &format!("/workflows/{w}/initialize_jobs"), None).await;
    assert_eq!((status, text.starts_with("job dependencies form a cycle: ")), (422, true), "{text}");
    let task = world.send(Method::POST, &format!("/workflows/{w}/initialize_jobs?async=true"), None).await;
    assert_eq!((task.status, &task.json()["status"]), (202, &json!("failed")));
    assert_eq!(task.json()["error"], text);
    world.stop().await;
}

#[tokio::test]
async fn requests_that_cannot_be_read_are_refused() {
    let world = World::start().await;
    let w = world.workflow().await;
    let request = |body: &'static str, kind: Option<&'static str>| {
        let mut request = Request::post(format!("http://{}{BASE}/compute_nodes", world.server.address()))
            .body(Full::from(body))
            .unwrap();
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        request
    };
    let json_type = Some("application/json");
    assert_eq!(world.raw(request("{}", None)).await.status, 415);
    assert_eq!(world.raw(request("{\"a\":", json_type)).await.status, 400);
    // Strict types: torc's own are.
    for (field, value, error) in [
        ("num_cpus", json!("4"), "num_cpus: invalid type: string"),
        ("num_cpus", json!(4.0), "num_cpus: invalid type: floating point"),
        ("is_active", json!(1), "is_active: invalid type: integer"),
    ] {
        let mut body = node(w);
        body[field] = value;
        let (status, text) = world.refused(Method::POST, "/compute_nodes", Some(body)).await;
        assert_eq!((status, text.contains(error)), (422, true), "{text}");
    }
    let bad = json!({"jobs": [{"workflow_id": w, "name": "a", "command": "b"}, {"workflow_id": w, "name": "b"}]});
    let (status, text) = world.refused(Method::POST, "/bulk_jobs", Some(bad)).await;
    assert_eq!((status, text.contains("jobs[1]: missing field `command`")), (422, true), "{text}");

    for (path, status) in [
        (format!("/files?workflow_id={w}&limit=100001"), 422),
        (format!("/files?workflow_id={w}&limit=-1"), 422),
        (format!("/files?workflow_id={w}&offset=-1"), 422),
        (format!("/files?workflow_id={w}&limit=many"), 400),
        ("/files".to_owned(), 400),
        ("/files/one".to_owned(), 400),
        (format!("/jobs?workflow_id={w}&status=done"), 400),
    ] {
        assert_eq!(world.send(Method::GET, &path, None).await.status, status, "{path}");
    }
    let large = "x".repeat(3 << 20);
    let file = json!({"workflow_id": w, "name": large, "path": "p"});
    assert_eq!(world.send(Method::POST, "/files", Some(file.clone())).await.status, 413);
    assert_eq!(world.send(Method::POST, "/bulk_files", Some(json!({"files": [file]}))).await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn unknown_paths_and_methods_are_refused_with_torcs_headers() {
    let world = World::start().await;
    let unknown = world.send(Method::GET, "/nothing/here", None).await;
    assert_eq!((unknown.status, unknown.bytes.len()), (404, 0));
    let outside = Request::get(format!("http://{}/", world.server.address())).body(Full::default()).unwrap();
    assert_eq!(world.raw(outside).await.status, 404);
    for (method, path) in [
        (Method::PATCH, "/jobs"),
        (Method::POST, "/ping"),
        (Method::GET, "/bulk_jobs"),
        (Method::GET, "/workflows/1/claim_next_jobs"),
        (Method::POST, "/workflows/1/status"),
        (Method::POST, "/jobs/1/start_job/1/1"),
    ] {
        let answered = world.send(method.clone(), path, None).await;
        assert_eq!((answered.status, answered.bytes.len()), (405, 0), "{method} {path}");
        assert!(answered.headers.contains_key(header::ALLOW));
    }
    let mut ping = Request::get(format!("http://{}{BASE}/ping", world.server.address())).body(Full::default()).unwrap();
    ping.headers_mut().insert("x-span-id", HeaderValue::from_static("mine"));
    let answered = world.raw(ping).await;
    assert_eq!(answered.json(), json!({"status": "ok"}));
    assert_eq!(answered.headers["x-content-type-options"], "nosniff");
    assert_eq!(answered.headers["x-frame-options"], "DENY");
    assert_eq!(answered.headers["x-span-id"], "mine");
    assert_eq!(answered.headers["content-type"], "application/json");
    let version = world.get("/version").await;
    assert_eq!(version["api_version"], "0.23.0");
    assert!(version["version"].as_str().unwrap().starts_with("1.0.0"));
    world.stop().await;
}

/// torc's client sleeps half a minute on a 5xx, and asks again at once where it reads these words.
#[tokio::test]
async fn an_overloaded_server_says_so_as_torcs_client_needs_it() {
    let full = forebay_engine::Options { mailbox_max: 0, ..forebay_engine::Options::process(|| Ok(())) };
    let world = World::on(full, forebay_server::Options::loopback()).await;
    let answered = world.send(Method::POST, "/workflows", Some(json!({"name": "w", "user": "u"}))).await;
    assert_eq!(answered.status, 429);
    assert_eq!(answered.json()["error"]["error"], "TooManyRequests");
    assert!(answered.message().contains("database is locked"), "{}", answered.message());
    world.stop().await;
}
