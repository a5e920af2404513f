//! How fast streams of workers do tasks of no length, beside what the store alone carries of it: the same
//! batches, once more, into a copy of the same database.
//!
//!     cargo run --release -p forebay-tasks --example stream_rate -- [--tasks N] [--streams N,N] [--credit N] [--rounds N] [--power]
//!
//! All of it is one process, so what is printed of processor time is told apart by its threads.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use forebay_domain::batch::{Batch, Outcomes};
use forebay_domain::port::{Recovered, Store, StoreError};
use forebay_engine::{Engine, EngineHandle, SystemClock};
use forebay_store_sqlite::{Durability, SqliteReader, SqliteStore};
use forebay_tasks::activation::{Activation, Known};
use forebay_tasks::proto::ours::tasks_client::TasksClient;
use forebay_tasks::proto::ours::{EnqueueRequest, FromWorker, Hello, NewTask, Report, Source};
use forebay_tasks::proto::taskbroker::TaskActivationStatus::Complete;
use forebay_tasks::{Door, Options};
use futures_util::stream;
use prost::Message;
use tokio::sync::mpsc;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

struct Setup {
    tasks: u64,
    streams: Vec<usize>,
    credit: u32,
    rounds: usize,
    durability: Durability,
}

fn main() {
    let streams = vec![1, 4, 16];
    let mut setup = Setup { tasks: 200_000, streams, credit: 256, rounds: 3, durability: Durability::Process };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("a value follows the option");
        match arg.as_str() {
            "--tasks" => setup.tasks = value().parse().expect("--tasks is a number"),
            "--streams" => {
                let numbers = value();
                setup.streams = numbers.split(',').map(|number| number.parse().expect("numbers")).collect();
            }
            "--credit" => setup.credit = value().parse().expect("--credit is a number"),
            "--rounds" => setup.rounds = value().parse().expect("--rounds is a number"),
            "--power" => setup.durability = Durability::Power,
            _ => panic!("no such option: {arg}"),
        }
    }
    let folder = tempfile::tempdir_in(".").expect("a folder can be made");
    let filled = folder.path().join("filled.db");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(fill(&filled, setup.tasks));
    println!("{} tasks, a credit of {}, {:?}", setup.tasks, setup.credit, setup.durability);
    for &streams in &setup.streams {
        let mut ratios = Vec::new();
        for _ in 0..setup.rounds {
            let worked = folder.path().join("worked.db");
            fs::copy(&filled, &worked).expect("it can be copied");
            let (rate, batches) = runtime.block_on(work(&worked, &setup, streams));
            fs::copy(&filled, &worked).expect("it can be copied");
            let alone = store_alone(&worked, &setup, &batches);
            ratios.push(rate / alone);
        }
        ratios.sort_by(f64::total_cmp);
        println!("{streams:>3} streams, of what the store alone carries, median: {:.2}", ratios[ratios.len() / 2]);
    }
}

/// A database in which so many tasks are pending.
async fn fill(path: &Path, tasks: u64) {
    let (engine, _) = start(path, Durability::Process);
    let door = Door::open(engine.clone(), Options::default()).await.expect("a door");
    let mut client = TasksClient::new(door.services());
    for first in (0..tasks).step_by(1_000) {
        let tasks = (first..tasks.min(first + 1_000)).map(|number| {
            let known = Known {
                id: format!("{number:032x}"),
                namespace: "mail".into(),
                taskname: "send".into(),
                processing_deadline_duration: 30,
                application: Some("shop".into()),
                parameters_bytes: vec![0x80; 64],
                ..Known::default()
            };
            let activation = Some(Activation::from_bytes(known.encode_to_vec()));
            NewTask { activation, ..NewTask::default() }
        });
        client.enqueue(EnqueueRequest { tasks: tasks.collect() }).await.expect("they are enqueued");
    }
    engine.stop(Duration::from_secs(60)).await;
}

/// All tasks are claimed and completed by so many streams: tasks a second, and what was written.
async fn work(path: &Path, setup: &Setup, streams: usize) -> (f64, Vec<Batch>) {
    let (engine, written) = start(path, setup.durability);
    let door = Door::open(engine.clone(), Options::default()).await.expect("a door");
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().expect("an address")).expect("it listens");
    let address = incoming.local_addr().expect("it has an address");
    tokio::spawn(Server::builder().add_routes(door.services()).serve_with_incoming(incoming.with_nodelay(Some(true))));
    let done = Arc::new(AtomicU64::new(0));
    let (began, cpu) = (Instant::now(), Cpu::now());
    let workers: Vec<_> =
        (0..streams).map(|_| tokio::spawn(worker(address, setup.credit, setup.tasks, Arc::clone(&done)))).collect();
    for worker in workers {
        worker.await.expect("no worker panics");
    }
    let (took, cpu) = (began.elapsed(), cpu.until_now());
    door.stop();
    engine.stop(Duration::from_secs(60)).await;
    let batches = std::mem::take(&mut *written.lock().unwrap_or_else(PoisonError::into_inner));
    let rate = setup.tasks as f64 / took.as_secs_f64();
    println!("{streams:>3} streams: {rate:>7.0} tasks/s, {} commits; {}", batches.len(), cpu.show(setup.tasks));
    (rate, batches)
}

