//! The resources of a workflow: created, listed, changed, deleted.

use hyper::Method;
use serde_json::{Value, json};

use crate::world::{World, id, node, result};

fn ids(list: &Value) -> Vec<i64> {
    list["items"].as_array().expect("a list").iter().map(id).collect()
}

#[tokio::test]
async fn files_are_listed_by_name_path_and_page() {
    let world = World::start().await;
    let w = world.workflow().await;
    let file = |name: &str| json!({"workflow_id": w, "name": name, "path": format!("out/{name}.txt")});
    let created = world.post("/bulk_files", json!({"files": [file("b"), file("a_c"), file("aXc")]})).await;
    let f: Vec<i64> = created["files"].as_array().unwrap().iter().map(id).collect();
    let all = world.get(&format!("/files?workflow_id={w}")).await;
    assert_eq!(ids(&all), f);
    assert_eq!((&all["offset"], &all["max_limit"], &all["count"]), (&json!(0), &json!(100_000), &json!(3)));
    let page = world.get(&format!("/files?workflow_id={w}&limit=1&offset=1&sort_by=name&reverse_sort=true")).await;
    assert_eq!((ids(&page), &page["total_count"], &page["has_more"]), (vec![f[1]], &json!(3), &json!(true)));
    // What is no column to sort by is ignored.
    assert_eq!(ids(&world.get(&format!("/files?workflow_id={w}&sort_by=;drop")).await), f);
    assert_eq!(ids(&world.get(&format!("/files?workflow_id={w}&name=b")).await), [f[0]]);
    // An underscore is one.
    assert_eq!(ids(&world.get(&format!("/files?workflow_id={w}&path=a_c")).await), [f[1]]);
    let path = format!("/files/{}", f[0]);
    let changed = json!({"workflow_id": w, "name": "b", "path": "p", "st_mtime": 12.5});
    assert_eq!(world.put(&path, changed.clone()).await["st_mtime"], 12.5);
    let mut cleared = changed;
    cleared["st_mtime"] = Value::Null;
    assert_eq!(world.put(&path, cleared).await.get("st_mtime"), None);
    assert_eq!(world.delete(&path).await["name"], "b");
    assert_eq!(world.delete(&format!("/files?workflow_id={w}")).await["count"], 2);
    world.stop().await;
}

#[tokio::test]
async fn user_data_of_any_shape_is_kept_and_missed_where_it_is_needed() {
    let world = World::start().await;
    let w = world.workflow().await;
    let empty = json!({"workflow_id": w, "name": "empty", "data": null});
    let full = json!({"workflow_id": w, "name": "full", "data": ["x", {"y": 1.5}], "is_ephemeral": true});
    let created = world.post("/bulk_user_data", json!({"user_data": [empty, full]})).await;
    let u: Vec<i64> = created["user_data"].as_array().unwrap().iter().map(id).collect();
    let job = world.jobs(w, vec![json!({"name": "a", "input_user_data_ids": [u[0], u[1]]})]).await[0];
    assert_eq!(world.get(&format!("/workflows/{w}/missing_user_data")).await, json!({"user_data": [u[0]]}));
    assert_eq!(ids(&world.get(&format!("/user_data?workflow_id={w}&is_ephemeral=true")).await), [u[1]]);
    assert_eq!(ids(&world.get(&format!("/user_data?workflow_id={w}&name=MPT")).await), [u[0]]);
    assert_eq!(ids(&world.get(&format!("/user_data?workflow_id={w}&consumer_job_id={job}")).await), u);
    assert_eq!(ids(&world.get(&format!("/user_data?workflow_id={w}&producer_job_id={job}")).await), Vec::<i64>::new());
    let ties = world.get(&format!("/workflows/{w}/job_user_data_relationships")).await;
    assert_eq!((&ties["total_count"], &ties["items"][0]["consumer_job_name"]), (&json!(2), &json!("a")));
    let path = format!("/user_data/{}", u[0]);
    let changed = world.put(&path, json!({"workflow_id": w, "name": "empty", "data": "now"})).await;
    assert_eq!((&changed["data"], &changed["is_ephemeral"]), (&json!("now"), &json!(false)));
    // What is left out stays.
    assert_eq!(world.put(&path, json!({"workflow_id": w, "name": "e"})).await["data"], "now");
    assert_eq!(world.get(&format!("/user_data/{}", u[1])).await["data"], json!(["x", {"y": 1.5}]));
    assert_eq!(world.delete(&path).await["name"], "e");
    assert_eq!(world.delete(&format!("/user_data?workflow_id={w}")).await["deleted_count"], 1);
    world.stop().await;
}

