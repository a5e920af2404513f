//! Who knows no secret, says no message, or asks what there is.

use bytes::Bytes;
use forebay_tasks::proto::taskbroker::GetTaskRequest;
use forebay_tasks::proto::taskbroker::consumer_service_client::ConsumerServiceClient;
use forebay_tasks::{Options, Secrets};
use futures_util::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use prost::Message;
use sha2::Sha256;
use std::time::Duration;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Routes;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::world::World;

type Client = ConsumerServiceClient<Routes>;

const GET_TASK: &str = "/sentry_protos.taskbroker.v1.ConsumerService/GetTask";

async fn secretive() -> World {
    let secrets = Secrets::new(["new".into(), "old".into()]);
    World::with(Options { secrets, hold: Duration::ZERO, ..Options::default() }).await
}

fn signature(secret: &str, message: &impl Message) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
    mac.update(format!("{GET_TASK}:").as_bytes());
    mac.update(&message.encode_to_vec());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is said to who asks for a task with this signature, and gets none.
async fn refused(client: &mut Client, message: &GetTaskRequest, signature: Option<String>) -> Status {
    let mut request = Request::new(message.clone());
    if let Some(signature) = signature {
        let signature = AsciiMetadataValue::try_from(signature).expect("digits");
        request.metadata_mut().insert("sentry-signature", signature);
    }
    client.get_task(request).await.unwrap_err()
}

#[tokio::test]
async fn a_call_is_taken_that_any_of_the_secrets_signs() {
    let world = secretive().await;
    let mut client = ConsumerServiceClient::new(world.door.services());
    let message = GetTaskRequest { namespace: None, application: Some("app".to_owned()) };
    let other = GetTaskRequest::default();
    for (signature, code) in [
        (Some(signature("new", &message)), Code::NotFound),
        (Some(signature("old", &message)), Code::NotFound),
        (Some(signature("else", &message)), Code::Unauthenticated),
        (Some(signature("new", &other)), Code::Unauthenticated),
        (Some("0".to_owned()), Code::Unauthenticated),
        (None, Code::Unauthenticated),
    ] {
        let refused = refused(&mut client, &message, signature).await;
        assert_eq!(refused.code(), code, "{refused}");
        if code == Code::Unauthenticated {
            assert_eq!(refused.message(), "Authentication failed");
        }
    }
}

#[tokio::test]
async fn who_is_known_is_told_that_a_message_is_too_long() {
    let secrets = Secrets::new(["new".into(), "old".into()]);
    let world = World::with(Options { secrets, message_max: 1_000, hold: Duration::ZERO, ..Options::default() }).await;
    let mut client = ConsumerServiceClient::new(world.door.services());
    for (length, told) in [(900, Code::NotFound), (1_000, Code::OutOfRange), (100_000, Code::OutOfRange)] {
        let message = GetTaskRequest { namespace: Some("x".repeat(length)), application: None };
        for (signature, code) in [
            (Some(signature("new", &message)), told),
            (Some(signature("old", &message)), told),
            (Some(signature("else", &message)), Code::Unauthenticated),
            (Some("0".to_owned()), Code::Unauthenticated),
            (None, Code::Unauthenticated),
        ] {
            let refused = refused(&mut client, &message, signature).await;
            assert_eq!(refused.code(), code, "{length}: {refused}");
        }
    }
}

#[tokio::test]
async fn what_is_no_message_is_refused_with_a_status() {
    for world in [secretive().await, World::start().await] {
        for body in [
            &b""[..],
            b"\0",
            b"\0\0\0\0",
            b"\0\0\0\0\0",
            b"\0\0\0\0\x02\x0a",
            b"\x01\0\0\0\x01x",
            b"\0\xff\xff\xff\xff",
        ] {
            let request = hyper::Request::post(GET_TASK)
                .header("content-type", "application/grpc")
                .header("sentry-signature", "00")
                .body(Full::new(Bytes::from_static(body)))
                .expect("a request");
            let services = world.door.services().into_axum_router();
            let answered = tower::ServiceExt::oneshot(services, request).await.expect("it is answered");
            let (parts, body) = answered.into_parts();
            let trailers = body.collect().await.expect("a body").trailers().cloned().unwrap_or_default();
            let status = parts.headers.get("grpc-status").or(trailers.get("grpc-status"));
            assert_ne!(status.expect("a status"), "0");
        }
    }
}

#[tokio::test]
async fn health_and_what_there_is_are_open_to_all() {
    let world = secretive().await;
    let service = "sentry_protos.taskbroker.v1.ConsumerService".to_owned();
    let mut health = HealthClient::new(world.door.services());
    health.check(HealthCheckRequest { service }).await.expect("it serves");
    health.check(HealthCheckRequest::default()).await.expect("the server itself does");

    let mut client = ServerReflectionClient::new(world.door.services());
    let asked = |what| ServerReflectionRequest { host: String::new(), message_request: Some(what) };
    let asked = [
        asked(MessageRequest::ListServices(String::new())),
        asked(MessageRequest::FileContainingSymbol("sentry_protos.taskbroker.v1.WorkerService".to_owned())),
    ];
    let mut answers =
        client.server_reflection_info(futures_util::stream::iter(asked)).await.expect("open").into_inner();
    let mut next = async || answers.next().await.expect("an answer").expect("an answer").message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = next().await else { panic!("a list") };
    let mut names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    names.sort();
    let served = [
        "forebay.tasks.v1.Tasks",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "sentry_protos.taskbroker.v1.ConsumerService",
    ];
    assert_eq!(names, served, "what workers serve is not ours");
    assert!(matches!(next().await, Some(MessageResponse::FileDescriptorResponse(_))), "but it is described");
}
