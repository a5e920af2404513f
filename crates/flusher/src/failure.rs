//! What can go wrong with a commit, sorted by what to do next.

use std::error::Error;
use std::fmt;

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
