//! What an operator does to a database.

use std::fs;
use std::path::Path;

use forebay_domain::batch::Batch;
use forebay_domain::ids::{JobId, Lsn};
use forebay_domain::port::{Reader, Store};
use forebay_domain::state::JobState;
use forebay_store_sqlite::tend::{self, Fault, TendError};
use forebay_store_sqlite::{OpenError, Options, SCHEMA_VERSION, SqliteReader, SqliteStore};
use rusqlite::Connection;

use crate::fill::{everything, jobs};

/// A database with something in every table, whose counters are right.
fn filled(path: &Path) -> SqliteStore {
    let mut store = SqliteStore::open(path, Options::default()).unwrap();
    store.recover().unwrap();
    store.recover().unwrap();
    store.commit(&everything(1)).unwrap();
    store.commit(&jobs(2, 5..=400)).unwrap();
    let mut counted = everything(1).workflows[0];
    counted.counts[JobState::Ready as usize] = 400;
    counted.lanes = 1;
    let sequences = forebay_domain::catalog::TABLES.map(|table| (forebay_domain::batch::Sequence::Row(table), 9));
    let more = [(forebay_domain::batch::Sequence::Job, 401), (forebay_domain::batch::Sequence::Lane, 2)];
    let sequences = sequences.into_iter().chain(more).collect();
    store.commit(&Batch { lsn: Lsn(3), workflows: vec![counted], sequences, ..Batch::default() }).unwrap();
    store
}

fn change(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_database_in_order_has_no_faults_served_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = filled(&path);
    assert_eq!(tend::check(&path).unwrap(), []);
    store.close().unwrap();
    drop(store);
    assert_eq!(tend::check(&path).unwrap(), []);
}

#[test]
fn each_contradiction_is_found_and_named() {
    for (sql, wanted) in [
        ("UPDATE workflow_state SET ready = 3", "workflow 1 counts its jobs by state"),
        (
            "UPDATE workflow_state SET lanes = 0",
            "a workflow that reserves other lanes than it has, or none though it is not complete: 1",
        ),
        ("UPDATE job SET state = 77 WHERE id = 9", "1 jobs of workflow 1 are in state 77"),
        ("UPDATE job SET lane_id = 12 WHERE id = 9", "a job whose lane is not one of its workflow: 9"),
        ("UPDATE job SET grant_number = 99 << 40 WHERE id = 9", "a job of a start that never was: 9"),
        ("UPDATE job SET result_id = 5 WHERE id = 9", "a job whose latest outcome is not there: 9"),
        ("DELETE FROM job_detail WHERE job_id = 9", "a job without its name and payload: 9"),
        ("DELETE FROM job_name WHERE job_id = 9", "a job that is not found by its name: 9"),
        ("UPDATE job_name SET name = 'other' WHERE job_id = 9", "a name that its job does not have: 9"),
        ("DELETE FROM job WHERE id = 9", "a name and payload without their job: 9"),
        ("DELETE FROM job WHERE id = 1", "a dependency on a job that is not there: 2"),
        ("DELETE FROM job WHERE id = 2", "a dependency of a job that is not there: 2"),
        ("DELETE FROM lane", "a job whose lane is not one of its workflow: 1"),
        ("DELETE FROM requirement_needs", "a lane whose requirement nobody knows: 1"),
        ("DELETE FROM workflow", "a workflow that the catalog does not know: 1"),
        ("DELETE FROM workflow_state", "a job without its workflow: 1"),
        ("UPDATE sequence SET next = 400 WHERE name = 'job'", "job 400 is there, and 400 is to be the next one"),
        ("DELETE FROM sequence WHERE name = 'file'", "file 1 is there, and 1 is to be the next one"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(filled(&path));
        change(&path, sql);
        let faults = tend::check(&path).unwrap();
        assert!(faults.iter().any(|fault| fault.to_string().contains(wanted)), "{sql}: {faults:?}");
        assert!(faults.len() < 40, "{sql}: {faults:?}");
    }
}

#[test]
fn workflows_that_are_being_changed_in_parts_need_not_agree_yet() {
    for begun in [
        "UPDATE workflow_state SET march = 1, march_at = 0",
        "DELETE FROM workflow; DELETE FROM workflow_state; INSERT INTO doomed VALUES (1)",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        drop(filled(&path));
        change(&path, begun);
        change(&path, "DELETE FROM job WHERE id < 100");
        assert_eq!(tend::check(&path).unwrap(), [], "{begun}");
    }
}

#[test]
fn a_damaged_page_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = filled(&path);
    store.close().unwrap();
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let faults = tend::check(&path).unwrap();
    assert!(matches!(faults[..], [Fault::Damaged(_), ..]), "{faults:?}");
}

