//! Names of tasks that are over: they lead nowhere, and go later, many at a time.

use std::path::Path;
use std::time::Duration;

use forebay_domain::batch::{Batch, JobDetail};
use forebay_domain::catalog::{Statement, Table};
use forebay_domain::ids::{JobId, Lsn};
use forebay_domain::port::{Reader, Store, StoreError, TaskName};
use forebay_store_sqlite::tend;
use forebay_store_sqlite::{Options, SCHEMA_VERSION, SqliteStore};
use rusqlite::Connection;

use crate::fill::{W, everything, jobs, row};

/// Names stay until there are four of them.
fn open(path: &Path) -> SqliteStore {
    let options = Options { gone_names: 4, busy_timeout: Duration::ZERO, ..Options::default() };
    let mut store = SqliteStore::open(path, options).unwrap();
    store.recover().unwrap();
    store
}

/// With an application.
fn opened(path: &Path) -> SqliteStore {
    let mut store = open(path);
    let mut ground = Batch { lsn: Lsn(1), jobs: Vec::new(), details: Vec::new(), ..everything(1) };
    ground.workflows[0].endless = true;
    ground.workflows[0].has_edges = false;
    ground.edges = Default::default();
    ground.relations.clear();
    ground.statements = vec![Statement::Insert { table: Table::Application, rows: vec![row(Table::Application, 1)] }];
    store.commit(&ground).unwrap();
    store
}

fn tasks(lsn: u64, names: &[(i64, &str)]) -> Batch {
    let mut batch = jobs(lsn, names.iter().map(|(id, _)| *id));
    for (detail, (_, name)) in batch.details.iter_mut().zip(names) {
        *detail = JobDetail { name: (*name).into(), ..detail.clone() };
    }
    batch
}

fn over(lsn: u64, ids: impl IntoIterator<Item = i64>) -> Batch {
    Batch { lsn: Lsn(lsn), jobs_over: ids.into_iter().map(JobId).collect(), ..Batch::default() }
}

fn named(store: &SqliteStore, name: &str) -> Option<i64> {
    let found = store.reader().unwrap().task(&TaskName::Named { workflow: W, name: name.into() }).unwrap();
    found.map(|view| view.row.id.0)
}

/// The names that there are, and the batches that say of some that they are gone.
fn stored(path: &Path) -> (Vec<(String, i64)>, i64) {
    let db = Connection::open(path).unwrap();
    let mut names = db.prepare("SELECT name, job_id FROM job_name ORDER BY name, job_id").unwrap();
    let names = names.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap();
    (names, db.query_row("SELECT count(*) FROM gone_names", [], |row| row.get(0)).unwrap())
}

/// What is wrong with names.
fn faults(path: &Path) -> Vec<String> {
    let faults = tend::check(path).unwrap().into_iter().map(|fault| fault.to_string());
    faults.filter(|fault| fault.contains("name")).collect()
}

const FIVE: [(i64, &str); 5] = [(1, "d"), (2, "b\"\n"), (3, "c of a name"), (4, "a"), (5, "e")];

#[test]
fn the_name_of_a_task_that_is_over_leads_nowhere_and_goes_with_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = opened(&path);
    store.commit(&tasks(2, &FIVE)).unwrap();
    assert_eq!(named(&store, "d"), Some(1));
    store.commit(&over(3, [1])).unwrap();
    assert_eq!((named(&store, "d"), named(&store, "b\"\n")), (None, Some(2)));
    store.commit(&over(4, [2, 3])).unwrap();
    store.commit(&over(5, [4])).unwrap();
    let (names, batches) = stored(&path);
    assert_eq!((names.len(), batches), (5, 3));
    assert_eq!(faults(&path), [""; 0]);
    store.commit(&over(6, [])).unwrap();
    assert_eq!(stored(&path), (vec![("e".to_owned(), 5)], 0));
    assert_eq!(faults(&path), [""; 0]);
}

#[test]
fn a_task_comes_by_the_name_of_one_that_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = opened(&path);
    for id in 1..=9 {
        store.commit(&tasks(2 * id as u64, &[(id, "a")])).unwrap();
        assert_eq!(named(&store, "a"), Some(id));
        // However often it came, who looks for it finds one.
        assert_eq!(stored(&path).0, [("a".to_owned(), id)]);
        store.commit(&over(2 * id as u64 + 1, [id])).unwrap();
        assert_eq!(named(&store, "a"), None);
    }
    assert_eq!(faults(&path), [""; 0]);
}

#[test]
fn names_that_an_earlier_process_left_go_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = opened(&path);
    store.commit(&tasks(2, &FIVE)).unwrap();
    store.commit(&over(3, [1, 2, 3])).unwrap();
    drop(store);
    let mut store = open(&path);
    assert_eq!((named(&store, "b\"\n"), named(&store, "a")), (None, Some(4)));
    store.commit(&over(4, [4])).unwrap();
    store.commit(&over(5, [])).unwrap();
    assert_eq!(stored(&path), (vec![("e".to_owned(), 5)], 0));
}

#[test]
fn names_go_once_where_a_commit_was_tried_twice() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = opened(&path);
    store.commit(&tasks(2, &FIVE)).unwrap();
    let other = Connection::open(&path).unwrap();
    for (lsn, ids) in [(3, vec![1, 2]), (4, vec![3, 4]), (5, vec![])] {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(matches!(store.commit(&over(lsn, ids.clone())), Err(StoreError::Busy(_))));
        other.execute_batch("ROLLBACK").unwrap();
        store.commit(&over(lsn, ids)).unwrap();
    }
    assert_eq!(stored(&path), (vec![("e".to_owned(), 5)], 0));
}

#[test]
fn names_of_tasks_that_are_over_are_not_there_in_an_earlier_version() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let mut store = opened(&path);
    store.commit(&tasks(2, &FIVE)).unwrap();
    store.commit(&over(3, [1, 2])).unwrap();
    drop(store);
    SqliteStore::migrate(&path, 10).unwrap();
    SqliteStore::migrate(&path, SCHEMA_VERSION).unwrap();
    assert_eq!(
        stored(&path),
        ([("a", 4), ("c of a name", 3), ("e", 5)].map(|(name, id)| (name.to_owned(), id)).into(), 0)
    );
    let store = open(&path);
    assert_eq!((named(&store, "c of a name"), named(&store, "d")), (Some(3), None));
}
