//! The write side.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use forebay_domain::batch::{Batch, Outcomes, Sequence};
use forebay_domain::catalog::{Statement, StatementOutcome, TABLES};
use forebay_domain::ids::{Epoch, Lsn, WorkflowId};
use forebay_domain::port::{Recovered, Store, StoreError};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, DEFAULT_NAME, wal::CheckpointMode};

use crate::apply;
use crate::encode;
use crate::error::{OpenError, SyncFailed, broken, is_locked, may_pass, sorted};
use crate::fold::Folder;
use crate::names::GoneNames;
use crate::place::{Place, WriterLock};
use crate::reader::{SqliteReader, SqliteReaders};
use crate::schema::{self, SCHEMA_VERSION};
use crate::slow;
use crate::sql;
use crate::{Durability, Options};

/// How long an open waits for readers that recover the log, or for somebody's backup.
const OPEN_WAIT: Duration = Duration::from_secs(5);

/// A database that this process may write to, until it is dropped.
#[derive(Debug)]
pub struct SqliteStore {
    db: Connection,
    options: Options,
    place: Place,
    /// Pages in the log after the last commit.
    log_pages: Arc<AtomicU32>,
    /// With so many the log is folded in, as far as readers let.
    checkpoint_at: u32,
    /// Does the most of that, from the first long log on.
    folder: Option<Folder>,
    /// The folder has gone through this log at most once.
    folds_again: bool,
    syncer: Syncer,
    /// What was answered, or would have been, to the last batch that was tried.
    tried: Option<(Lsn, Outcomes)>,
    /// Deleted workflows have rows left.
    has_doomed: bool,
    gone_names: GoneNames,
    /// After the connection: it is given back when that is closed.
    _lock: WriterLock,
}

/// Makes commits without fsync durable, beside the writer.
#[derive(Debug)]
pub struct Syncer {
    /// None if there is nothing to do: each commit does it, or there is no file.
    log: Option<(PathBuf, File)>,
}

impl SqliteStore {
    /// Opens the database in this file, or a new one; `:memory:` is one that ends with the last of
    /// its store and readers. Migrates it to the schema of this program.
    ///
    /// Only one process at a time may do this; readers may be opened all the while.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<SqliteStore, OpenError> {
        let place = Place::new(path.as_ref())?;
        let lock = WriterLock::take(&place)?;
        let (mut db, version) = open(&place)?;
        let failed = |source| OpenError::sqlite(place.path(), source);
        schema::migrate(&mut db, version, SCHEMA_VERSION).map_err(failed)?;

