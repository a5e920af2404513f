//! What the engine adds to SQLite: lifecycles (claim, start, complete: a call each) and submissions
//! through its handle by many callers, beside a bare loop that writes the same rows in batches of the
//! same sizes on the same disk.
//!
//!     cargo run --release -p forebay-engine --example rate -- [--quick] [--seconds N] [--callers N] [--mode MODE] [--point POINT]

mod bare;
mod load;
mod world;

use std::time::Duration;

use bare::{Tables, Took};
use forebay_sim::Counting;
use load::{Load, Point, Request};
use world::{MODES, Mode, World};

#[global_allocator]
static COUNTING: Counting = Counting::new();

/// How much is measured.
struct Setup {
    /// Of each point.
    seconds: u64,
    callers: usize,
    /// Ready jobs that a round begins with.
    backlog: usize,
    /// The many of `few` and `many` ready jobs.
    many: usize,
    modes: Vec<Mode>,
    /// The only point to measure: `bare`, `transactions`, `many` or `slow`.
    point: Option<String>,
}

fn main() {
    let mut setup =
        Setup { seconds: 30, callers: 4096, backlog: 200_000, many: 10_000_000, modes: MODES.to_vec(), point: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().expect("a value follows the option");
        match arg.as_str() {
            "--quick" => setup = Setup { seconds: 3, backlog: 50_000, many: 1_000_000, ..setup },
            "--seconds" => setup.seconds = value().parse().expect("a number of seconds"),
            "--callers" => setup.callers = value().parse().expect("a number of callers"),
            "--mode" => setup.modes = vec![value().parse().expect("power, process or memory")],
            "--point" => setup.point = Some(value()),
            _ => panic!("no such option: {arg}"),
        }
    }
    let wants = |point: &str| setup.point.as_ref().is_none_or(|only| only == point);
    for mode in setup.modes.iter().copied().filter(|_| wants("bare")) {
        beside_bare(&setup, mode, Load::Lifecycles);
        beside_bare(&setup, mode, Load::Submissions);
    }
    for mode in setup.modes.iter().copied().filter(|_| wants("transactions")) {
        for callers in [16, 256, 4096] {
            transactions(&setup, mode, callers);
        }
    }
    if wants("many") {
        few_and_many(&setup);
    }
    for mode in setup.modes.iter().copied().filter(|_| wants("slow")) {
        slow_commits(&setup, mode);
    }
}

/// A load through the engine, then the rows that it wrote without one.
fn beside_bare(setup: &Setup, mode: Mode, load: Load) {
    let world = World::new(mode);
    world.recorder.record(true);
    let mut ours = Point::default();
    while ours.took < Duration::from_secs(setup.seconds) {
        world.recorder.record(false);
        let workflow = world.fill(if load == Load::Lifecycles { setup.backlog } else { 0 });
        world.recorder.record(true);
        let left = Duration::from_secs(setup.seconds).saturating_sub(ours.took);
        ours += world.run(workflow, load, setup.callers, left);
    }
    let jobs = world.jobs();
    let batches = world.stop();
    let [few, all] = [Tables::Few, Tables::AsOurs].map(|tables| bare::write(mode, tables, jobs, &batches));
    let done = ours.done as f64;
    let per_second = |took: &Took| done / took.took.as_secs_f64();
    let share = |took: &Took| took.took.as_secs_f64() / ours.took.as_secs_f64();
    let us = |took: &Took| took.cpu.as_secs_f64() * 1e6 / done;
    println!("{mode}, {load}, {} callers:", setup.callers);
    println!("  {:.0}/s; bare {:.0}/s, with our indexes {:.0}/s", ours.rate(), per_second(&few), per_second(&all));
    println!("  ratio {:.2}, with our indexes {:.2}", share(&few), share(&all));
    println!("  CPU {}; bare {:.1} us, with our indexes {:.1} us", ours.cpu.show(ours.done), us(&few), us(&all));
    let changes = batches.iter().map(|batch| batch.len()).sum::<usize>() as f64 / batches.len() as f64;
    println!(
        "  {:.1} allocations; {:.2} transactions for 1 000 requests, of {changes:.0} rows each; {} busy",
        ours.allocations as f64 / done,
        ours.transactions(),
        ours.busy
    );
}

fn transactions(setup: &Setup, mode: Mode, callers: usize) {
    let world = World::new(mode);
    let workflow = world.fill(setup.backlog);
    let point = world.run(workflow, Load::Lifecycles, callers, Duration::from_secs(setup.seconds.min(10)));
    println!(
        "{mode}, {callers} callers: {:.2} transactions for 1 000 requests, {} busy; {:.0} lifecycles/s",
        point.transactions(),
        point.busy,
        point.rate()
    );
    world.stop();
}

/// Whether the number of ready jobs matters to who claims them.
fn few_and_many(setup: &Setup) {
    let world = World::new(Mode::Process);
    let callers = setup.callers.min(256);
    let until = Duration::from_secs(setup.seconds);
    let many = world.fill(setup.many);
    let mut rates = [Point::default(), Point::default()];
    // In turn, so that both meet the same weather.
    for _ in 0..3 {
        rates[0] += world.run(many, Load::Lifecycles, callers, until / 3);
        for _ in 0..10 {
            let few = world.fill(1_000);
            rates[1] += world.run(few, Load::Lifecycles, callers, until / 30);
        }
    }
    let [many, few] = rates.map(|point| point.rate());
    println!(
        "process, {callers} callers: {many:.0} lifecycles/s with {} ready, {few:.0} with 1 000, ratio {:.2}",
        setup.many,
        many / few
    );
    world.stop();
}

/// How long claims and reports take when each commit takes half a second longer: of callers so few, and for
/// so short, that what waits for the disk stays under its bound; then of all, with commits that take longer
/// than a command is held, until they are refused.
fn slow_commits(setup: &Setup, mode: Mode) {
    let world = World::new(mode);
    let (callers, seconds) = (setup.callers.min(64), Duration::from_secs(2));
    let usual = world.run_timed(world.fill(setup.backlog), Load::Lifecycles, callers, seconds);
    let (few, all) = (world.fill(setup.backlog), world.fill(2 * setup.backlog));
    world.recorder.slow(Duration::from_millis(500));
    let slow = world.run_timed(few, Load::Lifecycles, callers, seconds);
    let [claims, reports] = [Request::Claim, Request::Report].map(|request| {
        let (slow, usual) = (slow.p99_ms(request), usual.p99_ms(request));
        format!("{slow:.2} ms, usually {usual:.2} ms")
    });
    println!("{mode}, {callers} callers, each commit 500 ms slower: claim p99 {claims}; report p99 {reports}");
    world.recorder.slow(Duration::from_secs(7));
    let many = world.run_timed(all, Load::Lifecycles, setup.callers, Duration::from_secs(12));
    println!(
        "  then {} callers, each commit 7 s slower: {} lifecycles, {} refused, report p99 {:.0} ms",
        setup.callers,
        many.done,
        many.overloaded,
        many.p99_ms(Request::Report)
    );
    world.recorder.slow(Duration::ZERO);
    world.stop();
}
