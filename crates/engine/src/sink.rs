//! The store as the flusher sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forebay_domain::batch::{Batch, Outcomes};
use forebay_domain::port::{Store, StoreError};
use forebay_flusher::{Failure, Sink};

/// A store that the writer thread commits to, and that the engine closes once that has ended.
pub(crate) struct StoreSink<S>(Arc<Mutex<S>>);

impl<S: Store> StoreSink<S> {
    pub fn new(store: S) -> StoreSink<S> {
        StoreSink(Arc::new(Mutex::new(store)))
    }

    pub fn close(&self) -> Result<(), StoreError> {
        self.lock().close()
    }

    fn lock(&self) -> MutexGuard<'_, S> {
        // The writer does not ask a store again that panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Clone for StoreSink<S> {
    fn clone(&self) -> StoreSink<S> {
        StoreSink(Arc::clone(&self.0))
    }
}

impl<S: Store + Send + 'static> Sink for StoreSink<S> {
    type Batch = Batch;
    type Done = Outcomes;

    fn commit(&mut self, batch: &Batch) -> Result<Outcomes, Failure> {
        self.lock().commit(batch).map_err(failure)
    }
}

pub(crate) fn failure(error: StoreError) -> Failure {
    match error {
        StoreError::Busy(cause) => Failure::Busy(cause),
        StoreError::Broken(cause) => Failure::Broken(cause),
    }
}
