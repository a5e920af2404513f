//! Histories of the simulator: that they go well, and that the auditor notices when they do not.

use forebay_domain::limits::Egress;
use forebay_sim::{Failure, Options, Sabotage, play};

fn go_well(seeds: std::ops::Range<u64>, options: &Options) {
    for seed in seeds {
        if let Err(Failure { step, what, events, .. }) = play(seed, options) {
            let last = events.len().saturating_sub(60);
            panic!("{}\nseed {seed}, step {step}: {what}", events[last..].join("\n"));
        }
    }
}

#[test]
fn histories_with_every_fault_go_well() {
    go_well(0..150, &Options::default());
}

#[test]
fn a_claim_takes_what_it_would_take_with_everything_in_memory() {
    go_well(0..400, &Options { commands: 60, crashes: false, lanes_only: true, ..Options::default() });
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let options = Options { log: true, ..Options::default() };
    for seed in 0..6 {
        let (once, again) = (play(seed, &options).expect("goes well"), play(seed, &options).expect("goes well"));
        assert_ne!(once.digest, 0);
        assert_eq!(once.digest, again.digest, "seed {seed}");
        assert!(once.crashes > 0 && once.commands >= options.commands);
    }
    let digest = |seed| play(seed, &options).expect("goes well").digest;
    assert_ne!(digest(0), digest(1));
}

#[test]
fn histories_whose_answers_leave_at_once_lose_nothing() {
    go_well(1_000..1_150, &Options { egress: Some(Egress::AtOnce), ..Options::default() });
}

/// What the auditor says of the first history of these in which it notices something.
fn notices(sabotage: Sabotage, seeds: u64) -> String {
    first_wrong(&Options { oracle: false, sabotage: Some(sabotage), ..Options::default() }, seeds)
}

/// What the oracle, or the auditor, says of the first history of these that goes wrong.
fn differs(sabotage: Sabotage, seeds: u64) -> String {
    first_wrong(&Options { sabotage: Some(sabotage), ..Options::default() }, seeds)
}

fn first_wrong(options: &Options, seeds: u64) -> String {
    let failure = (0..seeds).find_map(|seed| play(seed, options).err());
    failure.unwrap_or_else(|| panic!("{:?} goes unnoticed in {seeds} histories", options.sabotage)).what
}

#[test]
fn an_answer_before_its_commit_is_noticed() {
    let what = notices(Sabotage::AnswerBeforeCommit, 2);
    assert!(what.contains("acknowledged") || what.contains("handed out"), "{what}");
}

#[test]
fn a_new_attempt_that_is_told_before_its_commit_is_noticed() {
    let sabotage = Some(Sabotage::UncommittedAttempt);
    let options = Options { egress: Some(Egress::AtOnce), oracle: false, sabotage, ..Options::default() };
    let what = first_wrong(&options, 1_000);
    assert!(what.contains("was handed out, but there is") || what.contains("handed out of nowhere"), "{what}");
}

#[test]
fn an_outcome_of_another_attempt_is_noticed() {
    let what = notices(Sabotage::NoFence, 40);
    assert!(what.contains("was stored as attempt") || what.contains("two ends"), "{what}");
}

#[test]
fn a_lost_edge_is_noticed() {
    let what = notices(Sabotage::LostEdge, 4000);
    assert!(what.contains("was handed out before"), "{what}");
}

#[test]
fn a_page_that_knows_nothing_of_recent_changes_is_noticed() {
    let what = notices(Sabotage::NoRecent, 400);
    let words = ["handed out", "counts otherwise", "nothing more goes on", "is not there", "changes more than"];
    assert!(words.iter().any(|word| what.contains(word)), "{what}");
}

#[test]
fn a_timer_that_is_lost_behind_the_window_is_noticed() {
    let what = differs(Sabotage::LostTimers, 3000);
    assert!(what.contains("is due at") || what.contains("nothing more goes on"), "{what}");
}

#[test]
fn a_deadline_that_nobody_looks_at_is_noticed() {
    let what = differs(Sabotage::NoDeadlines, 60);
    assert!(what.contains("is due at"), "{what}");
}

#[test]
fn a_job_that_stays_with_a_node_that_is_gone_is_noticed() {
    let what = differs(Sabotage::KeptOrphans, 60);
    assert!(what.contains("node is gone, and it holds"), "{what}");
}

#[test]
fn a_lane_that_is_taken_from_when_it_is_anothers_turn_is_noticed() {
    let what = differs(Sabotage::NoTurns, 200);
    assert!(what.contains("next in the order is"), "{what}");
}

#[test]
fn a_lane_of_which_more_is_held_than_may_be_is_noticed() {
    let what = differs(Sabotage::NoBounds, 1_000);
    assert!(what.contains("next in the order is"), "{what}");
}

#[test]
fn a_task_that_waits_for_nothing_any_more_is_noticed() {
    let what = differs(Sabotage::LeftDependents, 200);
    assert!(what.contains("waits for nothing else"), "{what}");
}
