//! Where a database is, who may write there, and how it is opened.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use crate::error::OpenError;

/// Where a database is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// Absolute, and the same for whichever way it was named.
    File(PathBuf),
    /// In this process's memory as long as somebody has it open, under this URI.
    ///
    /// SQLite keeps no log for these: a reader makes a commit wait, and a commit a reader.
    Memory(String),
}

impl Place {
    /// The place that a path names; `:memory:` is a new one.
    pub(crate) fn new(path: &Path) -> Result<Place, OpenError> {
        static MEMORIES: AtomicU64 = AtomicU64::new(0);
        if path.as_os_str() == ":memory:" {
            let number = MEMORIES.fetch_add(1, Ordering::Relaxed);
            return Ok(Place::Memory(format!("file:/forebay-{number}?vfs=memdb")));
        }
        let failed = |what, source| OpenError::Io { path: path.to_owned(), what, source };
        match path.canonicalize() {
            Ok(path) => Ok(Place::File(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = std::path::absolute(path).map_err(|error| failed("not a path", error))?;
                let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(failed("not the path of a file", error));
                };
                let folder = folder.canonicalize().map_err(|error| failed("its folder cannot be used", error))?;
                Ok(Place::File(folder.join(name)))
            }
            Err(error) => Err(failed("cannot be used", error)),
        }
    }

    /// For messages.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Place::File(path) => path,
            Place::Memory(_) => Path::new(":memory:"),
        }
    }

    /// The file at this place with something added to its name.
    pub(crate) fn beside(&self, suffix: &str) -> Option<PathBuf> {
        match self {
            Place::File(path) => {
                let mut name = path.clone().into_os_string();
                name.push(suffix);
                Some(name.into())
            }
            Place::Memory(_) => None,
        }
    }

    pub(crate) fn open_writer(&self) -> rusqlite::Result<Connection> {
        self.open(OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE)
    }

    pub(crate) fn open_reader(&self) -> rusqlite::Result<Connection> {
        self.open(OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn open(&self, flags: OpenFlags) -> rusqlite::Result<Connection> {
        // Each connection has one owner at a time.
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_EXRESCODE;
        let db = match self {
            Place::File(path) => Connection::open_with_flags(path, flags),
            Place::Memory(uri) => Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI),
        }?;
        // Every statement there is, and some lists.
        db.set_prepared_statement_cache_capacity(256);
        // Statements are prepared once. Without this one that is asked about 0 or 1, as the first workflow
        // is numbered, is prepared anew each time, since with another value another plan might be better.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        db.pragma_update(None, "foreign_keys", false)?;
        db.pragma_update(None, "temp_store", "MEMORY")?;
        Ok(db)
    }

    /// How a connection of this place names a file. One of a memory would take a path for the name of
    /// another memory.
    pub(crate) fn name_of_file(&self, path: &Path) -> io::Result<String> {
        Ok(match self {
            Place::File(_) => path.to_string_lossy().into_owned(),
            Place::Memory(_) => file_uri(&std::path::absolute(path)?, "vfs=unix"),
        })
    }

    /// Opens the database of a server whose folder cannot be written to, so that no log can be
    /// looked at: only if there is none.
    pub(crate) fn open_without_log(&self) -> rusqlite::Result<Option<Connection>> {
        let (Place::File(path), Some(log)) = (self, self.beside("-wal")) else { return Ok(None) };
        if fs::metadata(log).is_ok_and(|log| log.len() > 0) {
            return Ok(None);
        }
        let uri = file_uri(path, "immutable=1");
        let db = Connection::open_with_flags(uri, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)?;
        db.set_prepared_statement_cache_capacity(256);
        Ok(Some(db))
    }
}

/// How SQLite names the file at an absolute path where it reads URIs.
fn file_uri(path: &Path, query: &str) -> String {
    let mut uri = "file://".to_owned();
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(*byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("{uri}?{query}")
}

/// The right to write to a database, held by a lock on a file beside it. It ends with the process.
///
/// The file stays: who removed it could remove one that somebody else has locked since. It is not
/// the database itself, since to close any handle on that one ends SQLite's own locks.
#[derive(Debug)]
pub(crate) struct WriterLock {
    /// Held, not read.
    _file: Option<File>,
}

impl WriterLock {
    pub(crate) fn take(place: &Place) -> Result<WriterLock, OpenError> {
        let Some(path) = place.beside("-lock") else { return Ok(WriterLock { _file: None }) };
        let failed = |what| move |source| OpenError::Io { path: place.path().to_owned(), what, source };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(failed("its lock file cannot be opened"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: who it is does not matter to the refusal.
                let pid = file.read_to_string(&mut holder).ok().and_then(|_| holder.trim().parse().ok());
                return Err(OpenError::InUse { path: place.path().to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(failed("its lock file cannot be locked")(error)),
        }
        let named = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        named.map_err(failed("its lock file cannot be written"))?;
        Ok(WriterLock { _file: Some(file) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_one_place_whichever_way_it_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let before = Place::new(&path).unwrap();
        fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, folder.path().join("b.db")).unwrap();
        assert_eq!(Place::new(&folder.path().join("b.db")).unwrap(), before);
        assert_eq!(Place::new(&folder.path().join("../").join(folder.path()).join("a.db")).unwrap(), before);
    }

    #[test]
    fn each_memory_is_a_place_of_its_own() {
        assert_ne!(Place::new(Path::new(":memory:")).unwrap(), Place::new(Path::new(":memory:")).unwrap());
    }

    #[test]
    fn a_database_without_a_log_can_be_read_without_writing_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::new(&folder.path().join("50% ?#.db")).unwrap();
        place.open_writer().unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        let db = place.open_without_log().unwrap().expect("there is no log");
        assert_eq!(db.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 0);
        fs::write(place.beside("-wal").unwrap(), "something").unwrap();
        assert!(place.open_without_log().unwrap().is_none());
    }
}
