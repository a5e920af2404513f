//! `forebay serve`, and `forebay run` as torc-server: a database, served over HTTP until it is told
//! to stop.

use std::future;
use std::io::{self, Write};

use anyhow::bail;
use forebay_engine::Ended;
use forebay_server::config::Config;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use crate::exit::Exit;
use crate::local::Local;
use crate::signals::{Signals, end_of_stdin};
use crate::snapshot::Snapshots;

/// Whom whoever started us takes us for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Ours,
    /// Says its port as torc's client waits for it, and copies the database at SIGUSR1.
    TorcServer,
}

pub async fn serve(config: Config, manner: Manner) -> anyhow::Result<Exit> {
    // Before anybody can see that we listen, and send one.
    let mut signals = Signals::listen()?;
    let copies = match manner {
        Manner::Ours => None,
        Manner::TorcServer => Some((Snapshots::from_environment()?, signal(SignalKind::user_defined1())?)),
    };
    let scheme = if config.listening.tls.is_some() { "https" } else { "http" };
    let Config { db, durability, stop_timeout, slow_statement, stops_with_stdin, listening, .. } = config;
    let local = Local::start(&db, durability, slow_statement, listening).await?;
    say(&match manner {
        Manner::Ours => match local.grpc_address() {
            Some(grpc) => format!("listening {scheme}={} grpc={grpc}", local.address()),
            None => format!("listening {scheme}={}", local.address()),
        },
        Manner::TorcServer => format!("TORC_SERVER_PORT={}", local.address().port()),
    })?;
    let copying = async {
        let Some((snapshots, mut asked)) = copies else { return future::pending().await };
        while asked.recv().await.is_some() {
            take(&snapshots, &local).await;
        }
    };
    let stdin_ended = async {
        if stops_with_stdin {
            drop(end_of_stdin()?.await)
        } else {
            future::pending().await
        }
        io::Result::Ok(())
    };
    tokio::select! {
        asked = signals.next() => tracing::info!(?asked, "stopping"),
        ended = stdin_ended => { ended?; tracing::info!("stdin ended: stopping"); }
        () = copying => {}
        () = local.stopped() => {}
    }
    match local.stop(stop_timeout).await {
        Ended::Stopped => Ok(Exit::Done),
        ended => bail!("the database {}: {ended}", db.display()),
    }
}

/// Copies the database, and says on stdout that it is there. What goes wrong is logged: whoever
/// asked waits for the line only so long.
async fn take(snapshots: &Snapshots, local: &Local) {
    let (snapshots, readers) = (snapshots.clone(), local.readers().clone());
    let taken = spawn_blocking(move || {
        let path = snapshots.take(&readers)?;
        say(&format!("TORC_SNAPSHOT_DONE={}", path.display()))?;
        anyhow::Ok(())
    });
    match taken.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!("no snapshot was taken: {error:#}"),
        Err(error) => tracing::error!(%error, "taking a snapshot panicked"),
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}
