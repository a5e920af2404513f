//! Workers that pull: one call a task, which reports the last one and takes the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use forebay_tasks::activation::Activation;
use forebay_tasks::proto::ours::tasks_client::TasksClient;
use forebay_tasks::proto::taskbroker::consumer_service_client::ConsumerServiceClient;
use forebay_tasks::proto::taskbroker::{FetchNextTask, GetTaskRequest, SetTaskStatusRequest, TaskActivationStatus};
use tokio::sync::{Barrier, Semaphore};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::fill::{self, APPLICATION};

/// A worker of taskbroker is a process with one connection and some children, each of which has one task
/// at a time.
const WORKERS_PER_CONNECTION: usize = 8;

/// Tasks of one request where they come while others are worked on.
const BATCH: u64 = 100;

/// Producers then, each with one request at a time.
const PRODUCERS: usize = 4;

/// How it is worked.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub workers: usize,
    /// How long a task takes.
    pub task_ms: u64,
    /// All workers together do so many tasks a second, evenly; without it as many as go.
    pub per_second: Option<f64>,
    /// As many tasks come as are done.
    pub with_ingest: bool,
    pub length: Duration,
}

/// What was done.
#[derive(Debug, Default, Clone)]
pub struct Pulled {
    pub tasks: u64,
    pub seconds: f64,
    /// Tasks that came meanwhile.
    pub enqueued: u64,
    /// Microseconds of each call.
    pub latencies: Vec<u32>,
}

/// What workers and producers have together.
struct Shared {
    load: Load,
    /// All have a task.
    ready: Barrier,
    done: AtomicU64,
    enqueued: AtomicU64,
    /// Batches that are to come.
    wanted: Semaphore,
}

/// One worker's.
struct Worked {
    ended: Instant,
    latencies: Vec<u32>,
}

pub async fn connect(address: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
    Ok(endpoint.connect().await?)
}

/// Works until the time is over or nothing is left.
pub async fn pull(address: SocketAddr, load: Load) -> anyhow::Result<Pulled> {
    let shared = Arc::new(Shared {
        load,
        ready: Barrier::new(load.workers + 1),
        done: AtomicU64::new(0),
        enqueued: AtomicU64::new(0),
        wanted: Semaphore::new(0),
    });
    let mut workers = Vec::with_capacity(load.workers);
    let mut channel = connect(address).await?;
    for place in 0..load.workers {
        if place % WORKERS_PER_CONNECTION == 0 && place > 0 {
            channel = connect(address).await?;
        }
        let client = ConsumerServiceClient::new(channel.clone());
        workers.push(tokio::spawn(work(client, shared.clone(), place)));
    }
    let mut producers = Vec::new();
    if load.with_ingest {
        let channel = connect(address).await?;
        for _ in 0..PRODUCERS {
            producers.push(tokio::spawn(produce(TasksClient::new(channel.clone()), shared.clone())));
        }
    }
    shared.ready.wait().await;
    let begun = Instant::now();
    let mut pulled = Pulled::default();
    let mut ended = begun;
    for worker in workers {
        let mut worked = worker.await??;
        ended = ended.max(worked.ended);
        pulled.latencies.append(&mut worked.latencies);
    }
    shared.wanted.close();
    for producer in producers {
        producer.await??;
    }
    pulled.tasks = pulled.latencies.len() as u64;
    pulled.seconds = (ended - begun).as_secs_f64();
    pulled.enqueued = shared.enqueued.load(Ordering::Relaxed);
    Ok(pulled)
}

async fn work(mut client: ConsumerServiceClient<Channel>, shared: Arc<Shared>, place: usize) -> anyhow::Result<Worked> {
    let mut task = get(&mut client).await?;
    shared.ready.wait().await;
    let load = shared.load;
    let begun = Instant::now();
    let until = begun + load.length;
    let period = load.per_second.map(|rate| Duration::from_secs_f64(load.workers as f64 / rate));
    let mut next = begun + period.unwrap_or_default().mul_f64(place as f64 / load.workers as f64);
    let mut worked = Worked { ended: begun, latencies: Vec::new() };
    while let Some(current) = task.take() {
        if load.task_ms > 0 {
            tokio::time::sleep(Duration::from_millis(load.task_ms)).await;
        }
        if let Some(period) = period {
            tokio::time::sleep_until(next.into()).await;
            next += period;
        }
        let since = Instant::now();
        if since >= until {
            // Nothing is left behind.
            set(&mut client, current, false).await?;
            break;
        }
        task = set(&mut client, current, true).await?;
        worked.ended = Instant::now();
        let took = worked.ended - since;
        worked.latencies.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        let done = shared.done.fetch_add(1, Ordering::Relaxed) + 1;
        if load.with_ingest && done.is_multiple_of(BATCH) {
            shared.wanted.add_permits(1);
        }
        if task.is_none() && load.with_ingest {
            task = get(&mut client).await?;
        }
    }
    Ok(worked)
}

async fn produce(mut client: TasksClient<Channel>, shared: Arc<Shared>) -> anyhow::Result<()> {
    while let Ok(wanted) = shared.wanted.acquire().await {
        wanted.forget();
        fill::enqueue(&mut client, BATCH).await?;
        shared.enqueued.fetch_add(BATCH, Ordering::Relaxed);
    }
    Ok(())
}

async fn get(client: &mut ConsumerServiceClient<Channel>) -> anyhow::Result<Option<Activation>> {
    let request = GetTaskRequest { namespace: None, application: Some(APPLICATION.to_owned()) };
    match client.get_task(request).await {
        Ok(answer) => Ok(answer.into_inner().task),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status).context("GetTask"),
    }
}

async fn set(
    client: &mut ConsumerServiceClient<Channel>,
    task: Activation,
    takes_next: bool,
) -> anyhow::Result<Option<Activation>> {
    let request = SetTaskStatusRequest {
        id: task.id()?.to_owned(),
        status: TaskActivationStatus::Complete.into(),
        fetch_next_task: takes_next
            .then(|| FetchNextTask { namespace: None, application: Some(APPLICATION.to_owned()) }),
        ..SetTaskStatusRequest::default()
    };
    Ok(client.set_task_status(request).await.context("SetTaskStatus")?.into_inner().task)
}