#[tokio::test]
async fn resource_requirements_are_checked_and_the_default_is_there_from_the_start() {
    let world = World::start().await;
    let w = world.workflow().await;
    let listed = world.get(&format!("/resource_requirements?workflow_id={w}")).await;
    let default = listed["items"][0].clone();
    assert_eq!(
        default,
        json!({"id": id(&default), "workflow_id": w, "name": "default", "num_cpus": 1, "num_gpus": 0, "num_nodes": 1,
               "memory": "1m", "runtime": "P0DT1M"})
    );
    let needs = |field: &str, value: Value| {
        let mut needs = json!({"workflow_id": w, "name": "n", "num_cpus": 2, "memory": "2g", "runtime": "PT1H"});
        needs[field] = value;
        needs
    };
    for (field, value, text) in [
        ("memory", json!("lots"), "Invalid memory format 'lots': "),
        ("runtime", json!("long"), "Invalid runtime format 'long': "),
        ("num_cpus", json!(0), "num_cpus must be > 0, got 0"),
        ("num_nodes", json!(0), "num_nodes must be > 0, got 0"),
    ] {
        let answered = world.send(Method::POST, "/resource_requirements", Some(needs(field, value.clone()))).await;
        assert_eq!((answered.status, answered.message().starts_with(text)), (422, true), "{}", answered.message());
        assert_eq!((&answered.json()["error"]["field"], &answered.json()["error"]["value"]), (&json!(field), &value));
    }
    let reserved = world.refused(Method::POST, "/resource_requirements", Some(needs("name", json!("default")))).await;
    assert_eq!(reserved.0, 422);
    let own = id(&world.post("/resource_requirements", needs("num_gpus", json!(1))).await);
    let job = world.jobs(w, vec![json!({"name": "a", "resource_requirements_id": own})]).await[0];
    assert_eq!(ids(&world.get(&format!("/resource_requirements?workflow_id={w}&runtime=3600")).await), [own]);
    assert_eq!(ids(&world.get(&format!("/resource_requirements?workflow_id={w}&job_id={job}")).await), [own]);
    assert_eq!(ids(&world.get(&format!("/resource_requirements?workflow_id={w}&num_gpus=1")).await), [own]);
    // What waits is claimed by what it needs from now on.
    world.run(w).await;
    let claim = format!("/workflows/{w}/claim_jobs_based_on_resources/4");
    let free = json!({"num_cpus": 1, "memory_gb": 1.0, "num_gpus": 0, "num_nodes": 1});
    assert_eq!(world.post(&claim, free.clone()).await["jobs"], json!([]));
    let path = format!("/resource_requirements/{own}");
    let lighter = json!({"workflow_id": w, "name": "n", "num_cpus": 1, "memory": "1k", "runtime": "PT1S"});
    assert_eq!(world.put(&path, lighter).await["memory"], "1k");
    assert_eq!(world.post(&claim, free).await["jobs"][0]["id"], job);
    let (status, text) = world.refused(Method::DELETE, &path, None).await;
    assert_eq!((status, text), (422, format!("resource_requirements_id={own} is used by jobs of its workflow")));
    let spare = id(&world.post("/resource_requirements", needs("name", json!("spare"))).await);
    assert_eq!(world.delete(&format!("/resource_requirements/{spare}")).await["name"], "spare");
    world.post("/resource_requirements", needs("name", json!("spare"))).await;
    assert_eq!(world.delete(&format!("/resource_requirements?workflow_id={w}")).await["count"], 1);
    world.stop().await;
}

