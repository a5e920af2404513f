//! What a caller is told when it does not get what it asked for.

use forebay_domain::command::Rejection;
use forebay_engine::Error;
use hyper::StatusCode;
use tonic::Status;

use crate::manage::word;

/// A refusal, by what its receiver must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The request says nothing that can be done.
    Invalid(String),
    NotFound(String),
    /// The task is in another state.
    Conflict(String),
    /// A bound that stays until somebody changes something.
    Exhausted(String),
    /// The same again, later.
    Later(&'static str),
}

pub const OVERLOADED: Fault = Fault::Later("the server is overloaded, try again");

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        match error {
            Error::Overloaded => OVERLOADED,
            Error::Stopping => Fault::Later("the server is stopping"),
            Error::Rejected(rejection) => Fault::from(rejection),
        }
    }
}

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Fault {
        use Rejection::*;
        match rejection {
            Limit { option: "waiting_max" | "parked_max", .. } => OVERLOADED,
            Limit { option, max } => Fault::Exhausted(format!("a limit of the server is reached: {option} is {max}")),
            NoSuchJob(_) | NoSuchWorkflow(_) => Fault::NotFound("there is no such task".to_owned()),
            NoSuchLane(_) => Fault::NotFound("there is no such namespace".to_owned()),
            AlreadyEnded { state, .. } | WrongState { state, .. } => {
                Fault::Conflict(format!("the task is {}", word(state)))
            }
            AttemptMismatch { .. } | GrantMismatch { .. } | NoAttemptLeft { .. } => {
                Fault::Conflict("it is another attempt now".to_owned())
            }
            other @ (NoSuchRequirement(_)
            | NoSuchScheduler(_)
            | NoSuchPrerequisite(_)
            | OtherWorkflow { .. }
            | RunMismatch { .. }
            | NodeMismatch { .. }
            | NoLease(_)
            | NotAnOutcome(_)
            | Archived(_)
            | JobsHeld { .. }
            | Cycle(_)
            | NegativePriority(_)) => Fault::Invalid(format!("the engine refused it: {other:?}")),
        }
    }
}

impl From<Fault> for Status {
    fn from(fault: Fault) -> Status {
        match fault {
            Fault::Invalid(why) => Status::invalid_argument(why),
            Fault::NotFound(why) => Status::not_found(why),
            Fault::Conflict(why) => Status::failed_precondition(why),
            Fault::Exhausted(why) => Status::resource_exhausted(why),
            Fault::Later(why) => Status::unavailable(why),
        }
    }
}

impl Fault {
    /// For HTTP: a status, and what to say.
    pub fn status(self) -> (StatusCode, String) {
        match self {
            Fault::Invalid(why) => (StatusCode::UNPROCESSABLE_ENTITY, why),
            Fault::NotFound(why) => (StatusCode::NOT_FOUND, why),
            Fault::Conflict(why) => (StatusCode::CONFLICT, why),
            Fault::Exhausted(why) => (StatusCode::INSUFFICIENT_STORAGE, why),
            Fault::Later(why) => (StatusCode::SERVICE_UNAVAILABLE, why.to_owned()),
        }
    }
}