        let gone_names = GoneNames::read(&db, options.gone_names).map_err(failed)?;
        let log_pages = Arc::new(AtomicU32::new(0));
        tune(&mut db, &options, Arc::clone(&log_pages)).map_err(failed)?;
        let syncer = Syncer::open(&place, options.durability)?;
        let checkpoint_at = options.checkpoint_pages;
        Ok(SqliteStore {
            db,
            options,
            place,
            log_pages,
            checkpoint_at,
            folder: None,
            folds_again: true,
            syncer,
            tried: None,
            has_doomed: true,
            gone_names,
            _lock: lock,
        })
    }

    /// Brings a database that nobody writes to from its version to this one, which may be an earlier
    /// one. What that version does not know is lost.
    pub fn migrate(path: impl AsRef<Path>, to: u32) -> Result<(), OpenError> {
        let path = path.as_ref();
        if !path.exists() {
            return Err(OpenError::Missing { path: path.to_owned() });
        }
        if to > SCHEMA_VERSION {
            return Err(OpenError::Newer { path: path.to_owned(), found: to, known: SCHEMA_VERSION });
        }
        let place = Place::new(path)?;
        let _lock = WriterLock::take(&place)?;
        let (mut db, version) = open(&place)?;
        let migrated = schema::migrate(&mut db, version, to).and_then(|()| keep_log(&db, false));
        migrated.map_err(|source| OpenError::sqlite(place.path(), source))
    }

    /// A reader of what this store commits.
    pub fn reader(&self) -> Result<SqliteReader, OpenError> {
        self.readers().open()
    }

    /// What opens readers of this store, also where it has no path.
    pub fn readers(&self) -> SqliteReaders {
        SqliteReaders { place: self.place.clone(), options: self.options.clone() }
    }

    /// A handle that syncs from another thread while this store goes on committing.
    pub fn syncer(&self) -> Result<Syncer, OpenError> {
        Syncer::open(&self.place, self.options.durability)
    }

    /// Where the database is, as an absolute path, or `:memory:`.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// Folds a long log into the database. What was committed is safe whether this succeeds or not.
    fn shorten_log(&mut self) -> Result<(), StoreError> {
        let pages = self.log_pages.load(Ordering::Relaxed);
        if pages < self.options.checkpoint_pages {
            self.checkpoint_at = self.options.checkpoint_pages;
        }
        match self.fold(pages) {
            // Readers, or a full disk: after one of the next commits.
            Err(error) if may_pass(&error) => Ok(()),
            Err(error) => Err(broken(error)),
            Ok(()) => Ok(()),
        }
    }

    /// The log begins anew with the first commit that finds all of it in the database and no reader in
    /// it. So the folder folds what is there beside the commits, twice if much was added meanwhile, and
    /// the rest is folded here. While a reader is in the way, that is not tried at each commit.
    fn fold(&mut self, pages: u32) -> rusqlite::Result<()> {
        let Options { checkpoint_pages, log_pages_max, busy_timeout, reader_wait, .. } = self.options;
        if let Some(folder) = &self.folder
            && let Some(folded) = folder.outcome()
        {
            let left = pages.saturating_sub(folded?);
            if left > checkpoint_pages / 4 && self.folds_again {
                self.folds_again = false;
                folder.ask();
                return Ok(());
            }
            return self.checkpoint(CheckpointMode::PASSIVE, busy_timeout);
        }
        if pages < self.checkpoint_at {
            return Ok(());
        }
        if pages >= log_pages_max {
            self.checkpoint_at = pages.saturating_add(log_pages_max / 4);
            if let Some(folder) = &self.folder {
                folder.finish();
            }
            return self.checkpoint(CheckpointMode::RESTART, reader_wait);
        }
        self.checkpoint_at = pages.saturating_add(checkpoint_pages / 4).min(log_pages_max);
        self.folds_again = true;
        let folder = match &self.folder {
            Some(folder) => folder,
            None => self.folder.insert(Folder::start(&self.place, busy_timeout)?),
        };
        folder.ask();
        Ok(())
    }

    fn checkpoint(&self, mode: CheckpointMode, wait: Duration) -> rusqlite::Result<()> {
        self.db.busy_timeout(wait)?;
        let done = self.db.wal_checkpoint_v2(DEFAULT_NAME, mode).map(|_| ());
        self.db.busy_timeout(self.options.busy_timeout)?;
        done
    }
}

