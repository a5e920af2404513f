//! What a client is told when it does not get what it asked for.

use std::fmt::Write as _;

use forebay_domain::command::Rejection;
use forebay_domain::state::JobState;
use forebay_engine::Error;
use forebay_wire::{ErrorResponse, JobStatus};
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use crate::http::{self, Body};
use crate::job::status_of;

/// A refusal: a status, and what stands in the body's `error`. torc's client runs again what got a
/// 5xx, after half a minute; so none is answered, also where torc answers 500, but for a route that is
/// not there yet (501).
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    pub status: StatusCode,
    error: Value,
    allow: Option<&'static str>,
}

impl Fault {
    /// With torc's `{"error": <kind>, "message": <text>}`.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Fault {
        let kind = status.canonical_reason().unwrap_or("Error").replace(' ', "");
        Fault { status, error: json!({"error": kind, "message": message.into()}), allow: None }
    }

    pub fn bad_request(message: impl Into<String>) -> Fault {
        Fault::new(StatusCode::BAD_REQUEST, message)
    }

    pub fn not_found(noun: &str, id: i64) -> Fault {
        Fault::new(StatusCode::NOT_FOUND, format!("{noun} not found with ID: {id}"))
    }

    /// With torc's `{"message": <text>}`.
    pub fn unprocessable(message: impl Into<String>) -> Fault {
        let error = json!({"message": message.into()});
        Fault { status: StatusCode::UNPROCESSABLE_ENTITY, error, allow: None }
    }

    /// With torc's `{"message", "field", "value"}`.
    pub fn field(message: String, field: &str, value: impl Into<Value>) -> Fault {
        let error = json!({"message": message, "field": field, "value": value.into()});
        Fault { status: StatusCode::UNPROCESSABLE_ENTITY, error, allow: None }
    }

    pub fn conflict(error: Value) -> Fault {
        Fault { status: StatusCode::CONFLICT, error, allow: None }
    }

    /// No such path: an empty body, as torc has it.
    pub fn no_route() -> Fault {
        Fault { status: StatusCode::NOT_FOUND, error: Value::Null, allow: None }
    }

    /// The path has other methods, these.
    pub fn method_not_allowed(allow: &'static str) -> Fault {
        Fault { status: StatusCode::METHOD_NOT_ALLOWED, error: Value::Null, allow: Some(allow) }
    }

    /// torc's client tries again within 50 ms where it reads "database is locked".
    pub fn overloaded() -> Fault {
        Fault::new(StatusCode::TOO_MANY_REQUESTS, "the server is overloaded, try again: database is locked")
    }

    /// To torc's client the same: it finds the next server at once where that listens by then, and sleeps
    /// half a minute where nobody does. After a 5xx it sleeps first.
    pub fn stopping() -> Fault {
        Fault::new(StatusCode::TOO_MANY_REQUESTS, "the server is stopping, try again: database is locked")
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        self.error.get("message").and_then(Value::as_str).unwrap_or_default()
    }

    pub fn into_response(self) -> Response<Body> {
        if self.error.is_null() {
            let mut response = http::bare(self.status, Body::default());
            if let Some(allow) = self.allow {
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
            }
            return response;
        }
        let body = ErrorResponse { error: self.error, ..ErrorResponse::default() };
        http::respond(self.status, http::to_json(&body).into())
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Doing::Other.fault(error)
    }
}

/// What was asked of a job, where torc's texts differ by it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Doing {
    Start,
    Complete,
    /// A report among others.
    Report,
    Retry,
    SetState(JobStatus),
    Update,
    Other,
}

impl Doing {
    /// The one place where an engine's error becomes a status.
    pub fn fault(self, error: Error) -> Fault {
        match error {
            Error::Rejected(rejection) => self.refused(&rejection),
            Error::Overloaded => Fault::overloaded(),
            Error::Stopping => Fault::stopping(),
        }
    }

