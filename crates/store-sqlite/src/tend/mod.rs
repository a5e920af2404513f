//! What an operator does to a database: look through it, copy it, put it in order.
//!
//! To look and to copy is possible while it is served; what writes is refused then.

mod check;

use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::SqliteReader;
use crate::error::OpenError;

pub use check::{Fault, check};

/// Why something was not done to a database.
#[derive(Debug, thiserror::Error)]
pub enum TendError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{}: {what}", path.display())]
    Sqlite { path: PathBuf, what: &'static str, source: rusqlite::Error },
}

/// Reads in one snapshot.
fn reading<T>(
    path: &Path,
    what: &'static str,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, TendError> {
    let db = SqliteReader::open(path)?.into_connection();
    let read = db.unchecked_transaction().and_then(|snapshot| read(&snapshot));
    read.map_err(|source| TendError::Sqlite { path: path.to_owned(), what, source })
}
