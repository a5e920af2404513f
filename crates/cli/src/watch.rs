//! A worker at work, watched: its progress shown, signals heard.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use forebay_wire::WorkflowStatusResponse;
use forebay_worker::{Client, Options, Stop, Stopper, Summary, Worker};
use tokio::task::JoinHandle;

use crate::progress::Progress;
use crate::signals::{Asked, Signals};

/// How the watch ended.
pub enum Watched {
    Ended(Box<Summary>),
    /// The server of this process is gone. The jobs were killed.
    StoreEnded,
}

/// Runs a worker to its end. `server_gone` ends when it makes no sense to go on.
pub async fn worker(
    options: Options,
    client: &Client,
    progress: &Arc<Progress>,
    server_gone: impl Future<Output = ()>,
) -> anyhow::Result<Watched> {
    let mut signals = Signals::listen().context("signals cannot be heard")?;
    let (stopper, stop) = Stop::channel();
    let status = format!("/workflows/{}/status?times=false", options.workflow_id);
    let mut working = spawn(options, stop, Arc::clone(progress));
    let mut interrupts = 0;
    let mut server_gone = pin!(server_gone);
    let mut is_gone = false;
    let mut counting = pin!(count(client, &status, progress));
    loop {
        tokio::select! {
            ended = &mut working => {
                let summary = ended.context("the worker panicked")??;
                return Ok(if is_gone { Watched::StoreEnded } else { Watched::Ended(Box::new(summary)) });
            }
            asked = signals.next() => on_signal(asked, &mut interrupts, &stopper, progress),
            () = &mut server_gone, if !is_gone => {
                is_gone = true;
                // What runs now cannot be reported any more, and runs again next time.
                (0..3).for_each(|_| stopper.interrupt());
            }
            () = &mut counting => {}
        }
    }
}

fn spawn(options: Options, stop: Stop, progress: Arc<Progress>) -> JoinHandle<Result<Summary, forebay_worker::Error>> {
    tokio::spawn(async move { Worker::run(options, stop, |event| progress.event(&event)).await })
}

fn on_signal(asked: Asked, interrupts: &mut u32, stopper: &Stopper, progress: &Progress) {
    *interrupts += 1;
    stopper.interrupt();
    if *interrupts == 1 && asked == Asked::Terminate {
        // Whoever sends this may not send it twice.
        *interrupts += 1;
        stopper.interrupt();
    }
    progress.say(match *interrupts {
        1 => "interrupted: no more jobs are taken; once more terminates those that run",
        2 => "interrupted: jobs are being terminated; once more kills them",
        _ => "interrupted: jobs are being killed",
    });
}

/// Shows the counts again and again, for ever.
async fn count(client: &Client, status: &str, progress: &Progress) {
    let Some(interval) = progress.interval() else { return std::future::pending().await };
    // A run of a moment needs no line that says how it goes.
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match client.get::<WorkflowStatusResponse>(status).await {
            Ok(status) => progress.counts(&status.jobs_by_status),
            // The worker says it better.
            Err(error) => {
                tracing::debug!(%error, "the status cannot be read");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
