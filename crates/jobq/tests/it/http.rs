//! The daemon's routes, in both generations.

use forebay_jobq::http::{Door, DoorOptions};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Rig {
    door: Door,
    directory: TempDir,
}

impl Rig {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let options = DoorOptions { body_max: 100_000, open_max: 2, ..DoorOptions::default() };
        let door = Door::new(directory.path().join("queues"), options).expect("a directory");
        Rig { door, directory }
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> (u16, Value) {
        let uri = format!("/api/v0{path}");
        assert!(Door::is_for(&uri) || path == "/other", "{uri}");
        let body = Full::new(Bytes::from(body.to_owned()));
        let request = Request::builder().method(method).uri(uri).body(body).expect("a request");
        let response = self.door.answer(request).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("in memory").to_bytes();
        (status, serde_json::from_slice(&body).expect("each answer is JSON"))
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send(Method::GET, path, "").await
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        self.send(Method::DELETE, path, "").await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.send(Method::POST, path, &body.to_string()).await
    }
}

#[tokio::test]
async fn the_first_generation_works_as_its_readme_meant_it() {
    let rig = Rig::new();
    let (status, job) = rig.post("/job/create", json!({"payload": {"msg": "hé"}, "state": ["CREATED"]})).await;
    assert_eq!((status, &job["id"], &job["state"]), (200, &json!(1), &json!(["CREATED"])));
    assert_eq!(job["payload"], json!({"msg": "hé"}));
    assert!(job["modified"].is_i64(), "{job}");
    assert_eq!(rig.get("/job/1").await, (200, job.clone()));
    assert_eq!(rig.get("/job").await, (200, json!({"jobs": [job]})));
    let query = json!([["IS", "json_extract(state, '$[0]')", "CREATED"]]);
    let (_, found) = rig.post("/job", json!({"query": query, "limit": 10})).await;
    assert_eq!(found["jobs"][0]["id"], 1);
    let (status, polled) = rig.post("/job/poll", json!({"query": query, "state": ["ASSIGNED", {"node": 1}]})).await;
    assert_eq!((status, &polled["state"]), (200, &json!(["ASSIGNED", {"node": 1}])));
    let (status, moved) = rig.post("/job/1/state", json!({"old": ["ASSIGNED", {"node": 1}], "new": ["DONE"]})).await;
    assert_eq!((status, &moved["state"]), (200, &json!(["DONE"])));
    let (status, logged) = rig.post("/job/1/event", json!(["my cool event"])).await;
    assert_eq!((status, &logged["events"][3][1]["event"]), (200, &json!(["my cool event"])));
    assert_eq!(rig.delete("/job/1").await, (200, json!({})));
    assert_eq!(rig.get("/job/1").await.0, 404);
}

#[tokio::test]
async fn the_readmes_own_examples_are_understood() {
    let rig = Rig::new();
    let (status, job) = rig.post("/job/create", json!({"job": {"msg": "Hello, world!"}})).await;
    assert_eq!((status, &job["payload"]["msg"], &job["state"]), (200, &json!("Hello, world!"), &Value::Null));
    let unassigned = json!([["IS", "j.state", null]]);
    let (status, job) = rig.post("/job/poll", json!({"query": unassigned, "state": ["ASSIGNED", {"node": 1}]})).await;
    assert_eq!((status, &job["id"]), (200, &json!(1)));
    assert_eq!(rig.send(Method::POST, "/job", "").await.1["jobs"][0]["id"], 1);
    assert_eq!(rig.post("/job", json!({"query": [], "limit": 10})).await.0, 200);
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let rig = Rig::new();
    rig.post("/job/create", json!({"payload": 1, "state": ["a"]})).await;
    let poll = |query: &str| json!({"query": query, "state": 1});
    let cases = [
        (rig.get("/job/9").await, 404, "there is no job 9"),
        (rig.post("/job/9/event", json!(1)).await, 404, "there is no job 9"),
        (rig.post("/job/9/state", json!({"old": 1, "new": 2})).await, 404, "there is no job 9"),
        (rig.post("/job/1/state", json!({"old": 1, "new": 2})).await, 409, "the state of job 1"),
        (rig.post("/job/poll", poll("false")).await, 404, "no job matches"),
        (rig.post("/job/poll", poll("true; drop table job")).await, 422, "query: "),
        (rig.post("/job/poll", json!({"query": "true"})).await, 422, "no state"),
        (rig.post("/job/poll", json!({"query": 7, "state": 1})).await, 422, "query: "),
        (rig.post("/job/create", json!({"state": 1})).await, 422, "no payload"),
        (rig.post("/job", json!({"limit": -1})).await, 422, "limit"),
        (rig.post("/job", json!([])).await, 422, "JSON object"),
        (rig.send(Method::POST, "/job/create", "{").await, 422, "JSON object"),
        (rig.send(Method::POST, "/job/1/event", "{").await, 422, "not JSON"),
        (rig.get("/job/x").await, 422, "not the id"),
        (rig.send(Method::PUT, "/job", "").await, 405, "GET, POST"),
        (rig.get("/job/poll/1").await, 404, "nothing here"),
        (rig.get("/other").await, 404, "nothing here"),
        (rig.send(Method::POST, "/job/create", &" ".repeat(200_000)).await, 413, "too long"),
        (rig.get("/queue/mail/job").await, 404, "there is no queue"),
        (rig.get("/queue/..%2fjobq/job").await, 404, "there is no queue"),
        (rig.delete("/queue/mail").await, 404, "there is no queue"),
        (rig.post("/queue", json!({"id": "../x"})).await, 422, "name of a queue"),
    ];
    for ((status, body), expected, reason) in cases {
        let said = body["error"].as_str().expect("a reason");
        assert_eq!(status, expected, "{said}");
        assert!(said.contains(reason), "{said:?} does not say {reason:?}");
    }
}

