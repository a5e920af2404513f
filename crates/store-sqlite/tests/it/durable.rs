//! What a commit leaves behind, whatever comes after it.

use std::fs;
use std::path::{Path, PathBuf};

use forebay_domain::batch::{Batch, Extent, JobWrite, Sequence};
use forebay_domain::catalog::{Statement, StatementOutcome, Table};
use forebay_domain::graph::Edges;
use forebay_domain::ids::{JobId, Lsn};
use forebay_domain::port::{Read, Reader, Store, StoreError};
use forebay_store_sqlite::{Durability, Options, SqliteStore};
use rusqlite::Connection;

use crate::fill::{everything, job, jobs, row};

/// The files as a kill leaves them, in a folder of their own.
fn as_killed(path: &Path, name: &str) -> PathBuf {
    let copy = path.with_file_name(name);
    for suffix in ["", "-wal"] {
        let with = |path: &Path| PathBuf::from(format!("{}{suffix}", path.display()));
        fs::copy(with(path), with(&copy)).unwrap();
    }
    copy
}

fn lsn(store: &SqliteStore) -> u64 {
    store.reader().unwrap().read(&Read::Jobs(vec![])).unwrap().0.0
}

#[test]
fn what_was_committed_survives_a_kill() {
    for durability in [Durability::Power, Durability::Process] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let mut store = SqliteStore::open(&path, Options { durability, ..Options::default() }).unwrap();
        assert_eq!(store.recover().unwrap().epoch.0, 1);
        store.commit(&everything(1)).unwrap();
        store.commit(&jobs(2, 5..=300)).unwrap();

        let mut again = SqliteStore::open(as_killed(&path, "b.db"), Options::default()).unwrap();
        let recovered = again.recover().unwrap();
        assert_eq!((recovered.lsn, recovered.epoch.0), (Lsn(2), 2));
        assert_eq!(recovered.sequences, [(Sequence::Job, 100), (Sequence::Row(Table::File), 7)]);
        assert!(again.reader().unwrap().job(JobId(300)).unwrap().is_some());
    }
}

#[test]
fn a_batch_whose_answer_was_lost_is_answered_again_and_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = SqliteStore::open(&path, Options::default()).unwrap();
    store.commit(&everything(1)).unwrap();
    let batch = Batch {
        lsn: Lsn(2),
        statements: vec![
            Statement::Delete { table: Table::File, id: 1 },
            Statement::Insert { table: Table::File, rows: vec![row(Table::File, 8)] },
            Statement::Insert { table: Table::File, rows: vec![row(Table::File, 9), row(Table::File, 8)] },
        ],
        ..Batch::default()
    };
    let outcomes = store.commit(&batch).unwrap();
    assert_eq!(outcomes[0], StatementOutcome::Row(Some(row(Table::File, 1))));
    assert_eq!(outcomes[1], StatementOutcome::Inserted);
    assert!(matches!(&outcomes[2], StatementOutcome::Refused(why) if why.contains("file.id")), "{outcomes:?}");
    assert_eq!(store.commit(&batch).unwrap(), outcomes, "by the same process");
    drop(store);
    let mut store = SqliteStore::open(&path, Options::default()).unwrap();
    let forgotten = [StatementOutcome::Row(None), StatementOutcome::Inserted, StatementOutcome::Inserted];
    assert_eq!(store.commit(&batch).unwrap(), forgotten, "by the next one");
    let mut reader = store.reader().unwrap();
    assert_eq!(reader.get(Table::File, 9).unwrap(), None);
    assert_eq!(reader.get(Table::File, 8).unwrap(), Some(row(Table::File, 8)));
}

#[test]
fn a_locked_database_is_busy_and_takes_the_same_batch_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let options = Options { busy_timeout: std::time::Duration::ZERO, ..Options::default() };
    let mut store = SqliteStore::open(&path, options).unwrap();
    store.commit(&everything(1)).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..2 {
        assert!(matches!(store.commit(&jobs(2, 5..=9)), Err(StoreError::Busy(_))));
        assert_eq!(lsn(&store), 1);
    }
    other.execute_batch("ROLLBACK").unwrap();
    store.commit(&jobs(2, 5..=9)).unwrap();
    assert_eq!(lsn(&store), 2);
}

