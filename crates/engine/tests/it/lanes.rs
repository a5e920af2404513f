//! The bound of the lanes of all workflows that are not complete, in memory or not.

use std::sync::Arc;

use forebay_domain::command::{Answer, Command, JobChange, Rejection};
use forebay_domain::ids::WorkflowId;
use forebay_domain::job::{JobRow, NewJob};
use forebay_domain::lane::LabelSet;
use forebay_domain::limits::Limits;
use forebay_domain::state::JobState;
use forebay_engine::{Error, Options, SystemClock};
use forebay_sim::commands::new_job;

use crate::world::{World, claim, claimed, completed, create_workflow, quick, retry};

const LANES_MAX: usize = 3;

fn options() -> Options {
    Options { limits: Limits { lanes_max: LANES_MAX, ..Limits::default() }, ..quick() }
}

fn full() -> Error {
    Error::Rejected(Rejection::Limit { option: "lanes_max", max: LANES_MAX as u64 })
}

/// A job for each of these labels, each of a lane of its own.
fn jobs(workflow: WorkflowId, labels: &[&str]) -> Command {
    let job = |label: &&str| NewJob { labels: LabelSet::new([(*label).into()]), ..new_job(0) };
    Command::CreateJobs { workflow, jobs: labels.iter().map(job).collect() }
}

fn new_workflow(world: &World) -> WorkflowId {
    let Answer::Created(id) = world.do_now(create_workflow()) else { panic!("it was created") };
    WorkflowId(id)
}

fn failed(workflow: WorkflowId, job: &JobRow) -> Command {
    let Command::Report(mut report) = completed(workflow, job) else { panic!("it is a report") };
    report.completions[0].outcome.state = JobState::Failed;
    report.completions[0].outcome.return_code = 1;
    Command::Report(report)
}

fn restarted(world: World) -> World {
    let store = world.store.clone();
    drop(world.engine);
    World::on(store, options(), Arc::new(SystemClock::new()))
}

/// How many (jobs, lanes, lanes that are reserved) are stored.
fn stored(world: &World) -> (usize, usize, i64) {
    world.store.look(|db| (db.jobs.len(), db.lanes.len(), db.workflows.values().map(|row| row.lanes).sum()))
}

#[test]
fn after_a_restart_lanes_that_are_not_in_memory_count() {
    let world = World::new(options());
    let (first, second) = (new_workflow(&world), new_workflow(&world));
    world.do_now(jobs(first, &["a", "b"]));
    let world = restarted(world);
    let before = stored(&world);
    assert_eq!(world.engine.call_blocking(jobs(second, &["c", "d"])), Err(full()));
    assert_eq!(stored(&world), before, "a refused creation leaves nothing");
    world.do_now(jobs(second, &["c"]));
    assert_eq!(stored(&world), (3, 3, 3));
}

#[test]
fn who_deletes_a_workflow_makes_room_for_its_lanes() {
    let world = World::new(options());
    let (first, second) = (new_workflow(&world), new_workflow(&world));
    world.do_now(jobs(first, &["a", "b"]));
    let world = restarted(world);
    world.do_now(Command::DeleteWorkflow(first));
    world.do_now(jobs(second, &["c", "d", "e"]));
    let world = restarted(world);
    world.do_now(Command::DeleteJobs { workflow: second, job: None });
    let third = new_workflow(&world);
    world.do_now(jobs(third, &["f", "g", "h"]));
    assert_eq!(stored(&world), (3, 6, 3));
}

#[test]
fn a_complete_workflow_gives_room_for_its_lanes_and_begins_again_only_where_there_is_some() {
    let world = World::new(options());
    let (first, second) = (new_workflow(&world), new_workflow(&world));
    world.do_now(Command::CreateJobs { workflow: first, jobs: vec![new_job(0)] });
    world.do_now(jobs(second, &["a", "b"]));
    world.do_now(Command::Initialize { workflow: first, only_drafts: false });
    let job = claimed(world.do_now(claim(first, 1)))[0];
    assert_eq!(world.engine.call_blocking(jobs(second, &["c"])), Err(full()));
    world.do_now(failed(first, &job));
    world.do_now(jobs(second, &["c"]));
    let world = restarted(world);
    let before = stored(&world);
    let reset = Command::ResetJobs { workflow: first, failed_only: false };
    let again = Command::SetState { job: job.id, run: 0, state: JobState::Ready };
    let initialize = Command::Initialize { workflow: first, only_drafts: false };
    let more = Command::CreateJobs { workflow: first, jobs: vec![new_job(1)] };
    for command in [&reset, &again, &retry(job.id), &initialize, &more] {
        assert_eq!(world.engine.call_blocking(command.clone()), Err(full()), "{command:?}");
    }
    assert_eq!(stored(&world), before);
    world.do_now(Command::CancelWorkflow(second));
    let uncancel = Command::NewRun { workflow: second, force: false };
    world.do_now(reset);
    assert_eq!(world.engine.call_blocking(uncancel), Err(full()), "its jobs have still something to do");
    assert_eq!(stored(&world), (4, 4, 1));
}

#[test]
fn a_job_that_changes_its_lane_needs_room_for_that() {
    let world = World::new(options());
    let workflow = new_workflow(&world);
    world.do_now(jobs(workflow, &["a", "b"]));
    let job = world.store.look(|db| *db.jobs.keys().next().expect("it was created"));
    let change = |label: &str| {
        let labels = Some(LabelSet::new([label.into()]));
        Command::UpdateJob { job, change: Box::new(JobChange { labels, ..JobChange::default() }) }
    };
    world.do_now(change("c"));
    let world = restarted(world);
    assert_eq!(world.engine.call_blocking(change("d")), Err(full()));
    world.do_now(change("b"));
    assert_eq!(stored(&world), (2, 3, 3));
}
