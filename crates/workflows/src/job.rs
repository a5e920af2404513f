//! Jobs on the wire. What is written once of a job is kept as JSON, its payload; what changes in
//! its life is put before it when it is rendered, without a look into the payload.

use forebay_domain::ids::{Grant, JobId, RequirementId, SchedulerId, Timestamp};
use forebay_domain::job::{JobFlags, JobRow, NewJob, Payload, RelationKind};
use forebay_domain::lane::LabelSet;
use forebay_domain::port::JobView;
use forebay_domain::state::JobState;
use forebay_wire::{JobModel, JobStatus};

use crate::http;
use crate::rows::{write_int, write_text};

/// torc's word for a state. A job that waits for a moment is "blocked" there.
pub(crate) fn status_of(state: JobState) -> JobStatus {
    match state {
        JobState::Draft => JobStatus::Uninitialized,
        JobState::Blocked | JobState::Scheduled => JobStatus::Blocked,
        JobState::Ready => JobStatus::Ready,
        JobState::Claimed => JobStatus::Pending,
        JobState::Running => JobStatus::Running,
        JobState::Completed => JobStatus::Completed,
        JobState::Failed => JobStatus::Failed,
        JobState::Canceled => JobStatus::Canceled,
        JobState::Terminated => JobStatus::Terminated,
        JobState::Disabled => JobStatus::Disabled,
        JobState::PendingFailed => JobStatus::PendingFailed,
    }
}

pub(crate) fn state_of(status: JobStatus) -> JobState {
    match status {
        JobStatus::Uninitialized => JobState::Draft,
        JobStatus::Blocked => JobState::Blocked,
        JobStatus::Ready => JobState::Ready,
        JobStatus::Pending => JobState::Claimed,
        JobStatus::Running => JobState::Running,
        JobStatus::Completed => JobState::Completed,
        JobStatus::Failed => JobState::Failed,
        JobStatus::Canceled => JobState::Canceled,
        JobStatus::Terminated => JobState::Terminated,
        JobStatus::Disabled => JobState::Disabled,
        JobStatus::PendingFailed => JobState::PendingFailed,
    }
}

pub(crate) fn labels_of(labels: Option<&[String]>) -> LabelSet {
    LabelSet::new(labels.unwrap_or_default().iter().map(|label| label.as_str().into()))
}

/// The labels of a `labels` parameter: separated by commas, none if it is empty.
pub(crate) fn split_labels(text: &str) -> Vec<String> {
    text.split(',').filter(|label| !label.is_empty()).map(str::to_owned).collect()
}

/// The payload of a job: all of its model that does not change in its life. Edges are not part of
/// it: they are more after an initialize.
pub(crate) fn payload_of(mut job: JobModel) -> Payload {
    job.id = None;
    job.status = None;
    job.start_time = None;
    job.compute_node_id = None;
    job.schedule_compute_nodes = None;
    job.depends_on_job_ids = None;
    job.attempt_id = None;
    job.priority = None;
    job.origin = None;
    job.grant = None;
    job.env = job.env.filter(|env| !env.is_empty());
    let labels = labels_of(job.labels.as_deref());
    job.labels = (!labels.is_empty()).then(|| labels.iter().map(str::to_owned).collect());
    for ids in
        [&mut job.input_file_ids, &mut job.output_file_ids, &mut job.input_user_data_ids, &mut job.output_user_data_ids]
    {
        if let Some(some) = ids {
            some.sort_unstable();
            some.dedup();
        }
        ids.take_if(|some| some.is_empty());
    }
    http::to_json(&job).into()
}

/// The model in a payload.
pub(crate) fn model_of(payload: &[u8]) -> JobModel {
    serde_json::from_slice(payload).expect("this door wrote the payload from such a model")
}

/// What the engine is to create from a checked model.
pub(crate) fn new_job(mut job: JobModel) -> NewJob {
    let mut depends_on: Vec<JobId> = job.depends_on_job_ids.take().unwrap_or_default().into_iter().map(JobId).collect();
    depends_on.sort_unstable();
    depends_on.dedup();
    let relations = [
        (RelationKind::InputFile, &job.input_file_ids),
        (RelationKind::OutputFile, &job.output_file_ids),
        (RelationKind::InputUserData, &job.input_user_data_ids),
        (RelationKind::OutputUserData, &job.output_user_data_ids),
    ];
    let mut relations: Vec<(RelationKind, i64)> =
        relations.into_iter().flat_map(|(kind, ids)| ids.iter().flatten().map(move |id| (kind, *id))).collect();
    relations.sort_unstable();
    relations.dedup();
    NewJob {
        name: job.name.as_str().into(),
        requirement: job.resource_requirements_id.map(RequirementId),
        labels: labels_of(job.labels.as_deref()),
        scheduler: job.scheduler_id.map(SchedulerId),
        priority: job.priority.unwrap_or(0),
        cancel_on_failure: job.cancel_on_blocking_job_failure.unwrap_or(true),
        not_before: None,
        policy: None,
        expires_at: None,
        depends_on: depends_on.into(),
        relations: relations.into(),
        payload: payload_of(job),
    }
}

/// What stands before the payload in a rendered job.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Front<'a> {
    pub id: JobId,
    pub status: JobStatus,
    pub attempt: i64,
    pub priority: i64,
    /// When and where it was started, while it runs.
    pub runs: Option<(Timestamp, i64)>,
    pub depends_on: &'a [JobId],
    /// What it came from, if not from a creation.
    pub origin: Option<&'static str>,
    /// The claim that hands it out, where the answer says it.
    pub grant: Option<Grant>,
}

