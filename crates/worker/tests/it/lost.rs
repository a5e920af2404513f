//! Servers that are away, answers that are lost, workers that are killed.

use std::time::Duration;

use forebay_wire::JobStatus;
use forebay_worker::{Access, Client, End, Error, Event, SettleError, Stop, Worker, settle, settle_and_give_back};

use crate::server::Server;
use crate::{Site, is_alive, worker_process};

#[tokio::test]
async fn jobs_go_on_while_the_server_is_away_and_are_reported_when_it_is_back() {
    let (server, site) = (Server::start().await, Site::new());
    let id = server.job("works", "until [ -e open ]; do sleep 0.01; done", |_| {});
    let next = server.job("next", "true", |job| job.depends_on_job_ids = Some(vec![id]));
    let outage = async {
        site.started("works").await;
        server.book().away = true;
        std::fs::write(site.path("open"), "").unwrap();
        site.told(|event| matches!(event, Event::Finished { .. })).await;
        site.told(|event| matches!(event, Event::Away { .. })).await;
        server.book().away = false;
    };
    let (summary, ()) = tokio::join!(site.run(site.options(&server), Stop::never()), outage);
    assert_eq!((summary.end, summary.completed), (End::Complete, 2));
    assert_eq!(server.status_of(next), JobStatus::Completed);
    assert!(site.events.lock().unwrap().contains(&Event::Back));
}

#[tokio::test]
async fn a_server_that_stays_away_ends_the_worker_once_its_jobs_are_done() {
    let (server, site) = (Server::start().await, Site::new());
    let id = server.job("works", "sleep 0.2", |_| {});
    let mut options = site.options(&server);
    options.away_max = Duration::from_millis(300);
    let outage = async {
        site.started("works").await;
        server.book().away = true;
    };
    let (summary, ()) = tokio::join!(site.run(options, Stop::never()), outage);
    assert!(matches!(summary.end, End::Away { .. }), "{:?}", summary.end);
    assert_eq!(summary.unreported.iter().map(|job| job.job_id).collect::<Vec<_>>(), [id]);
    let settled = settle(&site.path("out/worker_journal")).unwrap();
    assert_eq!(settled.iter().map(|s| (s.job_id, s.was_alive)).collect::<Vec<_>>(), [(id, false)]);
}

#[tokio::test]
async fn a_report_whose_answer_was_lost_is_sent_again_and_counts_once() {
    let (server, site) = (Server::start().await, Site::new());
    server.job("works", "until [ -e open ]; do sleep 0.01; done", |_| {});
    let mut options = site.options(&server);
    // No claim waits meanwhile.
    options.max_parallel_jobs = Some(1);
    let nasty = async {
        site.started("works").await;
        server.book().lose_answers = 1;
        std::fs::write(site.path("open"), "").unwrap();
    };
    let (summary, ()) = tokio::join!(site.run(options, Stop::never()), nasty);
    assert_eq!((summary.end, summary.completed, summary.not_accepted), (End::Complete, 1, 0));
    assert_eq!(server.book().results.len(), 1);
}

/// The server has started the jobs here and does not know that we do not know.
#[tokio::test]
async fn jobs_of_a_claim_whose_answer_was_lost_are_taken_up() {
    let (server, site) = (Server::start().await, Site::new());
    for n in 0..3 {
        server.job(&format!("job{n}"), "echo $TORC_JOB_ID >> ran", |_| {});
    }
    server.book().lose_answers = 1;
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!((summary.end, summary.completed), (End::Complete, 3));
    assert_eq!(site.read("ran").lines().count(), 3, "each ran once");
}

#[tokio::test]
async fn jobs_that_the_server_took_back_itself_are_claimed_again() {
    let (server, site) = (Server::start().await, Site::new());
    for n in 0..3 {
        server.job(&format!("job{n}"), "echo $TORC_JOB_ID >> ran", |_| {});
    }
    server.book().lose_answers = 1;
    server.book().undo_lost = true;
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!((summary.end, summary.completed), (End::Complete, 3));
    assert_eq!(site.read("ran").lines().count(), 3, "each ran once");
}

