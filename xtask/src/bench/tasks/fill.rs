//! Tasks to work on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use forebay_tasks::activation::{Activation, Known, Moment};
use forebay_tasks::proto::ours::tasks_client::TasksClient;
use forebay_tasks::proto::ours::{EnqueueRequest, NewTask};
use prost::Message;
use tonic::transport::Channel;

use crate::bench::start;

pub const APPLICATION: &str = "bench";

/// Tasks of one request, if it is only for many of them to be there.
const LARGE: u64 = 1_000;

/// Requests at a time.
const AT_A_TIME: u64 = 4;

/// Enqueues so many tasks, as fast as it goes.
pub async fn fill(address: SocketAddr, tasks: u64) -> anyhow::Result<()> {
    let channel = super::pull::connect(address).await?;
    let left = Arc::new(AtomicU64::new(tasks));
    let mut filling = Vec::new();
    for _ in 0..AT_A_TIME {
        let (channel, left) = (channel.clone(), left.clone());
        filling.push(tokio::spawn(async move {
            let mut client = TasksClient::new(channel);
            loop {
                let before = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    (left > 0).then(|| left.saturating_sub(LARGE))
                });
                match before {
                    Ok(left) => enqueue(&mut client, left.min(LARGE)).await?,
                    Err(_) => return anyhow::Ok(()),
                }
            }
        }));
    }
    for one in filling {
        one.await??;
    }
    Ok(())
}

/// Makes so many tasks of the one that is there, in the database of a server that was stopped. Their ids
/// are in order.
pub fn multiply(db: &Path, tasks: u64) -> anyhow::Result<()> {
    let id = "printf('%032x', n.id)";
    start::multiply(db, tasks, |column| match column {
        "name" => Some(id.to_owned()),
        // The id comes first, and has 32 digits.
        "payload" => Some(format!("CAST(x'0A20' || {id} || substr(t.payload, 35) AS BLOB)")),
        _ => None,
    })
}

/// Enqueues so many tasks with one request.
pub async fn enqueue(client: &mut TasksClient<Channel>, tasks: u64) -> anyhow::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let first = NEXT.fetch_add(tasks, Ordering::Relaxed);
    let task = |n| NewTask { activation: Some(activation(n)), ..NewTask::default() };
    let request = EnqueueRequest { tasks: (first..first + tasks).map(task).collect() };
    let enqueued = client.enqueue(request).await?.into_inner().tasks;
    ensure!(enqueued.len() as u64 == tasks, "{tasks} tasks were sent, {} came in", enqueued.len());
    Ok(())
}

/// A task as the Python client makes it, with an id that no other number has.
pub fn activation(n: u64) -> Activation {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let known = Known {
        // As random as theirs: in no order.
        id: format!("{:016x}{:016x}", mixed(n), mixed(!n)),
        namespace: "bench".to_owned(),
        taskname: "bench.tasks.nothing".to_owned(),
        received_at: Some(Moment::from_ms(now)),
        processing_deadline_duration: 60,
        application: Some(APPLICATION.to_owned()),
        parameters_bytes: vec![0xA5; 100],
        ..Known::default()
    };
    Activation::from_bytes(known.encode_to_vec())
}

/// One number for each, far from that of its neighbour (splitmix64).
fn mixed(n: u64) -> u64 {
    let mut mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}
