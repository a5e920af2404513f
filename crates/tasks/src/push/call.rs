//! One call of a worker, and what its answer means.

use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use prost::Message;
use tokio::net::UdpSocket;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint as Target};
use tonic::{Code, ConnectError, Request, Status};

use crate::activation::Activation;
use crate::proto::taskbroker::PushTaskRequest;
use crate::proto::taskbroker::worker_service_client::WorkerServiceClient;
use crate::signatures::{HEADER, Secrets};

/// How long a connection may take to be there.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How long a connection may say nothing until it is looked whether its worker's machine is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// 26.5.0 takes no longer message, and says so with the code for a full queue.
const LEAST_MESSAGE_MAX: usize = 4 << 20;

const PATH: &str = "/sentry_protos.taskbroker.v1.WorkerService/PushTask";

/// A worker that is connected. Clones are the same.
#[derive(Clone)]
pub(super) struct Worker {
    client: WorkerServiceClient<Channel>,
    callback: String,
    secrets: Secrets,
    timeout: Duration,
}

/// What became of a push.
#[derive(Debug)]
pub(super) enum Answer {
    Taken,
    /// The worker has no room; it has not taken it.
    Busy,
    /// The worker has not taken this task, and said why.
    Refused(Status),
    /// The worker takes nothing, and has not taken this one.
    Away(String),
    /// The connection broke off: the worker may have taken it, and is not there.
    Broken(String),
    /// There was no answer in time: the worker may have taken it.
    Late,
}

impl Worker {
    pub async fn connect(
        address: &str,
        callback: String,
        secrets: Secrets,
        timeout: Duration,
    ) -> Result<Worker, tonic::transport::Error> {
        let target = Target::from_shared(format!("http://{address}"))?
            .connect_timeout(CONNECT_MAX)
            // Pings of HTTP/2 are not for here: the workers' server breaks off who sends many.
            .tcp_keepalive(Some(KEEP_ALIVE))
            .tcp_nodelay(true);
        let client = WorkerServiceClient::new(target.connect().await?);
        Ok(Worker { client, callback, secrets, timeout })
    }

    pub async fn push(mut self, task: Activation) -> Answer {
        #[expect(deprecated, reason = "26.5.0 knows of no other way")]
        let message = PushTaskRequest { task: Some(task), callback_url: self.callback };
        let bytes = message.encoded_len();
        // The same bytes as those that are sent: there is one way to encode it.
        let signature = self.secrets.sign(PATH, || message.encode_to_vec());
        let mut request = Request::new(message);
        if let Some(signature) = signature {
            let signature = AsciiMetadataValue::try_from(signature).expect("digits are ASCII");
            request.metadata_mut().insert(HEADER, signature);
        }
        match tokio::time::timeout(self.timeout, self.client.push_task(request)).await {
            Ok(Ok(_)) => Answer::Taken,
            Ok(Err(status)) => answer(status, bytes),
            Err(_) => Answer::Late,
        }
    }
}

/// What a worker's refusal of a message of so many bytes means.
fn answer(status: Status, bytes: usize) -> Answer {
    if let Some(cause) = status.source() {
        // It is not the worker that says this.
        let why = format!("{}: {cause}", status.message());
        return if was_never_sent(cause) { Answer::Away(why) } else { Answer::Broken(why) };
    }
    match status.code() {
        Code::ResourceExhausted if bytes <= LEAST_MESSAGE_MAX => Answer::Busy,
        Code::ResourceExhausted | Code::InvalidArgument | Code::OutOfRange | Code::Internal | Code::Unknown => {
            Answer::Refused(status)
        }
        _ => Answer::Away(format!("{:?}: {}", status.code(), status.message())),
    }
}

/// There was no connection to send it on.
fn was_never_sent(cause: &(dyn Error + 'static)) -> bool {
    causes(cause).any(|cause| cause.is::<ConnectError>())
}

/// An error, what caused it, what caused that and so on.
pub(super) fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| Error::source(*error))
}

/// Where the worker at `address` finds who listens here: as it is, or, if that is anywhere, by the address
/// that this machine has on the way to the worker.
pub(super) async fn callback(listening: SocketAddr, address: &str) -> String {
    if !listening.ip().is_unspecified() {
        return listening.to_string();
    }
    let here = async {
        let any: IpAddr = match tokio::net::lookup_host(address).await.ok()?.next()? {
            SocketAddr::V4(_) => IpAddr::from([0; 4]),
            SocketAddr::V6(_) => IpAddr::from([0_u16; 8]),
        };
        let socket = UdpSocket::bind((any, 0)).await.ok()?;
        // It sends nothing.
        socket.connect(address).await.ok()?;
        Some(SocketAddr::new(socket.local_addr().ok()?.ip(), listening.port()))
    };
    here.await.unwrap_or(listening).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_is_told_from_a_message_that_is_too_long() {
        let exhausted = || Status::resource_exhausted("worker busy");
        assert!(matches!(answer(exhausted(), 100), Answer::Busy));
        assert!(matches!(answer(exhausted(), LEAST_MESSAGE_MAX + 1), Answer::Refused(_)));
        assert!(matches!(answer(Status::unknown("it raised"), 100), Answer::Refused(_)));
        assert!(matches!(answer(Status::unauthenticated("Authentication failed"), 100), Answer::Away(_)));
    }

    #[tokio::test]
    async fn who_listens_anywhere_is_found_by_the_way_to_the_worker() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(callback(at("127.0.0.9:7"), "127.0.0.1:50052").await, "127.0.0.9:7");
        assert_eq!(callback(at("0.0.0.0:7"), "127.0.0.1:50052").await, "127.0.0.1:7");
        assert_eq!(callback(at("0.0.0.0:7"), "nowhere").await, "0.0.0.0:7");
    }
}