#[test]
fn a_reader_of_a_memory_sees_each_commit_at_once() {
    let options = Options { busy_timeout: std::time::Duration::ZERO, ..Options::default() };
    let mut store = SqliteStore::open(":memory:", options).unwrap();
    store.commit(&everything(1)).unwrap();
    let mut reader = store.reader().unwrap();
    for number in 2..20 {
        store.commit(&jobs(number, [number as i64 * 10].into_iter())).unwrap();
        assert_eq!(reader.read(&Read::Jobs(vec![])).unwrap().0, Lsn(number));
    }
}

#[test]
fn a_batch_that_cannot_be_is_refused_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path().join("a.db"), Options::default()).unwrap();
    store.commit(&everything(1)).unwrap();
    let mut unknown = jobs(2, 5..=9);
    unknown.jobs.push(JobWrite { row: job(77), extent: Extent::Whole });
    let twice = jobs(2, 4..=5);
    let edge = Batch { edges: Edges::between(vec![(JobId(77), JobId(1))]), ..jobs(2, 5..=9) };
    for batch in [unknown, twice, edge] {
        assert!(matches!(store.commit(&batch), Err(StoreError::Broken(_))));
        assert_eq!(lsn(&store), 1);
        assert!(store.reader().unwrap().job(JobId(5)).unwrap().is_none());
    }
    store.commit(&jobs(2, 5..=9)).unwrap();
}

#[test]
fn what_was_committed_can_be_synced_from_another_thread() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { durability: Durability::Process, ..Options::default() };
    let mut store = SqliteStore::open(folder.path().join("a.db"), options).unwrap();
    let mut syncer = store.syncer().unwrap();
    store.commit(&everything(1)).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| syncer.sync().unwrap());
        store.commit(&jobs(2, 5..=500)).unwrap();
    });
    store.sync().unwrap();
}

#[test]
fn the_log_begins_anew_once_no_reader_holds_it() {
    const PAGE: u64 = 4096;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let options = Options {
        checkpoint_pages: 20,
        log_pages_max: 200,
        reader_wait: std::time::Duration::ZERO,
        ..Options::default()
    };
    let mut store = SqliteStore::open(&path, options).unwrap();
    let log_pages = || fs::metadata(folder.path().join("a.db-wal")).unwrap().len() / PAGE;
    store.commit(&everything(1)).unwrap();
    let mut next = 2..;
    let mut commit = |times| {
        for number in next.by_ref().take(times) {
            store.commit(&jobs(number, [number as i64 * 10].into_iter())).unwrap();
        }
    };
    let largest = (0..50).fold(0, |largest, _| {
        commit(1);
        log_pages().max(largest)
    });
    assert!(largest < 250, "with nobody reading it is folded in from 20 pages on, at 200 in any case: {largest}");

    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    reader.query_row("SELECT count(*) FROM job", [], |row| row.get::<_, i64>(0)).unwrap();
    commit(100);
    assert!(log_pages() > 200, "a reader's snapshot is kept: {}", log_pages());
    reader.execute_batch("COMMIT").unwrap();
    commit(60);
    assert!(log_pages() < 250, "{}", log_pages());
}

#[test]
fn the_log_keeps_its_bound_beside_readers_of_which_always_some_read() {
    const PAGE: u64 = 4096;
    const LONG_READ: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) \
                             SELECT count(*) FROM n WHERE i > (SELECT count(*) FROM job)";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let durability = Durability::Process;
    let options = Options { durability, checkpoint_pages: 20, log_pages_max: 200, ..Options::default() };
    let mut store = SqliteStore::open(&path, options).unwrap();
    store.commit(&everything(1)).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let largest = std::thread::scope(|threads| {
        for _ in 0..3 {
            threads.spawn(|| {
                let reader = Connection::open(&path).unwrap();
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    reader.query_row(LONG_READ, [], |row| row.get::<_, i64>(0)).unwrap();
                }
            });
        }
        let largest = (2..500).map(|number| {
            store.commit(&jobs(number, [number as i64 * 10].into_iter())).unwrap();
            fs::metadata(folder.path().join("a.db-wal")).unwrap().len() / PAGE
        });
        let largest = largest.max();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        largest
    });
    // The bound, and what comes until its second try where the first one had waited in vain.
    assert!(largest < Some(320), "{largest:?}");
}
