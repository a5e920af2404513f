//! What it takes to look at a workflow of ten thousand jobs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::load::{compute_node, result};
use crate::compat;
use crate::http::Http;
use crate::server::{Server, given_or_built, runtime};

const JOBS: usize = 10_000;
/// So many of them are done, so many wait for one job; the others are ready.
const DONE: usize = 4_000;
const DEPENDENTS: usize = 1_000;
const ROUNDS: usize = 25;

/// What is looked at, and the most milliseconds that are asked for.
const LOOKS: [(&str, f64); 4] = [("list jobs", 20.0), ("ready jobs", 10.0), ("results", 15.0), ("dependents", 5.0)];

pub fn run(with_peer: bool, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let binary = given_or_built(binary)?;
    let scratch = tempfile::tempdir_in(".")?;
    println!("{JOBS} jobs: {DONE} done, {DEPENDENTS} wait for one; the median of {ROUNDS} looks, each at all");
    let ours = side("forebay", Server::start(&binary, &scratch.path().join("lists.db"), "process")?)?;
    if with_peer {
        side("torc-server", peer(&scratch.path().join("torc.db"))?)?;
    }
    for ((name, most), is) in LOOKS.into_iter().zip(ours) {
        ensure!(is <= most, "{name}: {is:.1} ms, {most} asked");
    }
    Ok(())
}

fn peer(db: &Path) -> anyhow::Result<Server> {
    std::fs::File::create(db).context("torc-server wants a file that is there")?;
    Server::torc(&compat::torc_server()?, db)
}

/// The medians in milliseconds.
fn side(name: &str, server: Server) -> anyhow::Result<[f64; LOOKS.len()]> {
    runtime()?.block_on(async {
        let (workflow, first) = fill(server.address).await?;
        let paths = [
            (format!("/jobs?workflow_id={workflow}"), JOBS),
            (format!("/jobs?workflow_id={workflow}&status=ready"), JOBS - DONE - DEPENDENTS),
            (format!("/results?workflow_id={workflow}"), DONE),
            (format!("/jobs?workflow_id={workflow}&upstream_job_id={first}"), DEPENDENTS),
        ];
        let mut medians = [0.0; LOOKS.len()];
        let mut http = Http::connect(server.address).await?;
        for (place, (path, count)) in paths.iter().enumerate() {
            let mut took = Vec::new();
            let cpu = server.cpu_seconds()?;
            for _ in 0..ROUNDS {
                let begin = Instant::now();
                let (status, answer) = http.send("GET", path, None).await?;
                took.push(begin.elapsed().as_secs_f64() * 1e3);
                ensure!(status.is_success(), "{path}: {status}");
                let answer: Value = serde_json::from_slice(&answer)?;
                ensure!(answer["items"].as_array().map(Vec::len) == Some(*count), "{path} shows others than {count}");
            }
            took.sort_by(f64::total_cmp);
            medians[place] = took[took.len() / 2];
            let (look, most) = LOOKS[place];
            println!(
                "  {name:12} {look:10} ({count:5} shown) {:8.2} ms ({:.2} to {:.2}), server CPU {:6.2} ms   {most} asked",
                medians[place],
                took[0],
                took[took.len() - 1],
                (server.cpu_seconds()? - cpu) * 1e3 / ROUNDS as f64
            );
        }
        Ok(medians)
    })
}

/// A workflow that is half done, and its first job, which is ready.
async fn fill(address: SocketAddr) -> anyhow::Result<(i64, i64)> {
    let mut http = Http::connect(address).await?;
    let workflow = http.call("POST", "/workflows", Some(json!({"name": "lists", "user": "bench"}))).await?;
    let workflow = workflow["id"].as_i64().context("a workflow has an id")?;
    let job = |n: usize| json!({"workflow_id": workflow, "name": format!("job_{n}"), "command": "true"});
    let free: Vec<Value> = (0..JOBS - DEPENDENTS).map(job).collect();
    let made = http.call("POST", "/bulk_jobs", Some(json!({"jobs": free}))).await?;
    let first = made["jobs"][0]["id"].as_i64().context("a job has an id")?;
    let waits = |n: usize| {
        let mut job = job(n);
        job["depends_on_job_ids"] = json!([first]);
        job["priority"] = json!(0);
        job
    };
    let waiting: Vec<Value> = (JOBS - DEPENDENTS..JOBS).map(waits).collect();
    http.call("POST", "/bulk_jobs", Some(json!({"jobs": waiting}))).await?;
    http.call("POST", &format!("/workflows/{workflow}/reset_status"), None).await?;
    http.call("POST", &format!("/workflows/{workflow}/initialize_jobs"), None).await?;
    let node = compute_node(&mut http, workflow).await?;
    // The last ones are done, so that the first stays as it is.
    let ids: Vec<i64> = (first + 1..).take(DONE).collect();
    for part in ids.chunks(500) {
        let done = |id: &i64| {
            let result: Value = serde_json::from_str(&result(&id.to_string(), workflow, node)).expect("it is JSON");
            json!({"job_id": id, "status": "completed", "run_id": 1, "result": result})
        };
        let completions: Vec<Value> = part.iter().map(done).collect();
        let path = format!("/workflows/{workflow}/batch_complete_jobs");
        let done = http.call("POST", &path, Some(json!({"completions": completions}))).await?;
        ensure!(done["errors"].as_array().is_none_or(Vec::is_empty), "{done}");
    }
    Ok((workflow, first))
}
