//! What taskbroker's workers ask, answered with its codes and texts: they read both.

use std::pin::{Pin, pin};
use std::time::Duration;

use forebay_domain::command::Again;
use forebay_engine::Error;
use tonic::{Request, Response, Status, async_trait};

use crate::Door;
use crate::claims::Wanted;
use crate::connection::Connection;
use crate::fault::{Fault, OVERLOADED};
use crate::proto::taskbroker::consumer_service_server::ConsumerService;
use crate::proto::taskbroker::{
    FetchNextTask, GetTaskRequest, GetTaskResponse, SetBatchActivationStatusRequest, SetBatchActivationStatusResponse,
    SetTaskStatusRequest, SetTaskStatusResponse,
};
use crate::reports::{End, Update, failures_max};

#[async_trait]
impl ConsumerService for Door {
    async fn get_task(&self, request: Request<GetTaskRequest>) -> Result<Response<GetTaskResponse>, Status> {
        let connection = connection_of(self, &request);
        let GetTaskRequest { namespace, application } = request.into_inner();
        if !self.is_pulled(application.as_deref()) {
            return Err(Status::permission_denied("Cannot call while broker is in PUSH mode"));
        }
        let taken = match self.wait(Wanted { application, namespace }).await {
            Ok(taken) => taken,
            // Who finds nothing waits a little, and asks again.
            Err(Error::Overloaded) => None,
            Err(Error::Stopping) => return Err(Fault::from(Error::Stopping).into()),
            Err(Error::Rejected(rejection)) => {
                tracing::error!(?rejection, "a claim was refused");
                return Err(Status::internal("Unable to retrieve pending activation"));
            }
        };
        let task = taken.and_then(|taken| self.hand_out(&connection, taken));
        if task.is_none() {
            return Err(Status::not_found("No pending activations"));
        }
        Ok(Response::new(GetTaskResponse { task }))
    }

    async fn set_task_status(
        &self,
        request: Request<SetTaskStatusRequest>,
    ) -> Result<Response<SetTaskStatusResponse>, Status> {
        let connection = connection_of(self, &request);
        let mut request = request.into_inner();
        let next = request.fetch_next_task.take();
        let next = next.map(|FetchNextTask { namespace, application }| Wanted { application, namespace });
        // Workers that are pushed to ask all the same.
        let next = next.filter(|wanted| self.is_pulled(wanted.application.as_deref()));
        let update = update(request)?;
        let taken = in_time(pin!(self.report(&connection, &update, next))).await?;
        let task = taken.and_then(|taken| self.hand_out(&connection, taken));
        Ok(Response::new(SetTaskStatusResponse { task }))
    }

    async fn set_batch_activation_status(
        &self,
        request: Request<SetBatchActivationStatusRequest>,
    ) -> Result<Response<SetBatchActivationStatusResponse>, Status> {
        let connection = connection_of(self, &request);
        let updates = request.into_inner().updates;
        // All are looked at before one is taken.
        let updates = updates.into_iter().map(update).collect::<Result<Vec<Update>, Status>>()?;
        in_time(pin!(self.report_all(&connection, &updates))).await?;
        Ok(Response::new(SetBatchActivationStatusResponse {}))
    }
}

fn update(request: SetTaskStatusRequest) -> Result<Update, Status> {
    let SetTaskStatusRequest { id, status, max_attempts, delay_on_retry, .. } = request;
    let end = End::read(status, || {
        let delay_s = delay_on_retry.map(|delay| i64::try_from(delay).unwrap_or(i64::MAX));
        Again {
            failures_max: max_attempts.and_then(failures_max),
            delay_ms: delay_s.map(|delay| delay.saturating_mul(1_000)),
        }
    });
    Ok(Update { id, end: end? })
}

/// How long a report may wait for the store; then it is to be said again.
const REPORT_MAX: Duration = Duration::from_secs(2);

/// 26.5.0 says a result again only if the code is UNAVAILABLE: so it is for all that may work later.
async fn in_time<T>(work: Pin<&mut impl Future<Output = Result<T, Fault>>>) -> Result<T, Status> {
    let done = tokio::time::timeout(REPORT_MAX, work).await;
    done.unwrap_or(Err(OVERLOADED)).map_err(Status::from)
}

/// The connection that a request came on. Without a listener that says so, each is one of its own.
fn connection_of<T>(door: &Door, request: &Request<T>) -> Connection {
    request.extensions().get::<Connection>().cloned().unwrap_or_else(|| door.connection())
}
