//! A server with a database of its own, and a client.

use std::sync::Arc;
use std::time::Duration;

use forebay_engine::{Engine, EngineHandle, SystemClock};
use forebay_server::{Options, Server};
use forebay_store_sqlite::{Durability, SqliteReader, SqliteStore};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Where torc's API begins.
pub const BASE: &str = "/torc-service/v1";

pub struct World {
    pub server: Server,
    pub engine: EngineHandle,
    client: Client<HttpConnector, Full<Bytes>>,
    _folder: TempDir,
}

pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answered {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|_| panic!("no JSON: {:?}", self.bytes))
    }

    /// The refusal's text.
    pub fn message(&self) -> String {
        self.json()["error"]["message"].as_str().expect("a refusal has a text").to_owned()
    }
}

impl World {
    pub async fn start() -> World {
        World::with(Options::loopback()).await
    }

    pub async fn with(options: Options) -> World {
        World::on(forebay_engine::Options::process(|| Ok(())), options).await
    }

    pub async fn on(engine: forebay_engine::Options, options: Options) -> World {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("test.db");
        let stored = forebay_store_sqlite::Options { durability: Durability::Process, ..Default::default() };
        let store = SqliteStore::open(&path, stored).expect("a new database");
        let readers = move || SqliteReader::open(&path).map_err(|error| panic!("a reader: {error}"));
        let engine = Engine::start(store, readers, Arc::new(SystemClock::new()), engine).expect("an engine");
        let server = Server::start(options, engine.clone()).await.expect("a server");
        let client = Client::builder(TokioExecutor::new()).build_http();
        World { server, engine, client, _folder: folder }
    }

    /// Sends a request to a path after the base.
    pub async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Answered {
        let body = body.map(|body| body.to_string());
        let request = Request::builder().method(method).uri(format!("http://{}{BASE}{path}", self.server.address()));
        let request = match body {
            Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(Full::from(body)),
            None => request.body(Full::default()),
        };
        self.raw(request.expect("a request")).await
    }

    pub async fn raw(&self, request: Request<Full<Bytes>>) -> Answered {
        let (head, body) = self.client.request(request).await.expect("an answer").into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        Answered { status: head.status.as_u16(), headers: head.headers, bytes }
    }

    /// An answer whose body goes on.
    pub async fn stream(&self, path: &str, headers: HeaderMap) -> hyper::Response<hyper::body::Incoming> {
        let mut request = Request::builder().uri(format!("http://{}{BASE}{path}", self.server.address()));
        *request.headers_mut().expect("the URI is one") = headers;
        self.client.request(request.body(Full::default()).expect("a request")).await.expect("an answer")
    }

    pub async fn get(&self, path: &str) -> Value {
        self.ok(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        self.ok(Method::POST, path, Some(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Value {
        self.ok(Method::PUT, path, Some(body)).await
    }

    pub async fn delete(&self, path: &str) -> Value {
        self.ok(Method::DELETE, path, None).await
    }

    pub async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let answered = self.send(method.clone(), path, body).await;
        assert_eq!(answered.status, 200, "{method} {path}: {:?}", answered.bytes);
        answered.json()
    }

    /// A request that is refused: its status and text.
    pub async fn refused(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let answered = self.send(method, path, body).await;
        (answered.status, answered.message())
    }

    /// A new workflow's id.
    pub async fn workflow(&self) -> i64 {
        id(&self.post("/workflows", json!({"name": "w", "user": "u"})).await)
    }

    /// A workflow of so many ready jobs `j0`, `j1`, …; its id and theirs.
    pub async fn ready_jobs(&self, count: usize) -> (i64, Vec<i64>) {
        let workflow = self.workflow().await;
        let jobs = self.jobs(workflow, (0..count).map(|n| json!({"name": format!("j{n}")})).collect()).await;
        self.run(workflow).await;
        (workflow, jobs)
    }

    /// Creates jobs from what is not the same for all; their ids.
    pub async fn jobs(&self, workflow: i64, mut jobs: Vec<Value>) -> Vec<i64> {
        for job in &mut jobs {
            job["workflow_id"] = json!(workflow);
            if job["command"].is_null() {
                job["command"] = json!("true");
            }
        }
        let created = self.post("/bulk_jobs", json!({"jobs": jobs})).await;
        created["jobs"].as_array().expect("jobs").iter().map(id).collect()
    }

    /// Begins run 1.
    pub async fn run(&self, workflow: i64) {
        self.post(&format!("/workflows/{workflow}/reset_status"), json!({})).await;
        self.post(&format!("/workflows/{workflow}/initialize_jobs"), json!({})).await;
    }

    pub async fn node(&self, workflow: i64) -> i64 {
        id(&self.post("/compute_nodes", node(workflow)).await)
    }

    /// Claims by order; the jobs.
    pub async fn claim(&self, workflow: i64, limit: i64) -> Vec<Value> {
        let claimed = self.post(&format!("/workflows/{workflow}/claim_next_jobs?limit={limit}"), json!({})).await;
        claimed["jobs"].as_array().expect("jobs").clone()
    }

    pub async fn status_of(&self, job: i64) -> String {
        self.get(&format!("/jobs/{job}")).await["status"].as_str().expect("a status").to_owned()
    }

    pub async fn stop(self) {
        let patience = Duration::from_secs(10);
        let (finished, _) = tokio::join!(self.server.stop(patience), self.engine.stop(patience));
        assert!(finished, "a connection did not end");
    }
}

pub fn id(value: &Value) -> i64 {
    value["id"].as_i64().expect("an id")
}

pub fn node(workflow: i64) -> Value {
    json!({"workflow_id": workflow, "hostname": "host", "pid": 1, "start_time": "2026-01-01T00:00:00Z",
           "num_cpus": 4, "memory_gb": 8.0, "num_gpus": 0, "num_nodes": 1, "compute_node_type": "local",
           "is_active": true})
}

/// A result of this job.
pub fn result(workflow: i64, job: i64, node: i64, status: &str) -> Value {
    json!({"workflow_id": workflow, "job_id": job, "run_id": 1, "attempt_id": 1, "compute_node_id": node,
           "return_code": if status == "completed" { 0 } else { 1 }, "exec_time_minutes": 0.5,
           "completion_time": "2026-01-01T00:01:00Z", "status": status})
}
