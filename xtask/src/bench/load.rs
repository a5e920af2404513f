//! Three requests a job: claim_next_jobs?limit=1, start_job, complete_job.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rusqlite::OpenFlags;
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::http::Http;
use crate::server::{Profile, Server, build, runtime};

/// How runners work.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    /// Each claims one job, starts it, and reports its end, after so many milliseconds.
    One { job_ms: u64 },
    /// Each claims eight by resources, starts them, and reports them together.
    Eight,
}

/// What one side did.
#[derive(Default)]
pub(super) struct Figures {
    pub jobs: u64,
    pub seconds: f64,
    /// Microseconds of each request.
    latencies: Vec<u32>,
    /// Those of claims.
    claims: Vec<u32>,
    server_cpu: f64,
}

impl Figures {
    pub fn rate(&self) -> f64 {
        self.jobs as f64 / self.seconds
    }

    /// More of the same side.
    pub fn add(&mut self, other: Figures) {
        self.jobs += other.jobs;
        self.seconds += other.seconds;
        self.latencies.extend(other.latencies);
        self.claims.extend(other.claims);
        self.server_cpu += other.server_cpu;
    }

    /// The server's processor time for a job, in microseconds.
    pub fn server_cpu_us(&self) -> f64 {
        self.server_cpu * 1e6 / self.jobs as f64
    }

    /// Below which so much of the claims stayed, in milliseconds.
    pub fn claim_ms(&mut self, part: f64) -> f64 {
        self.claims.sort_unstable();
        let place = (self.claims.len() as f64 * part) as usize;
        self.claims.get(place).map_or(f64::NAN, |latency| f64::from(*latency) / 1000.0)
    }

    fn print(&mut self, name: &str) {
        self.latencies.sort_unstable();
        let at = |part: f64| f64::from(self.latencies[(self.latencies.len() as f64 * part) as usize]) / 1000.0;
        println!(
            "{name:28} {:9.0} jobs/s   request p50 {:7.2} ms  p99 {:7.2} ms   server CPU {:6.1} us/job",
            self.rate(),
            at(0.5),
            at(0.99),
            self.server_cpu_us()
        );
    }
}

pub fn run(ready: usize, runners: usize, seconds: u64, durability: &str) -> anyhow::Result<()> {
    let binary = build(Profile::Release)?;
    let scratch = tempfile::tempdir_in(".")?;
    let db = scratch.path().join("load.db");
    let runtime = runtime()?;
    let server = Server::start(&binary, &db, durability)?;
    let (workflow, node) = runtime.block_on(fill(server.address, ready))?;
    println!("{ready} ready jobs, {runners} runners, {seconds} s a side, durability {durability}");

    let before = commits(&db)?;
    let mut forebay =
        LocalSet::new().block_on(&runtime, load(&server, workflow, node, runners, seconds, Way::One { job_ms: 0 }))?;
    let transactions = commits(&db)? - before;
    drop(server);
    let echo = Server::echo()?;
    let mut bare =
        LocalSet::new().block_on(&runtime, load(&echo, workflow, node, runners, seconds, Way::One { job_ms: 0 }))?;
    forebay.print("forebay");
    bare.print("bare echo");
    println!(
        "ratio {:.2}; {:.0} transactions/s, {:.1} for 1 000 requests",
        forebay.rate() / bare.rate(),
        transactions as f64 / forebay.seconds,
        transactions as f64 * 1000.0 / (3 * forebay.jobs) as f64
    );
    Ok(())
}

/// A workflow with so many ready jobs.
pub(super) async fn fill(address: SocketAddr, ready: usize) -> anyhow::Result<(i64, i64)> {
    let mut http = Http::connect(address).await?;
    let workflow = http.call("POST", "/workflows", Some(json!({"name": "load", "user": "bench"}))).await?;
    let workflow = workflow["id"].as_i64().context("a workflow has an id")?;
    for from in (0..ready).step_by(50_000) {
        let jobs: Vec<Value> = (from..ready.min(from + 50_000))
            .map(|n| json!({"workflow_id": workflow, "name": format!("job_{n}"), "command": "true"}))
            .collect();
        http.call("POST", "/bulk_jobs", Some(json!({"jobs": jobs}))).await?;
    }
    http.call("POST", &format!("/workflows/{workflow}/reset_status"), None).await?;
    http.call("POST", &format!("/workflows/{workflow}/initialize_jobs"), None).await?;
    Ok((workflow, compute_node(&mut http, workflow).await?))
}

/// A compute node whose runner claims jobs of a workflow.
pub(super) async fn compute_node(http: &mut Http, workflow: i64) -> anyhow::Result<i64> {
    let node = json!({
        "workflow_id": workflow, "hostname": "bench", "pid": 1, "start_time": "2026-01-01T00:00:00Z",
        "num_cpus": 64, "memory_gb": 64.0, "num_gpus": 0, "num_nodes": 1, "compute_node_type": "local"
    });
    let node = http.call("POST", "/compute_nodes", Some(node)).await?;
    node["id"].as_i64().context("a compute node has an id")
}

