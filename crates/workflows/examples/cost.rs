//! CPU time of the door for the three requests of a job, beside a bare hyper server with requests
//! and answers of the same sizes, which answers at once, or from another thread each millisecond
//! as an engine does. All in one run, as machines differ and are noisy:
//!
//! `cargo run --release -p forebay-workflows --example cost -- [jobs] [runners]`

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use forebay_engine::{Engine, SystemClock};
use forebay_server::{Options, Server};
use forebay_store_sqlite::{Durability, SqliteReader, SqliteStore};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

const BASE: &str = "/torc-service/v1";

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().expect("a number"));
    let jobs = arguments.next().unwrap_or(30_000);
    let runners = arguments.next().unwrap_or(64);
    for round in 1..=2 {
        println!("round {round}: {jobs} jobs, {runners} runners");
        let sizes = door(jobs, runners);
        echo("later", jobs, runners, sizes);
        echo("echo", jobs, runners, sizes);
    }
}

/// Runs jobs through the door; the sizes of the three answers.
fn door(jobs: usize, runners: usize) -> [usize; 3] {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cost.db");
    let stored = forebay_store_sqlite::Options { durability: Durability::Process, ..Default::default() };
    let store = SqliteStore::open(&path, stored).expect("a database");
    let mut syncer = store.syncer().expect("a handle to sync");
    let sync = move || syncer.sync();
    let readers = move || SqliteReader::open(&path).map_err(|error| panic!("a reader: {error}"));
    let engine = Engine::start(store, readers, Arc::new(SystemClock::new()), forebay_engine::Options::process(sync))
        .expect("an engine");
    let runtime = runtime("door");
    let server = runtime.block_on(Server::start(Options::loopback(), engine.clone())).expect("a server");
    let mut setup = Connection::to(server.address());
    let workflow = number_after(&setup.send("POST", "/workflows", r#"{"name":"w","user":"u"}"#), "\"id\":");
    for chunk in 0..jobs.div_ceil(10_000) {
        let mut body = String::from("{\"jobs\":[");
        for n in chunk * 10_000..jobs.min((chunk + 1) * 10_000) {
            let comma = if n % 10_000 == 0 { "" } else { "," };
            write!(body, r#"{comma}{{"workflow_id":{workflow},"name":"job_{n:06}","command":"echo hello world {n}"}}"#)
                .expect("a String takes all text");
        }
        setup.send("POST", "/bulk_jobs", &(body + "]}"));
    }
    setup.send("POST", &format!("/workflows/{workflow}/initialize_jobs"), "{}");

    let before = engine.counters();
    let sizes = measure("door", jobs, runners, server.address(), workflow);
    let after = engine.counters();
    println!("  {:.1} jobs a batch", jobs as f64 / (after.batches - before.batches).max(1) as f64);
    runtime.block_on(async {
        let patience = Duration::from_secs(10);
        tokio::join!(server.stop(patience), engine.stop(patience))
    });
    sizes
}

/// The same requests, answered with as many bytes: at once, or `later`.
fn echo(name: &'static str, jobs: usize, runners: usize, sizes: [usize; 3]) {
    let runtime = runtime(name);
    let (asked, questions) = mpsc::channel::<oneshot::Sender<()>>();
    std::thread::spawn(move || {
        while let Ok(first) = questions.recv() {
            std::thread::sleep(Duration::from_millis(1));
            for asked in std::iter::once(first).chain(questions.try_iter()) {
                asked.send(()).expect("the door waits");
            }
        }
    });
    let asked = (name == "later").then_some(asked);
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("an address");
    let filler = |size: usize| {
        let front = r#"{"jobs":[{"id":1,"#;
        Bytes::from(format!("{front}{}", " ".repeat(size.saturating_sub(front.len()))))
    };
    let answers = Arc::new(sizes.map(filler));
    runtime.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a TCP stream");
            let (answers, asked) = (Arc::clone(&answers), asked.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let (answers, asked) = (Arc::clone(&answers), asked.clone());
                async move {
                    let path = request.uri().path();
                    let place = if path.contains("claim") { 0 } else { 1 + usize::from(path.contains("complete")) };
                    request.into_body().collect().await.expect("a body");
                    if let Some(asked) = asked {
                        let (answer, answered) = oneshot::channel();
                        asked.send(answer).expect("the other thread listens");
                        answered.await.expect("the other thread answers");
                    }
                    let mut response = Response::new(Full::new(answers[place].clone()));
                    let json = HeaderValue::from_static("application/json");
                    response.headers_mut().insert(header::CONTENT_TYPE, json);
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                // The client hangs up at the end.
                drop(http.serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
    measure(name, jobs, runners, address, 1);
}

fn runtime(name: &'static str) -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).thread_name(name).enable_all().build().expect("a runtime")
}

/// Runs all jobs, and says what it cost; the sizes of the three answers.
fn measure(name: &str, jobs: usize, runners: usize, address: SocketAddr, workflow: usize) -> [usize; 3] {
    let left = AtomicUsize::new(jobs);
    let sizes = [const { AtomicUsize::new(0) }; 3];
    let before = cpu();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..runners {
            scope.spawn(|| {
                let mut connection = Connection::to(address);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    let answers = run_job(&mut connection, workflow);
                    for (size, answer) in sizes.iter().zip(answers) {
                        size.store(answer, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let took = begun.elapsed();
    let after = cpu();
    let mut line = format!("  {name}: {:.0} jobs/s;", jobs as f64 / took.as_secs_f64());
    for (thread, nanos) in after {
        let micros = (nanos - before.get(&thread).copied().unwrap_or(0)) as f64 / 1000.0;
        if thread == name {
            write!(line, " {:.1} us CPU a request in {thread},", micros / (3 * jobs) as f64).expect("text");
        } else if thread.starts_with("forebay") {
            write!(line, " {:.1} us a job in {thread},", micros / jobs as f64).expect("text");
        }
    }
    println!("{}", line.trim_end_matches(','));
    sizes.map(AtomicUsize::into_inner)
}

fn run_job(connection: &mut Connection, workflow: usize) -> [usize; 3] {
    let claimed = connection.send("POST", &format!("/workflows/{workflow}/claim_next_jobs?limit=1"), "");
    let job = number_after(&claimed, "{\"id\":");
    let started = connection.send("PUT", &format!("/jobs/{job}/start_job/0/1"), "");
    let result = format!(
        r#"{{"job_id":{job},"workflow_id":{workflow},"run_id":0,"attempt_id":1,"compute_node_id":1,"return_code":0,"exec_time_minutes":0.01,"completion_time":"2026-01-01T00:00:00Z","status":"completed","peak_memory_bytes":1000000}}"#
    );
    let completed = connection.send("POST", &format!("/jobs/{job}/complete_job/completed/0"), &result);
    [claimed.len(), started.len(), completed.len()]
}

/// A connection that asks and waits.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    fn to(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_nodelay(true).expect("a TCP stream");
        Connection { stream, buffer: vec![0; 64 * 1024] }
    }

    /// The body of the answer.
    fn send(&mut self, method: &str, path: &str, body: &str) -> String {
        let request = format!(
            "{method} {BASE}{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = Vec::new();
        loop {
            let read = self.stream.read(&mut self.buffer).expect("an answer");
            assert!(read > 0, "the server hung up");
            answer.extend_from_slice(&self.buffer[..read]);
            let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&answer[..end]).expect("headers are text");
            assert!(head.starts_with("HTTP/1.1 200"), "{path}: {}", String::from_utf8_lossy(&answer));
            let length = number_after(head, "content-length: ");
            if answer.len() >= end + 4 + length {
                return String::from_utf8(answer.split_off(end + 4)).expect("JSON is text");
            }
        }
    }
}

fn number_after(text: &str, mark: &str) -> usize {
    let rest = &text[text.find(mark).unwrap_or_else(|| panic!("no {mark} in {text}")) + mark.len()..];
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().expect("a number")
}

/// CPU time of this process's threads in nanoseconds, by name.
fn cpu() -> BTreeMap<String, u64> {
    let mut threads = BTreeMap::new();
    for task in std::fs::read_dir("/proc/self/task").expect("Linux").flatten() {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let nanos = read("schedstat").split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
        *threads.entry(read("comm").trim().to_owned()).or_default() += nanos;
    }
    threads
}
