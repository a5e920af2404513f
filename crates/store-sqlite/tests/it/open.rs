//! Who may open what.

use std::fs;
use std::path::Path;

use forebay_domain::batch::{Batch, Extent, JobWrite};
use forebay_domain::catalog::{Paging, Query, TABLES, Table};
use forebay_domain::ids::{JobId, Lsn, Timestamp};
use forebay_domain::job::JobRow;
use forebay_domain::port::{Read, Reader, Rows, Store};
use forebay_domain::state::JobState;
use forebay_store_sqlite::{OpenError, Options, SCHEMA_VERSION, SqliteReader, SqliteStore};
use rusqlite::Connection;

use crate::fill::{W, everything, job, jobs, row};

fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path, Options::default()).unwrap()
}

fn count(reader: &mut SqliteReader, table: Table) -> u64 {
    let paging = Paging { offset: 0, limit: 0, sort_by: None, reverse: false };
    reader.list(&Query { table, filters: vec![], paging }).unwrap().1
}

#[test]
fn a_second_writer_is_refused_and_told_who_the_first_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let store = open(&path);
    match SqliteStore::open(&path, Options::default()) {
        Err(error @ OpenError::InUse { .. }) => {
            let message = error.to_string();
            assert!(message.contains("a.db is in use by another process"), "{message}");
            assert!(message.contains(&format!("({})", std::process::id())), "{message}");
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(SqliteStore::migrate(&path, 0), Err(OpenError::InUse { .. })));
    drop(store);
    open(&path);
}

#[test]
fn a_reader_works_beside_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = open(&path);
    let mut reader = SqliteReader::open(&path).unwrap();
    assert_eq!(reader.job(JobId(1)).unwrap(), None);
    store.commit(&everything(1)).unwrap();
    assert_eq!(&*reader.job(JobId(1)).unwrap().unwrap().name, "job 1");
}

#[test]
fn a_reader_works_when_the_writer_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("b.db"));
    let mut store = open(&path);
    store.commit(&everything(1)).unwrap();
    // Killed: what was committed is in the log, and nobody has an index of that.
    fs::copy(&path, &copy).unwrap();
    fs::copy(folder.path().join("a.db-wal"), folder.path().join("b.db-wal")).unwrap();
    assert!(SqliteReader::open(&copy).unwrap().job(JobId(4)).unwrap().is_some());
    // Stopped: there is no log.
    store.close().unwrap();
    drop(store);
    assert!(!folder.path().join("a.db-wal").exists());
    assert!(SqliteReader::open(&path).unwrap().job(JobId(4)).unwrap().is_some());
}

#[test]
fn what_is_not_there_is_not_made_by_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let error = SqliteReader::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Missing { .. }));
    assert_eq!(error.to_string(), format!("there is no database at {}", path.display()));
    assert!(matches!(SqliteStore::migrate(&path, 1), Err(OpenError::Missing { .. })));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let error = SqliteStore::open("/nowhere/at/all/a.db", Options::default()).unwrap_err();
    assert_eq!(error.to_string(), "/nowhere/at/all/a.db: its folder cannot be used");
}

#[test]
fn a_file_of_somebody_else_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (text, foreign) = (folder.path().join("notes.txt"), folder.path().join("torc.db"));
    fs::write(&text, "not a database, but long enough to be looked at as if it were one: ".repeat(20)).unwrap();
    Connection::open(&foreign).unwrap().execute_batch("CREATE TABLE job (id); PRAGMA user_version = 1").unwrap();
    for path in [&text, &foreign] {
        let before = fs::read(path).unwrap();
        let message = format!("{} is not a Forebay database", path.canonicalize().unwrap().display());
        assert_eq!(SqliteStore::open(path, Options::default()).unwrap_err().to_string(), message);
        assert_eq!(SqliteReader::open(path).unwrap_err().to_string(), message);
        assert_eq!(fs::read(path).unwrap(), before);
    }
}

#[test]
fn an_empty_file_becomes_a_database_but_is_none_to_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    fs::write(&path, "").unwrap();
    assert!(matches!(SqliteReader::open(&path), Err(OpenError::NotForebay { .. })));
    open(&path);
    SqliteReader::open(&path).unwrap();
}

