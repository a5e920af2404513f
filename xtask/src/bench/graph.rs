//! A large graph: what it holds in memory, and how long its first touch takes while others are served.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::load::{compute_node, result};
use crate::http::Http;
use crate::server::{Server, given_or_built, runtime};

/// Each job but the first depends on so many before it.
const EDGES: usize = 4;

pub fn run(jobs: usize, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let binary = given_or_built(binary)?;
    let scratch = tempfile::tempdir_in(".")?;
    let db = scratch.path().join("graph.db");
    let runtime = runtime()?;
    let server = Server::start(&binary, &db, "process")?;
    let began = Instant::now();
    let (large, first) = runtime.block_on(graph(&server, jobs))?;
    println!("{jobs} jobs with {EDGES} edges each, created and initialized in {:.0} s", began.elapsed().as_secs_f64());
    server.stop()?;

    let server = Server::start(&binary, &db, "process")?;
    let address = server.address;
    let small = runtime.block_on(super::load::fill(address, 20_000))?;
    let before = server.memory("VmRSS")?;
    let touching = std::thread::spawn(move || crate::server::runtime()?.block_on(touch(address, large, first)));
    let mut claims: Vec<f64> = runtime.block_on(async {
        let mut http = Http::connect(address).await?;
        let mut claims = Vec::new();
        while !touching.is_finished() {
            let since = Instant::now();
            http.call("POST", &format!("/workflows/{}/claim_next_jobs?limit=1", small.0), None).await?;
            claims.push(since.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        anyhow::Ok(claims)
    })?;
    let touched = touching.join().ok().context("the thread came to its end")??;
    claims.sort_by(f64::total_cmp);
    let grown = server.memory("VmRSS")?.saturating_sub(before);
    println!(
        "first touch {:.2} s; {} claims of another workflow meanwhile, p99 {:.2} ms, longest {:.2} ms; \
         resident {:.0} bytes a job more",
        touched.as_secs_f64(),
        claims.len(),
        claims.get(claims.len() * 99 / 100).copied().unwrap_or(f64::NAN),
        claims.last().copied().unwrap_or(f64::NAN),
        grown as f64 / jobs as f64
    );
    ensure!(touched < Duration::from_secs(5), "a first touch within 5 s is asked");
    Ok(())
}

/// The workflow, and its first job.
async fn graph(server: &Server, jobs: usize) -> anyhow::Result<(i64, i64)> {
    let mut http = Http::connect(server.address).await?;
    let workflow = http.call("POST", "/workflows", Some(json!({"name": "graph", "user": "bench"}))).await?;
    let workflow = workflow["id"].as_i64().context("a workflow has an id")?;
    let mut first = None;
    for from in (0..jobs).step_by(10_000) {
        let base = first.unwrap_or_default();
        let job = |n: usize| {
            let behind =
                if first.is_none() { 0..0 } else { n.saturating_sub(10_000 + EDGES)..n.saturating_sub(10_000) };
            let on: Vec<i64> = behind.map(|n| base + n as i64).collect();
            json!({"workflow_id": workflow, "name": format!("job_{n}"), "command": "true", "depends_on_job_ids": on})
        };
        let some: Vec<Value> = (from..jobs.min(from + 10_000)).map(job).collect();
        let created = http.call("POST", "/bulk_jobs", Some(json!({"jobs": some}))).await?;
        first = first.or(created["jobs"][0]["id"].as_i64());
    }
    http.call("POST", &format!("/workflows/{workflow}/initialize_jobs"), None).await?;
    Ok((workflow, first.context("a job was created")?))
}

/// The first outcome after a start: it needs the graph.
async fn touch(address: std::net::SocketAddr, workflow: i64, first: i64) -> anyhow::Result<Duration> {
    let mut http = Http::connect(address).await?;
    let node = compute_node(&mut http, workflow).await?;
    let since = Instant::now();
    http.call("POST", &format!("/workflows/{workflow}/claim_next_jobs?limit=1"), None).await?;
    http.call("PUT", &format!("/jobs/{first}/start_job/0/{node}"), None).await?;
    let result = result(&first.to_string(), workflow, node).replace("\"run_id\":1", "\"run_id\":0");
    let body: Value = serde_json::from_str(&result)?;
    http.call("POST", &format!("/jobs/{first}/complete_job/completed/0"), Some(body)).await?;
    Ok(since.elapsed())
}
