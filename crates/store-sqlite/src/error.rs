//! What can go wrong, sorted by what to do next.

use std::io;
use std::path::{Path, PathBuf};

use forebay_domain::port::StoreError;
use rusqlite::{ErrorCode, ffi};

/// Why a database was not opened. Nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("there is no database at {}", path.display())]
    Missing { path: PathBuf },
    #[error("{} is not a Forebay database", path.display())]
    NotForebay { path: PathBuf, source: Option<rusqlite::Error> },
    #[error(
        "{} was written by a newer forebay (its schema has version {found}, this one knows {known}): \
         use the newer one, or roll the database back with it",
        path.display()
    )]
    Newer { path: PathBuf, found: u32, known: u32 },
    /// Only for readers: a writer migrates it.
    #[error(
        "{} was written by an older forebay (its schema has version {found}, not {known}): \
         start a server on it once, which migrates it",
        path.display()
    )]
    Older { path: PathBuf, found: u32, known: u32 },
    #[error(
        "{} is in use by another process{}: stop it first, or talk to it by its URL; \
         reading beside it is possible",
        path.display(),
        pid.map(|pid| format!(" ({pid})")).unwrap_or_default()
    )]
    InUse { path: PathBuf, pid: Option<u32> },
    #[error("{}: {what}", path.display())]
    Io { path: PathBuf, what: &'static str, source: io::Error },
    #[error(
        "{} is damaged: `forebay db check` says where; a backup in its place brings it back",
        path.display()
    )]
    Damaged { path: PathBuf, source: rusqlite::Error },
    #[error("{} cannot be written to", path.display())]
    ReadOnly { path: PathBuf, source: rusqlite::Error },
    #[error("cannot open {}", path.display())]
    Sqlite { path: PathBuf, source: rusqlite::Error },
}

impl OpenError {
    pub(crate) fn sqlite(path: &Path, source: rusqlite::Error) -> OpenError {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt) => OpenError::Damaged { path, source },
            Some(ErrorCode::ReadOnly) => OpenError::ReadOnly { path, source },
            _ => OpenError::Sqlite { path, source },
        }
    }
}

/// Sorts an error of a read, or of anything up to and with a commit.
///
/// A failed commit may be on disk all the same; that is `Busy` too, since the lsn tells at the next
/// try.
pub(crate) fn sorted(error: rusqlite::Error) -> StoreError {
    if may_pass(&error) { StoreError::Busy(Box::new(error)) } else { broken(error) }
}

/// An error after which nothing more is tried.
pub(crate) fn broken(error: rusqlite::Error) -> StoreError {
    if is_failed_sync(&error) {
        StoreError::Broken(Box::new(SyncFailed(error)))
    } else {
        StoreError::Broken(Box::new(error))
    }
}

/// The disk does not say what became of what it was given.
#[derive(Debug, thiserror::Error)]
#[error("a sync to the disk failed ({0}): see to the disk, then start again")]
pub(crate) struct SyncFailed<E: std::error::Error + 'static>(#[source] pub E);

fn is_failed_sync(error: &rusqlite::Error) -> bool {
    error
        .sqlite_error()
        .is_some_and(|error| matches!(error.extended_code, ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC))
}

/// Whether the same again may work.
pub(crate) fn may_pass(error: &rusqlite::Error) -> bool {
    // What the disk did with what it was given is not known any more.
    let Some(error) = error.sqlite_error().filter(|_| !is_failed_sync(error)) else { return false };
    match error.extended_code {
        // A wrong checksum, a file system that calls itself corrupt.
        ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_CORRUPTFS => false,
        code => matches!(
            code & 0xff,
            ffi::SQLITE_BUSY
                | ffi::SQLITE_LOCKED
                | ffi::SQLITE_FULL
                | ffi::SQLITE_NOMEM
                | ffi::SQLITE_IOERR
                | ffi::SQLITE_CANTOPEN
                | ffi::SQLITE_PROTOCOL
                | ffi::SQLITE_INTERRUPT
        ),
    }
}

/// Whether somebody else is at it.
pub(crate) fn is_locked(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// Whether a statement of the catalog was refused for what it says.
pub(crate) fn is_refusal(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| {
        matches!(error.extended_code & 0xff, ffi::SQLITE_CONSTRAINT | ffi::SQLITE_MISMATCH | ffi::SQLITE_TOOBIG)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn what_may_pass_is_busy_and_all_else_is_broken() {
        for code in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_SNAPSHOT,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_FULL,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_IOERR_SHMSIZE,
        ] {
            assert!(matches!(sorted(failed(code)), StoreError::Busy(_)), "{code}");
        }
        for code in [
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_READONLY_DBMOVED,
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_DIR_FSYNC,
            ffi::SQLITE_CONSTRAINT,
            ffi::SQLITE_ERROR,
            ffi::SQLITE_MISUSE,
        ] {
            assert!(matches!(sorted(failed(code)), StoreError::Broken(_)), "{code}");
        }
        assert!(matches!(sorted(rusqlite::Error::QueryReturnedNoRows), StoreError::Broken(_)));
    }
}
