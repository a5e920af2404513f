//! The requests of running jobs: claims, starts, reports.

use forebay_domain::claim::Capacity;
use forebay_domain::command::{Answer, Claim, ClaimOrder, Claimed, Command, Completion, Rejection, Report};
use forebay_domain::ids::{Grant, JobId, NodeId, SchedulerId, WorkflowId};
use forebay_domain::job::Outcome;
use forebay_wire::ours::{ClaimRequest, ReportAndClaimRequest};
use forebay_wire::units::{duration_seconds, gb_to_bytes};
use forebay_wire::{
    BatchCompleteJobsRequest, ComputeNodesResources, JobCompletionEntry, JobStatus, RECORDS_MAX, ResultModel,
    check_label,
};

use crate::Door;
use crate::fault::{Doing, Fault};
use crate::http::{self, Body, Call, Reply};
use crate::job::{self, Front, labels_of, split_labels, state_of};
use crate::routes::unexpected;
use crate::rows::{self, write_int, write_text};

/// Jobs of a claim that names no limit, torc's number.
const LIMIT: i64 = 10;

/// By (priority, id). Ours: `wait_ms`.
pub(super) async fn claim_next(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let claim = if call.query.is_none() {
        claim(door, workflow, LIMIT, &[], ClaimOrder::Queue, None, None)?
    } else {
        let params = call.params();
        let labels = split_labels(params.text("labels").unwrap_or_default());
        // torc answers a limit below 0 as one of 0.
        let limit = params.get("limit")?.unwrap_or(LIMIT).max(0);
        claim(door, workflow, limit, &labels, ClaimOrder::Queue, None, params.get("wait_ms")?)?
    };
    hand_out(door, claim, false).await
}

/// By resources. Ours: `wait_ms`.
pub(super) async fn claim_fitting(door: &Door, workflow: i64, limit: i64, call: &Call<'_>) -> Reply {
    let params = call.params();
    let resources: ComputeNodesResources = call.json()?;
    let order = fitting(&resources, params.flag("strict_scheduler_match")?)?;
    let labels = resources.labels.as_deref().unwrap_or_default();
    hand_out(door, claim(door, workflow, limit.max(0), labels, order, None, params.get("wait_ms")?)?, true).await
}

/// `says_why`: the answer has torc's `reason` where there is one.
async fn hand_out(door: &Door, claim: Claim, says_why: bool) -> Reply {
    let answer = door.engine().call_for_delivery(Command::Claim(claim)).await?;
    let Answer::Claimed(claimed) = &*answer else { unexpected(&answer) };
    let mut out = Vec::with_capacity(64 + claimed.jobs.iter().map(|(_, payload)| payload.len() + 128).sum::<usize>());
    out.extend_from_slice(b"{\"jobs\":");
    write_claimed(door, &mut out, claimed, false);
    if says_why && claimed.canceled {
        out.extend_from_slice(CANCELED);
    }
    out.push(b'}');
    Ok(http::respond(hyper::StatusCode::OK, Body::handing_out(out, answer)))
}

const CANCELED: &[u8] = br#","reason":"Workflow is canceled""#;

/// `granted`: each with the number of its claim.
fn write_claimed(door: &Door, out: &mut Vec<u8>, claimed: &Claimed, granted: bool) {
    out.push(b'[');
    for (place, (row, payload)) in claimed.jobs.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        job::write(out, &Front { grant: granted.then_some(row.grant), ..Front::of(row) }, payload);
    }
    out.push(b']');
    if !claimed.jobs.is_empty() {
        door.kept().keep(&claimed.jobs);
    }
}

fn claim(
    door: &Door,
    workflow: i64,
    limit: i64,
    labels: &[String],
    by: ClaimOrder,
    start_on: Option<i64>,
    wait_ms: Option<i64>,
) -> Result<Claim, Fault> {
    for label in labels {
        check_label(label).map_err(|bad| Fault::unprocessable(bad.to_string()))?;
    }
    let limit = u32::try_from(limit.min(RECORDS_MAX)).map_err(|_| Fault::unprocessable("limit cannot be negative"))?;
    let wait_ms = wait_ms.unwrap_or(0).min(door.options().wait_max_ms);
    Ok(Claim {
        workflow: WorkflowId(workflow),
        limit,
        labels: labels_of(Some(labels)),
        by,
        start_on: start_on.map(NodeId),
        leased: false,
        wait_until: (wait_ms > 0 && limit > 0).then(|| door.engine().now().after(wait_ms)),
    })
}

fn fitting(resources: &ComputeNodesResources, strict: bool) -> Result<ClaimOrder, Fault> {
    let seconds_left = match &resources.time_limit {
        None => i64::MAX,
        Some(text) => duration_seconds(text).map_err(|error| {
            Fault::field(format!("Invalid time_limit format '{text}': {error}"), "time_limit", text.as_str())
        })?,
    };
    let capacity = Capacity {
        cpus: resources.num_cpus,
        memory_bytes: gb_to_bytes(resources.memory_gb),
        gpus: resources.num_gpus,
        nodes: resources.num_nodes,
        seconds_left,
    };
    Ok(ClaimOrder::Fitting { capacity, scheduler: resources.scheduler_config_id.map(SchedulerId), strict })
}