#[tokio::test]
async fn compute_nodes_come_and_go() {
    let world = World::start().await;
    let w = world.workflow().await;
    let mut wanted = node(w);
    wanted["labels"] = json!(["b", "a", "b"]);
    wanted["scheduler"] = json!({"scheduler_id": 9});
    let created = world.post("/compute_nodes", wanted).await;
    let (one, two) = (id(&created), world.node(w).await);
    assert_eq!(created["labels"], json!(["a", "b"]));
    let path = format!("/compute_nodes/{one}");
    assert_eq!(world.get(&path).await, created);
    assert_eq!(ids(&world.get(&format!("/compute_nodes?workflow_id={w}&scheduled_compute_node_id=9")).await), [one]);
    assert_eq!(ids(&world.get(&format!("/compute_nodes?workflow_id={w}&hostname=OS")).await), [one, two]);
    let mut gone = node(w);
    gone["is_active"] = json!(false);
    gone["duration_seconds"] = json!(3);
    let changed = world.put(&path, gone).await;
    assert_eq!((&changed["is_active"], &changed["duration_seconds"]), (&json!(false), &json!(3.0)));
    assert_eq!(changed["labels"], json!(["a", "b"]));
    assert_eq!(ids(&world.get(&format!("/compute_nodes?workflow_id={w}&is_active=true")).await), [two]);
    assert_eq!(id(&world.delete(&path).await), one);
    assert_eq!(world.delete(&format!("/compute_nodes?workflow_id={w}")).await["count"], 1);
    world.stop().await;
}

#[tokio::test]
async fn events_and_failure_handlers_are_kept() {
    let world = World::start().await;
    let w = world.workflow().await;
    let event = |data: Value| json!({"workflow_id": w, "timestamp": 0, "data": data});
    let one = world.post("/events", event(json!({"category": "x"}))).await;
    let two = world.post("/events", event(json!("text"))).await;
    assert!(one["timestamp"].as_i64().unwrap() > 1_700_000_000_000);
    assert_eq!(ids(&world.get(&format!("/events?workflow_id={w}&category=x")).await), [id(&one)]);
    let later = format!("/events?workflow_id={w}&after_timestamp={}", two["timestamp"]);
    assert_eq!(ids(&world.get(&later).await), Vec::<i64>::new());
    let path = format!("/events/{}", id(&two));
    assert_eq!(world.put(&path, json!([1])).await["data"], json!([1]));
    assert_eq!(world.delete(&path).await["data"], json!([1]));
    assert_eq!(world.delete(&format!("/events?workflow_id={w}")).await["count"], 1);

    let rules = r#"[{"exit_codes":[1],"max_retries":2}]"#;
    let handler = world.post("/failure_handlers", json!({"workflow_id": w, "name": "h", "rules": rules})).await;
    let path = format!("/failure_handlers/{}", id(&handler));
    assert_eq!(world.get(&path).await["rules"], rules);
    assert_eq!(ids(&world.get(&format!("/workflows/{w}/failure_handlers")).await), [id(&handler)]);
    assert_eq!(world.delete(&path).await, handler);
    assert_eq!(world.send(Method::GET, &path, None).await.status, 404);
    world.stop().await;
}