#[test]
fn a_newer_database_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    drop(open(&path));
    let newer = SCHEMA_VERSION + 1;
    Connection::open(&path).unwrap().pragma_update(None, "user_version", newer).unwrap();
    let refused = [SqliteStore::open(&path, Options::default()).unwrap_err(), SqliteReader::open(&path).unwrap_err()];
    for error in refused {
        let message = error.to_string();
        assert!(message.contains(&format!("newer forebay (its schema has version {newer},")), "{message}");
    }
}

#[test]
fn a_filled_database_is_migrated_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = open(&path);
    store.recover().unwrap();
    store.commit(&everything(1)).unwrap();
    store.close().unwrap();
    drop(store);

    SqliteStore::migrate(&path, 1).unwrap();
    match SqliteReader::open(&path).unwrap_err() {
        OpenError::Older { found, known, .. } => assert_eq!((found, known), (1, SCHEMA_VERSION)),
        other => panic!("{other}"),
    }
    let mut store = open(&path);
    let mut reader = store.reader().unwrap();
    assert!(reader.job(JobId(4)).unwrap().is_some(), "what the older version knew is kept");
    assert_eq!(TABLES.map(|table| count(&mut reader, table)), [0; TABLES.len()], "the catalog is what it lost");
    let recovered = store.recover().unwrap();
    assert_eq!((recovered.lsn.0, recovered.epoch.0), (1, 2));
    drop((store, reader));

    SqliteStore::migrate(&path, 0).unwrap();
    let mut store = open(&path);
    assert_eq!(store.recover().unwrap().epoch.0, 1, "nothing was left");
    store.commit(&everything(1)).unwrap();
    assert_eq!(TABLES.map(|table| count(&mut store.reader().unwrap(), table)), [1; TABLES.len()]);
}

#[test]
fn timers_of_an_older_database_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = open(&path);
    store.commit(&everything(1)).unwrap();
    let scheduled = |id, at| JobRow { state: JobState::Scheduled, due_at: Some(Timestamp(at)), ..job(id) };
    let rows = [scheduled(1, 300), scheduled(2, 100), JobRow { due_at: Some(Timestamp(200)), ..job(4) }];
    let jobs = rows.map(|row| JobWrite { row, extent: Extent::Whole }).to_vec();
    store.commit(&Batch { lsn: Lsn(2), jobs, ..Batch::default() }).unwrap();
    drop(store);
    SqliteStore::migrate(&path, 3).unwrap();
    let (_, found) = open(&path).reader().unwrap().read(&Read::Due { after: None, limit: 10 }).unwrap();
    assert_eq!(found, Rows::Due(vec![rows[1].moment().unwrap(), rows[0].moment().unwrap()]));
}

#[test]
fn a_memory_lives_as_long_as_its_store_or_a_reader() {
    let mut store = SqliteStore::open(":memory:", Options::default()).unwrap();
    store.commit(&everything(1)).unwrap();
    store.sync().unwrap();
    let mut reader = store.reader().unwrap();
    store.commit(&jobs(2, 5..=5)).unwrap();
    store.close().unwrap();
    drop(store);
    assert!(reader.job(JobId(5)).unwrap().is_some());
    assert_eq!(reader.get(Table::File, 1).unwrap(), Some(row(Table::File, 1)));
    assert!(reader.workflow(W).unwrap().is_some());
}

#[test]
fn a_copy_of_what_is_committed_can_be_opened_like_any_database() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.db");
    std::fs::write(&file, "").unwrap();
    for (name, place) in [("memory", ":memory:".as_ref()), ("file", file.as_path())] {
        let mut store = SqliteStore::open(place, Options::default()).unwrap();
        store.commit(&everything(1)).unwrap();
        let copy = folder.path().join(format!("it's {name}.db"));
        let reader = store.readers().open().unwrap();
        reader.copy_into(&copy).unwrap();
        reader.copy_into(&copy).expect_err("what is there is not written over");
        store.commit(&jobs(2, 5..=5)).expect("the store goes on");
        let mut copied = SqliteStore::open(&copy, Options::default()).unwrap();
        assert_eq!(copied.recover().unwrap().lsn.0, 1);
        assert!(copied.reader().unwrap().get(Table::File, 1).unwrap().is_some());
    }
}

#[test]
fn a_file_that_cannot_be_written_is_named_as_that() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    drop(open(&path));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o444)).unwrap();
    if fs::File::options().append(true).open(&path).is_ok() {
        eprintln!("skipped: this user may write what is read-only");
        return;
    }
    let error = SqliteStore::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::ReadOnly { .. }), "{error}");
    SqliteReader::open(&path).unwrap();
}