pub(super) async fn start(door: &Door, id: i64, run: i64, node: i64) -> Reply {
    let id = JobId(id);
    let answer = door.engine().call(Command::Start { job: id, run, node: NodeId(node) }).await;
    let row = match answer.map_err(|error| Doing::Start.fault(error))? {
        Answer::Job(row) => row,
        other => unexpected(&other),
    };
    // torc answers with the job as it was found, but its status.
    let front = Front { runs: None, ..Front::of(&row) };
    match door.kept().get(id) {
        Some((_, payload)) => Ok(written(&front, &payload)),
        None => {
            let view = door.look(move |reader| Ok(reader.job(id)?)).await?;
            let view = view.ok_or_else(|| Fault::not_found("Job", id.0))?;
            Ok(written(&front, &view.payload))
        }
    }
}

fn written(front: &Front, payload: &[u8]) -> hyper::Response<Body> {
    let mut out = Vec::with_capacity(payload.len() + 160);
    job::write(&mut out, front, payload);
    http::ok(out)
}

pub(super) async fn complete(door: &Door, id: i64, status: &str, run: i64, call: &Call<'_>) -> Reply {
    let status: JobStatus = parse_status(status)?;
    let result: ResultModel = call.json()?;
    let workflow = WorkflowId(result.workflow_id);
    let entry = JobCompletionEntry { job_id: id, status, run_id: run, result, grant: None };
    check_result(&entry, None).map_err(Fault::unprocessable)?;
    let kept = door.kept().get(JobId(id));
    let reported_attempt = entry.result.attempt_id;
    let report = Report { workflow, completions: vec![completion(entry)], claim: None };
    let answer = door.engine().call(Command::Report(report)).await.map_err(|error| Doing::Complete.fault(error))?;
    let Answer::Reported { outcomes, .. } = &answer else { unexpected(&answer) };
    match outcomes.first() {
        Some((_, Ok(()))) => {}
        Some((_, Err(rejection))) => return Err(Doing::Complete.refused(rejection)),
        None => unexpected(&answer),
    }
    door.kept().take(JobId(id));
    match kept {
        Some((row, payload)) => {
            let attempt = reported_attempt.unwrap_or(row.attempt);
            let front = Front { status, attempt, runs: None, ..Front::of(&row) };
            Ok(written(&front, &payload))
        }
        None => {
            let view = door.look(move |reader| Ok(reader.job(JobId(id))?)).await?;
            let view = view.ok_or_else(|| Fault::not_found("Job", id))?;
            Ok(written(&Front { status, runs: None, ..Front::of(&view.row) }, &view.payload))
        }
    }
}

pub(super) async fn batch_complete(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let request: BatchCompleteJobsRequest = call.json()?;
    let mut errors = Vec::new();
    let report = report(workflow, request.completions, None, &mut errors);
    let answer = door.engine().call(Command::Report(report)).await?;
    let Answer::Reported { outcomes, .. } = &answer else { unexpected(&answer) };
    let mut out = Vec::with_capacity(64 + outcomes.len() * 12);
    out.push(b'{');
    write_outcomes(door, &mut out, outcomes, &errors);
    out.push(b'}');
    Ok(http::ok(out))
}

/// Ours: reports, then claims, in one step; the claim may wait.
pub(super) async fn report_and_claim(door: &Door, workflow: i64, call: &Call<'_>) -> Reply {
    let request: ReportAndClaimRequest = call.json()?;
    let mut errors = Vec::new();
    let claim = request.claim.map(|request| claim_of(door, workflow, request).map(Box::new)).transpose()?;
    let report = report(workflow, request.completions, claim, &mut errors);
    let answer = door.engine().call_for_delivery(Command::Report(report)).await?;
    let Answer::Reported { outcomes, claimed, is_complete, is_canceled } = &*answer else {
        unexpected(&answer);
    };
    let jobs = claimed.as_ref().map_or(&[][..], |claimed| &claimed.jobs);
    let mut out = Vec::with_capacity(
        128 + outcomes.len() * 12 + jobs.iter().map(|(_, payload)| payload.len() + 128).sum::<usize>(),
    );
    out.push(b'{');
    write_outcomes(door, &mut out, outcomes, &errors);
    out.extend_from_slice(b",\"jobs\":");
    match claimed {
        Some(claimed) => {
            write_claimed(door, &mut out, claimed, true);
            if claimed.canceled {
                out.extend_from_slice(CANCELED);
            }
        }
        None => out.extend_from_slice(b"[]"),
    }
    out.extend_from_slice(if *is_complete { b",\"is_complete\":true" } else { b",\"is_complete\":false" });
    out.extend_from_slice(if *is_canceled { b",\"is_canceled\":true}" } else { b",\"is_canceled\":false}" });
    Ok(http::respond(hyper::StatusCode::OK, Body::handing_out(out, answer)))
}