#[tokio::test]
async fn workflows_are_listed_changed_and_deleted_with_all_they_have() {
    let world = World::start().await;
    let body = json!({"name": "one", "user": "me", "env": {"A": "1"}, "description": "A long tale", "id": 77,
                      "metadata": {"k": [1]}, "run_id": 9, "source_path": "/x/one.yaml"});
    let one = world.post("/workflows", body).await;
    let two = world.workflow().await;
    let w = id(&one);
    assert_eq!((&one["run_id"], &one["metadata"]), (&json!(0), &json!({"k": [1]})));
    assert_eq!(ids(&world.get("/workflows").await), [w, two]);
    assert_eq!(ids(&world.get("/workflows?description=LONG").await), [w]);
    assert_eq!(ids(&world.get("/workflows?source_path=%2Fx%2Fone.yaml").await), [w]);
    assert_eq!(ids(&world.get("/workflows?access_group=g").await), Vec::<i64>::new());
    world.post(&format!("/workflows/{two}/archive"), json!({"is_archived": true})).await;
    assert_eq!(ids(&world.get("/workflows?is_archived=true").await), [two]);
    assert_eq!(ids(&world.get("/workflows?is_archived=false").await), [w]);

    let path = format!("/workflows/{w}");
    let changed = world.put(&path, json!({"name": "uno", "user": "me", "env": {"A": "1"}, "source_hash": "h"})).await;
    assert_eq!((&changed["name"], &changed["source_hash"]), (&json!("uno"), &json!("h")));
    assert_eq!((&changed["description"], &changed["env"]), (&json!("A long tale"), &json!({"A": "1"})));
    for (field, value) in [("env", json!({"A": "2"})), ("submission_directory", json!("/y"))] {
        let mut body = json!({"name": "uno", "user": "me"});
        body[field] = value;
        let text = format!("Cannot modify {field} - this field is immutable after workflow creation");
        assert_eq!(world.refused(Method::PUT, &path, Some(body)).await, (422, text));
    }
    let bad = json!({"name": "b", "user": "u", "access_groups": ["g"]});
    assert_eq!(world.refused(Method::POST, "/workflows", Some(bad)).await.0, 422);

    let job = world.jobs(w, vec![json!({"name": "a"})]).await[0];
    assert_eq!(world.delete(&path).await["name"], "uno");
    assert_eq!(world.send(Method::GET, &path, None).await.status, 404);
    assert_eq!(world.send(Method::GET, &format!("/jobs/{job}"), None).await.status, 404);
    world.stop().await;
}

#[tokio::test]
async fn jobs_are_listed_by_what_they_are_and_changed_by_torcs_rules() {
    let world = World::start().await;
    let w = world.workflow().await;
    let file = id(&world.post("/files", json!({"workflow_id": w, "name": "f", "path": "f"})).await);
    let a = world.jobs(w, vec![json!({"name": "alpha", "input_file_ids": [file]})]).await[0];
    let more = vec![
        json!({"name": "beta", "command": "echo 50%", "depends_on_job_ids": [a], "priority": 4}),
        json!({"name": "gamma", "labels": ["x"]}),
    ];
    let [b, c] = world.jobs(w, more).await[..] else { panic!("two jobs") };
    let list = |filter: &str| {
        let path = format!("/jobs?workflow_id={w}&{filter}");
        let world = &world;
        async move { ids(&world.get(&path).await) }
    };
    assert_eq!(list("").await, [a, b, c]);
    assert_eq!(list("status=uninitialized&limit=2&reverse_sort=true").await, [c, b]);
    assert_eq!(list("name=TA").await, [b]);
    assert_eq!(list("command=50%25").await, [b]);
    assert_eq!(list(&format!("upstream_job_id={a}")).await, [b]);
    assert_eq!(list(&format!("needs_file_id={file}")).await, [a]);
    assert_eq!(list("labels=").await, [a, b]);
    assert_eq!(list("origin_is_set=true").await, Vec::<i64>::new());
    assert_eq!(list("sort_by=priority&reverse_sort=true&limit=1").await, [b]);
    let with = world.get(&format!("/jobs?workflow_id={w}&include_relationships=true")).await;
    assert_eq!(with["items"][1]["depends_on_job_ids"], json!([a]));

    let job = |name: &str, command: &str| json!({"workflow_id": w, "name": name, "command": command});
    let path = format!("/jobs/{c}");
    let mut change = job("delta", "false");
    change["labels"] = json!([]);
    change["priority"] = json!(9);
    let changed = world.put(&path, change).await;
    assert_eq!(
        (&changed["name"], &changed["command"], &changed["priority"]),
        (&json!("delta"), &json!("false"), &json!(9))
    );
    assert_eq!(changed.get("labels"), None);
    let mut fixed = job("delta", "false");
    fixed["input_file_ids"] = json!([file]);
    let text = "Cannot modify input_file_ids - this field is immutable after job creation".to_owned();
    assert_eq!(world.refused(Method::PUT, &path, Some(fixed)).await, (422, text));
    let mut ready = job("delta", "false");
    ready["status"] = json!("ready");
    let text = "Cannot update job status - this field is immutable after job creation (except to Disabled)".to_owned();
    assert_eq!(world.refused(Method::PUT, &path, Some(ready)).await, (422, text));

    world.run(w).await;
    let (status, text) = world.refused(Method::PUT, &path, Some(job("epsilon", "false"))).await;
    assert_eq!(status, 422);
    assert!(text.starts_with(&format!("Cannot update job {c} when status is 'ready'")), "{text}");
    assert!(text.ends_with("Changed fields: [name: 'delta' -> 'epsilon']"), "{text}");
    let mut lower = job("delta", "false");
    lower["priority"] = json!(1);
    assert_eq!(world.put(&path, lower).await["priority"], 1);
    assert_eq!(world.delete(&path).await["name"], "delta");
    assert_eq!(world.delete(&format!("/jobs?workflow_id={w}")).await, json!({"count": 2}));
    world.stop().await;
}

