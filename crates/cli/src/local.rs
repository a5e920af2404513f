//! A server within this process: a store, an engine on it, a door before that, a listener.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use forebay_domain::port::StoreError;
use forebay_engine::{Durability as Mode, Ended, Engine, EngineHandle, Options as EngineOptions, SystemClock};
use forebay_server::config::Durability;
use forebay_server::{Options as ServerOptions, Server};
use forebay_store_sqlite::{Durability as Survives, Options as StoreOptions, SqliteReaders, SqliteStore};

/// A database that this process owns and serves.
#[derive(Debug)]
pub struct Local {
    engine: EngineHandle,
    server: Server,
    readers: SqliteReaders,
    url: String,
}

impl Local {
    /// Serves the database, a path or `:memory:`.
    pub async fn start(
        db: &Path,
        durability: Durability,
        slow_statement: Option<Duration>,
        listening: ServerOptions,
    ) -> anyhow::Result<Local> {
        let db = db.to_owned();
        // It may migrate, and waits for the disk.
        let opening = tokio::task::spawn_blocking(move || open(&db, durability, slow_statement));
        let (engine, readers) = opening.await.context("opening the database panicked")??;
        let server = Server::start(listening, engine.clone()).await?;
        let url = format!("http://{}", server.address());
        Ok(Local { engine, server, readers, url })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Where it listens for gRPC, if it does.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.server.grpc_address()
    }

    /// What opens readers beside the engine's.
    pub fn readers(&self) -> &SqliteReaders {
        &self.readers
    }

    /// Returns when the engine ends by itself: its store is dead.
    pub async fn stopped(&self) {
        self.engine.stopped().await;
    }

    /// Answers what was taken, writes everything, closes the store.
    pub async fn stop(self, timeout: Duration) -> Ended {
        let (all_finished, ended) = tokio::join!(self.server.stop(timeout), self.engine.stop(timeout));
        if !all_finished {
            tracing::warn!("some connections did not finish their request and were broken off");
        }
        ended
    }
}

fn open(
    db: &Path,
    durability: Durability,
    slow_statement: Option<Duration>,
) -> anyhow::Result<(EngineHandle, SqliteReaders)> {
    let survives = match durability {
        // In memory there are few commits; each is synced, so that what waits for one is safe.
        Durability::Power { .. } | Durability::Memory { .. } => Survives::Power,
        Durability::Process { .. } => Survives::Process,
    };
    let store =
        SqliteStore::open(db, StoreOptions { durability: survives, slow_statement, ..StoreOptions::default() })?;
    let options = engine_options(durability, &store)?;
    let readers = store.readers();
    let reader = || readers.open().map_err(|error| StoreError::Broken(Box::new(error)));
    let engine = Engine::start(store, reader, Arc::new(SystemClock::new()), options);
    let engine = engine.with_context(|| format!("the database {} cannot be used", db.display()))?;
    Ok((engine, readers))
}

fn engine_options(durability: Durability, store: &SqliteStore) -> anyhow::Result<EngineOptions> {
    let (mut options, flush_interval) = match durability {
        Durability::Power { flush_interval } => (EngineOptions::power(), flush_interval),
        Durability::Process { flush_interval, sync_interval } => {
            let mut syncer = store.syncer()?;
            let mut options = EngineOptions::process(move || syncer.sync());
            if let (Some(wanted), Mode::Process { sync_interval, .. }) = (sync_interval, &mut options.durability) {
                *sync_interval = wanted;
            }
            (options, flush_interval)
        }
        Durability::Memory { flush_interval, read_flush_min } => {
            let mut options = EngineOptions::memory();
            if let Some(read_flush_min) = read_flush_min {
                options.durability = Mode::Memory { read_flush_min };
            }
            (options, flush_interval)
        }
    };
    if let Some(wanted) = flush_interval {
        options.flush_interval = wanted;
    }
    Ok(options)
}