impl Store for SqliteStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        let recovered = transaction(&self.db, |db| {
            let mut recovered = Recovered {
                lsn: stored_lsn(db)?,
                epoch: Epoch(sql::NEXT_EPOCH.on(db)?.query_one([], |row| row.get(0))?),
                sequences: Vec::new(),
                marching: sql::MARCHING
                    .on(db)?
                    .query_map([], |row| row.get(0).map(WorkflowId))?
                    .collect::<Result<_, _>>()?,
                graph_bytes: sql::GRAPH_BYTES.on(db)?.query_one([], |row| row.get(0))?,
                lanes: sql::LANES_RESERVED.on(db)?.query_one([], |row| row.get(0))?,
                leases: sql::LEASES.on(db)?.query_map([], encode::lease_row)?.collect::<Result<_, _>>()?,
            };
            let known = TABLES.map(Sequence::Row).into_iter().chain([Sequence::Job, Sequence::Lane]);
            let mut sequences = sql::SEQUENCES.on(db)?;
            let mut rows = sequences.query([])?;
            while let Some(row) = rows.next()? {
                let name = row.get_ref(0)?.as_str()?;
                let sequence = known.clone().find(|sequence| sequence.name() == name);
                let sequence = sequence.ok_or_else(|| encode::unreadable(0, "no sequence has this name"))?;
                recovered.sequences.push((sequence, row.get(1)?));
            }
            recovered.sequences.sort_unstable();
            Ok(recovered)
        })?;
        self.sync()?;
        Ok(recovered)
    }

    fn commit(&mut self, batch: &Batch) -> Result<Outcomes, StoreError> {
        let last = self.tried.take();
        let mut has_doomed = self.has_doomed;
        let done = transaction(&self.db, |db| {
            if stored_lsn(db)? >= batch.lsn {
                return Ok(None);
            }
            let (outcomes, names) = apply::apply(db, batch, &self.gone_names)?;
            if self.has_doomed || !batch.workflows_deleted.is_empty() {
                has_doomed = apply::bury(db)?;
            }
            sql::SET_LSN.on(db)?.execute([batch.lsn.0.cast_signed()])?;
            // Kept now: a commit whose answer is lost shall be answered at the next try.
            self.tried = Some((batch.lsn, outcomes));
            Ok(Some(names))
        })?;
        match done {
            None => self.tried = last.filter(|(lsn, _)| *lsn == batch.lsn),
            Some(names) => {
                self.has_doomed = has_doomed;
                self.gone_names.committed(batch.lsn.0.cast_signed(), names);
                self.shorten_log()?;
            }
        }
        Ok(match &self.tried {
            Some((_, outcomes)) => outcomes.clone(),
            None => batch.statements.iter().map(forgotten).collect(),
        })
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.syncer.sync()
    }

    fn close(&mut self) -> Result<(), StoreError> {
        self.folder = None;
        self.sync()?;
        let done = self.checkpoint(CheckpointMode::TRUNCATE, self.options.reader_wait);
        match done.and_then(|()| keep_log(&self.db, false)) {
            // A reader is at it; the log stays, and is read at the next start.
            Err(error) if may_pass(&error) => Ok(()),
            Err(error) => Err(broken(error)),
            Ok(()) => Ok(()),
        }
    }
}

impl Syncer {
    fn open(place: &Place, durability: Durability) -> Result<Syncer, OpenError> {
        let (Durability::Process, Some(path)) = (durability, place.beside("-wal")) else {
            return Ok(Syncer { log: None });
        };
        match File::open(&path) {
            Ok(file) => Ok(Syncer { log: Some((path, file)) }),
            Err(source) => {
                Err(OpenError::Io { path: place.path().to_owned(), what: "its log cannot be opened", source })
            }
        }
    }

    /// Makes durable against power loss what was committed before.
    ///
    /// What is in the log only is made so here; a checkpoint syncs what it moves, from the log and
    /// to the database, before the log is written anew. The log is one file as long as the store is
    /// open. SQLite holds no lock on it which this handle could end.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        match &self.log {
            // Once an fsync fails, what was to be written may be gone, and a second one succeed.
            Some((_, log)) => log.sync_data().map_err(|error| StoreError::Broken(Box::new(SyncFailed(error)))),
            None => Ok(()),
        }
    }
}

