//! Requests as the door reads them, answers as it writes them.

use std::borrow::Cow;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll};

use forebay_engine::Undelivered;
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;

use crate::User;
use crate::fault::Fault;

/// What a handler makes of a request.
pub(crate) type Reply = Result<Response<Body>, Fault>;

/// The body of an answer. One that hands out jobs keeps the engine's answer until it is taken to be
/// written: if the connection ends before, the jobs go back.
#[derive(Default)]
pub struct Body {
    bytes: Option<Bytes>,
    answer: Option<Undelivered>,
    /// What follows, piece by piece, until its sender is gone.
    stream: Option<mpsc::Receiver<Bytes>>,
}

impl Body {
    pub(crate) fn handing_out(bytes: Vec<u8>, answer: Undelivered) -> Body {
        Body { bytes: Some(bytes.into()), answer: Some(answer), stream: None }
    }

    pub(crate) fn streaming(pieces: mpsc::Receiver<Bytes>) -> Body {
        Body { bytes: None, answer: None, stream: Some(pieces) }
    }

    /// The whole body, if it was not written yet.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body { bytes: (!bytes.is_empty()).then(|| bytes.into()), answer: None, stream: None }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(answer) = self.answer.take() {
            answer.delivered();
        }
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.stream {
            Some(stream) => stream.poll_recv(context).map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none() && self.stream.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.stream.is_some() {
            return SizeHint::default();
        }
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// A request, its body read, as a handler sees it.
pub(crate) struct Call<'a> {
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// Who sent it, if that is known.
    pub user: Option<&'a User>,
    pub body: Bytes,
}

/// Who does what is asked for without a name, in torc's word.
const NOBODY: &str = "anonymous";

impl<'a> Call<'a> {
    /// The name of who sent it.
    pub fn user_name(&self) -> &'a str {
        self.user.map_or(NOBODY, User::name)
    }

    /// The body as JSON of this type. Types are strict: `"1"` and `1.0` are no integers.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        let is_json = |value: &HeaderValue| {
            let essence = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
            essence.eq_ignore_ascii_case(b"application/json") || essence.ends_with(b"+json")
        };
        if !self.headers.get(header::CONTENT_TYPE).is_some_and(is_json) {
            return Err(Fault::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Expected request with `Content-Type: application/json`",
            ));
        }
        aside(self.body.len() > BODY_LONG, || serde_json::from_slice(&self.body).map_err(|_| explain::<T>(&self.body)))
    }

    pub fn params(&self) -> Params<'a> {
        Params(form_urlencoded::parse(self.query.unwrap_or_default().as_bytes()).collect())
    }
}

/// A longer body takes so long to read, in bytes, that other requests are not to wait for it.
const BODY_LONG: usize = 64 << 10;

/// Does work that takes long where no other request waits for this one's thread.
pub(crate) fn aside<T>(is_long: bool, work: impl FnOnce() -> T) -> T {
    let may_leave =
        || Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if is_long && may_leave() { tokio::task::block_in_place(work) } else { work() }
}

/// The error again, this time with the path to the field that it is about.
fn explain<T: DeserializeOwned>(body: &[u8]) -> Fault {
    let mut json = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut json) {
        Err(error) if error.inner().is_data() => {
            Fault::unprocessable(format!("Failed to deserialize the JSON body into the target type: {error}"))
        }
        Err(error) => Fault::bad_request(format!("Failed to parse the request body as JSON: {error}")),
        Ok(_) => Fault::bad_request("Failed to parse the request body as JSON: trailing characters"),
    }
}

/// The parameters of a query. Those that a handler does not ask for are ignored.
pub(crate) struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl Params<'_> {
    /// All but this one.
    pub fn without(mut self, name: &str) -> Self {
        self.0.retain(|(key, _)| key != name);
        self
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// Every value of a parameter that may be there more than once.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, _)| key == name).map(|(_, value)| &**value)
    }

    /// A number or a flag (`true` or `false`).
    pub fn get<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let bad = |error| Fault::bad_request(format!("Failed to deserialize query string: {name}: {error}"));
        text.parse().map(Some).map_err(bad)
    }

    pub fn required<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<T, Fault> {
        let missing = || Fault::bad_request(format!("Failed to deserialize query string: missing field `{name}`"));
        self.get(name)?.ok_or_else(missing)
    }

    pub fn flag(&self, name: &str) -> Result<bool, Fault> {
        Ok(self.get(name)?.unwrap_or(false))
    }
}

/// A number in a path.
pub(crate) fn path_id(segment: &str) -> Result<i64, Fault> {
    let bad = |_| Fault::bad_request(format!("Invalid URL: Cannot parse `{segment}` to a `i64`"));
    segment.parse().map_err(bad)
}

/// Reads a body of at most `max` bytes. One that came in one piece is not copied.
pub(crate) async fn read_body<B>(mut body: B, max: u64) -> Result<Bytes, Fault>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let too_large = || Fault::new(StatusCode::PAYLOAD_TOO_LARGE, format!("length limit exceeded: {max} bytes"));
    if body.size_hint().lower() > max {
        return Err(too_large());
    }
    let mut first: Option<Bytes> = None;
    let mut gathered: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Fault::bad_request(format!("the body broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        let so_far = first.as_ref().map_or(gathered.len(), Bytes::len);
        if (so_far + data.len()) as u64 > max {
            return Err(too_large());
        }
        if let Some(first) = first.take() {
            gathered.reserve(usize::try_from(body.size_hint().lower()).unwrap_or(0) + first.len() + data.len());
            gathered.extend_from_slice(&first);
            gathered.extend_from_slice(&data);
        } else if gathered.is_empty() {
            first = Some(data);
        } else {
            gathered.extend_from_slice(&data);
        }
    }
    Ok(first.unwrap_or_else(|| gathered.into()))
}

/// An answer of status 200 with this JSON.
pub(crate) fn ok(json: Vec<u8>) -> Response<Body> {
    respond(StatusCode::OK, json.into())
}

/// An answer of status 200 with this value as JSON.
pub(crate) fn ok_json(value: &impl Serialize) -> Response<Body> {
    ok(to_json(value))
}

pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("wire types have string keys and no failing serializers")
}

/// An answer with a JSON body.
pub(crate) fn respond(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = bare(status, body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// An answer with the headers that every answer has.
pub fn bare(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(4);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// Names a request in logs; a client that sends one gets it back, any other gets a new one.
pub(crate) const SPAN_ID: HeaderName = HeaderName::from_static("x-span-id");
