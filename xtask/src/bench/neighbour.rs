//! What the runners of one workflow notice while another one is changed in bulk.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::load::{fill, one_job};
use crate::http::Http;
use crate::server::{Server, given_or_built, runtime};

const RUNNERS: usize = 16;
/// A runner's job takes so long, so that the server is not the limit of the quiet side.
const JOB_MS: u64 = 10;
const ROUNDS: usize = 3;
/// So many jobs wait for one.
const FREED: usize = 25_000;

/// When each claim was answered, and after how many microseconds.
type Claims = RefCell<Vec<(Instant, u32)>>;

pub fn run(jobs: usize, durability: &str, binary: Option<PathBuf>) -> anyhow::Result<()> {
    let binary = given_or_built(binary)?;
    let scratch = tempfile::tempdir_in(".")?;
    let server = Server::start(&binary, &scratch.path().join("neighbour.db"), durability)?;
    println!("{RUNNERS} runners of jobs of {JOB_MS} ms, {jobs} jobs beside them, durability {durability}");
    let (claims, phases) = LocalSet::new().block_on(&runtime()?, both(server.address, jobs))?;
    let [quiet, others @ ..] = ["quiet", "create", "initialize", "free", "reset", "delete"].map(|name| {
        let figures = Figures::of(name, &claims, &phases);
        figures.print(name);
        figures
    });
    let most = 3.0 * quiet.p99 + 10.0;
    let longest = others.iter().map(|other| other.p99).fold(0.0, f64::max);
    println!("largest p99 {longest:.2} ms, at most 3 times the quiet one and 10 ms, {most:.2} ms, asked");
    ensure!(longest <= most, "a change in bulk is noticed too much beside it");
    Ok(())
}

/// A name, and from when until when.
type Phase = (&'static str, Instant, Instant);

async fn both(address: SocketAddr, jobs: usize) -> anyhow::Result<(Vec<(Instant, u32)>, Vec<Phase>)> {
    let (workflow, node) = fill(address, 200_000).await?;
    let claims: Rc<Claims> = Rc::default();
    let is_over: Rc<Cell<bool>> = Rc::default();
    let mut tasks = Vec::new();
    for _ in 0..RUNNERS {
        let mut http = Http::connect(address).await?;
        let (claims, is_over) = (claims.clone(), is_over.clone());
        tasks.push(tokio::task::spawn_local(async move {
            let (all, own) = (RefCell::default(), RefCell::new(Vec::new()));
            while !is_over.get() {
                one_job(&mut http, workflow, node, JOB_MS, &all, &own).await?;
                let at = Instant::now();
                claims.borrow_mut().extend(own.borrow_mut().drain(..).map(|took| (at, took)));
            }
            anyhow::Ok(())
        }));
    }
    // On a thread of its own: whoever writes and reads such bodies keeps no runner waiting.
    let beside = tokio::task::spawn_blocking(move || runtime()?.block_on(changes(address, jobs, node)));
    let phases = beside.await?;
    is_over.set(true);
    for task in tasks {
        task.await??;
    }
    Ok((claims.take(), phases?))
}

/// Creates, initializes, resets and deletes many jobs of another workflow.
async fn changes(address: SocketAddr, jobs: usize, node: i64) -> anyhow::Result<Vec<Phase>> {
    let mut phases = Vec::new();
    let mut http = Http::connect(address).await?;
    for _ in 0..ROUNDS {
        let mut begun = Instant::now();
        let mut end =
            |name: &'static str| phases.push((name, std::mem::replace(&mut begun, Instant::now()), Instant::now()));
        tokio::time::sleep(Duration::from_secs(2)).await;
        end("quiet");
        let workflow = http.call("POST", "/workflows", Some(json!({"name": "beside", "user": "bench"}))).await?;
        let workflow = workflow["id"].as_i64().context("a workflow has an id")?;
        let bodies = (0..jobs).step_by(10_000).map(|from| {
            let some = from..jobs.min(from + 10_000);
            let some = some.map(|n| json!({"workflow_id": workflow, "name": format!("job_{n}"), "command": "true"}));
            json!({"jobs": some.collect::<Vec<Value>>()})
        });
        for body in bodies {
            http.call("POST", "/bulk_jobs", Some(body)).await?;
        }
        let first = json!({"workflow_id": workflow, "name": "first", "command": "true", "priority": 9});
        let first = http.call("POST", "/jobs", Some(first)).await?["id"].as_i64().context("a job has an id")?;
        let behind = (0..FREED).map(|n| {
            json!({"workflow_id": workflow, "name": format!("behind_{n}"), "command": "true", "depends_on_job_ids": [first]})
        });
        http.call("POST", "/bulk_jobs", Some(json!({"jobs": behind.collect::<Vec<Value>>()}))).await?;
        end("create");
        http.call("POST", &format!("/workflows/{workflow}/initialize_jobs"), None).await?;
        end("initialize");
        http.call("POST", &format!("/workflows/{workflow}/claim_next_jobs?limit=1"), None).await?;
        http.call("PUT", &format!("/jobs/{first}/start_job/0/{node}"), None).await?;
        let done = json!({
            "job_id": first, "workflow_id": workflow, "run_id": 0, "attempt_id": 1, "compute_node_id": node,
            "return_code": 0, "exec_time_minutes": 0.0, "completion_time": "2026-01-01T00:00:00Z", "status": "completed"
        });
        http.call("POST", &format!("/jobs/{first}/complete_job/completed/0"), Some(done)).await?;
        // Those that it kept waiting are answered with it or just behind it.
        tokio::time::sleep(Duration::from_millis(100)).await;
        end("free");
        http.call("POST", &format!("/workflows/{workflow}/reset_job_status"), None).await?;
        end("reset");
        http.call("DELETE", &format!("/workflows/{workflow}"), None).await?;
        // Its rows go behind the answer.
        tokio::time::sleep(Duration::from_secs(2)).await;
        end("delete");
    }
    Ok(phases)
}

/// The claims of all phases of a name, in milliseconds.
struct Figures {
    /// Of one phase.
    seconds: f64,
    claims: usize,
    p50: f64,
    p99: f64,
    longest: f64,
}

impl Figures {
    fn of(name: &str, claims: &[(Instant, u32)], phases: &[Phase]) -> Figures {
        let of_phase = || phases.iter().filter(|phase| phase.0 == name);
        let is_in = |at: &Instant| of_phase().any(|(_, from, until)| from <= at && at <= until);
        let mut took: Vec<u32> = claims.iter().filter(|(at, _)| is_in(at)).map(|(_, took)| *took).collect();
        took.sort_unstable();
        let at = |part: f64| {
            let place = (took.len() as f64 * part) as usize;
            took.get(place.min(took.len().saturating_sub(1))).map_or(f64::NAN, |took| f64::from(*took) / 1e3)
        };
        let seconds: f64 = of_phase().map(|(_, from, until)| (*until - *from).as_secs_f64()).sum();
        let (p50, p99, longest) = (at(0.5), at(0.99), at(1.0));
        Figures { seconds: seconds / ROUNDS as f64, claims: took.len(), p50, p99, longest }
    }

    fn print(&self, name: &str) {
        let Figures { seconds, claims, p50, p99, longest } = self;
        println!(
            "{name:12} {seconds:6.2} s each   {claims:7} claims   p50 {p50:6.2} ms   p99 {p99:7.2} ms   longest {longest:7.2} ms"
        );
    }
}
