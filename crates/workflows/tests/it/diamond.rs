//! torc's journey from a spec to its end: create, initialize, run, look.

use hyper::Method;
use serde_json::{Value, json};

use crate::world::{World, id, result};

#[tokio::test]
async fn a_diamond_runs_from_its_creation_to_its_end() {
    let world = World::start().await;
    let workflow = world
        .post("/workflows", json!({"name": "diamond", "user": "me", "env": {"A": "1", "B": "1"}, "project": "p"}))
        .await;
    let w = id(&workflow);
    assert_eq!(workflow["run_id"], 0);
    assert_eq!(workflow["compute_node_wait_for_new_jobs_seconds"], 90);
    assert_eq!((&workflow["is_canceled"], &workflow["is_archived"]), (&json!(false), &json!(false)));

    let files: Vec<Value> = ["f1", "f2", "f3", "f4"]
        .map(|name| json!({"workflow_id": w, "name": name, "path": format!("{name}.txt")}))
        .into();
    let files = world.post("/bulk_files", json!({"files": files})).await;
    let f: Vec<i64> = files["files"].as_array().unwrap().iter().map(id).collect();
    let small = world
        .post("/resource_requirements", json!({"workflow_id": w, "name": "small", "memory": "1g", "runtime": "PT10M"}))
        .await;
    let jobs = world
        .jobs(
            w,
            vec![
                json!({"name": "pre", "input_file_ids": [f[0]], "output_file_ids": [f[1], f[2]], "env": {"B": "2"}}),
                json!({"name": "left", "input_file_ids": [f[1]], "resource_requirements_id": id(&small), "priority": 3}),
                json!({"name": "right", "input_file_ids": [f[2]], "output_file_ids": [f[3]]}),
                json!({"name": "post", "input_file_ids": [f[3]]}),
            ],
        )
        .await;
    world.jobs(w, vec![json!({"name": "last", "depends_on_job_ids": [jobs[1], jobs[3]]})]).await;

    assert_eq!(world.get(&format!("/workflows/{w}/is_uninitialized")).await, json!({"is_uninitialized": true}));
    assert_eq!(world.get(&format!("/workflows/{w}/required_existing_files")).await, json!({"files": [f[0]]}));
    assert_eq!(world.get(&format!("/workflows/{w}/missing_user_data")).await, json!({"user_data": []}));
    let outputs = world.get(&format!("/files?workflow_id={w}&is_output=true")).await;
    assert_eq!(outputs["total_count"], 3);
    let reset = world.post(&format!("/workflows/{w}/reset_status"), json!({})).await;
    assert_eq!(reset["run_id"], 1);
    let reset = world.post(&format!("/workflows/{w}/reset_job_status?failed_only=false"), json!({})).await;
    assert_eq!(reset["status"], "uninitialized");
    let done = world.post(&format!("/workflows/{w}/initialize_jobs"), json!({})).await;
    assert_eq!(done, json!({"message": "Initialized job status"}));

    let node = world.node(w).await;
    let free = json!({"num_cpus": 4, "memory_gb": 8.0, "num_gpus": 0, "num_nodes": 1, "time_limit": "PT1H"});
    let mut order = Vec::new();
    while world.get(&format!("/workflows/{w}/is_complete")).await["is_complete"] == false {
        let claimed = world.post(&format!("/workflows/{w}/claim_jobs_based_on_resources/4"), free.clone()).await;
        let claimed = claimed["jobs"].as_array().unwrap().clone();
        assert!(!claimed.is_empty(), "nothing can go on after {order:?}");
        let mut completions = Vec::new();
        for job in &claimed {
            assert_eq!(job["status"], "pending");
            order.push(job["name"].as_str().unwrap().to_owned());
            let started = world.ok(Method::PUT, &format!("/jobs/{}/start_job/1/{node}", id(job)), None).await;
            assert_eq!((&started["status"], &started["name"]), (&json!("running"), &job["name"]));
            completions.push(json!({"job_id": id(job), "status": "completed", "run_id": 1,
                                    "result": result(w, id(job), node, "completed")}));
        }
        let done =
            world.post(&format!("/workflows/{w}/batch_complete_jobs"), json!({"completions": completions})).await;
        assert_eq!(done["errors"], json!([]));
        assert_eq!(done["completed"].as_array().unwrap().len(), claimed.len());
    }
    assert_eq!(order, ["pre", "left", "right", "post", "last"]);

    let pre = world.get(&format!("/jobs/{}", jobs[0])).await;
    assert_eq!((&pre["status"], &pre["env"]), (&json!("completed"), &json!({"A": "1", "B": "2"})));
    assert_eq!(pre["output_file_ids"], json!([f[1], f[2]]));
    let results = world.get(&format!("/results?workflow_id={w}&sort_by=job_id")).await;
    assert_eq!((&results["total_count"], &results["has_more"]), (&json!(5), &json!(false)));
    assert_eq!(
        (&results["items"][0]["job_name"], &results["items"][0]["status"]),
        (&json!("pre"), &json!("completed"))
    );
    let status = world.get(&format!("/workflows/{w}/status")).await;
    assert_eq!((&status["total_jobs"], &status["is_complete"]), (&json!(5), &json!(true)));
    assert_eq!((&status["jobs_by_status"]["completed"], &status["total_exec_time_minutes"]), (&json!(5), &json!(2.5)));
    assert_eq!((&status["walltime_seconds"], &status["active_compute_nodes"]), (&json!(30.0), &json!(1)));
    let counts = world.get(&format!("/workflows/{w}/status?times=false")).await;
    assert_eq!((&counts["jobs_by_status"], counts.get("walltime_seconds")), (&status["jobs_by_status"], None));
    let edges = world.get(&format!("/workflows/{w}/job_dependencies")).await;
    assert_eq!(edges["total_count"], 5);
    assert_eq!(edges["items"][0]["depends_on_job_name"], "pre");
    let ties = world.get(&format!("/workflows/{w}/job_file_relationships")).await;
    assert_eq!(ties["total_count"], 4);
    assert_eq!(ties["items"][0].get("producer_job_id"), None);
    assert_eq!(ties["items"][1]["producer_job_name"], "pre");
    assert_eq!(ties["items"][1]["consumer_job_name"], "left");
    assert_eq!(world.get(&format!("/workflows/{w}/job_ids")).await["count"], 5);
    world.stop().await;
}