/// A connection with the first settings, and the version of what is there.
fn open(place: &Place) -> Result<(Connection, u32), OpenError> {
    let failed = |source| OpenError::sqlite(place.path(), source);
    let db = place.open_writer().map_err(failed)?;
    db.busy_timeout(OPEN_WAIT).map_err(failed)?;
    let version = schema::version(&db, place.path())?;
    // Only now: whose file it is not, he shall not find it changed.
    let mode = begin_log(&db).map_err(failed)?;
    if matches!(place, Place::File(_)) && mode != "wal" {
        // It says so only by its answer.
        let source = io::Error::other(format!("its journal mode stays {mode:?}"));
        return Err(OpenError::Io { path: place.path().to_owned(), what: "it cannot be given a log", source });
    }
    db.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
    keep_log(&db, true).map_err(failed)?;
    // What a failed sync left in the log can be read as long as the computer runs, but no further sync makes
    // it durable: what comes behind it were lost with it. In the database it is written anew, or this is no
    // start. Only somebody who reads for long may be in the way; then it stays as it is.
    match db.wal_checkpoint_v2(DEFAULT_NAME, CheckpointMode::TRUNCATE) {
        Err(error) if !is_locked(&error) => Err(failed(error)),
        Ok(_) | Err(_) => Ok((db, version)),
    }
}

/// Answers the journal mode. It is set by a commit behind the answer, which is waited for.
fn begin_log(db: &Connection) -> rusqlite::Result<String> {
    let mut begin = db.prepare("PRAGMA journal_mode = WAL")?;
    let answers: Vec<String> = begin.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(answers.concat())
}

/// Whether the log stays as it is when the last connection is closed. It is folded in by who knows that
/// all of it is on the disk: at the next start what can be trusted of it is told by its checksums, which
/// SQLite does not look at when it folds.
fn keep_log(db: &Connection, kept: bool) -> rusqlite::Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, kept).map(|_| ())
}

fn tune(db: &mut Connection, options: &Options, log_pages: Arc<AtomicU32>) -> rusqlite::Result<()> {
    db.pragma_update(None, "cache_size", -i64::from(options.cache_kib))?;
    // What is cut off the log is to be allocated again: only what a rare long one left.
    db.pragma_update(None, "journal_size_limit", i64::from(options.checkpoint_pages) * 4096 * 4)?;
    let synchronous = match options.durability {
        Durability::Power => "FULL",
        Durability::Process => "NORMAL",
    };
    db.pragma_update(None, "synchronous", synchronous)?;
    db.busy_timeout(options.busy_timeout)?;
    if let Some(over) = options.slow_statement {
        slow::log(db, over)?;
    }
    // In place of SQLite's own checkpoints, whose errors nobody hears.
    db.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, pages| {
        log_pages.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }))
}

/// One transaction: all of `work`, or nothing.
fn transaction<T>(db: &Connection, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
    let done =
        run(db, sql::BEGIN_WRITE).and_then(|()| work(db)).and_then(|answer| run(db, sql::COMMIT).map(|()| answer));
    done.map_err(|error| {
        // Some errors have ended the transaction themselves.
        if !db.is_autocommit()
            && let Err(error) = run(db, sql::ROLLBACK)
        {
            return broken(error);
        }
        sorted(error)
    })
}

fn run(db: &Connection, sql: sql::Sql) -> rusqlite::Result<()> {
    sql.on(db)?.execute([]).map(|_| ())
}

fn stored_lsn(db: &Connection) -> rusqlite::Result<Lsn> {
    sql::LSN.on(db)?.query_one([], |row| Ok(Lsn(row.get::<_, i64>(0)?.cast_unsigned())))
}