/// torc's word for what a job came from, if that was no creation.
pub(crate) fn origin_of(row: &JobRow) -> Option<&'static str> {
    if row.attempt > 1 { Some("retry") } else { row.flags.has(JobFlags::SPAWNED).then_some("spawn") }
}

impl Front<'_> {
    pub fn of(row: &JobRow) -> Front<'static> {
        let runs = row.started_at.zip(row.node.map(|node| node.0)).filter(|_| row.state == JobState::Running);
        Front {
            id: row.id,
            status: status_of(row.state),
            attempt: row.attempt,
            priority: row.priority,
            runs,
            depends_on: &[],
            origin: origin_of(row),
            grant: None,
        }
    }
}

/// Writes a job: its front, then its payload as it is.
pub(crate) fn write(out: &mut Vec<u8>, front: &Front, payload: &[u8]) {
    out.extend_from_slice(b"{\"id\":");
    write_int(out, front.id.0);
    out.extend_from_slice(b",\"status\":\"");
    out.extend_from_slice(front.status.as_str().as_bytes());
    out.extend_from_slice(b"\",\"attempt_id\":");
    write_int(out, front.attempt);
    out.extend_from_slice(b",\"priority\":");
    write_int(out, front.priority);
    if let Some((since, node)) = front.runs {
        out.extend_from_slice(b",\"start_time\":");
        write_text(out, &since.rfc3339());
        out.extend_from_slice(b",\"compute_node_id\":");
        write_int(out, node);
    }
    if let Some(origin) = front.origin {
        out.extend_from_slice(b",\"origin\":\"");
        out.extend_from_slice(origin.as_bytes());
        out.push(b'"');
    }
    if let Some(grant) = front.grant {
        out.extend_from_slice(b",\"grant\":");
        write_int(out, grant.0);
    }
    if !front.depends_on.is_empty() {
        out.extend_from_slice(b",\"depends_on_job_ids\":[");
        for (place, job) in front.depends_on.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            write_int(out, job.0);
        }
        out.push(b']');
    }
    out.push(b',');
    // A payload is an object that is not empty: it has a name and a command.
    out.extend_from_slice(&payload[1..]);
}

pub(crate) fn write_view(out: &mut Vec<u8>, view: &JobView, depends_on: &[JobId]) {
    write(out, &Front { depends_on, ..Front::of(&view.row) }, &view.payload);
}

/// As torc writes when a workflow was created.
pub(crate) fn rfc3339_z(at: Timestamp) -> String {
    at.rfc3339().replace("+00:00", "Z")
}

/// Seconds since 1970 of an RFC 3339 time; `None` if it is none.
pub(crate) fn seconds_of(rfc3339: &str) -> Option<f64> {
    rfc3339.parse::<jiff::Timestamp>().ok().map(|at| at.as_duration().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::collections::BTreeMap;

    fn model() -> JobModel {
        JobModel {
            id: Some(1),
            workflow_id: 7,
            name: "a".into(),
            command: "echo \"hi\"".into(),
            env: Some(BTreeMap::from([("A".into(), "1".into())])),
            labels: Some(vec!["gpu".into(), "big".into(), "gpu".into()]),
            output_file_ids: Some(vec![4, 3, 4]),
            input_file_ids: Some(vec![]),
            depends_on_job_ids: Some(vec![9, 8, 9]),
            priority: Some(5),
            status: Some(JobStatus::Running),
            ..JobModel::default()
        }
    }

    #[test]
    fn a_job_is_split_into_what_changes_and_what_does_not() {
        let new = new_job(model());
        assert_eq!(&*new.depends_on, [JobId(8), JobId(9)]);
        assert_eq!(&*new.relations, [(RelationKind::OutputFile, 3), (RelationKind::OutputFile, 4)]);
        assert_eq!((new.priority, new.cancel_on_failure), (5, true));
        let kept: Value = serde_json::from_slice(&new.payload).unwrap();
        assert_eq!(
            kept,
            json!({"workflow_id": 7, "name": "a", "command": "echo \"hi\"", "env": {"A": "1"},
                   "labels": ["big", "gpu"], "output_file_ids": [3, 4]})
        );
    }

    #[test]
    fn a_rendered_job_is_torcs_model() {
        let new = new_job(model());
        let front = Front {
            id: JobId(12),
            status: JobStatus::Running,
            attempt: 2,
            priority: 5,
            runs: Some((Timestamp(1_700_000_000_123), 4)),
            depends_on: &new.depends_on,
            origin: Some("retry"),
            grant: Some(Grant(77)),
        };
        let mut out = Vec::new();
        write(&mut out, &front, &new.payload);
        let job: JobModel = serde_json::from_slice(&out).unwrap();
        assert_eq!(job.start_time.as_deref(), Some("2023-11-14T22:13:20.123+00:00"));
        assert_eq!((job.id, job.attempt_id, job.priority), (Some(12), Some(2), Some(5)));
        assert_eq!((job.compute_node_id, job.origin.as_deref()), (Some(4), Some("retry")));
        assert_eq!((job.depends_on_job_ids, job.grant), (Some(vec![8, 9]), Some(77)));
        assert_eq!((job.status, job.name.as_str()), (Some(JobStatus::Running), "a"));
    }

    #[test]
    fn times_are_read_and_written() {
        assert_eq!(rfc3339_z(Timestamp(1_700_000_000_120)), "2023-11-14T22:13:20.120Z");
        assert_eq!(seconds_of("2023-11-14T22:13:20.5+00:00"), Some(1_700_000_000.5));
        assert_eq!(seconds_of("2023-11-14T17:13:20-05:00"), Some(1_700_000_000.0));
        assert_eq!(seconds_of("yesterday"), None);
    }
}
