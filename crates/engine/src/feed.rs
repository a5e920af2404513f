//! Committed changes of jobs, for who watches.

use std::sync::Arc;

use forebay_domain::batch::Batch;
use forebay_domain::job::JobRow;
use tokio::sync::broadcast;

/// Batches that wait for a slow watcher at most; then it misses the oldest, and is told so.
const BATCHES_MAX: usize = 256;

/// The jobs that one batch changed, as it left them.
pub type Changed = Arc<[JobRow]>;

/// Where the actor tells what was committed. Nothing is kept while nobody watches.
#[derive(Debug, Clone)]
pub(crate) struct Feed(broadcast::Sender<Changed>);

impl Feed {
    pub fn new() -> Feed {
        Feed(broadcast::Sender::new(BATCHES_MAX))
    }

    pub fn watch(&self) -> broadcast::Receiver<Changed> {
        self.0.subscribe()
    }

    /// What is to be told once the batch is committed.
    pub fn gather(&self, batch: &Batch) -> Option<Changed> {
        let is_wanted = self.0.receiver_count() > 0 && !batch.jobs.is_empty();
        is_wanted.then(|| batch.jobs.iter().map(|write| write.row).collect())
    }

    pub fn tell(&self, changed: Changed) {
        // The last watcher may have left meanwhile.
        drop(self.0.send(changed));
    }
}
