//! A server within this process: a store, an engine on it, a door before that, a listener.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use forebay_domain::port::StoreError;
use forebay_engine::{Ended, Engine, EngineHandle, Options as EngineOptions, SystemClock};
use forebay_server::{Options as ServerOptions, Server};
use forebay_store_sqlite::{Durability, Options as StoreOptions, SqliteReader, SqliteStore};

use crate::args::{DurabilityArgs, DurabilityMode};

/// A database that this process owns and serves.
#[derive(Debug)]
pub struct Local {
    engine: EngineHandle,
    server: Server,
    url: String,
}

impl Local {
    /// Serves the database on the loopback interface, on a free port.
    pub async fn start(db: &Path, durability: &DurabilityArgs) -> anyhow::Result<Local> {
        Local::serve(db, ServerOptions::loopback(), durability).await
    }

    /// Serves the database at this address, such as `127.0.0.1:0` or `localhost:8080`.
    /// With a directory of queues, it serves these too.
    pub async fn listen(
        db: &Path,
        address: &str,
        queues: Option<PathBuf>,
        durability: &DurabilityArgs,
    ) -> anyhow::Result<Local> {
        let mut found =
            tokio::net::lookup_host(address).await.with_context(|| format!("--http {address:?} is not an address"))?;
        let http = found.next().with_context(|| format!("--http {address:?} has no address"))?;
        Local::serve(db, ServerOptions { http, queues, ..ServerOptions::loopback() }, durability).await
    }

    async fn serve(db: &Path, options: ServerOptions, durability: &DurabilityArgs) -> anyhow::Result<Local> {
        let (db, durability) = (db.to_owned(), durability.clone());
        // It may migrate, and waits for the disk.
        let opening = tokio::task::spawn_blocking(move || open(&db, &durability));
        let engine = opening.await.context("opening the database panicked")??;
        let server = Server::start(options, engine.clone()).await?;
        let url = format!("http://{}", server.address());
        Ok(Local { engine, server, url })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn address(&self) -> SocketAddr {
        self.server.address()
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

fn open(db: &Path, args: &DurabilityArgs) -> anyhow::Result<EngineHandle> {
    let durability = match args.durability {
        DurabilityMode::Power => Durability::Power,
        DurabilityMode::Process => Durability::Process,
    };
    let store = SqliteStore::open(db, StoreOptions { durability, ..StoreOptions::default() })?;
    let options = engine_options(args, &store)?;
    let path = store.path().to_owned();
    let reader = move || SqliteReader::open(&path).map_err(|error| StoreError::Broken(Box::new(error)));
    let engine = Engine::start(store, reader, Arc::new(SystemClock::new()), options);
    engine.with_context(|| format!("the database {} cannot be used", db.display()))
}

fn engine_options(args: &DurabilityArgs, store: &SqliteStore) -> anyhow::Result<EngineOptions> {
    let mut options = match args.durability {
        DurabilityMode::Power => EngineOptions::power(),
        DurabilityMode::Process => {
            let mut syncer = store.syncer()?;
            EngineOptions::process(move || syncer.sync())
        }
    };
    if let (Some(wanted), forebay_engine::Durability::Process { sync_interval, .. }) =
        (args.sync_interval, &mut options.durability)
    {
        *sync_interval = wanted;
    }
    if let Some(wanted) = args.flush_interval {
        options.flush_interval = wanted;
    }
    Ok(options)
}
