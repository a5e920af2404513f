//! How a worker ends, and what becomes of the jobs then.

use std::time::Duration;

use forebay_wire::{ExecutionConfig, JobStatus};
use forebay_worker::{End, Event, OnInterrupt, Stop};

use crate::server::Server;
use crate::{Site, is_alive};

const FOR_EVER: &str = "sleep 1000 & sleep 1000";

#[tokio::test]
async fn the_first_interrupt_lets_jobs_finish_and_claims_no_more() {
    let (server, site) = (Server::start().await, Site::new());
    let first = server.job("first", "until [ -e open ]; do sleep 0.01; done", |_| {});
    let next = server.job("next", "true", |job| job.depends_on_job_ids = Some(vec![first]));
    let (stopper, stop) = Stop::channel();
    let (options, interrupt) = (site.options(&server), async {
        site.started("first").await;
        stopper.interrupt();
        site.told(|event| matches!(event, Event::Stopping { why: End::Interrupted })).await;
        std::fs::write(site.path("open"), "").unwrap();
    });
    let (summary, ()) = tokio::join!(site.run(options, stop), interrupt);
    assert_eq!((summary.end, summary.completed), (End::Interrupted, 1));
    assert_eq!((server.status_of(first), server.status_of(next)), (JobStatus::Completed, JobStatus::Ready));
    assert_eq!(server.book().nodes[0].is_active, Some(false));
}

#[tokio::test]
async fn the_second_interrupt_terminates_and_what_heeds_it_keeps_its_code() {
    let (server, site) = (Server::start().await, Site::new());
    let heeds = server.job("heeds", "trap 'exit 0' TERM; touch heeds; while true; do sleep 0.01; done", |_| {});
    let dies = server.job("dies", FOR_EVER, |_| {});
    let (stopper, stop) = Stop::channel();
    let (options, interrupt) = (site.options(&server), async {
        site.started("heeds").await;
        site.started("dies").await;
        while !site.path("heeds").exists() {
            tokio::task::yield_now().await;
        }
        stopper.interrupt();
        stopper.interrupt();
    });
    let (summary, ()) = tokio::join!(site.run(options, stop), interrupt);
    assert_eq!((summary.end, summary.completed, summary.terminated), (End::Interrupted, 1, 1));
    assert_eq!(server.status_of(heeds), JobStatus::Completed);
    let result = server.result_of(dies);
    assert_eq!((result.status, result.return_code), (JobStatus::Terminated, 143));
    assert!(!is_alive(site.pid("dies")));
}

#[tokio::test]
async fn what_does_not_heed_the_signal_is_killed_after_its_lead() {
    let (server, site) = (Server::start().await, Site::new());
    server.book().workflow.execution_config =
        Some(ExecutionConfig { sigterm_lead_seconds: Some(0), ..ExecutionConfig::default() });
    let id = server.job("deaf", "trap '' TERM; touch deaf; while true; do sleep 0.01; done", |_| {});
    let (stopper, stop) = Stop::channel();
    let mut options = site.options(&server);
    options.on_interrupt = OnInterrupt::Terminate;
    let interrupt = async {
        site.started("deaf").await;
        while !site.path("deaf").exists() {
            tokio::task::yield_now().await;
        }
        stopper.interrupt();
    };
    let (summary, ()) = tokio::join!(site.run(options, stop), interrupt);
    assert_eq!(summary.terminated, 1);
    assert_eq!(server.result_of(id).return_code, 152);
}

#[tokio::test]
async fn a_canceled_workflow_has_its_jobs_killed() {
    let (server, site) = (Server::start().await, Site::new());
    let id = server.job("sleeps", FOR_EVER, |_| {});
    let mut options = site.options(&server);
    options.check_interval = Duration::from_millis(20);
    options.max_parallel_jobs = Some(1);
    let cancel = async {
        site.started("sleeps").await;
        server.cancel();
    };
    let (summary, ()) = tokio::join!(site.run(options, Stop::never()), cancel);
    assert_eq!((summary.end, summary.not_accepted), (End::Canceled, 0));
    assert_eq!(server.status_of(id), JobStatus::Canceled);
    assert!(!is_alive(site.pid("sleeps")));
}

