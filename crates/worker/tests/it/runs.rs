//! What a job gets, and what is told of it.

use forebay_wire::{ExecutionConfig, JobStatus, ResourceMonitorConfig, StdioConfig, StdioMode};
use forebay_worker::{End, Stop};

use crate::Site;
use crate::server::Server;

#[tokio::test]
async fn a_diamond_runs_in_its_order_and_the_node_is_signed_off() {
    let (server, site) = (Server::start().await, Site::new());
    let a = server.job("a", "echo a >> order", |_| {});
    let b = server.job("b", "echo b >> order", |job| job.depends_on_job_ids = Some(vec![a]));
    let c = server.job("c", "echo c >> order", |job| job.depends_on_job_ids = Some(vec![a]));
    let d = server.job("d", "echo d >> order", |job| job.depends_on_job_ids = Some(vec![b, c]));
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!((summary.end, summary.completed), (End::Complete, 4));
    let order = site.read("order");
    assert!(["a\nb\nc\nd\n", "a\nc\nb\nd\n"].contains(&order.as_str()), "{order}");
    let result = server.result_of(d);
    assert_eq!((result.return_code, result.run_id, result.attempt_id), (0, 1, Some(1)));
    assert!(result.exec_time_minutes > 0.0 && result.completion_time.ends_with('Z'));
    let node = server.book().nodes[0].clone();
    assert_eq!((node.is_active, node.num_cpus, node.memory_gb), (Some(false), 4, 8.0));
}

