//! The requests that create a workflow.

use std::path::Path;

use forebay_spec::{BadAnswer, Format, Request, Workflow, parse};
use serde_json::{Value, json};

use crate::torc_crate::torc_crate;
use crate::yaml;

/// Answers as a server does: the request with ids. Keeps what it was sent.
#[derive(Default)]
struct Server {
    last_id: i64,
    seen: Vec<(String, Value)>,
}

impl Server {
    fn post(&mut self, request: Request) -> Vec<u8> {
        let mut body: Value = serde_json::from_slice(&request.body).expect("a request is JSON");
        self.seen.push((request.path.clone(), body.clone()));
        let bulk =
            ["files", "user_data", "jobs"].into_iter().find(|field| request.path.ends_with(&format!("bulk_{field}")));
        let mut give_id = |entry: &mut Value| {
            self.last_id += 1;
            entry["id"] = self.last_id.into();
        };
        match bulk {
            Some(field) => body[field].as_array_mut().expect("a list").iter_mut().for_each(give_id),
            None => give_id(&mut body),
        }
        serde_json::to_vec(&body).expect("JSON")
    }

    fn create(workflow: &Workflow, directory: &Path) -> Self {
        let mut server = Self::default();
        let mut creation = workflow.create("me", directory);
        while let Some(request) = creation.next_request() {
            creation.accept(&server.post(request)).expect("a good answer");
        }
        assert_eq!(creation.job_ids().len(), workflow.jobs.len());
        server
    }

    fn paths(&self) -> Vec<&str> {
        self.seen.iter().map(|(path, _)| path.strip_prefix("/torc-service/v1").expect("the base path")).collect()
    }
}

#[test]
fn a_workflow_is_created_in_torcs_order_with_ids_of_what_came_before() {
    let workflow = yaml(
        "name: w\nproject: p\njobs:\n\
         - {name: last, command: x, depends_on: [first], scheduler: s}\n\
         - {name: first, command: 'x ${files.input.f}', resource_requirements: r, failure_handler: h, input_user_data: [u]}\n\
         files: [{name: f, path: f.txt}]\nuser_data: [{name: u, data: 1}]\n\
         resource_requirements: [{name: r, num_cpus: 1, memory: 1g}]\n\
         slurm_schedulers: [{name: s, account: a}]\n\
         failure_handlers: [{name: h, rules: [{match_all_exit_codes: true}]}]\n\
         actions: [{trigger_type: on_jobs_complete, action_type: schedule_nodes, jobs: [last], scheduler: s, scheduler_type: slurm}]\n",
    );
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f.txt"), "x").unwrap();
    let server = Server::create(&workflow, folder.path());
    assert_eq!(
        server.paths(),
        [
            "/workflows",
            "/bulk_files",
            "/bulk_user_data",
            "/resource_requirements",
            "/slurm_schedulers",
            "/failure_handlers",
            "/bulk_jobs",
            "/bulk_jobs",
            "/workflows/1/actions"
        ]
    );
    let body = |index: usize| &server.seen[index].1;
    assert_eq!(body(0)["user"], "me");
    assert_eq!(body(0)["project"], "p");
    assert_eq!(body(0)["compute_node_wait_for_new_jobs_seconds"], 90);
    assert_eq!(body(0)["submission_directory"], folder.path().to_str().unwrap());
    assert!(body(1)["files"][0]["st_mtime"].is_f64());
    assert_eq!(body(3)["runtime"], "PT1H");
    assert_eq!(body(5)["rules"], r#"[{"match_all_exit_codes":true,"max_retries":3}]"#);
    assert_eq!(
        body(6),
        &json!({"jobs": [{
            "workflow_id": 1, "name": "first", "command": "x f.txt", "status": "uninitialized", "attempt_id": 1,
            "cancel_on_blocking_job_failure": true, "supports_termination": false, "input_file_ids": [2],
            "input_user_data_ids": [3], "resource_requirements_id": 4, "failure_handler_id": 6
        }]})
    );
    assert_eq!(body(7)["jobs"][0]["depends_on_job_ids"], json!([7]));
    assert_eq!(body(7)["jobs"][0]["scheduler_id"], 5);
    assert_eq!(body(8)["job_ids"], json!([8]));
    assert_eq!(
        body(8)["action_config"],
        json!({"scheduler_type": "slurm", "scheduler_id": 5, "num_allocations": 1, "start_one_worker_per_node": false})
    );
}

#[test]
fn only_files_that_are_read_get_a_time() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["read", "written"] {
        std::fs::write(folder.path().join(name), "x").unwrap();
    }
    let workflow = yaml(
        "name: w\njobs: [{name: a, command: x, input_files: [read, none], output_files: [written]}]\n\
         files: [{name: read, path: read}, {name: none, path: none}, {name: written, path: written}, {name: fixed, path: x, st_mtime: 5}]\n",
    );
    let server = Server::create(&workflow, folder.path());
    let files = server.seen[1].1["files"].as_array().unwrap();
    let times: Vec<_> = files.iter().map(|file| file["st_mtime"].as_f64()).collect();
    assert!(times[0].is_some());
    assert_eq!(times[1..], [None, None, Some(5.0)]);
}

