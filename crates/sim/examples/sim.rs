//! Plays the histories of a range of seeds: `cargo run --release -p forebay-sim --example sim -- --seeds 0..30000`.

use std::panic;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use forebay_sim::{Failure, Options, play};

fn main() -> ExitCode {
    let Some((from, to, options)) = arguments() else {
        eprintln!("usage: sim --seeds FROM..TO [--commands N] [--keep-going] [--log]");
        return ExitCode::from(2);
    };
    let keep_going = std::env::args().any(|argument| argument == "--keep-going");
    let begin = Instant::now();
    let (mut failures, mut steps, mut commands, mut crashes, mut batches, mut handed_out) = (0, 0, 0, 0, 0, 0);
    // An optimized build does not unwind: whoever reads of a panic must know in which history it was.
    let current = Arc::new(AtomicU64::new(from));
    let usual = panic::take_hook();
    let playing = Arc::clone(&current);
    panic::set_hook(Box::new(move |info| {
        eprintln!("seed {}: a panic", playing.load(Ordering::Relaxed));
        usual(info);
    }));
    for seed in from..to {
        current.store(seed, Ordering::Relaxed);
        match play(seed, &options) {
            Ok(summary) => {
                steps += summary.steps;
                commands += summary.commands;
                crashes += summary.crashes;
                batches += summary.batches;
                handed_out += summary.handed_out;
            }
            Err(failure) => {
                failures += 1;
                report(&failure, keep_going);
                if !keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    let (histories, took) = (to - from, begin.elapsed().as_secs_f64());
    println!(
        "{histories} histories in {took:.1} s, {:.0} a second: {commands} commands, {crashes} crashes, \
         {batches} batches, {handed_out} jobs handed out, {steps} steps; {failures} went wrong",
        histories as f64 / took
    );
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn arguments() -> Option<(u64, u64, Options)> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| {
        let place = arguments.iter().position(|argument| argument == name)?;
        arguments.get(place + 1)
    };
    let (from, to) = after("--seeds")?.split_once("..")?;
    let mut options = Options::default();
    if let Some(commands) = after("--commands") {
        options.commands = commands.parse().ok()?;
    }
    options.log = arguments.iter().any(|argument| argument == "--log");
    Some((from.parse().ok()?, to.parse().ok()?, options))
}

fn report(failure: &Failure, short: bool) {
    if !short {
        for event in &failure.events {
            eprintln!("  {event}");
        }
    }
    eprintln!("seed {}, step {}: {}", failure.seed, failure.step, failure.what);
}
