//! What can go wrong with a commit or on the way to it, sorted by what to do next.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// The error underneath, as its owner made it.
pub type Cause = Box<dyn Error + Send + Sync + 'static>;

/// A commit or a sync that did not happen.
#[derive(Debug)]
pub enum Failure {
    /// Nothing was written: locked, disk full, I/O error before the commit. Try the same again.
    Busy(Cause),
    /// The store cannot be trusted any more: corrupt, read-only, a failed fsync. Stop.
    Broken(Cause),
}

impl Failure {
    /// The error underneath, whichever kind this is.
    #[must_use]
    pub fn into_cause(self) -> Cause {
        match self {
            Failure::Busy(cause) | Failure::Broken(cause) => cause,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Busy(cause) => write!(f, "the store is busy: {cause}"),
            Failure::Broken(cause) => write!(f, "the store is broken: {cause}"),
        }
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Failure::Busy(cause) | Failure::Broken(cause) => Some(&**cause),
        }
    }
}

/// Why an operation was not carried out, sorted by what to do next.
#[derive(Debug, Clone)]
pub enum Refused {
    /// The ledger stayed busy for the whole `busy_timeout`. Nothing was written; try again.
    Busy(Arc<Cause>),
    /// Too many operations wait in line. Try again later.
    Full,
    /// The ledger broke; this group takes no more.
    Broken(Arc<Cause>),
    /// The group was closed.
    Closed,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Busy(cause) => write!(f, "busy: {cause}"),
            Refused::Full => write!(f, "too many operations wait in line"),
            Refused::Broken(cause) => write!(f, "broken: {cause}"),
            Refused::Closed => write!(f, "closed"),
        }
    }
}

impl Error for Refused {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Refused::Busy(cause) | Refused::Broken(cause) => Some(&***cause),
            Refused::Full | Refused::Closed => None,
        }
    }
}
