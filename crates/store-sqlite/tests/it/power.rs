//! What is left when the power is cut.

use std::time::Duration;

use forebay_store_sqlite::Durability;

use crate::power_cuts::{Modes, cut_power};

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
    assert!(is_noticed(Modes { store: Durability::Process, ..Modes::both(Durability::Power) }));
}

#[test]
fn a_disk_that_does_not_sync_is_noticed() {
    assert!(is_noticed(Modes { honest: false, ..Modes::both(Durability::Process) }));
}