#[tokio::test]
async fn a_failure_is_retried_and_a_failed_end_cancels_what_waits_for_it() {
    let world = World::start().await;
    let w = world.workflow().await;
    let a = world.jobs(w, vec![json!({"name": "a"})]).await[0];
    let b = world.jobs(w, vec![json!({"name": "b", "depends_on_job_ids": [a]})]).await[0];
    world.run(w).await;
    let node = world.node(w).await;
    assert_eq!(id(&world.claim(w, 5).await[0]), a);
    world.ok(Method::PUT, &format!("/jobs/{a}/start_job/1/{node}"), None).await;
    let retried = world.post(&format!("/jobs/{a}/retry/1?max_retries=3"), json!({})).await;
    assert_eq!((&retried["status"], &retried["attempt_id"]), (&json!("ready"), &json!(2)));
    assert_eq!(retried["origin"], "retry");
    let events = world.get(&format!("/events?workflow_id={w}")).await;
    let retries =
        events["items"].as_array().unwrap().iter().filter(|event| event["data"]["event_type"] == "job_retried");
    assert_eq!(retries.count(), 1);

    // The first attempt's report comes late.
    let late = world
        .refused(Method::POST, &format!("/jobs/{a}/complete_job/failed/1"), Some(result(w, a, node, "failed")))
        .await;
    assert_eq!(late, (422, format!("Attempt ID mismatch: provided 1 but job_id={a} is at attempt 2")));
    assert_eq!(world.claim(w, 5).await[0]["attempt_id"], 2);
    let mut second = result(w, a, node, "failed");
    second["attempt_id"] = json!(2);
    let failed = world.post(&format!("/jobs/{a}/complete_job/failed/1"), second).await;
    assert_eq!((&failed["status"], &failed["attempt_id"]), (&json!("failed"), &json!(2)));
    assert_eq!(world.status_of(b).await, "canceled");
    assert_eq!(world.get(&format!("/workflows/{w}/is_complete")).await["is_complete"], true);

    let reset = world.post(&format!("/workflows/{w}/reset_job_status?failed_only=true"), json!({})).await;
    assert_eq!(reset["reset_type"], "failed_only");
    assert_eq!(world.status_of(a).await, "uninitialized");
    world.stop().await;
}