fn claim_of(door: &Door, workflow: i64, request: ClaimRequest) -> Result<Claim, Fault> {
    let (order, labels) = match &request.resources {
        None => (ClaimOrder::Queue, request.labels.as_deref()),
        Some(resources) => {
            (fitting(resources, request.strict_scheduler_match.unwrap_or(false))?, resources.labels.as_deref())
        }
    };
    let leased = request.leased.unwrap_or(false);
    if leased && request.start_on.is_none() {
        return Err(Fault::field("leased needs start_on: a lease is a compute node's".to_owned(), "leased", true));
    }
    let labels = labels.unwrap_or_default();
    let claim = claim(door, workflow, request.limit, labels, order, request.start_on, request.wait_ms)?;
    Ok(Claim { leased, ..claim })
}

/// Refused reports, each with its text.
type Errors = Vec<(i64, String)>;

/// What the engine is to be told; reports that contradict themselves are errors already.
fn report(workflow: i64, entries: Vec<JobCompletionEntry>, claim: Option<Box<Claim>>, errors: &mut Errors) -> Report {
    let mut completions = Vec::with_capacity(entries.len());
    for entry in entries {
        match check_result(&entry, Some(workflow)) {
            Ok(()) => completions.push(completion(entry)),
            Err(text) => errors.push((entry.job_id, text)),
        }
    }
    Report { workflow: WorkflowId(workflow), completions, claim }
}

/// Writes `"completed"` and `"errors"`.
fn write_outcomes(door: &Door, out: &mut Vec<u8>, outcomes: &[(JobId, Result<(), Rejection>)], errors: &Errors) {
    out.extend_from_slice(b"\"completed\":[");
    let mut comma = false;
    for (job, _) in outcomes.iter().filter(|(_, outcome)| outcome.is_ok()) {
        if std::mem::replace(&mut comma, true) {
            out.push(b',');
        }
        write_int(out, job.0);
        door.kept().take(*job);
    }
    out.extend_from_slice(b"],\"errors\":[");
    comma = false;
    let mut error = |job: i64, text: &str| {
        if std::mem::replace(&mut comma, true) {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"job_id\":");
        write_int(out, job);
        out.extend_from_slice(b",\"message\":");
        write_text(out, text);
        out.push(b'}');
    };
    for (job, text) in errors {
        error(*job, text);
    }
    for (job, outcome) in outcomes {
        if let Err(rejection) = outcome {
            error(job.0, Doing::Report.refused(rejection).message());
        }
    }
    out.push(b']');
}

pub(super) fn parse_status(word: &str) -> Result<JobStatus, Fault> {
    word.parse().map_err(|_| Fault::bad_request(format!("Invalid URL: {}", rows::unknown_status(word))))
}

/// torc's checks of a result against what is reported. Its workflow is checked here for a batch;
/// otherwise it is where the report goes, so the engine checks it.
fn check_result(entry: &JobCompletionEntry, workflow: Option<i64>) -> Result<(), String> {
    let JobCompletionEntry { job_id, status, run_id, result, grant: _ } = entry;
    if !status.is_terminal() {
        return Err(format!("Status '{status}' is not a terminal status for job completion"));
    }
    if result.job_id != *job_id {
        return Err(format!("ResultModel job_id={} does not match target job_id={job_id}", result.job_id));
    }
    if let Some(workflow) = workflow.filter(|workflow| result.workflow_id != *workflow) {
        return Err(format!(
            "ResultModel workflow_id={} does not match job's workflow_id={workflow}",
            result.workflow_id
        ));
    }
    if result.status != *status {
        return Err(format!("ResultModel status='{}' does not match target status='{status}'", result.status));
    }
    if result.run_id != *run_id {
        return Err(format!("ResultModel run_id={} does not match target run_id={run_id}", result.run_id));
    }
    Ok(())
}

fn completion(entry: JobCompletionEntry) -> Completion {
    let result = entry.result;
    Completion {
        job: JobId(entry.job_id),
        run: entry.run_id,
        attempt: result.attempt_id,
        node: Some(NodeId(result.compute_node_id)),
        grant: entry.grant.map(Grant),
        again: None,
        outcome: Outcome {
            state: state_of(entry.status),
            return_code: result.return_code,
            exec_time_minutes: result.exec_time_minutes,
            completion_time: result.completion_time.into(),
            peak_memory_bytes: result.peak_memory_bytes,
            avg_memory_bytes: result.avg_memory_bytes,
            peak_cpu_percent: result.peak_cpu_percent,
            avg_cpu_percent: result.avg_cpu_percent,
        },
    }
}
