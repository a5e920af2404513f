//! What is left when the power is cut.

use std::time::Duration;

use forebay_store_sqlite::Durability;
use rusqlite::ffi;

use crate::power_cuts::faults::{fail_by_chance, fail_each, fail_in_turn};
use crate::power_cuts::{Call, Modes, cut_power};

const ROUNDS: usize = 12;

#[test]
fn in_power_nothing_that_was_said_is_lost_with_the_power() {
    let mut found = cut_power(Modes::both(Durability::Power), 1, ROUNDS, 12);
    found.add(cut_power(Modes::both(Durability::Power), 2, ROUNDS, 12));
    assert_eq!(found.faults, [""; 0]);
    assert!(found.cuts == 24 && found.answers > 0 && found.syncs > 20, "{found:?}");
}

#[test]
fn in_process_only_what_was_said_since_the_last_sync_is_lost_with_the_power() {
    let found = cut_power(Modes::both(Durability::Process), 3, ROUNDS, 24);
    assert_eq!(found.faults, [""; 0]);
    assert!(found.answers > 0 && found.syncs > 5, "{found:?}");
    // An interval of 5 ms, and the time of a sync, on a machine that has other things to do too.
    assert!(found.unsynced < Duration::from_secs(5), "{found:?}");
}

/// Whether some history shows it, soon.
fn is_noticed(modes: Modes) -> bool {
    (10..30).any(|seed| !cut_power(modes, seed, ROUNDS, 8).faults.is_empty())
}

#[test]
fn an_answer_before_its_sync_is_noticed() {
    let modes = Modes { store: Durability::Process, ..Modes::both(Durability::Power) };
    assert!(is_noticed(modes));
    let is_noticed_by = |seed| fail_by_chance(modes, seed..seed + 1).iter().any(|run| !run.faults.is_empty());
    assert!((0..30).any(is_noticed_by));
}

#[test]
fn a_disk_that_does_not_sync_is_noticed() {
    assert!(is_noticed(Modes { honest: false, ..Modes::both(Durability::Process) }));
}

/// What was wrong, and how many histories ended before their time.
fn failing(mode: Durability, of: Call, code: i32, every: usize) -> (usize, usize) {
    let runs = fail_each(mode, of, code, every);
    let faults: Vec<&str> = runs.iter().flat_map(|run| &run.faults).map(String::as_str).collect();
    assert_eq!(faults, [""; 0]);
    assert!(runs.len() > 5 && runs.iter().any(|run| run.answers > 0), "{runs:?}");
    (runs.len(), runs.iter().filter(|run| run.broken.is_some()).count())
}

#[test]
fn in_power_each_sync_may_fail_and_nothing_that_was_said_is_lost() {
    let (runs, broken) = failing(Durability::Power, Call::Sync, ffi::SQLITE_IOERR_FSYNC, 3);
    assert_eq!(broken, runs, "the server stops: what is on the disk is not known");
}

#[test]
fn in_process_each_sync_may_fail_and_only_what_was_said_since_the_last_one_is_lost() {
    let (runs, broken) = failing(Durability::Process, Call::Sync, ffi::SQLITE_IOERR_FSYNC, 3);
    assert_eq!(broken, runs, "the server stops: what is on the disk is not known");
}

#[test]
fn each_write_may_fail_and_is_done_again() {
    for mode in [Durability::Power, Durability::Process] {
        for code in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_FULL] {
            failing(mode, Call::Write, code, 97);
        }
    }
}

#[test]
fn a_start_that_cannot_fold_a_log_in_which_a_sync_failed_is_none() {
    // With losses of all kinds behind it.
    for (sync, write) in (20..24).flat_map(|sync| (0..3).map(move |write| (sync, write))) {
        let found = fail_in_turn(Durability::Power, sync, write);
        assert_eq!(found.faults, [""; 0]);
        assert!(found.failed && found.broken.is_some(), "{found:?}");
    }
}

#[test]
fn a_disk_that_fails_again_and_again_loses_nothing_that_was_said() {
    for mode in [Durability::Power, Durability::Process] {
        let runs = fail_by_chance(Modes::both(mode), 0..12);
        let faults: Vec<&str> = runs.iter().flat_map(|run| &run.faults).map(String::as_str).collect();
        assert_eq!(faults, [""; 0]);
        assert!(runs.iter().filter(|run| run.failed && run.answers > 0).count() > 6, "{runs:?}");
    }
}
