//! Many power cuts, and disks that fail, in both modes.
//!
//!     cargo run --profile sim -p forebay-store-sqlite --example power_cuts -- [--cuts N] [--faults N] [--seed N]

#[path = "../tests/power_cuts/mod.rs"]
mod power_cuts;

use std::process::ExitCode;

use forebay_store_sqlite::Durability;
use power_cuts::faults::{self, FAILURES, fail_by_chance, fail_each, fail_in_turn};
use power_cuts::{Call, Found, Modes, cut_power};

/// Cuts of one history, and what each client does in it.
const CUTS: usize = 100;
const ROUNDS: usize = 40;

fn main() -> ExitCode {
    let (mut cuts, mut failing, mut seed) = (1_000_usize, 1_000_usize, 1_usize);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().and_then(|value| value.parse().ok()).expect("a number follows the option");
        match arg.as_str() {
            "--cuts" => cuts = value,
            "--faults" => failing = value,
            "--seed" => seed = value,
            _ => panic!("no such option: {arg}"),
        }
    }
    let mut faults = 0;
    for mode in [Durability::Power, Durability::Process] {
        let mut all = Found::default();
        for history in 0..cuts.div_ceil(CUTS) {
            let left = cuts - history * CUTS;
            all.add(cut_power(Modes::both(mode), (seed + history) as u64, ROUNDS, left.min(CUTS)));
        }
        for fault in all.faults.iter().take(20) {
            println!("{fault}");
        }
        println!(
            "power cuts, {mode:?}: {} at {} syncs, {} answers held, at most {:?} unsynced, {} faults",
            all.cuts,
            all.syncs,
            all.answers,
            all.unsynced,
            all.faults.len()
        );
        faults += all.faults.len();
        for (of, code) in FAILURES {
            let every = match of {
                Call::Sync => 1,
                Call::Write => 7,
            };
            faults += tell(&format!("{mode:?}, {of:?} fails once"), &fail_each(mode, of, code, every));
        }
        let places = (0..60).step_by(3).flat_map(|sync| (0..4).map(move |write| (sync, write)));
        let runs: Vec<faults::Found> = places.map(|(sync, write)| fail_in_turn(mode, sync, write)).collect();
        faults += tell(&format!("{mode:?}, a sync and then a write"), &runs);
        let seed = seed as u64;
        let runs = fail_by_chance(Modes::both(mode), seed..seed + failing as u64);
        faults += tell(&format!("{mode:?}, by chance"), &runs);
    }
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many faults were found.
fn tell(what: &str, runs: &[faults::Found]) -> usize {
    let wrong: Vec<&String> = runs.iter().flat_map(|run| &run.faults).collect();
    for fault in wrong.iter().take(20) {
        println!("{fault}");
    }
    let stopped = runs.iter().filter(|run| run.broken.is_some()).count();
    let failed = runs.iter().filter(|run| run.failed).count();
    println!(
        "failing disks, {what}: {failed} of {} histories, {stopped} stopped by it, {} faults",
        runs.len(),
        wrong.len()
    );
    wrong.len()
}
