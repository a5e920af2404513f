//! Failure handlers.

use forebay_wire::JobStatus;
use forebay_worker::{End, Event, Stop};

use crate::Site;
use crate::server::Server;

#[tokio::test]
async fn a_job_is_retried_until_its_attempts_are_used_up() {
    let (server, site) = (Server::start().await, Site::new());
    let handler = server.handler(r#"[{"exit_codes": [7], "max_retries": 3}]"#);
    let id =
        server.job("fails", "echo $TORC_ATTEMPT_ID >> attempts; exit 7", |job| job.failure_handler_id = Some(handler));
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!((summary.end, summary.retried, summary.failed), (End::Complete, 2, 1));
    assert_eq!(site.read("attempts"), "1\n2\n3\n");
    assert_eq!((server.status_of(id), server.result_of(id).attempt_id), (JobStatus::Failed, Some(3)));
    assert_eq!(server.asked("GET /failure_handlers/"), 1, "handlers are read once");
}

#[tokio::test]
async fn the_next_attempt_waits_for_the_recovery_script() {
    let (server, site) = (Server::start().await, Site::new());
    let script = "echo $TORC_RETURN_CODE $TORC_ATTEMPT_ID $TORC_JOB_NAME; sleep 0.2; touch repaired";
    let rules = serde_json::json!([{ "match_all_exit_codes": true, "recovery_script": script }]).to_string();
    let handler = server.handler(&rules);
    let id = server.job("heals", "[ -e repaired ] || exit 9", |job| job.failure_handler_id = Some(handler));
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!((summary.retried, summary.completed), (1, 1));
    assert_eq!(server.result_of(id).attempt_id, Some(2));
    assert_eq!(site.read("out/job_stdio/job_wf1_j1_r1_a1.recovery.log"), "9 1 heals\n");
    site.told(|event| matches!(event, Event::RecoveryEnded { return_code: 0, .. })).await;
}

#[tokio::test]
async fn what_no_rule_is_for_is_pending_failed_if_the_workflow_says_so() {
    let (server, site) = (Server::start().await, Site::new());
    server.book().workflow.use_pending_failed = Some(true);
    let handler = server.handler(r#"[{"exit_codes": [7], "max_retries": 1}]"#);
    let other = server.job("other", "exit 8", |job| job.failure_handler_id = Some(handler));
    let none = server.job("none", "exit 8", |_| {});
    let used_up = server.job("used up", "exit 7", |job| job.failure_handler_id = Some(handler));
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert!(matches!(summary.end, End::Stuck(_)), "{:?}", summary.end);
    let states = [other, none, used_up].map(|id| server.status_of(id));
    assert_eq!(states, [JobStatus::PendingFailed, JobStatus::PendingFailed, JobStatus::Failed]);
}

#[tokio::test]
async fn rules_that_cannot_be_read_make_a_plain_failure() {
    let (server, site) = (Server::start().await, Site::new());
    let handler = server.handler("not json");
    let id = server.job("fails", "exit 7", |job| job.failure_handler_id = Some(handler));
    site.run(site.options(&server), Stop::never()).await;
    assert_eq!(server.status_of(id), JobStatus::Failed);
    assert!(site.outcome("fails").why.unwrap().contains("failure handler"));
}

#[tokio::test]
async fn a_retry_whose_answer_was_lost_is_not_asked_for_twice() {
    let (server, site) = (Server::start().await, Site::new());
    let handler = server.handler(r#"[{"exit_codes": [7], "max_retries": 9}]"#);
    let command = "[ -e again ] || { touch again; exit 7; }";
    let id = server.job("fails", command, |job| job.failure_handler_id = Some(handler));
    let gate = server.job("gate", "until [ -e open ]; do sleep 0.01; done", |_| {});
    let options = site.options(&server);
    let nasty = async {
        site.started("fails").await;
        server.book().lose_answers = 1;
        server.until_asked("GET /jobs/1", 1).await;
        std::fs::write(site.path("open"), "").unwrap();
    };
    let (summary, ()) = tokio::join!(site.run(options, Stop::never()), nasty);
    assert_eq!((summary.end, summary.retried), (End::Complete, 1));
    assert_eq!(server.result_of(id).attempt_id, Some(2));
    assert_eq!(server.status_of(gate), JobStatus::Completed);
}

/// A machine's trouble is not the job's.
#[tokio::test]
async fn a_job_that_this_machine_cannot_start_is_given_back() {
    let (server, site) = (Server::start().await, Site::new());
    server.job("job", "true", |_| {});
    let in_the_way = site.path("out/job_stdio/job_wf1_j1_r1_a1.o");
    std::fs::create_dir_all(&in_the_way).unwrap();
    let repair = async {
        server.until_asked("PUT /jobs/1/manage_status_change/ready/1", 1).await;
        std::fs::remove_dir(&in_the_way).unwrap();
    };
    let (summary, ()) = tokio::join!(site.run(site.options(&server), Stop::never()), repair);
    assert_eq!((summary.end, summary.completed, summary.failed), (End::Complete, 1, 0));
}
