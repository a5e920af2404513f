//! What every store must do.

use forebay_sim::conformance::{Opened, conformance, differential};
use forebay_sim::{MemoryReader, MemoryStore};
use forebay_store_sqlite::{Options, SqliteReader, SqliteStore};
use tempfile::TempDir;

fn in_file(folder: &TempDir, name: &str) -> Opened<SqliteStore, SqliteReader> {
    let path = folder.path().join(name);
    let store = SqliteStore::open(&path, Options::default()).unwrap();
    (store, Box::new(move || SqliteReader::open(&path).unwrap()))
}

fn in_memory() -> Opened<SqliteStore, SqliteReader> {
    let store = SqliteStore::open(":memory:", Options::default()).unwrap();
    let first = std::cell::RefCell::new(Some(store.reader().unwrap()));
    (store, Box::new(move || first.take().expect("one reader is enough")))
}

fn reference() -> Opened<MemoryStore, MemoryReader> {
    let store = MemoryStore::new();
    let shared = store.clone();
    (store, Box::new(move || shared.reader()))
}

#[test]
fn it_does_what_every_store_must_do() {
    let folder = tempfile::tempdir().unwrap();
    let made = std::cell::Cell::new(0);
    conformance(|| {
        made.set(made.get() + 1);
        in_file(&folder, &format!("{}.db", made.get()))
    });
}

#[test]
fn it_does_so_in_memory_as_well() {
    conformance(in_memory);
}

#[test]
fn it_reads_what_the_reference_store_reads_after_any_batches() {
    for seed in 0..16 {
        differential(seed, 60, &mut in_memory(), &mut reference());
    }
    let folder = tempfile::tempdir().unwrap();
    differential(16, 100, &mut in_file(&folder, "a.db"), &mut reference());
}
