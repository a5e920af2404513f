//! Starting an engine.

use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::thread;

use forebay_domain::limits::Limits;
use forebay_domain::machine::Machine;
use forebay_domain::port::{Reader, Store, StoreError};
use forebay_flusher::Cause;
use tokio::sync::watch;

use crate::actor::{Actor, Parts};
use crate::counters::Gauges;
use crate::feed::Feed;
use crate::handle::Shared;
use crate::inbox::{Event, Inbox};
use crate::readers::Readers;
use crate::sink::StoreSink;
use crate::{Clock, Ended, EngineHandle, Options, StartError};

/// The actor. It lives on its own threads; all that is held of it is a handle.
#[derive(Debug)]
pub enum Engine {}

impl Engine {
    /// Recovers from the store and starts the engine's threads: one for the machine, one that
    /// writes, and those that read, each with a reader of its own.
    ///
    /// # Errors
    /// If the store does not recover, or a reader cannot be opened.
    ///
    /// # Panics
    /// If the system gives no thread.
    pub fn start<S, R>(
        mut store: S,
        readers: impl Fn() -> Result<R, StoreError>,
        clock: Arc<dyn Clock>,
        options: Options,
    ) -> Result<EngineHandle, StartError>
    where
        S: Store + Send + 'static,
        R: Reader + Send + 'static,
    {
        let recovered = store.recover().map_err(StartError::Recover)?;
        let open = |many: usize| (0..many.max(1)).map(|_| readers()).collect::<Result<Vec<R>, StoreError>>();
        let page_readers = open(options.page_readers).map_err(StartError::Readers)?;
        let graph_readers = open(1).map_err(StartError::Readers)?;
        let door_readers = open(options.door_readers).map_err(StartError::Readers)?;

        let inbox = Arc::new(Inbox::new(options.mailbox_max));
        let panicked = {
            let inbox = Arc::clone(&inbox);
            move || inbox.tell(Event::Broken("a read panicked".into()))
        };
        // What the machine asks for is bounded by the machine.
        let pages = Readers::start("forebay-pages", page_readers, usize::MAX, panicked.clone());
        let graphs = Readers::start("forebay-graphs", graph_readers, usize::MAX, panicked.clone());
        let doors = Readers::start("forebay-reads", door_readers, options.reads_max, panicked);

        let (ended, watched) = watch::channel(None);
        let gauges = Arc::new(Gauges::default());
        let feed = Feed::new();
        let egress = options.egress();
        let handle = EngineHandle::new(Shared {
            inbox: Arc::clone(&inbox),
            doors: doors.clone(),
            machine_reads: [pages.clone(), graphs.clone()],
            gauges: Arc::clone(&gauges),
            feed: feed.clone(),
            clock: Arc::clone(&clock),
            hold: options.hold,
            egress,
            ended: watched,
        });
        let committed = recovered.lsn;
        tracing::info!(lsn = committed.0, epoch = recovered.epoch.0, "recovered");
        let machine = Machine::new(Limits { egress, ..options.limits.clone() }, recovered);
        let parts = Parts {
            machine,
            committed,
            store: StoreSink::new(store),
            inbox,
            pages,
            graphs,
            doors,
            gauges,
            feed,
            clock,
        };
        thread::Builder::new()
            .name("forebay-engine".to_owned())
            .spawn(move || {
                let inbox = Arc::clone(&parts.inbox);
                let readers = [parts.pages.clone(), parts.graphs.clone(), parts.doors.clone()];
                let caught = panic::catch_unwind(AssertUnwindSafe(|| Actor::new(parts, options).run()));
                let how = caught.unwrap_or_else(|_| {
                    let cause = Cause::from("the engine panicked");
                    Ended::Broken { cause: Arc::from(cause), changes: 0 }
                });
                inbox.end();
                match &how {
                    Ended::Stopped => tracing::info!("{how}"),
                    Ended::Unwritten { .. } | Ended::Broken { .. } => tracing::error!("{how}"),
                }
                for readers in readers {
                    // A read in progress ends by itself; nobody waits for it.
                    readers.close();
                }
                ended.send_replace(Some(how));
            })
            .expect("a process that cannot start a thread cannot go on");
        Ok(handle)
    }
}