/// Takes tasks, and completes them at once, until all are done.
async fn worker(address: SocketAddr, credit: u32, tasks: u64, done: Arc<AtomicU64>) {
    let mut client = TasksClient::connect(format!("http://{address}")).await.expect("a connection");
    let (say, said) = mpsc::channel(64);
    let said = stream::unfold(said, async |mut said| Some((said.recv().await?, said)));
    let source = Source { application: Some("shop".into()), namespace: None };
    let hello = FromWorker { hello: Some(Hello { sources: vec![source] }), credit, ..FromWorker::default() };
    say.send(hello).await.expect("it is sent");
    let mut heard = client.work(said).await.expect("it is served").into_inner();
    let mut reported = BTreeMap::new();
    let mut number = 0;
    while done.load(Ordering::Relaxed) < tasks {
        let next = tokio::time::timeout(Duration::from_millis(20), heard.message()).await;
        // Another worker may have had the last task.
        let Ok(message) = next else { continue };
        let message = message.expect("it goes on").expect("it goes on");
        for answer in message.answers {
            assert!(answer.stale_reports.is_empty(), "{answer:?}");
            done.fetch_add(reported.remove(&answer.number).expect("it was reported"), Ordering::Relaxed);
        }
        if !message.attempts.is_empty() {
            number += 1;
            reported.insert(number, message.attempts.len() as u64);
            let credit = message.attempts.len() as u32;
            let report = |lease| Report { lease, status: Complete.into(), ..Report::default() };
            let reports = message.attempts.into_iter().map(|attempt| report(attempt.lease)).collect();
            say.send(FromWorker { number, reports, credit, ..FromWorker::default() }).await.expect("it is sent");
        }
    }
}

/// Commits the same batches into a database that is as it was before: tasks a second.
fn store_alone(path: &Path, setup: &Setup, batches: &[Batch]) -> f64 {
    let options = forebay_store_sqlite::Options { durability: setup.durability, ..Default::default() };
    let mut store = SqliteStore::open(path, options).expect("a database");
    store.recover().expect("it recovers");
    let (began, cpu) = (Instant::now(), Cpu::now());
    for batch in batches {
        store.commit(batch).expect("it is committed");
    }
    let rate = setup.tasks as f64 / began.elapsed().as_secs_f64();
    println!("     store alone: {rate:>7.0} tasks/s; {}", cpu.until_now().show(setup.tasks));
    store.close().expect("it is closed");
    rate
}

type Written = Arc<Mutex<Vec<Batch>>>;

/// A store that keeps what it is given.
struct Keeping {
    store: SqliteStore,
    written: Written,
}

impl Store for Keeping {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        self.store.recover()
    }

    fn commit(&mut self, batch: &Batch) -> Result<Outcomes, StoreError> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).push(batch.clone());
        self.store.commit(batch)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.store.sync()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.store.close()
    }
}

fn start(path: &Path, durability: Durability) -> (EngineHandle, Written) {
    let options = forebay_store_sqlite::Options { durability, ..Default::default() };
    let store = SqliteStore::open(path, options).expect("a database");
    let mut syncer = store.syncer().expect("it can be synced");
    let readers = {
        let path = path.to_owned();
        move || SqliteReader::open(&path).map_err(|error| panic!("a reader: {error}"))
    };
    let options = match durability {
        Durability::Power => forebay_engine::Options::power(),
        Durability::Process => forebay_engine::Options::process(move || syncer.sync()),
    };
    let written = Written::default();
    let store = Keeping { store, written: Arc::clone(&written) };
    (Engine::start(store, readers, Arc::new(SystemClock::new()), options).expect("an engine"), written)
}

/// What the processors did, by the names of this process's threads.
struct Cpu(BTreeMap<String, Duration>);

impl Cpu {
    fn now() -> Cpu {
        let mut of = BTreeMap::new();
        for task in fs::read_dir("/proc/self/task").expect("this is Linux").flatten() {
            // A thread that ends meanwhile is none of those that are measured.
            let file = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
            let ns = file("schedstat").split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default();
            *of.entry(file("comm").trim().to_owned()).or_default() += Duration::from_nanos(ns);
        }
        Cpu(of)
    }

    fn until_now(self) -> Cpu {
        let mut now = Cpu::now();
        for (name, before) in self.0 {
            now.0.entry(name).and_modify(|now| *now = now.saturating_sub(before));
        }
        now
    }

    /// Microseconds for each of so many.
    fn show(&self, tasks: u64) -> String {
        let us = |time: &Duration| time.as_secs_f64() * 1e6 / tasks as f64;
        let parts = self.0.iter().filter(|(_, time)| us(time) >= 0.05);
        let parts: Vec<String> = parts.map(|(name, time)| format!("{name} {:.1}", us(time))).collect();
        format!("CPU for a task {:.1} us ({})", self.0.values().map(us).sum::<f64>(), parts.join(", "))
    }
}
