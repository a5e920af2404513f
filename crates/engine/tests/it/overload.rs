use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use forebay_domain::command::Answer;
use forebay_domain::ids::Timestamp;
use forebay_domain::port::Reader;
use forebay_engine::{Clock, Ended, Error, Options};

use crate::world::{HandClock, Verdict, Waiting, World, create_workflow, quick};

/// A clock that holds whoever asks it, as long as the test holds it.
#[derive(Default)]
struct HeldClock(Mutex<()>);

impl Clock for HeldClock {
    fn now(&self) -> Timestamp {
        drop(self.0.lock().expect("no test panics with it"));
        Timestamp(0)
    }
}

/// A clock that lets one turn of the engine pass each time that the test says so.
#[derive(Default)]
struct StepClock {
    steps: Mutex<Steps>,
    changed: Condvar,
}

#[derive(Default)]
struct Steps {
    free: bool,
    allowed: usize,
    asked: usize,
}

impl Clock for StepClock {
    fn now(&self) -> Timestamp {
        let mut steps = self.steps.lock().expect("no test panics with it");
        steps.asked += 1;
        self.changed.notify_all();
        let steps = self.changed.wait_while(steps, |steps| !steps.free && steps.allowed < steps.asked);
        drop(steps.expect("no test panics with it"));
        Timestamp(0)
    }
}

impl StepClock {
    /// Waits until the turn before is over and the next wants to begin.
    fn turn_ended(&self) {
        let steps = self.steps.lock().expect("no test panics with it");
        let steps = self.changed.wait_while(steps, |steps| steps.asked <= steps.allowed);
        drop(steps.expect("no test panics with it"));
    }

    fn step(&self) {
        self.turn_ended();
        self.steps.lock().expect("no test panics with it").allowed += 1;
        self.changed.notify_all();
    }

    fn set_free(&self) {
        self.steps.lock().expect("no test panics with it").free = true;
        self.changed.notify_all();
    }
}

#[test]
fn one_drain_of_the_mailbox_takes_at_most_the_batchs_maximum() {
    let clock = Arc::new(StepClock::default());
    let world = World::at(Options { batch_max: 4, ..quick() }, clock.clone());
    let calls: Vec<_> = (0..30).map(|_| Waiting::start(world.engine.call(create_workflow()))).collect();
    let mut applied = Vec::new();
    while applied.iter().sum::<u64>() < 30 {
        let before = world.engine.counters().commands;
        clock.step();
        clock.turn_ended();
        applied.push(world.engine.counters().commands - before);
    }
    assert!(applied.iter().all(|commands| *commands <= 4), "{applied:?}");
    clock.set_free();
    for call in calls {
        call.finish().expect("it was created");
    }
}

#[test]
fn a_full_mailbox_refuses() {
    let clock = Arc::new(HeldClock::default());
    let world = World::at(Options { mailbox_max: 2, ..quick() }, clock.clone());
    let engine = world.engine.clone();
    let held = clock.0.lock().expect("no test panics with it");
    let calls: Vec<_> = (0..2).map(|_| Waiting::start(engine.call(create_workflow()))).collect();
    assert_eq!(world.engine.call_blocking(create_workflow()), Err(Error::Overloaded));
    assert_eq!(world.engine.counters().overloaded, 1);
    drop(held);
    for call in calls {
        call.finish().expect("it was taken before the mailbox was full");
    }
    world.do_now(create_workflow());
}

#[test]
fn a_full_backlog_refuses_until_the_store_has_caught_up() {
    let mut world = World::new(Options { backlog_max: 3, hold: Duration::ZERO, ..quick() });
    world.close_gate();
    let engine = world.engine.clone();
    let first = Waiting::start(engine.call(create_workflow()));
    let stuck = world.let_go(Verdict::Busy);
    let second = Waiting::start(engine.call(create_workflow()));
    assert_eq!(world.let_go(Verdict::Busy), stuck);
    // The second alone is more than the backlog takes.
    assert_eq!(engine.call_blocking(create_workflow()), Err(Error::Overloaded));
    assert_eq!(world.let_go(Verdict::Commit), stuck);
    world.let_go(Verdict::Commit);
    assert_eq!(first.finish(), Ok(Answer::Created(1)));
    assert_eq!(second.finish(), Ok(Answer::Created(2)));
    let third = Waiting::start(engine.call(create_workflow()));
    world.let_go(Verdict::Commit);
    assert_eq!(third.finish(), Ok(Answer::Created(3)));
    assert_eq!(world.engine.counters().overloaded, 1);
}

/// An engine whose backlog is full behind a store that says that it is busy.
fn full(world: &World) -> (Waiting<'_, Reply>, Waiting<'_, Reply>) {
    let first = Waiting::start(world.engine.call(create_workflow()));
    let stuck = world.let_go(Verdict::Busy);
    let second = Waiting::start(world.engine.call(create_workflow()));
    assert_eq!(world.let_go(Verdict::Busy), stuck);
    while world.engine.counters().mailbox > 0 {
        std::thread::yield_now();
    }
    (first, second)
}

type Reply = Result<Answer, Error>;

