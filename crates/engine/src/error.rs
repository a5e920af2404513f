//! Why there is no answer, sorted by what its receiver must do.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use forebay_domain::command::Rejection;
use forebay_domain::port::StoreError;

/// Why a command or a read was not answered.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Tell the caller; nothing was changed.
    #[error("refused: {0:?}")]
    Rejected(Rejection),
    /// The same again later may work. Nothing was changed.
    #[error("overloaded: try again later")]
    Overloaded,
    /// The engine stops. What was asked may or may not have been done.
    #[error("the server is stopping")]
    Stopping,
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the store cannot be recovered")]
    Recover(#[source] StoreError),
    #[error("the store cannot be opened for reading")]
    Readers(#[source] StoreError),
}

/// How an engine ended.
#[derive(Debug, Clone)]
pub enum Ended {
    /// It was asked to; everything is written and the store is closed.
    Stopped,
    /// It was asked to, and the time was up before the store had taken everything: so many changes
    /// are not known to be written. None of them was acknowledged, but claims, starts and outcomes where
    /// these are answered at once.
    Unwritten { changes: usize },
    /// The store broke, or a thread of the engine panicked: recover at the next start.
    Broken { cause: Arc<dyn StdError + Send + Sync>, changes: usize },
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Stopped => write!(f, "stopped; everything is written"),
            Ended::Unwritten { changes } => write!(f, "stopped; {changes} changes were not written"),
            Ended::Broken { cause, changes } => write!(f, "broken ({changes} changes were not written): {cause}"),
        }
    }
}