#[tokio::test]
async fn results_of_all_runs_are_kept_and_the_latest_shown() {
    let world = World::start().await;
    let (w, jobs) = world.ready_jobs(1).await;
    let node = world.node(w).await;
    let job = jobs[0];
    world.post(&format!("/jobs/{job}/complete_job/failed/1"), result(w, job, node, "failed")).await;
    world.post(&format!("/workflows/{w}/reset_status"), json!({})).await;
    world.post(&format!("/workflows/{w}/reset_job_status"), json!({})).await;
    world.post(&format!("/workflows/{w}/initialize_jobs"), json!({})).await;
    let mut second = result(w, job, node, "completed");
    second["run_id"] = json!(2);
    second["peak_memory_bytes"] = json!(1_i64 << 40);
    world.post(&format!("/jobs/{job}/complete_job/completed/2"), second).await;
    let latest = world.get(&format!("/results?workflow_id={w}")).await;
    assert_eq!((&latest["total_count"], &latest["items"][0]["run_id"]), (&json!(1), &json!(2)));
    assert_eq!(latest["items"][0]["peak_memory_bytes"], 1_i64 << 40);
    let all = world.get(&format!("/results?workflow_id={w}&all_runs=true")).await;
    assert_eq!(all["total_count"], 2);
    let failed = world.get(&format!("/results?workflow_id={w}&all_runs=true&status=failed&return_code=1")).await;
    assert_eq!((&failed["count"], &failed["items"][0]["status"]), (&json!(1), &json!("failed")));
    let one = world.get(&format!("/results/{}", id(&failed["items"][0]))).await;
    assert_eq!((&one["job_name"], &one["exec_time_minutes"]), (&json!("j0"), &json!(0.5)));
    world.stop().await;
}

#[tokio::test]
async fn slurm_schedulers_are_kept_for_the_jobs_that_name_them() {
    let world = World::start().await;
    let w = world.workflow().await;
    let body = json!({"workflow_id": w, "name": "s", "account": "acc", "nodes": 1, "walltime": "01:00:00"});
    let scheduler = world.post("/slurm_schedulers", body.clone()).await;
    let path = format!("/slurm_schedulers/{}", id(&scheduler));
    assert_eq!(world.get(&path).await, scheduler);
    assert_eq!(ids(&world.get(&format!("/slurm_schedulers?workflow_id={w}")).await), [id(&scheduler)]);
    let mut changed = body;
    changed["walltime"] = json!("02:00:00");
    assert_eq!(world.put(&path, changed).await["walltime"], "02:00:00");
    assert_eq!(world.delete(&path).await["account"], "acc");
    world.stop().await;
}