    /// The one place where a rejection becomes a status and a text.
    pub fn refused(self, rejection: &Rejection) -> Fault {
        use Rejection::*;
        match *rejection {
            NoSuchWorkflow(id) => Fault::not_found("Workflow", id.0),
            NoSuchJob(id) => Fault::not_found("Job", id.0),
            NoSuchRequirement(id) => Fault::unprocessable(format!("Resource requirements not found with ID: {id}")),
            NoSuchScheduler(id) => Fault::unprocessable(format!("Scheduler not found with ID: {id}")),
            NoSuchLane(_) => Fault::unprocessable("No job has such labels"),
            NoSuchPrerequisite(id) => {
                Fault::unprocessable(format!("depends_on_job_ids: Job not found in this workflow with ID: {id}"))
            }
            OtherWorkflow { job, workflow } => Fault::unprocessable(match self {
                Doing::Report => format!("job_id={job} does not belong to batch target workflow_id={workflow}"),
                Doing::Complete => {
                    format!("ResultModel workflow_id={workflow} does not match the workflow of job_id={job}")
                }
                Doing::Start | Doing::Retry | Doing::SetState(_) | Doing::Update | Doing::Other => {
                    format!("job_id={job} does not belong to workflow_id={workflow}")
                }
            }),
            AlreadyEnded { job, state } => {
                Fault::unprocessable(format!("job_id={job} is already complete with status={}", status_of(state)))
            }
            WrongState { job, state } => Fault::unprocessable(self.wrong_state(job.0, state)),
            RunMismatch { given, current } => Fault::unprocessable(match self {
                Doing::Retry => format!("Run ID mismatch: provided {given} but workflow is at run {current}"),
                Doing::Start | Doing::Complete | Doing::Report | Doing::SetState(_) | Doing::Update | Doing::Other => {
                    format!("Run ID mismatch: provided {given} but workflow status has {current}")
                }
            }),
            AttemptMismatch { job, given, current } => Fault::unprocessable(format!(
                "Attempt ID mismatch: provided {given} but job_id={job} is at attempt {current}"
            )),
            NodeMismatch { job, given, current } => Fault::unprocessable(format!(
                "Compute node mismatch: provided {given} but job_id={job} runs on compute node {current}"
            )),
            GrantMismatch { job, given, current } => Fault::unprocessable(format!(
                "Claim mismatch: provided {given} but job_id={job} is held by {holder}",
                given = given.0,
                holder = current.map_or("none".into(), |current| format!("claim {}", current.0))
            )),
            NoLease(node) => {
                Fault::new(StatusCode::GONE, format!("compute node {node} has no lease, or none any more"))
            }
            NoAttemptLeft { attempt, attempts_max, .. } => Fault::unprocessable(format!(
                "Job cannot be retried: attempt_id={attempt} >= max_retries={attempts_max}"
            )),
            NotAnOutcome(state) => Fault::unprocessable(format!(
                "Status '{}' is not a terminal status for job completion",
                status_of(state)
            )),
            Archived(_) => Fault::unprocessable("Cannot reset archived workflow status. Unarchive the workflow first."),
            JobsHeld { .. } => {
                Fault::unprocessable("Cannot reset workflow status: jobs are currently running or pending submission")
            }
            Cycle(ref jobs) => {
                let mut text = "job dependencies form a cycle:".to_owned();
                for (place, job) in jobs.iter().enumerate() {
                    let arrow = if place == 0 { "" } else { " ->" };
                    write!(text, "{arrow} {job}").expect("a String takes all text");
                }
                Fault::unprocessable(text)
            }
            NegativePriority(priority) => Fault::unprocessable(format!("priority must be >= 0, got {priority}")),
            // What waits goes on soon; every other bound stays until somebody changes something.
            Limit { option: "waiting_max" | "parked_max", .. } => Fault::overloaded(),
            Limit { option, max } => {
                Fault::unprocessable(format!("a limit of the server is reached: {option} is {max}"))
            }
        }
    }

    fn wrong_state(self, job: i64, state: JobState) -> String {
        let status = status_of(state);
        match self {
            Doing::Start => {
                format!("job_id={job} has invalid status={status}. Expected SubmittedPending for job start.")
            }
            Doing::Retry => {
                format!("Job cannot be retried: status is {status:?}, must be Running, Failed, or Terminated")
            }
            Doing::Update => format!(
                "Cannot update job {job} when status is '{status}' - most updates are only allowed when status is \
                 'uninitialized'. Only scheduler_id and resource_requirements_id can be updated at any time."
            ),
            Doing::SetState(target) => format!("job_id={job} cannot go from status '{status}' to '{target}'"),
            Doing::Complete | Doing::Report | Doing::Other => {
                format!("job_id={job} is in unexpected status={status}")
            }
        }
    }
}
