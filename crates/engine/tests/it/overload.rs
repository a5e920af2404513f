use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use forebay_domain::command::Answer;
use forebay_domain::ids::Timestamp;
use forebay_domain::port::Reader;
use forebay_engine::{Clock, Error, Options};

use crate::world::{Verdict, Waiting, World, create_workflow, quick};

/// A clock that holds whoever asks it, as long as the test holds it.
#[derive(Default)]
struct HeldClock(Mutex<()>);

impl Clock for HeldClock {
    fn now(&self) -> Timestamp {
        drop(self.0.lock().expect("no test panics with it"));
        Timestamp(0)
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
    let mut world = World::new(Options { backlog_max: 3, ..quick() });
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
