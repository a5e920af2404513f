//! What is ours over gRPC.

use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::Door;
use crate::enqueue::NewTask;
use crate::proto::ours;
use crate::proto::ours::tasks_server::Tasks;
use crate::stream::ToWorkers;

#[async_trait]
impl Tasks for Door {
    async fn enqueue(&self, request: Request<ours::EnqueueRequest>) -> Result<Response<ours::EnqueueResponse>, Status> {
        let tasks = request.into_inner().tasks.into_iter().map(|task| NewTask {
            activation: task.activation.unwrap_or_default(),
            priority: task.priority,
            delay_ms: task.delay_ms,
            expires_ms: task.expires_ms,
            depends_on: task.depends_on,
            met_if_gone: task.met_if_gone,
        });
        let enqueued = self.enqueue_all(tasks.collect()).await?;
        let tasks = enqueued.into_iter().map(|task| ours::Enqueued {
            id: task.id,
            was_there: task.was_there,
            dropped: task.dropped,
        });
        Ok(Response::new(ours::EnqueueResponse { tasks: tasks.collect() }))
    }

    type WorkStream = ToWorkers;

    async fn work(&self, request: Request<Streaming<ours::FromWorker>>) -> Result<Response<ToWorkers>, Status> {
        Ok(Response::new(Door::work(self, request.into_inner()).await?))
    }
}