#[test]
fn a_level_takes_one_request_for_each_hundred_thousand_jobs() {
    let text = "name: w\njobs:\n- {name: 'a_{i}', command: x, parameters: {i: '1:100001'}}\n\
                - {name: b, command: x, depends_on: [a_100001]}\n";
    let workflow = parse("w", text, Format::Yaml, Path::new(".")).unwrap();
    let mut creation = workflow.create("me", ".");
    let mut ids = 0..;
    let mut counts = Vec::new();
    let mut last = Vec::new();
    while let Some(request) = creation.next_request() {
        // Counted and answered as text: as values this would be most of the test's time.
        let count = request.body.windows(14).filter(|bytes| bytes == b"\"workflow_id\":").count();
        let jobs =
            ids.by_ref().take(count).map(|id: i64| format!(r#"{{"id":{id},"workflow_id":1,"name":"","command":""}}"#));
        let jobs: Vec<_> = jobs.collect();
        creation.accept(format!(r#"{{"id":1,"jobs":[{}]}}"#, jobs.join(",")).as_bytes()).unwrap();
        counts.push(count);
        last = request.body;
    }
    assert_eq!(counts, [0, 100_000, 1, 1]);
    let last: Value = serde_json::from_slice(&last).unwrap();
    assert_eq!(last["jobs"][0]["depends_on_job_ids"], json!([100_000]));
}

#[test]
fn every_example_of_torc_can_be_created() {
    let root = torc_crate();
    for name in
        ["yaml/diamond_workflow.yaml", "yaml/multi_stage_barrier_pattern.yaml", "yaml/slurm_staged_pipeline.yaml"]
    {
        let workflow = forebay_spec::load(&root.join("examples").join(name), &root).unwrap();
        let server = Server::create(&workflow, &root);
        let bulk = server.paths().iter().filter(|path| **path == "/bulk_jobs").count();
        assert_eq!(bulk, workflow.level_ends.len(), "{name}");
    }
}

#[test]
fn an_answer_with_too_few_ids_is_refused() {
    let workflow = yaml("name: w\njobs: [{name: a, command: x}, {name: b, command: x}]\n");
    let mut creation = workflow.create("me", ".");
    creation.next_request().unwrap();
    assert!(matches!(creation.accept(b"{}"), Err(BadAnswer::Ids { expected: 1, found: 0 })));
    creation.accept(br#"{"id": 3}"#).unwrap();
    assert_eq!(creation.workflow_id(), Some(3));
    creation.next_request().unwrap();
    let answer = br#"{"jobs": [{"id": 1, "workflow_id": 3, "name": "a", "command": "x"}]}"#;
    assert!(matches!(creation.accept(answer), Err(BadAnswer::Ids { expected: 2, found: 1 })));
    assert!(matches!(creation.accept(b"oops"), Err(BadAnswer::Unreadable(_))));
}