#[tokio::test]
async fn a_draft_waits_for_what_it_was_last_told_to() {
    let world = World::start().await;
    let w = world.workflow().await;
    let jobs = world.jobs(w, ["a", "b", "c"].map(|name| json!({"name": name})).to_vec()).await;
    let (b, c) = (jobs[1], jobs[2]);
    let told =
        |name: &str, on: &[i64]| json!({"workflow_id": w, "name": name, "command": "true", "depends_on_job_ids": on});
    let edges = async || world.get(&format!("/workflows/{w}/job_dependencies")).await["items"].clone();
    for (on, left) in [(vec![jobs[0], b], 2), (vec![], 0), (vec![b, b], 1)] {
        world.put(&format!("/jobs/{c}"), told("c", &on)).await;
        assert_eq!(edges().await.as_array().map(Vec::len), Some(left), "{on:?}");
    }
    let path = format!("/jobs/{c}");
    for on in [vec![99_999], vec![c]] {
        assert_eq!(world.refused(Method::PUT, &path, Some(told("c", &on))).await.0, 422, "{on:?}");
    }
    // Who waits for whom in the end is found out at the beginning.
    world.put(&format!("/jobs/{b}"), told("b", &[c])).await;
    world.post(&format!("/workflows/{w}/reset_status"), json!({})).await;
    let begin = format!("/workflows/{w}/initialize_jobs");
    let (status, text) = world.refused(Method::POST, &begin, Some(json!({}))).await;
    assert_eq!((status, text.contains("cycle")), (422, true), "{text}");
    world.put(&format!("/jobs/{b}"), told("b", &[])).await;
    world.post(&begin, json!({})).await;
    assert_eq!((world.status_of(b).await, world.status_of(c).await), ("ready".into(), "blocked".into()));
    let (status, text) = world.refused(Method::PUT, &path, Some(told("c", &[]))).await;
    assert_eq!((status, text.contains("'uninitialized'")), (422, true), "{text}");
    let node = world.node(w).await;
    world.claim(w, 5).await;
    world.post(&format!("/jobs/{b}/complete_job/completed/1"), result(w, b, node, "completed")).await;
    assert_eq!(world.status_of(c).await, "ready");
    world.stop().await;
}

#[tokio::test]
async fn jobs_list_no_file_and_no_user_data_that_is_deleted() {
    let world = World::start().await;
    let w = world.workflow().await;
    let file = |name: &str| json!({"workflow_id": w, "name": name, "path": name});
    let (f, g) = (id(&world.post("/files", file("f")).await), id(&world.post("/files", file("g")).await));
    let data = json!({"workflow_id": w, "name": "d", "data": {"x": 1}});
    let d = id(&world.post("/user_data", data).await);
    let jobs = world
        .jobs(
            w,
            vec![
                json!({"name": "writer", "output_file_ids": [f, g]}),
                json!({"name": "reader", "input_file_ids": [f, g], "input_user_data_ids": [d]}),
            ],
        )
        .await;
    world.run(w).await;
    world.delete(&format!("/files/{f}")).await;
    let (writer, reader) =
        (world.get(&format!("/jobs/{}", jobs[0])).await, world.get(&format!("/jobs/{}", jobs[1])).await);
    assert_eq!((&writer["output_file_ids"], &reader["input_file_ids"]), (&json!([g]), &json!([g])));
    let claimed = world.claim(w, 5).await;
    assert_eq!(claimed[0]["output_file_ids"], json!([g]), "nor is one handed out that lists it");
    world.delete(&format!("/files?workflow_id={w}")).await;
    world.delete(&format!("/user_data/{d}")).await;
    let reader = world.get(&format!("/jobs/{}", jobs[1])).await;
    assert_eq!((reader.get("input_file_ids"), reader.get("input_user_data_ids")), (None, None));
    assert_eq!(world.refused(Method::DELETE, &format!("/files/{f}"), None).await.0, 404);
    world.stop().await;
}
