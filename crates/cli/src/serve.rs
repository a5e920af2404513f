//! `forebay serve`: a database, served over HTTP until it is told to stop.

use std::io::{self, Write};

use anyhow::bail;
use forebay_engine::Ended;

use crate::args::ServeArgs;
use crate::exit::Exit;
use crate::local::Local;
use crate::signals::Signals;

pub async fn serve(args: &ServeArgs) -> anyhow::Result<Exit> {
    if let Some(address) = &args.grpc {
        eprintln!("--grpc {address}: the tasks door is not there yet; it comes later, and nothing listens there");
    }
    // Before anybody can see that we listen, and send one.
    let mut signals = Signals::listen()?;
    let local = Local::listen(&args.db, &args.http, args.queues.clone(), &args.durability).await?;
    {
        let mut out = io::stdout().lock();
        writeln!(out, "listening http={}", local.address())?;
        out.flush()?;
    }
    tokio::select! {
        asked = signals.next() => tracing::info!(?asked, "stopping"),
        () = local.stopped() => {}
    }
    match local.stop(args.stop_timeout).await {
        Ended::Stopped => Ok(Exit::Done),
        ended => bail!("the database {}: {ended}", args.db.display()),
    }
}
