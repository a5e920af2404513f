use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use forebay_domain::catalog::{Statement, StatementOutcome, Table};
use forebay_domain::command::{Answer, Claim, Command, Rejection};
use forebay_domain::ids::{JobId, NodeId, Timestamp, WorkflowId};
use forebay_domain::machine::Progress;
use forebay_domain::port::{Reader, StoreError};
use forebay_domain::state::JobState;
use forebay_engine::{Counters, Distributions, Ended, Error, Options, SystemClock};
use forebay_sim::CommitFault;

use crate::world::{
    HandClock, Verdict, Waiting, World, a_claim, block_on, claim, claimed, completed, create_jobs, create_workflow,
    insert_event, quick, retry, waiting_claim,
};

#[test]
fn an_answer_leaves_only_after_its_commit() {
    let mut world = World::new(quick());
    world.close_gate();
    let engine = world.engine.clone();
    let mut call = Waiting::start(engine.call(create_workflow()));
    world.tried.recv().expect("the batch is tried");
    assert!(!call.is_answered());
    world.say(Verdict::Commit);
    assert_eq!(call.finish(), Ok(Answer::Created(1)));
}

#[test]
fn a_claim_leaves_only_after_its_commit() {
    let mut world = World::new(quick());
    let workflow = world.workflow(1);
    world.close_gate();
    let engine = world.engine.clone();
    let mut call = Waiting::start(engine.call(claim(workflow, 1)));
    world.tried.recv().expect("the batch is tried");
    assert!(!call.is_answered());
    assert_eq!(world.state(JobId(1)), Some(JobState::Ready));
    world.say(Verdict::Commit);
    assert_eq!(claimed(call.finish().expect("there is a job")).len(), 1);
    assert_eq!(world.state(JobId(1)), Some(JobState::Claimed));
}

#[test]
fn a_watcher_is_told_of_changed_jobs_only_after_their_commit() {
    let mut world = World::new(quick());
    let workflow = world.workflow(1);
    let mut watcher = world.engine.watch();
    world.close_gate();
    let engine = world.engine.clone();
    let call = Waiting::start(engine.call(claim(workflow, 1)));
    world.tried.recv().expect("the batch is tried");
    assert!(watcher.try_recv().is_err());
    world.say(Verdict::Commit);
    call.finish().expect("there is a job");
    let changed = watcher.try_recv().expect("the commit was told before the answer");
    assert_eq!(changed.iter().map(|row| (row.id, row.state)).collect::<Vec<_>>(), [(JobId(1), JobState::Claimed)]);
}

#[test]
fn what_goes_with_a_command_is_in_its_batch_if_it_is_accepted() {
    let mut world = World::new(quick());
    let workflow = world.workflow(1);
    let said = |run| {
        let Command::Insert { table, rows, .. } = insert_event(workflow) else { panic!("it inserts an event") };
        let statements = vec![Statement::Insert { table, rows }];
        let command = Box::new(Command::SetState { job: JobId(1), run, state: JobState::Disabled });
        Command::With { statements, command }
    };
    let engine = world.engine.clone();
    let refused = engine.call_blocking(said(7));
    assert!(matches!(refused, Err(Error::Rejected(Rejection::RunMismatch { .. }))), "{refused:?}");
    world.close_gate();
    let call = Waiting::start(engine.call(said(0)));
    let batch = world.tried.recv().expect("the batch is tried");
    assert_eq!(batch.statements.len(), 1, "the refused command left nothing behind");
    assert_eq!(batch.jobs[0].row.state, JobState::Disabled);
    world.say(Verdict::Commit);
    assert!(matches!(call.finish(), Ok(Answer::Job(_))));
}

#[test]
fn what_gathers_during_a_commit_shares_the_next_one() {
    let mut world = World::new(quick());
    world.close_gate();
    let engine = world.engine.clone();
    let first = Waiting::start(engine.call(create_workflow()));
    world.tried.recv().expect("the batch is tried");
    let others: Vec<_> = (0..10).map(|_| Waiting::start(engine.call(create_workflow()))).collect();
    // An empty mailbox: all ten are applied, none is committed.
    while world.engine.counters().commands < 11 {
        std::thread::yield_now();
    }
    world.say(Verdict::Commit);
    let shared = world.let_go(Verdict::Commit);
    assert_eq!(shared.workflows.len(), 10);
    first.finish().expect("it was created");
    for other in others {
        other.finish().expect("it was created");
    }
    assert_eq!(world.engine.counters().batches, 2);
}