/// The answer to a statement of a batch that was committed long ago.
fn forgotten(statement: &Statement) -> StatementOutcome {
    match statement {
        Statement::Insert { .. } => StatementOutcome::Inserted,
        Statement::Update { .. } | Statement::Delete { .. } => StatementOutcome::Row(None),
        Statement::DeleteAll { .. } => StatementOutcome::Count(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use forebay_domain::catalog::{Table, Value};
    use forebay_domain::port::Reader;

    fn event(lsn: u64, id: i64, size: usize) -> Batch {
        let data = Value::Text("x".repeat(size).into());
        let row = Box::new([Value::Int(id), Value::Int(1), Value::Int(0), data]);
        Batch { lsn: Lsn(lsn), appends: vec![(Table::Event, row)], ..Batch::default() }
    }

    #[test]
    fn a_full_disk_is_busy_and_takes_the_same_batch_when_there_is_room() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = SqliteStore::open(folder.path().join("a.db"), Options::default()).unwrap();
        store.commit(&event(1, 1, 10)).unwrap();
        let pages: i64 = store.db.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap();
        store.db.pragma_update_and_check(None, "max_page_count", pages + 2, |_| Ok(())).unwrap();
        let large = event(2, 2, 100_000);
        for _ in 0..2 {
            assert!(matches!(store.commit(&large), Err(StoreError::Busy(_))));
            assert!(store.db.is_autocommit(), "the transaction is over");
        }
        store.commit(&event(2, 3, 10)).expect("a small one fits");
        store.db.pragma_update_and_check(None, "max_page_count", pages + 1_000, |_| Ok(())).unwrap();
        store.commit(&Batch { lsn: Lsn(3), ..large }).unwrap();
        let mut reader = store.reader().unwrap();
        assert_eq!((1..=3).filter(|id| reader.get(Table::Event, *id).unwrap().is_some()).count(), 3);
    }

    #[test]
    fn what_was_not_committed_is_gone_when_its_process_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let mut store = SqliteStore::open(&path, Options::default()).unwrap();
        store.commit(&event(1, 1, 10)).unwrap();
        // Larger than the cache, so that some of it is in the log before its commit.
        store.db.pragma_update(None, "cache_size", 10).unwrap();
        let length = || std::fs::metadata(folder.path().join("a.db-wal")).unwrap().len();
        let before = length();
        run(&store.db, sql::BEGIN_WRITE).unwrap();
        for id in 2..100 {
            apply::apply(&store.db, &event(2, id, 5_000), &GoneNames::default()).unwrap();
        }
        assert!(length() > before);
        std::fs::copy(&path, folder.path().join("b.db")).unwrap();
        std::fs::copy(folder.path().join("a.db-wal"), folder.path().join("b.db-wal")).unwrap();
        let mut again = SqliteStore::open(folder.path().join("b.db"), Options::default()).unwrap();
        assert_eq!(again.recover().unwrap().lsn, Lsn(1));
        assert_eq!(again.reader().unwrap().get(Table::Event, 2).unwrap(), None);
    }

    #[test]
    fn a_commit_that_nobody_heard_of_is_not_done_again() {
        let mut store = SqliteStore::open(":memory:", Options::default()).unwrap();
        let batch = event(1, 1, 10);
        store.commit(&batch).unwrap();
        store.tried = None;
        assert_eq!(store.commit(&batch).unwrap(), []);
    }

    #[test]
    fn the_log_stays_until_the_store_is_closed_or_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let (path, log) = (folder.path().join("a.db"), folder.path().join("a.db-wal"));
        let mut store = SqliteStore::open(&path, Options::default()).unwrap();
        store.commit(&event(1, 1, 10)).unwrap();
        drop(store);
        assert!(std::fs::metadata(&log).unwrap().len() > 0, "whoever gave up does not know what is on the disk");
        let mut store = SqliteStore::open(&path, Options::default()).unwrap();
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0, "all of it was written anew");
        assert!(store.reader().unwrap().get(Table::Event, 1).unwrap().is_some());
        store.close().unwrap();
        drop(store);
        assert!(!log.exists());
    }

    #[test]
    fn each_mode_asks_for_its_durability() {
        let folder = tempfile::tempdir().unwrap();
        for (durability, synchronous) in [(Durability::Power, 2), (Durability::Process, 1)] {
            let options = Options { durability, ..Options::default() };
            let store = SqliteStore::open(folder.path().join("a.db"), options).unwrap();
            let pragma = |name| store.db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
            assert_eq!(pragma("synchronous"), synchronous);
            assert_eq!(store.syncer.log.is_some(), durability == Durability::Process);
            assert_eq!((pragma("foreign_keys"), pragma("mmap_size"), pragma("page_size")), (0, 0, 4096));
            let mode: String = store.db.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
        }
    }
}
