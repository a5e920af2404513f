//! The workflows door, torc-server and a bare echo of the same requests, in turn in one run.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tokio::task::LocalSet;

use super::load::{Figures, Way, fill, load};
use crate::compat;
use crate::server::{Server, given_or_built, runtime};

/// What is measured: with so many ready jobs, so many runners.
struct Point {
    ready: usize,
    runners: usize,
    way: Way,
    durability: &'static str,
    /// torc-server takes part.
    with_peer: bool,
}

const ONE: Way = Way::One { job_ms: 0 };

const fn point(ready: usize, runners: usize, way: Way, durability: &'static str, with_peer: bool) -> Point {
    Point { ready, runners, way, durability, with_peer }
}

const POINTS: [Point; 10] = [
    point(1_000, 16, ONE, "process", true),
    point(10_000, 16, ONE, "process", true),
    point(100_000, 16, ONE, "process", true),
    point(100_000, 64, ONE, "process", true),
    point(100_000, 16, Way::Eight, "process", true),
    point(100_000, 256, Way::One { job_ms: 100 }, "process", false),
    point(100_000, 256, ONE, "process", false),
    point(100_000, 256, ONE, "power", false),
    point(100_000, 1, ONE, "process", true),
    point(1_000_000, 16, ONE, "process", false),
];

pub fn run(
    peer: &str,
    seconds: u64,
    ready_max: usize,
    runners: Option<usize>,
    binary: Option<PathBuf>,
) -> anyhow::Result<()> {
    ensure!(["torc", "none"].contains(&peer), "there is no peer {peer}: torc, none");
    let forebay = given_or_built(binary)?;
    let torc = if peer == "torc" { Some(compat::torc_server()?) } else { None };
    let is_asked = |point: &&Point| point.ready <= ready_max && runners.is_none_or(|runners| point.runners == runners);
    for point in POINTS.iter().filter(is_asked) {
        measure(point, &forebay, torc.as_deref(), seconds)?;
    }
    Ok(())
}

fn measure(point: &Point, forebay: &Path, torc: Option<&Path>, seconds: u64) -> anyhow::Result<()> {
    let Point { ready, runners, way, durability, with_peer } = point;
    let what = match way {
        Way::One { job_ms: 0 } => "claiming one".to_owned(),
        Way::One { job_ms } => format!("claiming one, jobs of {job_ms} ms"),
        Way::Eight => "claiming eight by resources".to_owned(),
    };
    println!("{ready} ready jobs, {runners} runners, {what}; durability {durability}");
    let scratch = tempfile::tempdir_in(".")?;
    let side = |server: Server| -> anyhow::Result<Figures> {
        let runtime = runtime()?;
        // Few jobs are gone soon: then it goes on with as many new ones, and the filling does not count.
        let mut figures = Figures::default();
        while figures.seconds < seconds as f64 * 0.5 {
            let (workflow, node) = runtime.block_on(fill(server.address, *ready))?;
            let left = (seconds as f64 - figures.seconds).ceil() as u64;
            figures.add(LocalSet::new().block_on(&runtime, load(&server, workflow, node, *runners, left, *way))?);
        }
        Ok(figures)
    };
    let mut ours = side(Server::start(forebay, &scratch.path().join("forebay.db"), durability)?)?;
    let line = |name: &str, figures: &mut Figures| {
        let (rate, p50, p99) = (figures.rate(), figures.claim_ms(0.5), figures.claim_ms(0.99));
        let cpu = figures.server_cpu_us();
        println!("  {name:12} {rate:9.0} jobs/s   claims p50 {p50:7.2} ms  p99 {p99:7.2} ms   CPU {cpu:6.1} us/job");
    };
    line("forebay", &mut ours);
    let mut bare = {
        let echo = Server::echo()?;
        LocalSet::new().block_on(&runtime()?, load(&echo, 1, 1, *runners, seconds, *way))?
    };
    line("bare echo", &mut bare);
    println!("  of the echo: {:.2}", ours.rate() / bare.rate());
    if let (true, Some(torc)) = (*with_peer, torc) {
        let db = scratch.path().join("torc.db");
        std::fs::File::create(&db).context("torc-server wants a file that is there")?;
        let mut peer = side(Server::torc(torc, &db)?)?;
        line("torc-server", &mut peer);
        println!("  times torc-server: {:.0}", ours.rate() / peer.rate());
    }
    Ok(())
}