#[test]
fn a_statements_outcome_comes_with_its_commit() {
    let world = World::new(quick());
    let workflow = world.workflow(0);
    let Answer::Created(id) = world.do_now(insert_event(workflow)) else { panic!("it was created") };
    let delete = Statement::Delete { table: Table::Event, id };
    let Answer::Outcome(StatementOutcome::Row(Some(row))) = world.do_now(Command::Apply(delete.clone())) else {
        panic!("the row was there")
    };
    assert_eq!(row.len(), Table::Event.columns().len());
    assert_eq!(world.do_now(Command::Apply(delete)), Answer::Outcome(StatementOutcome::Row(None)));
}

#[test]
fn each_caller_gets_the_outcome_of_its_own_statement() {
    let mut world = World::new(quick());
    let workflow = world.workflow(0);
    let engine = world.engine.clone();
    let ids: Vec<i64> = (0..3)
        .map(|_| match world.do_now(insert_event(workflow)) {
            Answer::Created(id) => id,
            other => panic!("it was created, not {other:?}"),
        })
        .collect();
    world.close_gate();
    let block = Waiting::start(engine.call(create_workflow()));
    world.tried.recv().expect("the batch is tried");
    let delete = |id: &i64| Command::Apply(Statement::Delete { table: Table::Event, id: *id });
    let calls: Vec<_> = ids.iter().map(|id| Waiting::start(engine.call(delete(id)))).collect();
    while world.engine.counters().commands < 8 {
        std::thread::yield_now();
    }
    world.say(Verdict::Commit);
    assert_eq!(world.let_go(Verdict::Commit).statements.len(), 3);
    block.finish().expect("it was created");
    for (call, id) in calls.into_iter().zip(ids) {
        let Ok(Answer::Outcome(StatementOutcome::Row(Some(row)))) = call.finish() else { panic!("it was there") };
        assert_eq!(row[0], forebay_domain::catalog::Value::Int(id));
    }
}

#[test]
fn a_refusal_names_its_reason() {
    let world = World::new(quick());
    let nowhere = WorkflowId(77);
    let refused = world.engine.call_blocking(claim(nowhere, 1));
    assert_eq!(refused, Err(Error::Rejected(Rejection::NoSuchWorkflow(nowhere))));
}

#[test]
fn a_busy_store_gets_the_same_batch_again_and_all_in_order() {
    let mut world = World::new(quick());
    world.close_gate();
    let engine = world.engine.clone();
    let first = Waiting::start(engine.call(create_workflow()));
    let tried = world.let_go(Verdict::Busy);
    let second = Waiting::start(engine.call(create_workflow()));
    assert_eq!(world.let_go(Verdict::Busy), tried);
    assert_eq!(world.let_go(Verdict::Busy), tried);
    assert_eq!(world.let_go(Verdict::Commit), tried);
    assert_eq!(first.finish(), Ok(Answer::Created(1)));
    assert_eq!(world.let_go(Verdict::Commit).lsn, tried.lsn.next());
    assert_eq!(second.finish(), Ok(Answer::Created(2)));
    assert_eq!(world.engine.counters().busy, 3);
}

#[test]
fn a_commit_whose_answer_was_lost_is_not_done_twice() {
    let world = World::new(quick());
    let workflow = world.workflow(1);
    world.store.arrange(Some(CommitFault::BusyAfterWriting));
    assert_eq!(claimed(world.do_now(claim(workflow, 1))).len(), 1);
    assert_eq!(claimed(world.do_now(claim(workflow, 1))), []);
}

#[test]
fn a_waiting_claim_gets_the_job_that_becomes_ready() {
    let world = World::new(quick());
    let workflow = world.workflow(1);
    let held = claimed(world.do_now(claim(workflow, 1)));
    let engine = world.engine.clone();
    let call = Waiting::start(engine.call(waiting_claim(workflow)));
    world.do_now(retry(held[0].id));
    let again = claimed(call.finish().expect("a job became ready"));
    assert_eq!((again[0].id, again[0].attempt), (held[0].id, 2));
}

