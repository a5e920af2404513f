//! kill -9 at random moments, under load, over HTTP; and an auditor that recorded every answer.
//!
//! Runners claim, start and complete jobs of a workflow that goes on, and some create them. One whose
//! server is killed goes on with what it was told as soon as there is a server again. At the end:
//! every acknowledged job is there; every acknowledged claim went to one client only; every
//! acknowledged outcome stands, once, and nothing took a newer state back; and what is left can be
//! worked off. In `memory` a kill may take claims and outcomes back that nobody has read since: their
//! jobs are done again.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::LocalSet;

use crate::http::Http;
use crate::server::{AGAIN, Profile, Server, build, runtime};

/// So many runners also create jobs.
const CREATORS: u64 = 16;
/// How long a claim waits for a job, so that idle runners are no load.
const WAIT_MS: u64 = 1_000;
/// A server is killed only once it has accepted an outcome for each so many runners,
const BUSY_PART: usize = 16;
/// or after this long.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// Rows of one page of a list.
const PAGE: u64 = 100_000;

/// What the outside was told.
#[derive(Default)]
struct Heard {
    created: BTreeSet<i64>,
    /// (job, attempt) → the servers that gave it away, by their number.
    claimed: BTreeMap<(i64, i64), Vec<u32>>,
    /// (job, attempt) → return code of the outcome that was acknowledged.
    completed: BTreeMap<(i64, i64), i64>,
    /// Outcomes that a read has shown: no kill may take them back.
    seen: BTreeSet<(i64, i64)>,
    /// Sent, and the answer never came: it may have happened.
    unheard: BTreeSet<(i64, i64)>,
    faults: Vec<String>,
    requests: u64,
}

struct World {
    heard: RefCell<Heard>,
    address: RefCell<Option<SocketAddr>>,
    /// Counts the servers.
    boot: Cell<u32>,
    /// What is answered may be taken back: `memory`.
    may_repeat: bool,
    runners: u64,
    /// Counts the creations, and those of them that an initialize was answered after.
    created: Cell<u64>,
    initialized: Cell<u64>,
    workflow: i64,
    node: i64,
    stop: RefCell<bool>,
}

/// What is to be done to a server.
pub struct Plan {
    pub durabilities: Vec<String>,
    /// In each mode.
    pub kills: u32,
    pub runners: u64,
    pub seed: u64,
}

impl Plan {
    /// So many kills in each mode, with few runners.
    pub fn of(kills: u32) -> Plan {
        Plan { durabilities: ["power", "process", "memory"].map(str::to_owned).to_vec(), kills, runners: 16, seed: 1 }
    }
}

