//! Each store does what every store must.

use forebay_sim::conformance::{Opened, conformance, differential};
use forebay_sim::{MemoryReader, MemoryStore};

fn memory() -> Opened<MemoryStore, MemoryReader> {
    let store = MemoryStore::new();
    let opener = store.clone();
    (store, Box::new(move || opener.reader()))
}

#[test]
fn the_memory_store_conforms() {
    conformance(memory);
}

#[test]
fn random_batches_read_alike_from_two_memory_stores() {
    for seed in 0..20 {
        differential(seed, 60, &mut memory(), &mut memory());
    }
}
