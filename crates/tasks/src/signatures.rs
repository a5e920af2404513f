//! Signatures, as taskbroker has them: the header `sentry-signature` is the HMAC-SHA256 of the call's path
//! and its message under a secret that both sides know. It has no time in it, so a call that was overheard
//! can be said again; TLS sees to that.

use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::BodyExt;
use hyper::HeaderMap;
use sha2::Sha256;
use tonic::Status;

pub(crate) const HEADER: &str = "sentry-signature";

/// What stands before a message: whether it is compressed, and its length.
const FRAME: usize = 5;

/// Asked of nobody: who looks whether the server lives knows no secret.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// A stream: its opening is signed, as a call without a message.
const STREAM: &str = "/forebay.tasks.v1.Tasks/Work";

/// Secrets, any of which signs a call; none: calls need no signature.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secrets(Arc<[Box<str>]>);

impl Secrets {
    pub fn new(secrets: impl IntoIterator<Item = Box<str>>) -> Secrets {
        Secrets(secrets.into_iter().collect())
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What signs a call of ours, in hexadecimal digits: by the first secret, if there is one.
    pub(crate) fn sign(&self, path: &str, message: impl FnOnce() -> Vec<u8>) -> Option<String> {
        let digest = mac(self.0.first()?, path, &message()).finalize().into_bytes();
        let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        Some(digits.map(|digit| char::from_digit(digit.into(), 16).expect("it is below 16")).collect())
    }

    /// Whether this signature, in hexadecimal digits, is right for the message of a call.
    fn verify(&self, path: &str, message: &[u8], signature: &str) -> bool {
        let Some(signature) = from_hex(signature) else { return false };
        // In the same time whatever is wrong with it.
        self.0.iter().any(|secret| mac(secret, path, message).verify_slice(&signature).is_ok())
    }
}

/// A message that is looked at in parts, as it comes.
struct Heard(Vec<Hmac<Sha256>>);

impl Heard {
    fn of(secrets: &Secrets, path: &str) -> Heard {
        Heard(secrets.0.iter().map(|secret| mac(secret, path, b"")).collect())
    }

    fn hear(&mut self, part: &[u8]) {
        self.0.iter_mut().for_each(|mac| mac.update(part));
    }

    /// Whether this signature, in hexadecimal digits, is right for what was heard.
    fn verify(self, signature: &str) -> bool {
        let Some(signature) = from_hex(signature) else { return false };
        self.0.into_iter().any(|mac| mac.verify_slice(&signature).is_ok())
    }
}

fn mac(secret: &str, path: &str, message: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key may have any length");
    for part in [path.as_bytes(), b":", message] {
        mac.update(part);
    }
    mac
}

/// It does not say them.
impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

/// What every call must pass, and how long its message may be.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    pub secrets: Secrets,
    pub message_max: usize,
}

/// Lets calls through that are signed.
pub(crate) async fn check(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if OPEN.iter().any(|open| path.starts_with(open)) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match signed(&guard, parts.uri.path(), &parts.headers, body).await {
        Some(body) => next.run(Request::from_parts(parts, body)).await,
        None => Status::unauthenticated("Authentication failed").into_http(),
    }
}

/// The body, if it is signed; of one that is too long its beginning, which is enough to refuse it by.
async fn signed(guard: &Guard, path: &str, headers: &HeaderMap, mut body: Body) -> Option<Body> {
    let signature = headers.get(HEADER)?.to_str().ok()?;
    if path == STREAM {
        return guard.secrets.verify(path, b"", signature).then_some(body);
    }
    let (mut parts, mut length) = (Vec::new(), 0);
    while length <= guard.message_max + FRAME {
        let Some(part) = next_part(&mut body).await else {
            let body = joined(parts);
            let message = body.get(FRAME..)?;
            return guard.secrets.verify(path, message, signature).then(|| Body::from(body));
        };
        let part = part?;
        length += part.len();
        parts.push(part);
    }
    let beginning = joined(parts);
    let mut heard = Heard::of(&guard.secrets, path);
    heard.hear(&beginning[FRAME..]);
    let announced = beginning[1..FRAME].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    while length <= FRAME + announced {
        let Some(part) = next_part(&mut body).await else {
            return heard.verify(signature).then(|| Body::from(beginning));
        };
        let part = part?;
        length += part.len();
        heard.hear(&part);
    }
    // It goes on behind the message.
    None
}

/// What comes next; within, `None` if the client broke off.
async fn next_part(body: &mut Body) -> Option<Option<Bytes>> {
    let frame = body.frame().await?;
    Some(frame.ok().map(|frame| frame.into_data().unwrap_or_default()))
}

fn joined(mut parts: Vec<Bytes>) -> Bytes {
    match parts.len() {
        1 => parts.remove(0),
        _ => parts.concat().into(),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match *pair {
        [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/sentry_protos.taskbroker.v1.WorkerService/PushTask";
    /// taskbroker's own check of it.
    const SIGNATURE: &str = "cfdf2c4d2efd3a2d28bd10de6471ef352d03f49d2d3bd880ee7051ea39fbe239";

    #[test]
    fn a_signature_of_taskbroker_is_right_under_any_of_the_secrets() {
        let secrets = Secrets::new(["new".into(), "super secret".into()]);
        assert!(secrets.verify(PATH, b"hello", SIGNATURE));
        for (path, message, signature) in [
            ("/other", &b"hello"[..], SIGNATURE),
            (PATH, b"hellO", SIGNATURE),
            (PATH, b"hello", &SIGNATURE[2..]),
            (PATH, b"hello", &SIGNATURE[1..]),
            (PATH, b"hello", ""),
            (PATH, b"hello", "é"),
        ] {
            assert!(!secrets.verify(path, message, signature), "{path} {signature}");
        }
        assert!(!Secrets::new(["other".into()]).verify(PATH, b"hello", SIGNATURE));
        let first = Secrets::new(["super secret".into(), "old".into()]);
        assert_eq!(first.sign(PATH, || b"hello".to_vec()).as_deref(), Some(SIGNATURE));
        assert_eq!(Secrets::default().sign(PATH, || unreachable!("nothing signs it")), None);
        assert!(!format!("{secrets:?}").contains("super"));
    }
}
