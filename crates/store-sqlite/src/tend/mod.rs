//! What an operator does to a database: look through it, copy it, put it in order.
//!
//! To look and to copy is possible while it is served; what writes is refused then.

mod check;
mod copy;
mod plans;

use std::path::{Path, PathBuf};

use forebay_domain::port::StoreError;
use rusqlite::Connection;

use crate::error::OpenError;
use crate::place::{Place, WriterLock};
use crate::schema;
use crate::store::SqliteStore;
use crate::{SCHEMA_VERSION, SqliteReader};

pub use check::{Fault, check};
pub use copy::{Copied, backup};
#[cfg(test)]
pub(crate) use plans::steps;
pub use plans::{Index, Plan, indexes, plans};

/// Why something was not done to a database.
#[derive(Debug, thiserror::Error)]
pub enum TendError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{}: {what}", path.display())]
    Sqlite { path: PathBuf, what: &'static str, source: rusqlite::Error },
    #[error("{} cannot be copied", path.display())]
    Copy { path: PathBuf, source: StoreError },
    /// A copy never takes the place of something.
    #[error("{} is there already: a copy takes a new name", path.display())]
    Exists { path: PathBuf },
    #[error("{}: {what}", path.display())]
    Io { path: PathBuf, what: &'static str, source: std::io::Error },
    #[error("there is no version {wanted} of the schema: this program knows those up to {known}")]
    NoSuchVersion { wanted: u32, known: u32 },
}

/// Which version of the schema a database was at, and is at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migrated {
    pub from: u32,
    pub to: u32,
}

/// Brings a database that nobody serves to a version of the schema: the one of this program, unless
/// another is named. On the way down, what the older version does not know is lost.
///
/// # Errors
/// If there is no such version, or it is in use, or not ours, or cannot be written.
pub fn migrate(path: impl AsRef<Path>, to: Option<u32>) -> Result<Migrated, TendError> {
    let (path, to) = (path.as_ref(), to.unwrap_or(SCHEMA_VERSION));
    if to > SCHEMA_VERSION {
        return Err(TendError::NoSuchVersion { wanted: to, known: SCHEMA_VERSION });
    }
    let from = version(path)?;
    SqliteStore::migrate(path, to)?;
    Ok(Migrated { from, to })
}

/// The version of a database's schema; 0 if it is empty.
///
/// # Errors
/// If it cannot be opened, is not ours, or of a newer version than this program knows.
pub fn version(path: impl AsRef<Path>) -> Result<u32, TendError> {
    let path = path.as_ref();
    if !path.exists() {
        return Err(OpenError::Missing { path: path.to_owned() }.into());
    }
    let place = Place::new(path)?;
    let db = place.open_reader().map_err(|source| OpenError::sqlite(path, source))?;
    Ok(schema::version(&db, place.path())?)
}

/// What became of statistics.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Optimized {
    /// Statements that would look at every row with them: then they are not kept.
    pub misled: Vec<Plan>,
}

/// Lets SQLite look at what is in the tables of a database that nobody serves, as far as that may
/// help it to choose among indexes; and forgets what it saw if it would do without them.
///
/// The schema is made so that each statement has its index. Where tables are small today, or most
/// rows are of one workflow, SQLite may think that it can do without, and would go on so when they
/// have grown.
///
/// # Errors
/// If it is in use, or cannot be written.
pub fn optimize(path: impl AsRef<Path>) -> Result<Optimized, TendError> {
    writing(path.as_ref(), "it cannot be optimized", |db| {
        // Of each index so many rows at most: some milliseconds, however large it is.
        db.pragma_update_and_check(None, "analysis_limit", 1_000, |_| Ok(()))?;
        let looked = db.unchecked_transaction()?;
        looked.execute_batch("ANALYZE")?;
        let misled: Vec<Plan> = plans::plans_of(&looked)?.into_iter().filter(Plan::scans).collect();
        if !misled.is_empty() {
            looked.execute_batch("DROP TABLE sqlite_stat1")?;
        }
        looked.commit()?;
        Ok(Optimized { misled })
    })
}

/// The size of a database before and after, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vacuumed {
    pub before: u64,
    pub after: u64,
}

/// Writes a database that nobody serves anew, without what was deleted. For that it needs room for a
/// second one.
///
/// # Errors
/// If it is in use, or cannot be written.
pub fn vacuum(path: impl AsRef<Path>) -> Result<Vacuumed, TendError> {
    writing(path.as_ref(), "it cannot be vacuumed", |db| {
        let size = || {
            db.query_one("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size", [], |row| {
                Ok(row.get::<_, i64>(0)?.unsigned_abs())
            })
        };
        let before = size()?;
        db.execute_batch("VACUUM")?;
        Ok(Vacuumed { before, after: size()? })
    })
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

/// Writes while nobody else does, and folds the log in.
fn writing<T>(
    path: &Path,
    what: &'static str,
    write: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, TendError> {
    // It must be there, and of this version.
    drop(SqliteReader::open(path)?);
    let place = Place::new(path)?;
    let _lock = WriterLock::take(&place)?;
    let done = place.open_writer().and_then(|db| {
        // What does not fit into memory is not to be there.
        db.pragma_update(None, "temp_store", "FILE")?;
        let done = write(&db)?;
        db.query_one("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(done)
    });
    done.map_err(|source| TendError::Sqlite { path: path.to_owned(), what, source })
}
