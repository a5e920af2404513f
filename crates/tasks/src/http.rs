//! What is ours over HTTP: JSON in, JSON out. A refusal is `{"error": <text>}`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use percent_encoding::percent_decode_str;
use prost::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::Door;
use crate::activation::{Activation, Known, Moment};
use crate::enqueue::NewTask;
use crate::fault::Fault;
use crate::manage::{Filter, State};
use crate::proto::taskbroker::{OnAttemptsExceeded, RetryState};

/// Where the paths of this door begin.
pub(crate) const BASE: &str = "/tasks/v1/";

/// Tasks of one list.
const LIST_MAX: u64 = 1_000;

/// How long a task may take that does not say so, in seconds, as in taskbroker's client.
const DEADLINE_S: u64 = 10;

/// What a request comes to that is not carried out.
enum Refusal {
    NoRoute,
    Method(&'static str),
    TooLarge(usize),
    /// Its body did not come.
    Unread(String),
    Fault(Fault),
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal::Fault(fault)
    }
}

pub(crate) async fn answer<B>(door: &Door, request: Request<B>) -> Response<Full<Bytes>>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match route(door, request).await {
        Ok(body) => json_response(StatusCode::OK, &body),
        Err(refusal) => refuse(refusal),
    }
}

async fn route<B>(door: &Door, request: Request<B>) -> Result<Value, Refusal>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().strip_prefix(BASE).ok_or(Refusal::NoRoute)?;
    let segments = path.split('/').map(decoded).collect::<Option<Vec<String>>>().ok_or(Refusal::NoRoute)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let only = |method: Method, allow: &'static str| {
        if parts.method == method { Ok(()) } else { Err(Refusal::Method(allow)) }
    };
    match segments.as_slice() {
        ["tasks"] if parts.method == Method::POST => {
            let body = read(body, door.options().message_max).await?;
            Ok(shown(&enqueue(door, &body).await?))
        }
        ["tasks"] => {
            only(Method::GET, "GET, POST")?;
            let (application, filter) = filter(parts.uri.query().unwrap_or_default())?;
            let (tasks, total) = door.list(&application, filter).await?;
            Ok(json!({"tasks": tasks, "total": total}))
        }
        ["tasks", id] => {
            only(Method::GET, "GET")?;
            Ok(shown(&door.task(id).await?))
        }
        ["tasks", id, "cancel"] => {
            only(Method::POST, "POST")?;
            door.cancel(id).await?;
            Ok(json!({"id": id}))
        }
        ["tasks", id, "requeue"] => {
            only(Method::POST, "POST")?;
            Ok(shown(&door.requeue(id).await?))
        }
        ["applications"] => {
            only(Method::GET, "GET")?;
            Ok(json!({"applications": door.applications_shown().await?}))
        }
        ["applications", name, verb @ ("pause" | "resume")] => {
            only(Method::POST, "POST")?;
            let paused = *verb == "pause";
            door.pause(name, None, paused).await?;
            Ok(json!({"name": name, "paused": paused}))
        }
        ["applications", name, "namespaces"] => {
            only(Method::GET, "GET")?;
            Ok(json!({"namespaces": door.namespaces_shown(name).await?}))
        }
        ["applications", name, "namespaces", namespace, verb @ ("pause" | "resume")] => {
            only(Method::POST, "POST")?;
            let paused = *verb == "pause";
            door.pause(name, Some(namespace), paused).await?;
            Ok(json!({"name": namespace, "application": name, "paused": paused}))
        }
        _ => Err(Refusal::NoRoute),
    }
}

/// A segment of a path, without its percent signs.
fn decoded(segment: &str) -> Option<String> {
    percent_decode_str(segment).decode_utf8().ok().map(Into::into)
}

fn filter(query: &str) -> Result<(String, Filter), Fault> {
    let (mut application, mut filter) = (None, Filter { limit: 100, ..Filter::default() });
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let number = || value.parse::<u64>().map_err(|_| Fault::Invalid(format!("{name} is a number, not {value:?}")));
        match &*name {
            "application" => application = Some(value.into_owned()),
            "namespace" => filter.namespace = Some(value.into_owned()),
            "state" => {
                let state = State::read(&value).ok_or_else(|| {
                    Fault::Invalid(format!(
                        "state is waiting, pending, processing, delayed or dead_letter, not {value:?}"
                    ))
                })?;
                filter.state = Some(state);
            }
            "offset" => filter.offset = number()?,
            "limit" => filter.limit = number()?.min(LIST_MAX),
            other => return Err(Fault::Invalid(format!("{other:?} is no parameter of this list"))),
        }
    }
    let application = application.ok_or_else(|| Fault::Invalid("application is missing".to_owned()))?;
    Ok((application, filter))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnqueueBody {
    tasks: Vec<Value>,
}

/// As a producer of taskbroker has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WholeBody {
    /// A serialized activation, in base64.
    activation: String,
    #[serde(default)]
    priority: u32,
    delay_ms: Option<u64>,
    expires_ms: Option<u64>,
    #[serde(default)]
    depends_on: Vec<String>,
    #[serde(default)]
    met_if_gone: bool,
}