#[test]
fn a_call_is_held_until_the_backlog_has_room() {
    let mut world = World::new(Options { backlog_max: 3, hold: Duration::from_secs(600), ..quick() });
    world.close_gate();
    let (first, second) = full(&world);
    let mut held: Vec<_> = (0..3).map(|_| Waiting::start(world.engine.call(create_workflow()))).collect();
    while world.engine.counters().held < 3 {
        std::thread::yield_now();
    }
    assert!(held.iter_mut().all(|call| !call.is_answered()));
    world.let_all_go();
    assert_eq!(first.finish(), Ok(Answer::Created(1)));
    assert_eq!(second.finish(), Ok(Answer::Created(2)));
    // In the order in which they came.
    let ids: Vec<_> = held.into_iter().map(Waiting::finish).collect();
    assert_eq!(ids, [3, 4, 5].map(|id| Ok(Answer::Created(id))));
    let counters = world.engine.counters();
    assert_eq!((counters.held, counters.mailbox, counters.overloaded), (0, 0, 0));
}

#[test]
fn a_call_that_was_held_long_enough_is_refused_and_nothing_was_done() {
    let hold = Duration::from_millis(20);
    let mut world = World::new(Options { backlog_max: 3, hold, ..quick() });
    world.close_gate();
    let (first, second) = full(&world);
    let asked = Instant::now();
    // Nothing happens meanwhile: the engine wakes by itself.
    assert_eq!(world.engine.call_blocking(create_workflow()), Err(Error::Overloaded));
    assert!(asked.elapsed() >= hold);
    world.let_all_go();
    first.finish().and(second.finish()).expect("they had room");
    assert_eq!(world.do_now(create_workflow()), Answer::Created(3));
}

#[test]
fn held_calls_are_as_many_as_the_mailbox_takes() {
    let mut world = World::new(Options { backlog_max: 3, mailbox_max: 2, ..quick() });
    world.close_gate();
    let (first, second) = full(&world);
    let held: Vec<_> = (0..2).map(|_| Waiting::start(world.engine.call(create_workflow()))).collect();
    while world.engine.counters().held < 2 {
        std::thread::yield_now();
    }
    // At once: the default hold is seconds.
    assert_eq!(world.engine.call_blocking(create_workflow()), Err(Error::Overloaded));
    world.let_all_go();
    for call in [first, second].into_iter().chain(held) {
        call.finish().expect("it was taken");
    }
}

#[test]
fn a_held_call_whose_caller_left_is_not_carried_out() {
    let mut world = World::new(Options { backlog_max: 3, ..quick() });
    world.close_gate();
    let (first, second) = full(&world);
    let gone = Waiting::start(world.engine.call(create_workflow()));
    let stays = Waiting::start(world.engine.call(create_workflow()));
    while world.engine.counters().held < 2 {
        std::thread::yield_now();
    }
    drop(gone);
    world.let_all_go();
    first.finish().and(second.finish()).expect("they had room");
    assert_eq!(stays.finish(), Ok(Answer::Created(3)));
    assert_eq!(world.store.look(|db| db.workflows.len()), 3);
}

#[test]
fn calls_that_are_held_are_carried_out_by_a_stop() {
    let mut world = World::new(Options { backlog_max: 3, ..quick() });
    world.close_gate();
    let (first, second) = full(&world);
    let held = Waiting::start(world.engine.call(create_workflow()));
    while world.engine.counters().held < 1 {
        std::thread::yield_now();
    }
    let stop = Waiting::start(world.engine.stop(Duration::from_secs(60)));
    world.let_all_go();
    assert!(matches!(stop.finish(), Ended::Stopped));
    for call in [first, second, held] {
        call.finish().expect("it was taken before the stop");
    }
}

#[test]
fn a_read_that_waited_too_long_for_its_turn_is_refused() {
    let clock = Arc::new(HandClock::default());
    let world = World::at(Options { door_readers: 1, ..quick() }, clock.clone());
    let (begun, begins) = mpsc::channel::<()>();
    let (enough, waits) = mpsc::channel::<()>();
    let running = Waiting::start(world.engine.read(move |_: &mut dyn Reader| {
        begun.send(()).expect("the test listens");
        waits.recv().expect_err("the test lets go");
        Ok(1)
    }));
    begins.recv().expect("the read begins");
    let early = Waiting::start(world.engine.read(|_: &mut dyn Reader| Ok(2)));
    clock.set(1);
    let late = Waiting::start(world.engine.read(|_: &mut dyn Reader| Ok(3)));
    clock.set(5_001);
    drop(enough);
    assert_eq!((running.finish(), early.finish(), late.finish()), (Ok(1), Err(Error::Overloaded), Ok(3)));
}

#[test]
fn too_many_reads_are_refused() {
    let world = World::new(Options { door_readers: 1, reads_max: 1, ..quick() });
    let engine = world.engine.clone();
    let (begun, begins) = mpsc::channel::<()>();
    let (enough, waits) = mpsc::channel::<()>();
    let running = Waiting::start(engine.read(move |_: &mut dyn Reader| {
        begun.send(()).expect("the test listens");
        waits.recv().expect_err("the test lets go");
        Ok(1)
    }));
    begins.recv().expect("the read begins");
    let queued = Waiting::start(engine.read(|_: &mut dyn Reader| Ok(2)));
    assert_eq!(crate::world::block_on(engine.read(|_: &mut dyn Reader| Ok(3))), Err(Error::Overloaded));
    drop(enough);
    assert_eq!(running.finish(), Ok(1));
    assert_eq!(queued.finish(), Ok(2));
}
