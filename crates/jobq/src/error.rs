//! What can go wrong, sorted by what the caller must do.

use std::sync::Arc;

use forebay_flusher::{Cause, Refused};

use crate::QueryError;

/// Why a call did nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The queue has no job of this id.
    #[error("there is no job {0}")]
    NoJob(i64),
    /// The file has no queue of this name.
    #[error("there is no queue {0:?}")]
    NoQueue(String),
    /// The lease has ended, and the job went on without this worker.
    #[error("the lease on job {0} has ended")]
    LeaseEnded(i64),
    /// The query is not one expression over a job's columns.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The value is not JSON.
    #[error("not JSON: {0}")]
    NotJson(String),
    /// A queue's name has 1 to 64 letters, digits, `_`, `-` or `.`, and starts with a letter or
    /// digit.
    #[error("{0:?} cannot be the name of a queue")]
    Name(String),
    /// The file is not a job queue, or one that this version does not know.
    #[error("not a job queue: {0}")]
    Format(String),
    /// Another process holds the file, or the disk is full. Nothing was written; try again.
    #[error("busy: {0}")]
    Busy(Arc<Cause>),
    /// Too many calls are waiting. Try again later.
    #[error("too many calls are waiting")]
    Overloaded,
    /// The file cannot be used any more. Open it again.
    #[error("broken: {0}")]
    Broken(Arc<Cause>),
    /// The queue was closed.
    #[error("the queue is closed")]
    Closed,
    /// SQLite refused the statement.
    #[error("refused: {0}")]
    Refused(Arc<Cause>),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Busy(cause) => Error::Busy(cause),
            Refused::Full => Error::Overloaded,
            Refused::Broken(cause) => Error::Broken(cause),
            Refused::Closed => Error::Closed,
        }
    }
}

/// Outside a shared transaction, where each failure belongs to one caller.
impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        if error.sqlite_error_code() == Some(rusqlite::ErrorCode::NotADatabase) {
            return Error::Format(error.to_string());
        }
        match severity(&error) {
            Severity::Busy => Error::Busy(Arc::new(error.into())),
            Severity::Broken => Error::Broken(Arc::new(error.into())),
            Severity::Alone => Error::Refused(Arc::new(error.into())),
        }
    }
}

/// How far a failed statement reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Severity {
    /// The whole transaction; it may be tried again.
    Busy,
    /// The file.
    Broken,
    /// The statement alone.
    Alone,
}

pub(crate) fn severity(error: &rusqlite::Error) -> Severity {
    use rusqlite::ErrorCode;
    use rusqlite::ffi::{SQLITE_IOERR_DIR_FSYNC, SQLITE_IOERR_FSYNC};

    let rusqlite::Error::SqliteFailure(failure, _) = error else {
        return Severity::Alone;
    };
    match failure.code {
        ErrorCode::SystemIoFailure if matches!(failure.extended_code, SQLITE_IOERR_FSYNC | SQLITE_IOERR_DIR_FSYNC) => {
            Severity::Broken
        }
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::DiskFull
        | ErrorCode::SystemIoFailure
        | ErrorCode::OutOfMemory => Severity::Busy,
        ErrorCode::DatabaseCorrupt
        | ErrorCode::NotADatabase
        | ErrorCode::ReadOnly
        | ErrorCode::FileLockingProtocolFailed => Severity::Broken,
        _ => Severity::Alone,
    }
}
