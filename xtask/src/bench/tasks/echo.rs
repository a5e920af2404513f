//! What the gRPC library costs with nothing behind it: the same messages, and one task for all.

use std::net::SocketAddr;
use std::pin::Pin;

use forebay_tasks::activation::Activation;
use forebay_tasks::proto::ours::tasks_server::{Tasks, TasksServer};
use forebay_tasks::proto::ours::{Answer, Attempt, EnqueueRequest, EnqueueResponse, Enqueued, FromWorker, ToWorker};
use forebay_tasks::proto::taskbroker::consumer_service_server::{ConsumerService, ConsumerServiceServer};
use forebay_tasks::proto::taskbroker::{
    GetTaskRequest, GetTaskResponse, SetBatchActivationStatusRequest, SetBatchActivationStatusResponse,
    SetTaskStatusRequest, SetTaskStatusResponse,
};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::fill;

struct Echo {
    task: Activation,
}

/// Listens as the server does, until it is killed.
pub fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        println!("listening grpc={}", listener.local_addr()?);
        let task = || Echo { task: fill::activation(0) };
        tonic::transport::Server::builder()
            .add_service(ConsumerServiceServer::new(task()))
            .add_service(TasksServer::new(task()))
            .serve_with_incoming(TcpListenerStream::new(listener))
            .await?;
        Ok(())
    })
}

#[async_trait]
impl ConsumerService for Echo {
    async fn get_task(&self, _request: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        Ok(Response::new(GetTaskResponse { task: Some(self.task.clone()) }))
    }

    async fn set_task_status(
        &self,
        request: Request<SetTaskStatusRequest>,
    ) -> Result<Response<SetTaskStatusResponse>, Status> {
        let task = request.into_inner().fetch_next_task.map(|_| self.task.clone());
        Ok(Response::new(SetTaskStatusResponse { task }))
    }

    async fn set_batch_activation_status(
        &self,
        _request: Request<SetBatchActivationStatusRequest>,
    ) -> Result<Response<SetBatchActivationStatusResponse>, Status> {
        Ok(Response::new(SetBatchActivationStatusResponse {}))
    }
}

#[async_trait]
impl Tasks for Echo {
    async fn enqueue(&self, request: Request<EnqueueRequest>) -> Result<Response<EnqueueResponse>, Status> {
        let tasks = request.into_inner().tasks.into_iter();
        let tasks = tasks.map(|task| {
            let id = task.activation.unwrap_or_default().known().map(|known| known.id).unwrap_or_default();
            Enqueued { id, ..Enqueued::default() }
        });
        Ok(Response::new(EnqueueResponse { tasks: tasks.collect() }))
    }

    type WorkStream = Pin<Box<dyn Stream<Item = Result<ToWorker, Status>> + Send>>;

    async fn work(&self, request: Request<Streaming<FromWorker>>) -> Result<Response<Self::WorkStream>, Status> {
        let task = self.task.clone();
        let answers = request.into_inner().map(move |said| {
            let FromWorker { credit, number, .. } = said?;
            let attempt = || Attempt { activation: Some(task.clone()), lease: vec![0; 40], lease_ms: Some(60_000) };
            let attempts = (0..credit).map(|_| attempt()).collect();
            let answers = (number > 0).then(|| Answer { number, ..Answer::default() });
            Ok(ToWorker { attempts, answers: answers.into_iter().collect() })
        });
        Ok(Response::new(Box::pin(answers)))
    }
}
