//! A copy of a database, as it was at one moment.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::TendError;
use crate::SqliteReader;

/// What was copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Copied {
    pub bytes: u64,
}

/// Copies a database, served or not, into a file that is not there yet, packed and synced. It is one
/// moment of it: everything that was committed when the copy began, and nothing later.
///
/// The log of a database that is served cannot begin anew before the copy is done.
///
/// # Errors
/// If the file is there, or either cannot be used. Then there is no copy, nor a part of one.
pub fn backup(path: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Copied, TendError> {
    let (path, to) = (path.as_ref(), to.as_ref());
    // To see it now, not after a long copy.
    if to.symlink_metadata().is_ok() {
        return Err(TendError::Exists { path: to.to_owned() });
    }
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => TendError::Exists { path: to.to_owned() },
        _ => TendError::Io { path: to.to_owned(), what: "the copy cannot be written", source },
    };
    let reader = SqliteReader::open(path)?;
    let part = Part::beside(to).map_err(failed)?;
    reader.copy_into(&part.0).map_err(|source| TendError::Copy { path: path.to_owned(), source })?;
    part.become_whole(to).map(|bytes| Copied { bytes }).map_err(failed)
}

/// A copy that is not done; removed when it is dropped.
struct Part(PathBuf);

impl Part {
    fn beside(to: &Path) -> io::Result<Part> {
        let mut name = to.as_os_str().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let path = PathBuf::from(name);
        // Empty, it is what SQLite writes a copy into.
        File::create_new(&path)?;
        Ok(Part(path))
    }

    /// Gives it its name, unless something has it by now.
    fn become_whole(self, to: &Path) -> io::Result<u64> {
        let file = File::open(&self.0)?;
        file.sync_all()?;
        fs::hard_link(&self.0, to)?;
        let folder = to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // What is left of it is named as what it is.
        drop(fs::remove_file(&self.0));
    }
}