#[test]
fn a_waiting_claim_whose_caller_left_is_removed() {
    let world = World::new(quick());
    let workflow = world.workflow(1);
    let held = claimed(world.do_now(claim(workflow, 1)));
    let engine = world.engine.clone();
    let gone = Waiting::start(engine.call(waiting_claim(workflow)));
    let stays = Waiting::start(engine.call(waiting_claim(workflow)));
    drop(gone);
    world.do_now(retry(held[0].id));
    assert_eq!(claimed(stays.finish().expect("a job became ready")).len(), 1);
    assert_eq!(world.engine.counters().given_back, 0);
    assert_eq!(world.engine.counters().callers, 0);
}

#[test]
fn a_claim_whose_caller_left_before_the_commit_goes_back() {
    let mut world = World::new(quick());
    let workflow = world.workflow(1);
    world.close_gate();
    let engine = world.engine.clone();
    let call = Waiting::start(engine.call(claim(workflow, 1)));
    world.tried.recv().expect("the claim is tried");
    drop(call);
    world.say(Verdict::Commit);
    let back = world.let_go(Verdict::Commit);
    assert_eq!(back.jobs[0].row.state, JobState::Ready);
    let again = Waiting::start(engine.call(claim(workflow, 1)));
    world.let_go(Verdict::Commit);
    assert_eq!(claimed(again.finish().expect("it is back")).len(), 1);
}

#[test]
fn a_claim_that_was_sent_to_a_caller_who_never_looked_goes_back() {
    let mut world = World::new(quick());
    let workflow = world.workflow(1);
    let engine = world.engine.clone();
    world.close_gate();
    let call = Waiting::start(engine.call(claim(workflow, 1)));
    world.let_go(Verdict::Commit);
    let later = Waiting::start(engine.call(create_workflow()));
    world.let_go(Verdict::Commit);
    later.finish().expect("it was created");
    // The claim was answered before: its answer is in the channel.
    world.open_gate();
    drop(call);
    assert_eq!(claimed(world.do_now(waiting_claim(workflow))).len(), 1);
    assert_eq!(world.engine.counters().given_back, 1);
}

#[test]
fn a_claim_that_was_not_delivered_goes_back() {
    let world = World::new(quick());
    let workflow = world.workflow(2);
    let answer = block_on(world.engine.call_for_delivery(claim(workflow, 2))).expect("there are jobs");
    assert!(matches!(&*answer, Answer::Claimed(claimed) if claimed.jobs.len() == 2));
    drop(answer);
    assert_eq!(claimed(world.do_now(claim(workflow, 2))).len(), 2);
}

#[test]
fn a_claim_that_was_delivered_stays() {
    let world = World::new(quick());
    let workflow = world.workflow(2);
    let answer = block_on(world.engine.call_for_delivery(claim(workflow, 1))).expect("there are jobs");
    let held = claimed(answer.delivered());
    assert_eq!(claimed(world.do_now(claim(workflow, 2))).len(), 1);
    world.do_now(completed(workflow, &held[0]));
    assert_eq!(world.state(held[0].id), Some(JobState::Completed));
}

#[test]
fn a_claim_that_waits_long_enough_is_answered_empty() {
    let clock = Arc::new(HandClock::default());
    let world = World::at(quick(), clock.clone());
    let workflow = world.workflow(1);
    world.do_now(claim(workflow, 1));
    let engine = world.engine.clone();
    let mut call = Waiting::start(engine.call(Command::Claim(a_claim(workflow, 1, Some(Timestamp(500))))));
    clock.set(499);
    world.do_now(create_workflow());
    assert!(!call.is_answered());
    clock.set(500);
    world.do_now(create_workflow());
    assert_eq!(claimed(call.finish().expect("its time is over")), []);
}

#[test]
fn a_deadline_wakes_the_engine_by_itself() {
    let world = World::new(quick());
    let workflow = world.workflow(1);
    world.do_now(claim(workflow, 1));
    let until = world.engine.now().after(20);
    assert_eq!(claimed(world.do_now(Command::Claim(a_claim(workflow, 1, Some(until))))), []);
    assert!(world.engine.now() >= until);
}

#[test]
fn a_trickle_is_flushed_while_messages_keep_coming() {
    let world = World::new(Options { flush_interval: std::time::Duration::from_millis(50), ..quick() });
    world.do_now(create_workflow());
    let engine = world.engine.clone();
    let mut first = Waiting::start(engine.call(create_workflow()));
    let mut others = Vec::new();
    while !first.is_answered() {
        others.push(Waiting::start(engine.call(claim(WorkflowId(1), 1))));
        std::thread::yield_now();
    }
    for other in others {
        match other.finish() {
            Ok(answer) => assert_eq!(claimed(answer), []),
            Err(error) => assert_eq!(error, Error::Overloaded),
        }
    }
}