pub(super) async fn load(
    server: &Server,
    workflow: i64,
    node: i64,
    runners: usize,
    seconds: u64,
    way: Way,
) -> anyhow::Result<Figures> {
    let mut connections = Vec::with_capacity(runners);
    for _ in 0..runners {
        connections.push(Http::connect(server.address).await?);
    }
    let cpu = server.cpu_seconds()?;
    let start = Instant::now();
    let until = start + Duration::from_secs(seconds);
    let latencies: Rc<RefCell<Vec<u32>>> = Rc::default();
    let claims: Rc<RefCell<Vec<u32>>> = Rc::default();
    let mut tasks = Vec::new();
    for mut http in connections {
        let (latencies, claims) = (latencies.clone(), claims.clone());
        tasks.push(tokio::task::spawn_local(async move {
            let mut jobs = 0;
            while Instant::now() < until {
                let done = match way {
                    Way::One { job_ms } => {
                        u64::from(one_job(&mut http, workflow, node, job_ms, &latencies, &claims).await?)
                    }
                    Way::Eight => eight_jobs(&mut http, workflow, node, &latencies, &claims).await?,
                };
                if done == 0 {
                    break;
                }
                jobs += done;
            }
            anyhow::Ok(jobs)
        }));
    }
    let mut jobs = 0;
    for task in tasks {
        jobs += task.await??;
    }
    let seconds = start.elapsed().as_secs_f64();
    let server_cpu = server.cpu_seconds()? - cpu;
    Ok(Figures { jobs, seconds, latencies: latencies.take(), claims: claims.take(), server_cpu })
}

/// Whether there was a job.
pub(super) async fn one_job(
    http: &mut Http,
    workflow: i64,
    node: i64,
    job_ms: u64,
    latencies: &RefCell<Vec<u32>>,
    claims: &RefCell<Vec<u32>>,
) -> anyhow::Result<bool> {
    let path = format!("/workflows/{workflow}/claim_next_jobs?limit=1");
    let answer = timed(http, "POST", &path, None, latencies).await?;
    claims.borrow_mut().extend(latencies.borrow().last());
    let Some(id) = ids(&answer).next() else { return Ok(false) };
    timed(http, "PUT", &format!("/jobs/{id}/start_job/1/{node}"), None, latencies).await?;
    if job_ms > 0 {
        tokio::time::sleep(Duration::from_millis(job_ms)).await;
    }
    let path = format!("/jobs/{id}/complete_job/completed/1");
    timed(http, "POST", &path, Some(result(id, workflow, node).into_bytes()), latencies).await?;
    Ok(true)
}

/// How many jobs there were.
async fn eight_jobs(
    http: &mut Http,
    workflow: i64,
    node: i64,
    latencies: &RefCell<Vec<u32>>,
    claims: &RefCell<Vec<u32>>,
) -> anyhow::Result<u64> {
    const FREE: &str = r#"{"num_cpus":8,"memory_gb":64.0,"num_gpus":0,"num_nodes":1}"#;
    let path = format!("/workflows/{workflow}/claim_jobs_based_on_resources/8");
    let answer = timed(http, "POST", &path, Some(FREE.into()), latencies).await?;
    claims.borrow_mut().extend(latencies.borrow().last());
    // The echo gives one job; its client does as much as if there were eight.
    let found: Vec<&str> = ids(&answer).collect();
    let Some(first) = found.first() else { return Ok(0) };
    let ids: Vec<&str> = if found.len() == 1 { vec![*first; 8] } else { found.clone() };
    let mut completions = Vec::with_capacity(ids.len());
    for id in &ids {
        timed(http, "PUT", &format!("/jobs/{id}/start_job/1/{node}"), None, latencies).await?;
        let result = result(id, workflow, node);
        completions.push(format!(r#"{{"job_id":{id},"status":"completed","run_id":1,"result":{result}}}"#));
    }
    let body = format!(r#"{{"completions":[{}]}}"#, completions.join(","));
    let path = format!("/workflows/{workflow}/batch_complete_jobs");
    timed(http, "POST", &path, Some(body.into_bytes()), latencies).await?;
    Ok(ids.len() as u64)
}

/// The ids of jobs in an answer.
pub(super) fn ids(answer: &str) -> impl Iterator<Item = &str> {
    answer.split("{\"id\":").skip(1).filter_map(|rest| rest.split([',', '}']).next())
}

pub(super) fn result(id: &str, workflow: i64, node: i64) -> String {
    format!(
        r#"{{"job_id":{id},"workflow_id":{workflow},"run_id":1,"attempt_id":1,"compute_node_id":{node},"return_code":0,"exec_time_minutes":0.01,"completion_time":"2026-01-01T00:00:00Z","status":"completed"}}"#
    )
}

async fn timed(
    http: &mut Http,
    method: &str,
    path: &str,
    body: Option<Vec<u8>>,
    latencies: &RefCell<Vec<u32>>,
) -> anyhow::Result<String> {
    let start = Instant::now();
    let (status, bytes) = http.send(method, path, body).await?;
    latencies.borrow_mut().push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    ensure!(status.is_success(), "{method} {path}: {status}: {text}");
    Ok(text)
}

/// How many batches the store has committed: the number of the last one.
pub(super) fn commits(db: &Path) -> anyhow::Result<i64> {
    let connection = rusqlite::Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(connection.query_row("SELECT value FROM meta WHERE name = 'lsn'", [], |row| row.get(0))?)
}