#[tokio::test]
async fn a_job_over_its_runtime_is_terminated_when_that_is_enforced() {
    let (server, site) = (Server::start().await, Site::new());
    let short = server.needs("short", 1, "1m", "PT1S");
    let id = server.job("long", FOR_EVER, |job| job.resource_requirements_id = Some(short));
    let mut options = site.options(&server);
    options.enforce_runtime = true;
    let summary = site.run(options, Stop::never()).await;
    assert_eq!((summary.end, summary.terminated), (End::Complete, 1));
    let result = server.result_of(id);
    assert_eq!((result.return_code, result.status), (152, JobStatus::Terminated));
}

#[tokio::test]
async fn jobs_are_terminated_before_the_time_limit() {
    let (server, site) = (Server::start().await, Site::new());
    let id = server.job("sleeps", FOR_EVER, |_| {});
    let mut options = site.options(&server);
    // 60 s of headroom and 30 s of lead are kept.
    options.time_limit = Some(Duration::from_millis(90_200));
    let summary = site.run(options, Stop::never()).await;
    assert_eq!((summary.end, summary.terminated), (End::TimeLimit, 1));
    assert_eq!(server.result_of(id).return_code, 143);
}

#[tokio::test]
async fn a_ready_job_that_never_fits_ends_the_run_once_nothing_else_goes_on() {
    let (server, site) = (Server::start().await, Site::new());
    let wide = server.needs("wide", 64, "1m", "PT1M");
    server.job("wide", "true", |job| job.resource_requirements_id = Some(wide));
    server.job("fits", "sleep 0.1", |_| {});
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!(summary.completed, 1);
    let End::NothingFits { jobs, has } = summary.end else { panic!("{:?}", summary.end) };
    assert_eq!((jobs.len(), jobs[0].name.as_str(), jobs[0].needs.cpus, has.cpus), (1, "wide", 64, 4));
}

#[tokio::test]
async fn jobs_that_nothing_sets_free_end_the_run() {
    let (server, site) = (Server::start().await, Site::new());
    let off = server.job("off", "true", |_| {});
    server.book().jobs[0].status = Some(JobStatus::Disabled);
    server.job("waits", "true", |job| job.depends_on_job_ids = Some(vec![off]));
    let summary = site.run(site.options(&server), Stop::never()).await;
    let End::Stuck(counts) = summary.end else { panic!("{:?}", summary.end) };
    assert_eq!((counts.blocked, counts.disabled), (1, 1));
}

#[tokio::test]
async fn two_workers_share_a_workflow_and_wait_for_each_other() {
    let server = Server::start().await;
    let (one, two) = (Site::new(), Site::new());
    let first = server.job("first", "sleep 0.3", |_| {});
    for n in 0..6 {
        server.job(&format!("then{n}"), "sleep 0.05", |job| job.depends_on_job_ids = Some(vec![first]));
    }
    let (a, b) =
        tokio::join!(one.run(one.options(&server), Stop::never()), two.run(two.options(&server), Stop::never()));
    assert_eq!((&a.end, &b.end), (&End::Complete, &End::Complete));
    assert_eq!(a.completed + b.completed, 7);
    assert!(a.completed > 0 && b.completed > 0, "{a:?} {b:?}");
}

#[tokio::test]
async fn a_worker_with_nothing_to_claim_leaves_when_it_is_told_to() {
    let (server, site) = (Server::start().await, Site::new());
    server.job("elsewhere", "true", |_| {});
    server.book().jobs[0].status = Some(JobStatus::Running);
    let mut options = site.options(&server);
    options.idle_max = Some(Duration::from_millis(200));
    let summary = site.run(options, Stop::never()).await;
    assert_eq!(summary.end, End::Idle);
}

#[tokio::test]
async fn a_server_that_refuses_us_ends_the_worker() {
    let (server, site) = (Server::start().await, Site::new());
    let id = server.job("sleeps", FOR_EVER, |_| {});
    let mut options = site.options(&server);
    options.check_interval = Duration::from_millis(20);
    options.workflow_id = 1;
    let refuse = async {
        site.started("sleeps").await;
        server.book().refuse = true;
    };
    let (summary, ()) = tokio::join!(site.run(options, Stop::never()), refuse);
    assert!(matches!(summary.end, End::Refused { .. }), "{:?}", summary.end);
    assert_eq!(summary.unreported.iter().map(|job| job.job_id).collect::<Vec<_>>(), [id]);
    assert!(!is_alive(site.pid("sleeps")));
}