#[tokio::test]
async fn one_report_that_the_server_cannot_read_does_not_hold_up_the_others() {
    let (server, site) = (Server::start().await, Site::new());
    let ids: Vec<i64> =
        (0..4).map(|n| server.job(&format!("job{n}"), "until [ -e open ]; do sleep 0.01; done", |_| {})).collect();
    server.book().poison = Some(ids[1]);
    let release = async {
        for n in 0..4 {
            site.started(&format!("job{n}")).await;
        }
        std::fs::write(site.path("open"), "").unwrap();
        site.told(|event| matches!(event, Event::NotAccepted { .. })).await;
        // Nobody will report it any more.
        server.book().jobs[1].status = Some(JobStatus::Failed);
    };
    let (summary, ()) = tokio::join!(site.run(site.options(&server), Stop::never()), release);
    assert_eq!((summary.end, summary.completed, summary.not_accepted), (End::Complete, 3, 1));
}

/// A report is not kept waiting by a claim that waits.
#[tokio::test]
async fn what_ends_while_a_claim_waits_is_reported_at_once() {
    let (server, site) = (Server::start().await, Site::new());
    let first = server.job("first", "until [ -e open ]; do sleep 0.01; done", |_| {});
    server.job("long", "until [ -e done ]; do sleep 0.01; done", |_| {});
    server.job("last", "touch done", |job| job.depends_on_job_ids = Some(vec![first]));
    let mut options = site.options(&server);
    options.busy_claim_wait = Duration::from_secs(600);
    options.claim_wait = Duration::from_secs(600);
    let script = async {
        site.started("long").await;
        site.started("first").await;
        server.until_asked("POST /workflows/1/report_and_claim", 2).await;
        std::fs::write(site.path("open"), "").unwrap();
    };
    let (summary, ()) = tokio::join!(site.run(options, Stop::never()), script);
    assert_eq!((summary.end, summary.completed), (End::Complete, 3));
}

#[tokio::test]
async fn leaving_gives_back_what_a_waiting_claim_may_have_got() {
    let (server, site) = (Server::start().await, Site::new());
    let elsewhere = server.job("elsewhere", "true", |_| {});
    server.book().jobs[0].status = Some(JobStatus::Running);
    let late = server.job("late", "true", |job| job.depends_on_job_ids = Some(vec![elsewhere]));
    let (stopper, stop) = Stop::channel();
    let script = async {
        server.until_asked("POST /workflows/1/report_and_claim", 2).await;
        // It is started here, by a claim whose answer nobody reads.
        let mut book = server.book();
        book.jobs[late as usize - 1].status = Some(JobStatus::Running);
        book.jobs[late as usize - 1].compute_node_id = Some(1);
        drop(book);
        stopper.interrupt();
    };
    let (summary, ()) = tokio::join!(site.run(site.options(&server), stop), script);
    assert_eq!(summary.end, End::Interrupted);
    assert_eq!(server.status_of(late), JobStatus::Ready);
}

#[tokio::test]
async fn a_worker_that_is_dropped_takes_its_jobs_with_it_and_the_next_one_gives_them_back() {
    let (server, site) = (Server::start().await, Site::new());
    // It takes all there is, so no claim is on its way when the worker is dropped.
    let all = server.needs("all", 4, "1g", "PT1M");
    let command = "echo $$ > pid; sleep 1000 & sleep 1000";
    let id = server.job("sleeps", command, |job| job.resource_requirements_id = Some(all));
    let pid = tokio::select! {
        _ = site.run(site.options(&server), Stop::never()) => panic!("it sleeps"),
        pid = site.written("pid") => pid,
    };
    assert!(!is_alive(pid.trim().parse().unwrap()));
    let journal = site.path("out/worker_journal");
    let again = Worker::run(site.options(&server), Stop::never(), |_| {}).await;
    assert!(matches!(again, Err(Error::Launch(_))), "not before it is settled");

    let client = Client::new(&server.url(), &Access::default()).unwrap();
    server.book().away = true;
    let settled = settle_and_give_back(&journal, &client).await;
    assert!(matches!(settled, Err(SettleError::GiveBack(_))), "{settled:?}");
    server.book().away = false;
    let settled = settle_and_give_back(&journal, &client).await.unwrap();
    assert_eq!(settled.iter().map(|s| (s.job_id, s.attempt_id)).collect::<Vec<_>>(), [(id, 1)]);
    assert_eq!((server.status_of(id), server.book().nodes[0].is_active), (JobStatus::Ready, Some(false)));
    assert!(settle_and_give_back(&journal, &client).await.unwrap().is_empty());

    server.book().jobs[0].command = "true".into();
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!((summary.end, summary.completed), (End::Complete, 1));
    assert!(settle(&journal).unwrap().is_empty());
}

