//! Figures, taken by hand:
//! `cargo test --release -p forebay-worker --test it -- --ignored --nocapture rate`

use std::process::Command;
use std::time::{Duration, Instant};

use forebay_worker::Stop;

use crate::Site;
use crate::server::Server;

const JOBS: usize = 4000;

fn cpu_of_self() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().collect();
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

fn xargs() -> f64 {
    let begin = Instant::now();
    let pipe = format!("seq {JOBS} | xargs -P 8 -I{{}} bash -c true");
    assert!(Command::new("bash").args(["-c", &pipe]).status().unwrap().success());
    JOBS as f64 / begin.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; says nothing on a busy machine"]
async fn rate_of_true_beside_xargs() {
    for round in 0..3 {
        let (server, site) = (Server::start().await, Site::new());
        for n in 0..JOBS {
            server.job(&format!("job{n}"), "true", |_| {});
        }
        let mut options = site.options(&server);
        options.max_parallel_jobs = Some(8);
        let (begin, cpu) = (Instant::now(), cpu_of_self());
        let summary = site.run(options, Stop::never()).await;
        let (rate, cpu) = (JOBS as f64 / begin.elapsed().as_secs_f64(), cpu_of_self() - cpu);
        assert_eq!(summary.completed, JOBS as u64);
        let requests = server.asked("POST /workflows/1/report_and_claim") as f64 / JOBS as f64;
        let cpu = cpu.as_secs_f64() * 1e6 / JOBS as f64;
        let xargs = xargs();
        println!(
            "round {round}: worker {rate:.0}/s, xargs {xargs:.0}/s, ratio {:.2}; {requests:.2} requests/job, \
             {cpu:.0} us/job in worker and test server",
            rate / xargs
        );
    }
}