#[test]
fn in_process_mode_what_was_committed_is_synced() {
    let syncs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&syncs);
    let world = World::new(Options::process(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }));
    world.workflow(3);
    block_on(world.engine.stop(std::time::Duration::from_secs(60)));
    assert!(syncs.load(Ordering::SeqCst) >= 1);
}

#[test]
fn what_is_acknowledged_is_seen_by_reads() {
    let world = World::new(quick());
    let workflow = world.workflow(3);
    let row = block_on(world.engine.read(move |reader: &mut dyn Reader| reader.workflow(workflow)));
    let row = row.expect("it can be read").expect("it is there");
    assert_eq!(row.counts[JobState::Ready as usize], 3);
}

#[test]
fn the_machine_reads_while_doors_keep_their_readers_busy() {
    let world = World::new(Options { door_readers: 1, ..quick() });
    let workflow = world.workflow(3);
    // On the next start nothing is in memory: a claim needs reads.
    block_on(world.engine.stop(std::time::Duration::from_secs(60)));
    let options = Options { door_readers: 1, ..quick() };
    let next = World::on(world.store.clone(), options, Arc::new(SystemClock::new()));
    let (enough, waits) = mpsc::channel::<()>();
    let engine = next.engine.clone();
    let long = Waiting::start(engine.read(move |_: &mut dyn Reader| {
        waits.recv().expect_err("the test lets go");
        Ok(())
    }));
    assert_eq!(claimed(next.do_now(claim(workflow, 3))).len(), 3);
    assert!(next.engine.counters().machine_reads >= 2);
    drop(enough);
    assert_eq!(long.finish(), Ok(()));
}

#[test]
fn the_next_start_goes_on_where_the_last_ended() {
    let world = World::new(quick());
    let workflow = world.workflow(2);
    let held = claimed(world.do_now(claim(workflow, 1)));
    drop(world.engine);
    let next = World::on(world.store.clone(), quick(), Arc::new(SystemClock::new()));
    next.do_now(completed(workflow, &held[0]));
    let rest = claimed(next.do_now(claim(workflow, 2)));
    assert_eq!(rest.len(), 1);
    assert_ne!(rest[0].id, held[0].id);
}

#[test]
fn after_a_start_every_lease_has_its_full_length() {
    let world = World::at(quick(), Arc::new(HandClock::default()));
    let (workflow, node) = (world.workflow(1), NodeId(7));
    world.do_now(Command::Heartbeat { workflow, node, lease_ms: 100, begin: true });
    let claim = Claim { start_on: Some(node), leased: true, ..a_claim(workflow, 1, None) };
    let held = claimed(world.do_now(Command::Claim(claim)));
    drop(world.engine);
    let clock = Arc::new(HandClock::default());
    clock.set(5_000);
    let next = World::on(world.store.clone(), quick(), clock.clone());
    next.do_now(create_workflow());
    clock.set(5_099);
    next.do_now(create_workflow());
    assert_eq!(next.state(held[0].id), Some(JobState::Running));
    clock.set(5_100);
    let again = claimed(next.do_now(waiting_claim(workflow)));
    assert_eq!((again[0].id, again[0].attempt), (held[0].id, 2));
    let progress = block_on(next.engine.take_progress()).expect("it lives");
    assert_eq!(progress, [(workflow, Progress { lost: 1, ..Progress::default() })]);
}

#[test]
fn a_failed_sync_stops_the_engine() {
    let world = World::new(Options::process(|| Err(StoreError::Broken("the disk is gone".into()))));
    drop(world.engine.call_blocking(create_workflow()));
    let ended = block_on(world.engine.stopped());
    assert!(matches!(ended, Ended::Broken { cause, .. } if cause.to_string() == "the disk is gone"));
}

#[test]
fn claims_that_wait_for_the_same_page_are_all_answered() {
    let world = World::new(quick());
    let workflow = world.workflow(1);
    let engine = world.engine.clone();
    let calls: Vec<_> = (0..3).map(|_| Waiting::start(engine.call(claim(workflow, 1)))).collect();
    let got: Vec<usize> = calls.into_iter().map(|call| claimed(call.finish().expect("it may claim")).len()).collect();
    assert_eq!(got, [1, 0, 0]);
}