/// An activation is made of it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SaidBody {
    id: Option<String>,
    application: Option<String>,
    namespace: String,
    task: String,
    #[serde(default)]
    args: Vec<Value>,
    #[serde(default)]
    kwargs: Map<String, Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Seconds.
    processing_deadline: Option<u64>,
    max_attempts: Option<u32>,
    /// Seconds.
    retry_delay: Option<u64>,
    #[serde(default)]
    at_most_once: bool,
    #[serde(default)]
    dead_letter: bool,
    #[serde(default)]
    priority: u32,
    delay_ms: Option<u64>,
    expires_ms: Option<u64>,
    #[serde(default)]
    depends_on: Vec<String>,
    #[serde(default)]
    met_if_gone: bool,
}

#[derive(Serialize)]
struct EnqueuedBody {
    tasks: Vec<EnqueuedTask>,
}

#[derive(Serialize)]
struct EnqueuedTask {
    id: String,
    was_there: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dropped: bool,
}

async fn enqueue(door: &Door, body: &[u8]) -> Result<EnqueuedBody, Fault> {
    let bad = |error: serde_json::Error| Fault::Invalid(format!("the body says no tasks: {error}"));
    let body: EnqueueBody = serde_json::from_slice(body).map_err(bad)?;
    let now_ms = door.engine().now().0;
    let mut tasks = Vec::with_capacity(body.tasks.len());
    for task in body.tasks {
        tasks.push(if task.get("activation").is_some() {
            whole(serde_json::from_value(task).map_err(bad)?)?
        } else {
            said(serde_json::from_value(task).map_err(bad)?, now_ms)?
        });
    }
    let enqueued = door.enqueue_all(tasks).await?;
    let tasks =
        enqueued.into_iter().map(|task| EnqueuedTask { id: task.id, was_there: task.was_there, dropped: task.dropped });
    Ok(EnqueuedBody { tasks: tasks.collect() })
}

fn whole(task: WholeBody) -> Result<NewTask, Fault> {
    let WholeBody { activation, priority, delay_ms, expires_ms, depends_on, met_if_gone } = task;
    let bytes =
        BASE64.decode(activation).map_err(|error| Fault::Invalid(format!("activation is no base64: {error}")))?;
    let activation = Activation::from_bytes(bytes);
    Ok(NewTask { activation, priority, delay_ms, expires_ms, depends_on, met_if_gone })
}

fn said(task: SaidBody, now_ms: i64) -> Result<NewTask, Fault> {
    let parameters_bytes = parameters(task.args, task.kwargs)?;
    let on_end = if task.dead_letter { OnAttemptsExceeded::Deadletter } else { OnAttemptsExceeded::Discard };
    let known = Known {
        id: task.id.unwrap_or_default(),
        namespace: task.namespace,
        taskname: task.task,
        received_at: Some(Moment::from_ms(now_ms)),
        retry_state: Some(RetryState {
            attempts: 0,
            max_attempts: task.max_attempts.unwrap_or(1),
            on_attempts_exceeded: on_end as i32,
            at_most_once: task.at_most_once.then_some(true),
            delay_on_retry: task.retry_delay,
        }),
        processing_deadline_duration: task.processing_deadline.unwrap_or(DEADLINE_S),
        application: task.application,
        parameters_bytes,
        ..Known::default()
    };
    let mut bytes = known.encode_to_vec();
    prost::encoding::btree_map::encode(
        prost::encoding::string::encode,
        prost::encoding::string::encoded_len,
        prost::encoding::string::encode,
        prost::encoding::string::encoded_len,
        HEADERS,
        &task.headers,
        &mut bytes,
    );
    let activation = Activation::from_bytes(bytes);
    let SaidBody { priority, delay_ms, expires_ms, depends_on, met_if_gone, .. } = task;
    Ok(NewTask { activation, priority, delay_ms, expires_ms, depends_on, met_if_gone })
}

/// The number of an activation's headers.
const HEADERS: u32 = 5;

/// msgpack of `{"args": [..], "kwargs": {..}}`.
fn parameters(args: Vec<Value>, kwargs: Map<String, Value>) -> Result<Vec<u8>, Fault> {
    #[derive(Serialize)]
    struct Parameters {
        args: Vec<Value>,
        kwargs: Map<String, Value>,
    }
    let written = rmp_serde::to_vec_named(&Parameters { args, kwargs });
    written.map_err(|error| Fault::Invalid(format!("args and kwargs cannot be written: {error}")))
}

async fn read<B>(body: B, most: usize) -> Result<Bytes, Refusal>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, most).collect().await {
        Ok(read) => Ok(read.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::TooLarge(most)),
        Err(error) => Err(Refusal::Unread(error.to_string())),
    }
}

fn shown(body: &impl Serialize) -> Value {
    serde_json::to_value(body).expect("views have text keys")
}

fn refuse(refusal: Refusal) -> Response<Full<Bytes>> {
    let (status, why) = match refusal {
        Refusal::NoRoute => (StatusCode::NOT_FOUND, "there is no such path".to_owned()),
        Refusal::Method(allow) => {
            let mut response =
                json_response(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": format!("this path has {allow}")}));
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
            return response;
        }
        Refusal::TooLarge(most) => (StatusCode::PAYLOAD_TOO_LARGE, format!("a body may have {most} bytes")),
        Refusal::Unread(why) => (StatusCode::BAD_REQUEST, format!("the body did not come: {why}")),
        Refusal::Fault(fault) => fault.status(),
    };
    let mut response = json_response(status, &json!({"error": why}));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