#[tokio::test]
async fn a_job_that_another_ones_failure_canceled_has_a_result_until_it_waits_again() {
    let world = World::start().await;
    let w = world.workflow().await;
    let a = world.jobs(w, vec![json!({"name": "a"})]).await[0];
    let b = world.jobs(w, vec![json!({"name": "b", "depends_on_job_ids": [a]})]).await[0];
    let c = world.jobs(w, vec![json!({"name": "c", "depends_on_job_ids": [b]})]).await[0];
    world.run(w).await;
    let node = world.node(w).await;
    world.claim(w, 5).await;
    world.ok(Method::PUT, &format!("/jobs/{a}/start_job/1/{node}"), None).await;
    world.post(&format!("/jobs/{a}/complete_job/failed/1"), result(w, a, node, "failed")).await;
    let canceled = world.get(&format!("/results?workflow_id={w}&status=canceled&sort_by=job_id")).await;
    let shown: Vec<Value> = canceled["items"].as_array().unwrap().iter().map(|row| row["job_id"].clone()).collect();
    assert_eq!(shown, [b, c]);
    let mut row = canceled["items"][0].clone();
    let time = row["completion_time"].take();
    assert!(time.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{time}");
    let expected = json!({"id": row["id"], "workflow_id": w, "job_id": b, "job_name": "b", "run_id": 1,
                          "attempt_id": 1, "compute_node_id": 0, "return_code": -1, "exec_time_minutes": 0.0,
                          "completion_time": null, "status": "canceled"});
    assert_eq!(row, expected);

    world.post(&format!("/jobs/{a}/retry/1?max_retries=3"), json!({})).await;
    assert_eq!((world.status_of(b).await, world.status_of(c).await), ("blocked".into(), "blocked".into()));
    let left = world.get(&format!("/results?workflow_id={w}&all_runs=true")).await;
    let left: Vec<&Value> = left["items"].as_array().unwrap().iter().map(|row| &row["job_id"]).collect();
    assert_eq!(left, [a], "what may begin now has no outcome");
    world.stop().await;
}

/// Fails the first of eleven layers of four jobs, resets what failed, and says how many rows that changed in
/// how many commits. By path there are four to the eleventh ways through it: torc-server goes them all.
async fn reset_of_many_layers(world: &World, untouched: usize) -> (u64, u64) {
    let w = world.workflow().await;
    let mut layer: Vec<i64> = Vec::new();
    let mut first = Vec::new();
    for depth in 0..11 {
        let job = |n| json!({"name": format!("l{depth}_{n}"), "depends_on_job_ids": layer});
        layer = world.jobs(w, (0..4).map(job).collect()).await;
        if depth == 0 {
            first.clone_from(&layer);
        }
    }
    if untouched > 0 {
        world.jobs(w, (0..untouched).map(|n| json!({"name": format!("other{n}")})).collect()).await;
    }
    world.run(w).await;
    let node = world.node(w).await;
    world.claim(w, 4).await;
    for job in first {
        world.post(&format!("/jobs/{job}/complete_job/failed/1"), result(w, job, node, "failed")).await;
    }
    let (before, begin) = (world.engine.counters(), std::time::Instant::now());
    let reset = world.post(&format!("/workflows/{w}/reset_job_status?failed_only=true"), json!({})).await;
    assert_eq!(reset["updated_count"], 44);
    assert!(begin.elapsed().as_secs() < 5, "it took {:?}", begin.elapsed());
    let after = world.engine.counters();
    (after.changes - before.changes, after.batches - before.batches)
}

#[tokio::test]
async fn a_reset_of_many_layers_costs_what_it_touches() {
    let world = World::start().await;
    let alone = reset_of_many_layers(&world, 0).await;
    // The jobs, and what is told of the workflow and of who did it.
    assert!((44..=50).contains(&alone.0) && alone.1 <= 2, "{alone:?}");
    let beside = reset_of_many_layers(&world, 1_500).await;
    assert!(beside.0 <= alone.0 + 2 && beside.1 <= 2, "{beside:?}, {alone:?} without jobs beside it");
    world.stop().await;
}

#[tokio::test]
async fn a_canceled_workflows_running_jobs_have_results() {
    let world = World::start().await;
    let (w, jobs) = world.ready_jobs(3).await;
    let node = world.node(w).await;
    world.claim(w, 2).await;
    world.ok(Method::PUT, &format!("/jobs/{}/start_job/1/{node}", jobs[0]), None).await;
    world.put(&format!("/workflows/{w}/cancel"), json!({})).await;
    let results = world.get(&format!("/results?workflow_id={w}&sort_by=job_id")).await;
    let shown: Vec<Value> = results["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| json!([row["job_id"], row["compute_node_id"], row["status"], row["return_code"]]))
        .collect();
    assert_eq!(shown, [json!([jobs[0], node, "canceled", -1]), json!([jobs[1], 0, "canceled", -1])]);
    let late = world
        .refused(
            Method::POST,
            &format!("/jobs/{}/complete_job/completed/1", jobs[0]),
            Some(result(w, jobs[0], node, "completed")),
        )
        .await;
    assert_eq!(late.0, 422);
    world.stop().await;
}

#[tokio::test]
async fn an_asynchronous_initialize_answers_with_its_task() {
    let world = World::start().await;
    let w = world.workflow().await;
    let job = world.jobs(w, vec![json!({"name": "a"})]).await[0];
    let answered = world.send(Method::POST, &format!("/workflows/{w}/initialize_jobs?async=true"), None).await;
    let task = answered.json();
    assert_eq!((answered.status, &task["status"]), (202, &json!("succeeded")));
    assert_eq!((&task["operation"], &task["workflow_id"]), (&json!("initialize_jobs"), &json!(w)));
    assert_eq!(world.get(&format!("/tasks/{}", id(&task))).await, task);
    assert_eq!(world.get(&format!("/workflows/{w}/active_task")).await, json!({"task": null}));
    assert_eq!(world.status_of(job).await, "ready");
    world.stop().await;
}