#[tokio::test]
async fn the_second_generation_has_many_queues() {
    let rig = Rig::new();
    assert_eq!(rig.get("/queue").await, (200, json!({"queues": []})));
    assert_eq!(rig.post("/queue", json!({"id": "mail"})).await, (200, json!({"id": "mail"})));
    assert_eq!(rig.post("/queue", json!({"id": "mail"})).await.0, 409);
    assert_eq!(rig.send(Method::POST, "/queue", "").await, (200, json!({"id": "1"})));
    assert_eq!(rig.post("/queue", json!({})).await, (200, json!({"id": "2"})));
    let listed = json!({"queues": [{"id": "1"}, {"id": "2"}, {"id": "mail"}]});
    assert_eq!(rig.get("/queue").await, (200, listed));
    let (status, job) = rig.post("/queue/mail/job", json!({"payload": "x", "state": ["new"]})).await;
    assert_eq!((status, &job["id"]), (200, &json!(1)));
    assert_eq!(rig.get("/queue/1/job").await, (200, json!({"jobs": []})));
    assert_eq!(rig.get("/queue/mail/job").await.1["jobs"][0], job);
    assert_eq!(rig.post("/queue/mail/query_jobs", json!({"query": "true"})).await.1["jobs"][0], job);
    assert_eq!(rig.get("/queue/mail/job/1").await, (200, job));
    let (status, _) = rig.post("/queue/mail/poll_job", json!({"query": "true", "state": ["taken"]})).await;
    assert_eq!(status, 200);
    let (status, _) = rig.post("/queue/mail/job/1/state", json!({"old": ["taken"], "new": 1})).await;
    assert_eq!(status, 200);
    assert_eq!(rig.post("/queue/mail/job/1/event", json!(1)).await.0, 200);
    assert_eq!(rig.delete("/queue/mail/job/1").await, (200, json!({})));
    assert_eq!(rig.delete("/queue/mail").await, (200, json!({})));
    assert_eq!(rig.get("/queue/mail/job").await.0, 404);
}

#[tokio::test]
async fn a_queue_is_a_file_that_the_library_opens() {
    let rig = Rig::new();
    rig.post("/job/create", json!({"payload": "x", "state": ["é"]})).await;
    let path = rig.directory.path().join("queues").join("jobq.sqlite3");
    let queue = forebay_jobq::JobQueue::open(path).expect("opened");
    assert!(queue.cas_state(1, json!(["é"]), json!(["seen"])).expect("cas").is_some());
    assert_eq!(rig.get("/job/1").await.1["state"], json!(["seen"]));
    rig.door.close();
    assert_eq!(rig.get("/job/1").await.0, 200, "it is opened again");
}

#[tokio::test]
async fn every_route_is_written_down_and_nothing_else_is() {
    let rig = Rig::new();
    let document = forebay_jobq::http::openapi();
    for (path, item) in document["paths"].as_object().expect("paths") {
        let path = path.replace("{queue}", "q").replace("{job}", "1");
        let path = path.strip_prefix("/api/v0").expect("all begin so");
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            let (status, answer) = rig.send(method.clone(), path, "").await;
            let is_there = status != 405 && answer["error"] != "there is nothing here";
            let is_described = item.get(method.as_str().to_lowercase()).is_some();
            assert_eq!(is_there, is_described, "{method} {path}: {status} {answer}");
        }
    }
}