pub fn run(plan: &Plan, profile: Profile) -> anyhow::Result<()> {
    let binary = build(profile)?;
    let Plan { durabilities, kills, runners, .. } = plan;
    for durability in durabilities {
        let start = Instant::now();
        let scratch = tempfile::tempdir()?;
        let db = scratch.path().join("crash.db");
        let heard = LocalSet::new().block_on(&runtime()?, history(&binary, &db, durability, plan))?;
        println!(
            "crash {durability}: {kills} kills, {runners} runners, {} requests, {} jobs created, {} claims, {} outcomes, nothing lost, \
             {} claims twice ({:.0} s)",
            heard.requests,
            heard.created.len(),
            heard.claimed.len(),
            heard.completed.len(),
            heard.claimed.values().filter(|boots| boots.len() > 1).count(),
            start.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// The other way to die, on a disk that remembers each write: played by the store's own harness.
pub fn power_cuts(cuts: u32, faults: u32, seed: u64) -> anyhow::Result<()> {
    let [cuts, faults, seed] = [cuts.into(), faults.into(), seed].map(|number: u64| number.to_string());
    let cargo = ["run", "--profile", "sim", "--locked", "-p", "forebay-store-sqlite", "--example", "power_cuts", "--"];
    crate::ci::sh("cargo", &[&cargo[..], &["--cuts", &cuts, "--faults", &faults, "--seed", &seed]].concat())
}

/// A small generator: the moments are to differ, and to come again with the seed.
struct Moments(u64);

impl World {
    /// Whether there are fewer jobs to do than some for each runner.
    fn lacks_jobs(&self) -> bool {
        let heard = self.heard.borrow();
        let left = heard.created.len().saturating_sub(heard.completed.len());
        left < usize::try_from(self.runners.max(100)).unwrap_or(usize::MAX)
    }

    /// Jobs were created, and a kill came before they were made ready.
    fn has_drafts(&self) -> bool {
        self.initialized.get() < self.created.get()
    }

    fn was_given_twice(&self, id: i64, attempt: i64) -> bool {
        self.heard.borrow().claimed.get(&(id, attempt)).is_some_and(|boots| boots.len() > 1)
    }
}

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

async fn history(
    binary: &std::path::Path,
    db: &std::path::Path,
    durability: &str,
    plan: &Plan,
) -> anyhow::Result<Heard> {
    let mut server = Server::start(binary, db, durability)?;
    let mut http = Http::connect(server.address).await?;
    let workflow = http.call("POST", "/workflows", Some(json!({"name": "crash", "user": "auditor"}))).await?;
    let workflow = workflow["id"].as_i64().context("a workflow has an id")?;
    let node = http
        .call(
            "POST",
            "/compute_nodes",
            Some(json!({
                "workflow_id": workflow, "hostname": "auditor", "pid": 1, "start_time": "2026-01-01T00:00:00Z",
                "num_cpus": 8, "memory_gb": 8.0, "num_gpus": 0, "num_nodes": 1, "compute_node_type": "local"
            })),
        )
        .await?;
    let node = node["id"].as_i64().context("a compute node has an id")?;
    http.call("POST", &format!("/workflows/{workflow}/reset_status"), None).await?;
    let world = Rc::new(World {
        heard: RefCell::default(),
        address: RefCell::new(Some(server.address)),
        boot: Cell::new(0),
        may_repeat: durability == "memory",
        runners: plan.runners,
        created: Cell::new(0),
        initialized: Cell::new(0),
        workflow,
        node,
        stop: RefCell::new(false),
    });
    let clients: Vec<_> =
        (0..plan.runners).map(|client| tokio::task::spawn_local(work(world.clone(), client))).collect();

    let mut moments = Moments(plan.seed);
    for _ in 0..plan.kills {
        until_busy(&world).await;
        tokio::time::sleep(Duration::from_micros(20_000 + moments.next(300_000))).await;
        world.address.replace(None);
        server.kill()?;
        server = Server::start(binary, db, durability)?;
        world.boot.set(world.boot.get() + 1);
        world.address.replace(Some(server.address));
    }
    until_busy(&world).await;
    world.stop.replace(true);
    for client in clients {
        client.await?;
    }
    work_off(&world).await?;
    let heard = world.heard.take();
    audit(&heard, server.address, &world).await?;
    Ok(heard)
}

/// Waits until this server has accepted some outcomes.
async fn until_busy(world: &World) {
    let some = usize::try_from(world.runners).unwrap_or(usize::MAX) / BUSY_PART;
    let (busy, since) = (world.heard.borrow().completed.len() + some.max(1), Instant::now());
    while world.heard.borrow().completed.len() < busy && since.elapsed() < IDLE_MAX {
        tokio::time::sleep(AGAIN).await;
    }
}

/// One runner: creates now and then, else claims, starts and completes.
async fn work(world: Rc<World>, client: u64) {
    let mut turn = client;
    while !*world.stop.borrow() {
        let boot = world.boot.get();
        let Some(mut http) = connect(&world).await else { continue };
        // An error means that the server is gone: what was not heard is not known.
        while !*world.stop.borrow() {
            turn += 1;
            let done = if client < CREATORS && turn.is_multiple_of(7) && (world.lacks_jobs() || world.has_drafts()) {
                create(&world, &mut http).await
            } else {
                one_job(&world, &mut http, boot, WAIT_MS).await.map(drop)
            };
            if done.is_err() {
                break;
            }
        }
    }
}

async fn connect(world: &World) -> Option<Http> {
    let address = *world.address.borrow();
    let connected = match address {
        Some(address) => Http::connect(address).await.ok(),
        None => None,
    };
    if connected.is_none() {
        tokio::time::sleep(AGAIN).await;
    }
    connected
}

/// A request; an answer that is not a success is a fault unless it says that it was heard before.
async fn ask(
    world: &World,
    http: &mut Http,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> anyhow::Result<(u16, Value)> {
    let (status, bytes) = http.send(method, path, body.map(|body| body.to_string().into_bytes())).await?;
    world.heard.borrow_mut().requests += 1;
    let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Ok((status.as_u16(), value))
}

async fn create(world: &World, http: &mut Http) -> anyhow::Result<()> {
    if world.lacks_jobs() {
        let jobs: Vec<Value> = (0..(world.runners / CREATORS).max(20))
            .map(|n| json!({"workflow_id": world.workflow, "name": format!("job{n}"), "command": "true"}))
            .collect();
        world.created.set(world.created.get() + 1);
        let (status, answer) = ask(world, http, "POST", "/bulk_jobs", Some(json!({"jobs": jobs}))).await?;
        if status == 200 {
            let ids = answer["jobs"].as_array().into_iter().flatten().filter_map(|job| job["id"].as_i64());
            world.heard.borrow_mut().created.extend(ids);
        } else {
            world.heard.borrow_mut().faults.push(format!("a creation was answered {status}: {answer}"));
        }
    }
    let created = world.created.get();
    let path = format!("/workflows/{}/initialize_jobs?only_uninitialized=true", world.workflow);
    let (status, answer) = ask(world, http, "POST", &path, None).await?;
    if status == 200 {
        world.initialized.set(world.initialized.get().max(created));
    } else {
        world.heard.borrow_mut().faults.push(format!("initialize was answered {status}: {answer}"));
    }
    Ok(())
}

/// Whether there was a job.
async fn one_job(world: &World, http: &mut Http, boot: u32, wait_ms: u64) -> anyhow::Result<bool> {
    let path = format!("/workflows/{}/claim_next_jobs?limit=1&wait_ms={wait_ms}", world.workflow);
    let (status, answer) = ask(world, http, "POST", &path, None).await?;
    if status != 200 {
        world.heard.borrow_mut().faults.push(format!("a claim was answered {status}: {answer}"));
    }
    let Some(job) = answer["jobs"].as_array().and_then(|jobs| jobs.first()).cloned() else {
        return Ok(false);
    };
    let id = job["id"].as_i64().context("a claimed job has an id")?;
    let attempt = job["attempt_id"].as_i64().context("a claimed job has an attempt")?;
    world.heard.borrow_mut().claimed.entry((id, attempt)).or_default().push(boot);
    finish(world, http, id, attempt).await?;
    if id % 4 == 0 && world.heard.borrow().completed.contains_key(&(id, attempt)) {
        see(world, http, id, attempt).await?;
    }
    Ok(true)
}

/// Reads a job that this server has just completed.
async fn see(world: &World, http: &mut Http, id: i64, attempt: i64) -> anyhow::Result<()> {
    let (_, job) = ask(world, http, "GET", &format!("/jobs/{id}"), None).await?;
    if job["status"] == "completed" && job["attempt_id"] == attempt {
        world.heard.borrow_mut().seen.insert((id, attempt));
    } else {
        let fault = format!("attempt {attempt} of job {id} was completed, but a read shows {job}");
        world.heard.borrow_mut().faults.push(fault);
    }
    Ok(())
}

/// What no runner has any more is given back and done.
async fn work_off(world: &Rc<World>) -> anyhow::Result<()> {
    let address = world.address.borrow().context("the last server is not killed")?;
    let mut http = Http::connect(address).await?;
    // The last kill may have come between a creation and its initialize.
    let path = format!("/workflows/{}/initialize_jobs?only_uninitialized=true", world.workflow);
    http.call("POST", &path, None).await?;
    for status in ["pending", "running"] {
        for job in list(&mut http, &format!("/jobs?workflow_id={}&status={status}", world.workflow)).await? {
            let id = job["id"].as_i64().context("a job has an id")?;
            http.call("POST", &format!("/jobs/{id}/retry/1?max_retries=1000000"), None).await?;
        }
    }
    let workers: Vec<_> = (0..world.runners.min(256))
        .map(|_| {
            let world = world.clone();
            tokio::task::spawn_local(async move {
                let mut http = Http::connect(address).await?;
                while one_job(&world, &mut http, world.boot.get(), 0).await? {}
                anyhow::Ok(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    Ok(())
}

/// All items of a list.
async fn list(http: &mut Http, path: &str) -> anyhow::Result<Vec<Value>> {
    let mut items = Vec::new();
    loop {
        let mut page = http.call("GET", &format!("{path}&limit={PAGE}&offset={}", items.len()), None).await?;
        let found = page["items"].as_array_mut().context("a list has items")?;
        items.append(found);
        if page["has_more"] != true {
            return Ok(items);
        }
    }
}

/// Start, then complete; over new connections as often as the server goes away.
async fn finish(world: &World, first: &mut Http, id: i64, attempt: i64) -> anyhow::Result<()> {
    let start = format!("/jobs/{id}/start_job/1/{}", world.node);
    let complete = format!("/jobs/{id}/complete_job/completed/1");
    let code = id % 3;
    let result = json!({
        "job_id": id, "workflow_id": world.workflow, "run_id": 1, "attempt_id": attempt,
        "compute_node_id": world.node, "return_code": code, "exec_time_minutes": 0.01,
        "completion_time": "2026-01-01T00:00:00Z", "status": "completed"
    });
    let mut gone = None;
    for (path, method, body) in [(&start, "PUT", None), (&complete, "POST", Some(result))] {
        let mut unheard = false;
        let mut connection: Option<Http> = None;
        loop {
            let http = match &mut connection {
                None if gone.is_none() => &mut *first,
                None => {
                    connection = connect(world).await;
                    continue;
                }
                Some(http) => http,
            };
            match ask(world, http, method, path, body.clone()).await {
                Ok((200, _)) => {
                    if method == "POST" {
                        world.heard.borrow_mut().completed.insert((id, attempt), code);
                    }
                    break;
                }
                // Heard before its answer was lost.
                Ok((400..=499, answer)) if unheard && is_repeat(&answer) => {
                    if method == "POST" {
                        world.heard.borrow_mut().unheard.insert((id, attempt));
                    }
                    break;
                }
                // A kill took the claim back, so that somebody else may have it.
                Ok((400..=499, _)) if world.may_repeat && (gone.is_some() || world.was_given_twice(id, attempt)) => {
                    world.heard.borrow_mut().unheard.insert((id, attempt));
                    break;
                }
                Ok((status, answer)) => {
                    let fault = format!("{path} of attempt {attempt} was answered {status}: {answer}");
                    world.heard.borrow_mut().faults.push(fault);
                    return Ok(());
                }
                Err(error) => {
                    unheard = true;
                    gone = Some(error);
                    connection = None;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }
    match gone {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// The refusal of something that was done already.
fn is_repeat(answer: &Value) -> bool {
    let text = answer.to_string();
    text.contains("already complete")
        || text.contains("invalid status=running")
        || text.contains("invalid status=Running")
}

/// Holds what was heard against what is stored.
async fn audit(heard: &Heard, address: SocketAddr, world: &World) -> anyhow::Result<()> {
    let workflow = world.workflow;
    let mut faults = heard.faults.clone();
    let mut http = Http::connect(address).await?;
    let jobs = list(&mut http, &format!("/jobs?workflow_id={workflow}")).await?;
    let states: BTreeMap<i64, (&str, i64)> = jobs
        .iter()
        .filter_map(|job| Some((job["id"].as_i64()?, (job["status"].as_str()?, job["attempt_id"].as_i64()?))))
        .collect();
    let results = list(&mut http, &format!("/results?workflow_id={workflow}&all_runs=true")).await?;
    let mut stored: BTreeMap<(i64, i64), Vec<i64>> = BTreeMap::new();
    for result in &results {
        let key = (result["job_id"].as_i64().unwrap_or(0), result["attempt_id"].as_i64().unwrap_or(0));
        stored.entry(key).or_default().push(result["return_code"].as_i64().unwrap_or(-1));
    }
    for job in heard.created.iter().filter(|job| !states.contains_key(job)) {
        faults.push(format!("job {job} was created and is lost"));
    }
    for ((job, attempt), boots) in &heard.claimed {
        let servers: BTreeSet<&u32> = boots.iter().collect();
        if boots.len() > if world.may_repeat { servers.len() } else { 1 } {
            faults.push(format!("attempt {attempt} of job {job} was handed out by servers {boots:?}"));
        }
    }
    for job in heard.created.iter().filter(|job| states.get(job).is_some_and(|(state, _)| *state != "completed")) {
        faults.push(format!("job {job} cannot be worked off: {:?}", states.get(job)));
    }
    for ((job, attempt), code) in &heard.completed {
        if world.may_repeat && !heard.seen.contains(&(*job, *attempt)) && !stored.contains_key(&(*job, *attempt)) {
            continue;
        }
        if stored.get(&(*job, *attempt)) != Some(&vec![*code]) {
            let found = stored.get(&(*job, *attempt));
            faults.push(format!("the outcome {code} of attempt {attempt} of job {job} is stored as {found:?}"));
        }
        if states.get(job).is_none_or(|(state, at)| *state != "completed" || at != attempt) {
            faults.push(format!("job {job} was completed and is {:?}", states.get(job)));
        }
    }
    for ((job, attempt), codes) in stored.iter().filter(|(_, codes)| codes.len() > 1) {
        faults.push(format!("attempt {attempt} of job {job} has the outcomes {codes:?}"));
    }
    for key in stored.keys().filter(|key| !heard.completed.contains_key(key) && !heard.unheard.contains(key)) {
        faults.push(format!("attempt {} of job {} has an outcome that nobody reported", key.1, key.0));
    }
    ensure!(!heard.completed.is_empty(), "the history did nothing");
    ensure!(faults.is_empty(), "{} faults, among them:\n{}", faults.len(), faults[..faults.len().min(20)].join("\n"));
    Ok(())
}
