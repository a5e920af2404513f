//! Workers that say that they live, and workers that are not heard of.

use std::time::Duration;

use forebay_worker::{Access, Client, End, Event, Options, Stop, settle, settle_and_give_back};

use crate::server::Server;
use crate::{Site, is_alive};

/// Its first attempt does not end by itself.
const ONCE_MORE: &str = "echo $TORC_ATTEMPT_ID >> ran; [ $TORC_ATTEMPT_ID = 2 ] || { echo $$ > pid; sleep 1000; }";

fn leased(site: &Site, server: &Server, lease: Duration) -> Options {
    Options { lease: Some(lease), ..site.options(server) }
}

#[tokio::test]
async fn a_worker_says_again_and_again_that_it_lives_and_goodbye_at_its_end() {
    let (server, site) = (Server::start().await, Site::new());
    server.job("works", "until [ -e open ]; do sleep 0.01; done", |_| {});
    let script = async {
        server.until_asked("POST /workflows/1/heartbeat", 5).await;
        std::fs::write(site.path("open"), "").unwrap();
    };
    let options = leased(&site, &server, Duration::from_millis(40));
    let (summary, ()) = tokio::join!(site.run(options, Stop::never()), script);
    assert_eq!((summary.end, summary.completed), (End::Complete, 1));
    assert!(server.book().leases.is_empty(), "it said goodbye");
}

/// By the answer to its heartbeat, or to its claim: whichever comes first.
#[tokio::test]
async fn a_worker_whose_lease_is_over_kills_what_it_runs_and_goes_on_as_another_node() {
    for claims in [true, false] {
        let (server, site) = (Server::start().await, Site::new());
        let all = server.needs("all", 4, "1g", "PT1M");
        let whole = (!claims).then_some(all);
        server.job("works", ONCE_MORE, |job| job.resource_requirements_id = whole.or(job.resource_requirements_id));
        // With claims it hears of it by the one that waits, long before a heartbeat; else it has nothing to ask for.
        let mut options = leased(&site, &server, Duration::from_secs(if claims { 600 } else { 1 }));
        options.busy_claim_wait = Duration::from_secs(600);
        let script = async {
            let pid: i32 = site.written("pid").await.trim().parse().unwrap();
            server.end_lease(1);
            pid
        };
        let (summary, pid) = tokio::join!(site.run(options, Stop::never()), script);
        assert_eq!((summary.end, summary.compute_node_id), (End::Complete, 2));
        assert_eq!((summary.completed, summary.not_accepted), (1, 0), "nothing is said of what is not ours");
        assert_eq!(site.read("ran"), "1\n2\n");
        assert!(!is_alive(pid));
        let over = site.events.lock().unwrap().iter().find_map(|event| match event {
            Event::LeaseOver { compute_node_id, killed } => Some((*compute_node_id, killed.len())),
            _ => None,
        });
        assert_eq!(over, Some((1, 1)));
        assert_eq!(server.book().nodes.iter().map(|node| node.is_active).collect::<Vec<_>>(), [Some(false); 2]);
        assert!(settle(&site.path("out/worker_journal")).unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_end_that_comes_after_the_lease_is_told_and_refused() {
    let (server, site) = (Server::start().await, Site::new());
    server.job("works", "echo $TORC_ATTEMPT_ID >> ran; until [ -e open ]; do sleep 0.01; done", |_| {});
    let mut options = leased(&site, &server, Duration::from_secs(600));
    // No claim waits meanwhile, so the report is the first to hear of it.
    options.max_parallel_jobs = Some(1);
    let script = async {
        site.started("works").await;
        server.end_lease(1);
        std::fs::write(site.path("open"), "").unwrap();
    };
    let (summary, ()) = tokio::join!(site.run(options, Stop::never()), script);
    assert_eq!((summary.end, summary.completed, summary.not_accepted), (End::Complete, 1, 1));
    assert_eq!(site.read("ran"), "1\n2\n");
}

#[tokio::test]
async fn the_next_worker_of_a_folder_ends_the_lease_of_the_one_before() {
    let (server, site) = (Server::start().await, Site::new());
    let id = server.job("works", ONCE_MORE, |_| {});
    let options = leased(&site, &server, Duration::from_secs(600));
    tokio::select! {
        _ = site.run(options.clone(), Stop::never()) => panic!("it sleeps"),
        _ = site.written("pid") => {}
    }
    let client = Client::new(&server.url(), &Access::default()).unwrap();
    let settled = settle_and_give_back(&site.path("out/worker_journal"), &client).await.unwrap();
    assert_eq!(settled.iter().map(|s| (s.job_id, s.attempt_id)).collect::<Vec<_>>(), [(id, 1)]);
    assert!(server.book().leases.is_empty());
    assert_eq!(server.asked("POST /jobs"), 0, "the server does it");
    let summary = site.run(options, Stop::never()).await;
    assert_eq!((summary.end, summary.completed), (End::Complete, 1));
    assert_eq!(site.read("ran"), "1\n2\n");
}
