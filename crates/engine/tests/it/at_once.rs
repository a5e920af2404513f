//! `memory` mode: claims, starts and outcomes are answered at once; all else after its commit.

use std::time::Duration;

use forebay_domain::command::{Command, Scope};
use forebay_domain::ids::{JobId, NodeId};
use forebay_domain::port::Reader;
use forebay_domain::state::JobState;
use forebay_engine::{Ended, Error, Options};

use crate::world::{
    Verdict, Waiting, World, block_on, claim, claimed, completed, create_jobs, create_workflow, quick, retry,
};

fn memory() -> Options {
    Options { backoff: quick().backoff, ..Options::memory() }
}

#[test]
fn claims_starts_and_outcomes_do_not_wait_for_the_store() {
    let mut world = World::new(memory());
    let workflow = world.workflow(2);
    world.close_gate();
    let engine = world.engine.clone();
    let mut creation = Waiting::start(engine.call(create_jobs(workflow, 1)));
    world.tried.recv().expect("the creation is tried");
    for job in [JobId(1), JobId(2)] {
        let row = claimed(world.do_now(claim(workflow, 1)))[0];
        assert_eq!(row.id, job);
        world.do_now(Command::Start { job, run: 0, node: NodeId(1) });
        world.do_now(completed(workflow, &row));
    }
    assert!(!creation.is_answered());
    assert_eq!(world.state(JobId(2)), Some(JobState::Ready));
    world.say(Verdict::Commit);
    creation.finish().expect("there is room");
    world.let_go(Verdict::Commit);
}

#[test]
fn a_new_attempt_is_not_handed_out_before_it_is_committed() {
    let mut world = World::new(memory());
    let workflow = world.workflow(1);
    let row = claimed(world.do_now(claim(workflow, 1)))[0];
    world.close_gate();
    let engine = world.engine.clone();
    let again = Waiting::start(engine.call(retry(row.id)));
    world.tried.recv().expect("the new attempt is tried");
    let commands = engine.counters().commands;
    let mut next = Waiting::start(engine.call(claim(workflow, 1)));
    while engine.counters().commands == commands {
        std::thread::yield_now();
    }
    assert!(!next.is_answered());
    world.say(Verdict::Commit);
    again.finish().expect("it was claimed");
    assert_eq!(claimed(next.finish().expect("it is ready"))[0].attempt, 2);
    world.let_go(Verdict::Commit);
}

#[test]
fn reads_of_what_was_answered_wait_for_one_flush() {
    let mut world = World::new(memory());
    let (workflow, other) = (world.workflow(1), world.workflow(1));
    world.close_gate();
    let engine = world.engine.clone();
    let job = claimed(world.do_now(claim(workflow, 1)))[0].id;
    let state = move |reader: &mut dyn Reader| Ok(reader.job(job)?.expect("it is there").row.state);
    let of_other = block_on(engine.read_of(Scope::Workflow(other), |_| Ok(1)));
    assert_eq!(of_other, Ok(1), "nothing of the other workflow is to be flushed");
    assert_eq!(block_on(engine.read(state)), Ok(JobState::Ready));
    let batches = engine.counters().batches;
    let reads = [Scope::Everything, Scope::Workflow(workflow), Scope::Job(job)]
        .map(|scope| Waiting::start(engine.read_of(scope, state)));
    world.let_go(Verdict::Commit);
    for read in reads {
        assert_eq!(read.finish(), Ok(JobState::Claimed));
    }
    assert_eq!(engine.counters().batches, batches + 1);
}

#[test]
fn a_full_backlog_refuses_and_what_was_answered_is_written_in_the_end() {
    let mut world = World::new(Options { backlog_max: 5, hold: Duration::ZERO, ..memory() });
    let workflow = world.workflow(20);
    world.close_gate();
    let engine = world.engine.clone();
    let creation = Waiting::start(engine.call(create_workflow()));
    world.tried.recv().expect("the creation is tried");
    let mut held = Vec::new();
    let refusal = loop {
        match engine.call_blocking(claim(workflow, 1)) {
            Ok(answer) => held.extend(claimed(answer)),
            Err(error) => break error,
        }
    };
    assert_eq!(refusal, Error::Overloaded);
    assert!((4..20).contains(&held.len()), "{}", held.len());
    world.say(Verdict::Commit);
    creation.finish().expect("it is created");
    world.let_go(Verdict::Commit);
    assert!(matches!(block_on(engine.stop(Duration::from_secs(60))), Ended::Stopped));
    for row in held {
        assert_eq!(world.state(row.id), Some(JobState::Claimed));
    }
}
