use std::sync::atomic::Ordering;
use std::time::Duration;

use forebay_domain::command::Answer;
use forebay_domain::ids::JobId;
use forebay_domain::port::{Reader, StoreError};
use forebay_domain::state::JobState;
use forebay_engine::{Ended, Error, Options};
use forebay_flusher::Backoff;

use crate::world::{Verdict, Waiting, World, block_on, claim, create_workflow, quick, waiting_claim};

const AMPLE: Duration = Duration::from_secs(60);

#[test]
fn stopping_writes_and_answers_what_was_taken() {
    let mut world = World::new(quick());
    world.close_gate();
    let engine = world.engine.clone();
    let first = Waiting::start(engine.call(create_workflow()));
    world.tried.recv().expect("the batch is tried");
    let second = Waiting::start(engine.call(create_workflow()));
    let stop = Waiting::start(engine.stop(AMPLE));
    world.say(Verdict::Commit);
    world.let_go(Verdict::Commit);
    assert!(matches!(stop.finish(), Ended::Stopped));
    assert_eq!(first.finish(), Ok(Answer::Created(1)));
    assert_eq!(second.finish(), Ok(Answer::Created(2)));
    assert_eq!(world.done.closes.load(Ordering::SeqCst), 1);
}

#[test]
fn nothing_is_taken_any_more_once_it_stops() {
    let world = World::new(quick());
    assert!(matches!(block_on(world.engine.stop(AMPLE)), Ended::Stopped));
    assert_eq!(world.engine.call_blocking(create_workflow()), Err(Error::Stopping));
    assert_eq!(block_on(world.engine.read(|_: &mut dyn Reader| Ok(()))), Err(Error::Stopping));
    assert!(matches!(block_on(world.engine.stop(AMPLE)), Ended::Stopped));
}

#[test]
fn waiting_claims_end_when_it_stops() {
    let world = World::new(quick());
    let workflow = world.workflow(1);
    world.do_now(claim(workflow, 1));
    let engine = world.engine.clone();
    let call = Waiting::start(engine.call(waiting_claim(workflow)));
    assert!(matches!(block_on(engine.stop(AMPLE)), Ended::Stopped));
    assert_eq!(call.finish(), Err(Error::Stopping));
}

#[test]
fn a_claim_whose_caller_left_goes_back_before_it_ends() {
    let mut world = World::new(quick());
    let workflow = world.workflow(1);
    world.close_gate();
    let engine = world.engine.clone();
    let call = Waiting::start(engine.call(claim(workflow, 1)));
    world.tried.recv().expect("the claim is tried");
    let stop = Waiting::start(engine.stop(AMPLE));
    drop(call);
    world.say(Verdict::Commit);
    world.let_go(Verdict::Commit);
    assert!(matches!(stop.finish(), Ended::Stopped));
    assert_eq!(world.state(JobId(1)), Some(JobState::Ready));
}

#[test]
fn a_store_that_stays_busy_is_given_up_and_what_it_did_not_take_is_counted() {
    let backoff = Backoff { first: AMPLE, longest: AMPLE };
    let mut world = World::new(Options { backoff, ..quick() });
    world.close_gate();
    let engine = world.engine.clone();
    let first = Waiting::start(engine.call(create_workflow()));
    let stuck = world.let_go(Verdict::Busy);
    let second = Waiting::start(engine.call(create_workflow()));
    let Ended::Unwritten { changes } = block_on(engine.stop(Duration::from_millis(20))) else {
        panic!("it was not written")
    };
    assert_eq!(changes, 2 * stuck.len());
    assert_eq!(first.finish(), Err(Error::Stopping));
    assert_eq!(second.finish(), Err(Error::Stopping));
    assert_eq!(world.done.closes.load(Ordering::SeqCst), 0);
}

#[test]
fn a_commit_that_hangs_does_not_hold_the_stop() {
    let mut world = World::new(quick());
    world.close_gate();
    let engine = world.engine.clone();
    let call = Waiting::start(engine.call(create_workflow()));
    let stuck = world.tried.recv().expect("the batch is tried");
    let Ended::Unwritten { changes } = block_on(engine.stop(Duration::ZERO)) else { panic!("it was not written") };
    assert_eq!(changes, stuck.len());
    assert_eq!(call.finish(), Err(Error::Stopping));
}

#[test]
fn a_broken_store_stops_the_engine_and_answers_nobody() {
    let mut world = World::new(quick());
    let workflow = world.workflow(1);
    world.do_now(claim(workflow, 1));
    world.close_gate();
    let engine = world.engine.clone();
    let waits = Waiting::start(engine.call(waiting_claim(workflow)));
    let call = Waiting::start(engine.call(create_workflow()));
    let broken = world.let_go(Verdict::Broken);
    let Ended::Broken { cause, changes } = block_on(engine.stopped()) else { panic!("the store broke") };
    assert_eq!(cause.to_string(), "the test says so");
    assert_eq!(changes, broken.len());
    assert_eq!(call.finish(), Err(Error::Stopping));
    assert_eq!(waits.finish(), Err(Error::Stopping));
    assert_eq!(engine.call_blocking(create_workflow()), Err(Error::Stopping));
}

#[test]
fn a_broken_read_stops_the_engine() {
    let world = World::new(quick());
    let read = world.engine.read(|_: &mut dyn Reader| Err::<(), _>(StoreError::Broken("corrupt".into())));
    assert_eq!(block_on(read), Err(Error::Stopping));
    assert!(matches!(block_on(world.engine.stopped()), Ended::Broken { cause, .. } if cause.to_string() == "corrupt"));
}

#[test]
fn a_read_of_a_busy_store_may_be_tried_again() {
    let world = World::new(quick());
    let read = world.engine.read(|_: &mut dyn Reader| Err::<(), _>(StoreError::Busy("locked".into())));
    assert_eq!(block_on(read), Err(Error::Overloaded));
    world.do_now(create_workflow());
}

#[test]
fn a_stop_does_not_wait_for_the_interval_of_a_partial_batch() {
    let world = World::new(Options { flush_interval: AMPLE * 10, ..quick() });
    // After a quiet time the first goes at once; the next would wait for the interval.
    world.do_now(create_workflow());
    let engine = world.engine.clone();
    let mut second = Waiting::start(engine.call(create_workflow()));
    while engine.counters().commands < 2 {
        std::thread::yield_now();
    }
    assert!(!second.is_answered());
    assert!(matches!(block_on(engine.stop(AMPLE)), Ended::Stopped));
    assert_eq!(second.finish(), Ok(Answer::Created(2)));
}

#[test]
fn an_engine_that_nobody_holds_any_more_writes_what_it_has() {
    let World { engine, store, done, .. } = World::new(Options { flush_interval: AMPLE * 10, ..quick() });
    engine.call_blocking(create_workflow()).expect("the first goes at once");
    let mut gone = Waiting::start(engine.call(create_workflow()));
    assert!(!gone.is_answered());
    drop(gone);
    drop(engine);
    while done.closes.load(Ordering::SeqCst) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(store.look(|db| db.workflows.len()), 2);
}