#[test]
fn a_backup_of_a_served_database_is_one_moment_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("b.db"));
    let mut store = filled(&path);
    let copied = tend::backup(&path, &copy).unwrap();
    store.commit(&jobs(4, 401..=401)).unwrap();
    assert_eq!(copied.bytes, fs::metadata(&copy).unwrap().len());
    assert_eq!(tend::check(&copy).unwrap(), []);
    let mut again = SqliteStore::open(&copy, Options::default()).unwrap();
    assert_eq!(again.recover().unwrap().lsn, Lsn(3));
    let mut reader = again.reader().unwrap();
    assert!(reader.job(JobId(400)).unwrap().is_some() && reader.job(JobId(401)).unwrap().is_none());
}

#[test]
fn a_backup_takes_the_place_of_nothing_and_leaves_no_part() {
    let folder = tempfile::tempdir().unwrap();
    let (path, copy) = (folder.path().join("a.db"), folder.path().join("b.db"));
    drop(filled(&path));
    fs::write(&copy, "something").unwrap();
    assert!(matches!(tend::backup(&path, &copy), Err(TendError::Exists { .. })));
    assert!(matches!(tend::backup(folder.path().join("c.db"), folder.path().join("d.db")), Err(TendError::Open(_))));
    assert!(matches!(tend::backup(&path, folder.path().join("no/d.db")), Err(TendError::Io { .. })));
    assert_eq!(fs::read(&copy).unwrap(), b"something");
    let names = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let more: Vec<String> = names.filter(|name| !name.starts_with("a.db") && name != "b.db").collect();
    assert_eq!(more, [""; 0]);
}

#[test]
fn a_database_can_be_taken_down_and_up_and_stays_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = filled(&path);
    store.close().unwrap();
    drop(store);
    let down = tend::migrate(&path, Some(SCHEMA_VERSION - 1)).unwrap();
    assert_eq!((down.from, down.to), (SCHEMA_VERSION, SCHEMA_VERSION - 1));
    assert!(matches!(tend::check(&path), Err(TendError::Open(OpenError::Older { .. }))));
    let up = tend::migrate(&path, None).unwrap();
    assert_eq!((up.from, up.to), (SCHEMA_VERSION - 1, SCHEMA_VERSION));
    assert!(SqliteReader::open(&path).unwrap().job(JobId(400)).unwrap().is_some());
    let error = tend::migrate(&path, Some(SCHEMA_VERSION + 1)).unwrap_err().to_string();
    assert!(error.contains("there is no version"), "{error}");
}

#[test]
fn what_writes_is_refused_while_somebody_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let _store = filled(&path);
    let refused = [
        tend::optimize(&path).unwrap_err(),
        tend::vacuum(&path).unwrap_err(),
        tend::migrate(&path, Some(1)).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, TendError::Open(OpenError::InUse { .. })), "{error}");
    }
}

#[test]
fn a_vacuum_gives_back_what_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    drop(filled(&path));
    change(&path, "UPDATE job_detail SET payload = x''");
    let size = tend::vacuum(&path).unwrap();
    assert!(size.after < size.before / 2, "{size:?}");
    assert_eq!(size.after, fs::metadata(&path).unwrap().len());
    assert_eq!(tend::check(&path).unwrap(), []);
}

fn scans(path: &Path) -> Vec<String> {
    let plans = tend::plans(path).unwrap();
    assert!(plans.len() > 150, "{}", plans.len());
    plans.into_iter().filter(|plan| plan.scans()).map(|plan| plan.name).collect()
}

#[test]
fn no_statement_scans_a_table_whatever_sqlite_sees_in_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    drop(filled(&path));
    assert_eq!(scans(&path), [""; 0]);
    let optimized = tend::optimize(&path).unwrap();
    assert!(!optimized.misled.is_empty(), "nearly empty tables invite to read them whole");
    assert_eq!(scans(&path), [""; 0], "so what was seen is forgotten");
    // Somebody's own statistics.
    change(&path, "ANALYZE");
    assert_ne!(scans(&path), [""; 0]);
    tend::optimize(&path).unwrap();
    assert_eq!(scans(&path), [""; 0]);
}

#[test]
fn every_index_is_listed_with_its_size_and_who_uses_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    drop(filled(&path));
    let all = tend::indexes(&path).unwrap();
    let of = |index: Option<&str>, table: &str| {
        let found = all.iter().find(|one| one.index.as_deref() == index && one.table == table);
        found.unwrap_or_else(|| panic!("{index:?} of {table} in {all:?}"))
    };
    let page = of(Some("job_page"), "job");
    assert!(page.entries == 400 && page.bytes >= 4096 && page.statements >= 3, "{page:?}");
    assert_eq!(of(None, "job").entries, 400);
    let unused: Vec<_> = all.iter().filter(|one| one.index.is_some() && one.statements == 0).collect();
    assert!(unused.is_empty(), "{unused:?}");
}