#[tokio::test]
async fn a_job_knows_who_it_is_and_runs_in_its_folder() {
    let (server, site) = (Server::start().await, Site::new());
    let print =
        "echo $TORC_WORKFLOW_ID $TORC_RUN_ID $TORC_JOB_ID $TORC_JOB_NAME $TORC_ATTEMPT_ID $MINE $HOME_WAS $GREETING;
        echo $TORC_API_URL; echo $TORC_OUTPUT_DIR; echo $TORC_WORKFLOW_SUBMISSION_DIR; pwd; cat";
    let env = [("MINE", "yes"), ("TORC_JOB_NAME", "liar"), ("TORC_RUN_ID", "77")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    server.job("who", print, |job| {
        job.env = Some(env.into());
        job.invocation_script = Some("export GREETING=hello\nHOME_WAS=known\n".into());
    });
    site.run(site.options(&server), Stop::never()).await;
    let out = site.path("out");
    let folder = site.folder.path().canonicalize().unwrap();
    let expected = format!(
        "1 1 1 who 1 yes known hello\n{}/torc-service/v1\n{}\n/submitted\n{}\n",
        server.url(),
        out.display(),
        folder.display()
    );
    assert_eq!(site.read("out/job_stdio/job_wf1_j1_r1_a1.o"), expected);
}

#[tokio::test]
async fn output_goes_where_the_execution_config_says() {
    let (server, site) = (Server::start().await, Site::new());
    let stdio = |mode, delete| StdioConfig { mode, delete_on_success: delete };
    let overrides = [
        ("combined", stdio(StdioMode::Combined, None)),
        ("no_stdout", stdio(StdioMode::NoStdout, None)),
        ("no_stderr", stdio(StdioMode::NoStderr, None)),
        ("none", stdio(StdioMode::None, None)),
        ("deleted", stdio(StdioMode::Separate, Some(true))),
        ("kept", stdio(StdioMode::Combined, Some(true))),
    ];
    server.book().workflow.execution_config = Some(ExecutionConfig {
        job_stdio_overrides: Some(overrides.map(|(name, config)| (name.to_owned(), config)).into()),
        ..ExecutionConfig::default()
    });
    let say = "echo out; echo err >&2";
    for name in ["separate", "combined", "no_stdout", "no_stderr", "none", "deleted"] {
        server.job(name, say, |_| {});
    }
    server.job("kept", "echo bad; exit 3", |_| {});
    site.run(site.options(&server), Stop::never()).await;
    let mut files: Vec<(String, String)> = std::fs::read_dir(site.path("out/job_stdio"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(path).unwrap()))
        .collect();
    files.sort();
    let expected = [
        ("job_wf1_j1_r1_a1.e", "err\n"),
        ("job_wf1_j1_r1_a1.o", "out\n"),
        ("job_wf1_j2_r1_a1.log", "out\nerr\n"),
        ("job_wf1_j3_r1_a1.e", "err\n"),
        ("job_wf1_j4_r1_a1.o", "out\n"),
        ("job_wf1_j7_r1_a1.log", "bad\n"),
    ];
    assert_eq!(files, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

#[tokio::test]
async fn return_codes_are_the_shells() {
    let (server, site) = (Server::start().await, Site::new());
    let exits = server.job("exits", "exit 7", |_| {});
    let killed = server.job("killed", "kill -9 $$", |_| {});
    let missing = server.job("missing", "no_such_program_anywhere", |_| {});
    let huge = server.job("huge", &format!("true {}", "x".repeat(200_000)), |_| {});
    let nul = server.job("nul", "true \0", |_| {});
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!((summary.end, summary.failed), (End::Complete, 5));
    let codes = [exits, killed, missing, huge, nul].map(|id| server.result_of(id).return_code);
    assert_eq!(codes, [7, 137, 127, 126, 126]);
    assert!(site.outcome("nul").why.unwrap().contains("NUL"));
    assert!(site.read("out/job_stdio/job_wf1_j4_r1_a1.e").contains("cannot start"));
}

#[tokio::test]
async fn jobs_are_packed_on_what_there_is() {
    let (server, site) = (Server::start().await, Site::new());
    let wide = server.needs("wide", 3, "1g", "PT1M");
    // Each counts who runs beside it, and never are there two.
    let alone = "mkdir lock || exit 1; sleep 0.05; rmdir lock";
    for n in 0..4 {
        server.job(&format!("wide{n}"), alone, |job| job.resource_requirements_id = Some(wide));
    }
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!((summary.completed, summary.failed), (4, 0));
}

#[tokio::test]
async fn by_count_needs_do_not_matter() {
    let (server, site) = (Server::start().await, Site::new());
    let vast = server.needs("vast", 1000, "1t", "PT1M");
    // Two are there at once or this does not end.
    let meet = "touch here$TORC_JOB_ID; until [ -e here1 ] && [ -e here2 ]; do sleep 0.01; done";
    for n in 0..2 {
        server.job(&format!("vast{n}"), meet, |job| job.resource_requirements_id = Some(vast));
    }
    let mut options = site.options(&server);
    options.max_parallel_jobs = Some(2);
    let summary = site.run(options, Stop::never()).await;
    assert_eq!((summary.end, summary.completed), (End::Complete, 2));
}

#[tokio::test]
async fn a_job_sees_the_gpus_that_are_its_own() {
    let (server, site) = (Server::start().await, Site::new());
    let gpu = server.needs("gpu", 1, "1m", "PT1M");
    server.book().needs[gpu as usize - 1].num_gpus = 1;
    for n in 0..2 {
        let command =
            "echo $CUDA_VISIBLE_DEVICES > gpu$TORC_JOB_ID; until [ -e gpu1 ] && [ -e gpu2 ]; do sleep 0.01; done";
        server.job(&format!("gpu{n}"), command, |job| job.resource_requirements_id = Some(gpu));
    }
    let mut options = site.options(&server);
    options.num_gpus = Some(2);
    site.run(options, Stop::never()).await;
    let mut seen = [site.read("gpu1"), site.read("gpu2")];
    seen.sort();
    assert_eq!(seen, ["0\n", "1\n"]);
}

#[tokio::test]
async fn outputs_must_be_there_and_their_times_are_told() {
    let (server, site) = (Server::start().await, Site::new());
    let (there, not_there) = (server.file("there"), server.file("sub/not_there"));
    let good = server.job("good", "touch there", |job| job.output_file_ids = Some(vec![there]));
    let bad = server.job("bad", "touch there", |job| job.output_file_ids = Some(vec![there, not_there]));
    let summary = site.run(site.options(&server), Stop::never()).await;
    assert_eq!((summary.completed, summary.failed), (1, 1));
    assert_eq!((server.status_of(good), server.status_of(bad)), (JobStatus::Completed, JobStatus::Failed));
    assert_eq!(server.result_of(bad).return_code, 1);
    assert!(site.outcome("bad").why.unwrap().ends_with("missing: sub/not_there"));
    assert!(server.book().files[0].st_mtime.unwrap() > 1e9);
}

/// What a process has at its peak is what it has itself, however large we are.
#[tokio::test]
async fn a_small_job_of_a_large_worker_needs_little_memory() {
    let (server, site) = (Server::start().await, Site::new());
    let mut large = vec![0_u8; 500 << 20];
    large.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    let small = server.job("small", "true", |_| {});
    let exec = server.job("exec", "/bin/true", |_| {});
    let some = server.job("some", "head -c 60m /dev/zero | tail -c 50m | sleep 0.3", |_| {});
    let hog = "x=$(head -c 40m /dev/zero | tr '\\0' x); sleep 0.2; y=${#x}";
    let most = server.job("most", hog, |_| {});
    site.run(site.options(&server), Stop::never()).await;
    let peak = |id| server.result_of(id).peak_memory_bytes.unwrap() >> 20;
    assert!(peak(small) < 10, "{} MB", peak(small));
    assert!(peak(exec) < 10, "{} MB", peak(exec));
    assert!((40..300).contains(&peak(most)), "{} MB", peak(most));
    assert!(peak(some) < 120, "{} MB", peak(some));
    assert_eq!(large[4096], 1);
}

#[tokio::test]
async fn a_job_with_too_much_memory_is_killed_if_the_workflow_is_monitored() {
    let (server, site) = (Server::start().await, Site::new());
    let tight = server.needs("tight", 1, "20m", "PT1M");
    let hog = "x=$(head -c 60m /dev/zero | tr '\\0' x); sleep 100";
    let id = server.job("hog", hog, |job| job.resource_requirements_id = Some(tight));
    server.book().workflow.resource_monitor_config =
        Some(ResourceMonitorConfig { enabled: true, ..ResourceMonitorConfig::default() });
    site.run(site.options(&server), Stop::never()).await;
    let result = server.result_of(id);
    assert_eq!((result.return_code, result.status), (137, JobStatus::Failed));
    assert!(result.peak_memory_bytes.unwrap() > 20 << 20);
    assert!(site.outcome("hog").why.unwrap().contains("memory"));
}
