//! Copies of a database that is being served, as torc-server takes them at SIGUSR1: the newest under
//! the name that was asked for, older ones as `.1`, `.2` and so on.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use forebay_store_sqlite::SqliteReaders;

/// torc-server's defaults.
const PATH: &str = "torc-server-snapshot.db";
const KEEP: usize = 5;

/// Where copies go, and how many are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshots {
    path: PathBuf,
    /// At least 1.
    keep: usize,
}

impl Snapshots {
    /// As `TORC_SERVER_SNAPSHOT_PATH` and `TORC_SERVER_SNAPSHOT_KEEP` say.
    pub fn from_environment() -> anyhow::Result<Snapshots> {
        let path = env::var_os("TORC_SERVER_SNAPSHOT_PATH").unwrap_or_else(|| PATH.into());
        let keep = match env::var("TORC_SERVER_SNAPSHOT_KEEP") {
            Ok(text) => text.parse().with_context(|| format!("TORC_SERVER_SNAPSHOT_KEEP={text:?} is no number"))?,
            Err(_) => KEEP,
        };
        let path = std::path::absolute(&path).with_context(|| format!("TORC_SERVER_SNAPSHOT_PATH={path:?}"))?;
        Ok(Snapshots { path, keep: keep.max(1) })
    }

    /// Writes what is committed now beside its place, whole and synced, before it takes the place;
    /// where it stands then.
    pub fn take(&self, readers: &SqliteReaders) -> anyhow::Result<&Path> {
        let folder = self.path.parent().context("a snapshot needs a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        let new = self.beside(".tmp");
        // Left by one that was cut short.
        remove(&new)?;
        readers.open()?.copy_into(&new).with_context(|| format!("{} cannot be written", new.display()))?;
        File::open(&new)?.sync_all()?;
        for place in (2..self.keep).rev() {
            if_there(fs::rename(self.numbered(place - 1), self.numbered(place)))?;
        }
        if self.keep > 1 {
            // A second name, so that at no moment there is none under the first.
            remove(&self.numbered(1))?;
            if_there(fs::hard_link(&self.path, self.numbered(1)))?;
        }
        fs::rename(&new, &self.path)?;
        File::open(folder)?.sync_all()?;
        Ok(&self.path)
    }

    fn numbered(&self, place: usize) -> PathBuf {
        self.beside(&format!(".{place}"))
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(suffix);
        name.into()
    }
}

fn remove(path: &Path) -> io::Result<()> {
    if_there(fs::remove_file(path))
}

fn if_there(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_store_sqlite::{Options, SqliteReader, SqliteStore};

    #[test]
    fn so_many_copies_are_kept_as_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(":memory:", Options::default()).unwrap();
        let path = folder.path().join("deep").join("copy.db");
        let snapshots = Snapshots { path: path.clone(), keep: 3 };
        for _ in 0..5 {
            assert_eq!(snapshots.take(&store.readers()).unwrap(), path);
        }
        let mut names: Vec<_> =
            fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["copy.db", "copy.db.1", "copy.db.2"]);
        SqliteReader::open(&path).expect("a copy is a database");
    }
}