/// kill -9 of the worker alone: the launcher ends the jobs.
#[tokio::test]
async fn the_jobs_of_a_killed_worker_die_with_it() {
    let (server, site) = (Server::start().await, Site::new());
    let id = server.job("sleeps", "echo $$ $PPID > pids; sleep 1000 & wait", |_| {});
    let mut worker = worker_process(&server, &site);
    let pids = site.written("pids").await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    // It waits for the launcher, which is killing them, to let go of the journal.
    let journal = site.path("out/worker_journal");
    let settled = tokio::task::spawn_blocking(move || settle(&journal)).await.unwrap().unwrap();
    assert_eq!(settled.iter().map(|s| (s.job_id, s.was_alive)).collect::<Vec<_>>(), [(id, false)]);
    assert!(!is_alive(pids.split(' ').next().unwrap().parse().unwrap()));
}

/// kill -9 of worker and launcher at once: the jobs live on until they are settled, also the one
/// that has left its group.
#[tokio::test]
async fn jobs_that_outlive_worker_and_launcher_are_killed_before_they_run_again() {
    let (server, site) = (Server::start().await, Site::new());
    let script = "setsid bash -c 'echo $$ > stray; exec sleep 1000' & echo $$ $PPID > pids; sleep 1000 & wait";
    let id = server.job("sleeps", script, |_| {});
    let mut worker = worker_process(&server, &site);
    let (pids, stray) = (site.written("pids").await, site.written("stray").await);
    let pids: Vec<i32> = pids.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    let (job, launcher) = (pids[0], pids[1]);
    // The launcher first, or it would do its work; the worker stands still, or it would hear of it.
    for (signal, pid) in [("-STOP", worker.id().to_string()), ("-KILL", launcher.to_string())] {
        assert!(std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    let journal = site.path("out/worker_journal");
    let settled = tokio::task::spawn_blocking(move || settle(&journal)).await.unwrap().unwrap();
    assert_eq!(settled.iter().map(|s| s.job_id).collect::<Vec<_>>(), [id]);
    assert!(!is_alive(job) && !is_alive(stray.trim().parse().unwrap()));
}

#[tokio::test]
async fn a_worker_without_its_launcher_gives_its_jobs_back() {
    let (server, site) = (Server::start().await, Site::new());
    let id = server.job("sleeps", "echo $$ $PPID > pids; sleep 1000 & wait", |_| {});
    let options = site.options(&server);
    let kill = async {
        let pids = site.written("pids").await;
        let pids: Vec<&str> = pids.split_whitespace().collect();
        assert!(std::process::Command::new("kill").args(["-9", pids[1]]).status().unwrap().success());
        pids[0].parse::<i32>().unwrap()
    };
    let (error, job) = tokio::join!(Worker::run(options, Stop::never(), |_| {}), kill);
    assert!(matches!(error, Err(Error::Launch(_))), "{error:?}");
    assert!(!is_alive(job));
    assert_eq!(server.status_of(id), JobStatus::Ready);
    assert_eq!(server.book().nodes[0].is_active, Some(false));
    assert!(settle(&site.path("out/worker_journal")).unwrap().is_empty());
}

#[tokio::test]
async fn no_server_is_an_error_that_names_it() {
    let (server, site) = (Server::start().await, Site::new());
    let mut options = site.options(&server);
    options.url = "http://127.0.0.1:1".into();
    let error = Worker::run(options, Stop::never(), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("http://127.0.0.1:1"), "{error}");
}