#[test]
fn a_waiting_claim_is_answered_when_its_workflow_is_complete() {
    let world = World::new(quick());
    let workflow = world.workflow(1);
    let held = claimed(world.do_now(claim(workflow, 1)));
    let engine = world.engine.clone();
    let waits = Waiting::start(engine.call(waiting_claim(workflow)));
    world.do_now(completed(workflow, &held[0]));
    assert_eq!(claimed(waits.finish().expect("nothing is left to wait for")), []);
}

#[test]
fn what_ended_and_what_that_freed_is_told_once() {
    let world = World::new(quick());
    let Answer::Created(id) = world.do_now(create_workflow()) else { panic!("it was created") };
    let workflow = WorkflowId(id);
    world.do_now(create_jobs(workflow, 2));
    let Command::CreateJobs { jobs: mut after, .. } = create_jobs(workflow, 3) else { panic!("it creates jobs") };
    for job in &mut after {
        job.depends_on = [JobId(1)].into();
    }
    world.do_now(Command::CreateJobs { workflow, jobs: after });
    world.do_now(Command::Initialize { workflow, only_drafts: false });
    let held = claimed(world.do_now(claim(workflow, 2)));
    assert_eq!(block_on(world.engine.take_progress()), Ok(vec![]));
    world.do_now(completed(workflow, &held[0]));
    world.do_now(completed(workflow, &held[1]));
    let progress = Progress { ended: 2, freed: 3, lost: 0 };
    assert_eq!(block_on(world.engine.take_progress()), Ok(vec![(workflow, progress)]));
    assert_eq!(block_on(world.engine.take_progress()), Ok(vec![]));
}

#[test]
fn operators_see_what_the_machine_holds_and_how_long_things_took() {
    let world = World::new(quick());
    let workflow = world.workflow(5);
    world.do_now(claim(workflow, 2));
    // A claim through the async way, whose time is taken.
    block_on(world.engine.call(claim(workflow, 1))).expect("there are jobs");
    let stats = block_on(world.engine.stats()).expect("it runs");
    assert_eq!((stats.windowed, stats.lanes, stats.lanes_behind), (2, 1, 0));
    let Distributions { commit, page, claim, batch } = world.engine.distributions();
    let Counters { batches, changes, .. } = world.engine.counters();
    assert_eq!((commit.count, batch.count, batch.sum), (batches, batches, changes));
    assert_eq!(claim.count, 1);
    assert!(page.count >= 1);
    block_on(world.engine.stop(std::time::Duration::from_secs(60)));
    assert_eq!(block_on(world.engine.stats()), Err(Error::Stopping));
}

#[test]
fn claims_that_wait_are_served_in_the_order_in_which_they_came() {
    let world = World::new(quick());
    let workflow = world.workflow(2);
    let held = claimed(world.do_now(claim(workflow, 2)));
    let engine = world.engine.clone();
    let first = Waiting::start(engine.call(waiting_claim(workflow)));
    let mut second = Waiting::start(engine.call(waiting_claim(workflow)));
    world.do_now(retry(held[1].id));
    assert_eq!(claimed(first.finish().expect("a job became ready"))[0].id, held[1].id);
    assert!(!second.is_answered());
    world.do_now(retry(held[0].id));
    assert_eq!(claimed(second.finish().expect("another did"))[0].id, held[0].id);
}

#[test]
fn a_job_that_is_in_memory_and_that_nobody_took_is_ready_in_the_store() {
    let mut world = World::new(quick());
    let workflow = world.workflow(3);
    let taken = claimed(world.do_now(claim(workflow, 1)));
    let stats = block_on(world.engine.stats()).expect("it runs");
    assert_eq!(stats.windowed, 2);
    let states = [1, 2, 3].map(|id| world.state(JobId(id)));
    assert_eq!(states, [JobState::Claimed, JobState::Ready, JobState::Ready].map(Some));
    // What was in memory goes with the process, and the next one has all of it.
    world.close_gate();
    let next = World::on(world.store.clone(), quick(), Arc::new(SystemClock::new()));
    let left = claimed(next.do_now(claim(workflow, 5)));
    assert_eq!(left.iter().map(|row| row.id.0).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(taken[0].id, JobId(1));
}
