//! A task as it is on the wire: bytes that are kept as they came, fields that we do not know included.
//! Only what an attempt changes is written anew: its id, and how many have failed before it.

use std::collections::BTreeMap;
use std::time::Duration;

use ::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{
    DecodeContext, WireType, bytes, decode_key, decode_varint, encode_key, encode_varint, fixed32, fixed64, skip_field,
};
use prost::{DecodeError, Message};

use crate::proto::taskbroker::RetryState;

/// The fields that an attempt changes, by their numbers.
const ID: u32 = 1;
const RETRY_STATE: u32 = 7;
/// Of `RETRY_STATE`.
const ATTEMPTS: u32 = 1;

/// A `TaskActivation` as its bytes. Its fields are in no particular order, as on the wire.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Activation(Vec<u8>);

impl Message for Activation {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        buf.put_slice(&self.0);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        // What is taken first may be cut off: then nothing is kept.
        match wire_type {
            WireType::Varint => {
                let value = decode_varint(buf)?;
                encode_key(tag, wire_type, &mut self.0);
                encode_varint(value, &mut self.0);
            }
            WireType::ThirtyTwoBit => {
                let mut value = 0;
                fixed32::merge(wire_type, &mut value, buf, ctx)?;
                fixed32::encode(tag, &value, &mut self.0);
            }
            WireType::SixtyFourBit => {
                let mut value = 0;
                fixed64::merge(wire_type, &mut value, buf, ctx)?;
                fixed64::encode(tag, &value, &mut self.0);
            }
            WireType::LengthDelimited => {
                let mut value = Bytes::new();
                bytes::merge(wire_type, &mut value, buf, ctx)?;
                bytes::encode(tag, &value, &mut self.0);
            }
            // proto3 has none: nothing that could be meant is lost.
            WireType::StartGroup | WireType::EndGroup => skip_field(wire_type, tag, buf, ctx)?,
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}

impl Activation {
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Activation {
        Activation(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// What decides about it, if workers can read all of it.
    ///
    /// # Errors
    /// If they cannot.
    pub fn checked(&self) -> Result<Known, DecodeError> {
        Others::decode(&self.0[..])?;
        self.known()
    }

    /// What decides about it.
    ///
    /// # Errors
    /// If it is not an activation.
    pub fn known(&self) -> Result<Known, DecodeError> {
        Known::decode(&self.0[..])
    }

    /// Its id, empty if it has none.
    ///
    /// # Errors
    /// If it is not an activation.
    pub fn id(&self) -> Result<&str, DecodeError> {
        let mut id = "";
        for field in fields(&self.0) {
            let Field { tag, content, .. } = field?;
            if tag == ID {
                // It was decoded as a text before it was taken; the last one counts.
                id = std::str::from_utf8(content).unwrap_or_default();
            }
        }
        Ok(id)
    }

    /// As it is handed out: with this id, after so many failed attempts.
    ///
    /// # Errors
    /// If it is not an activation.
    pub fn attempt(&self, id: &str, failures: u32) -> Result<Activation, DecodeError> {
        let mut bytes = Vec::with_capacity(self.0.len() + id.len() + 8);
        let mut retry_state: Option<Vec<u8>> = None;
        for field in fields(&self.0) {
            let Field { tag, whole, content } = field?;
            match tag {
                ID => {}
                // A field that comes twice counts as its parts one after the other.
                RETRY_STATE => retry_state.get_or_insert_default().extend_from_slice(content),
                _ => bytes.extend_from_slice(whole),
            }
        }
        prost::encoding::string::encode(ID, &id.to_owned(), &mut bytes);
        if let Some(state) = retry_state {
            let before = RetryState::decode(&state[..])?.attempts;
            let mut changed = Vec::with_capacity(state.len() + 4);
            for field in fields(&state) {
                let field = field?;
                if field.tag != ATTEMPTS {
                    changed.extend_from_slice(field.whole);
                }
            }
            prost::encoding::uint32::encode(ATTEMPTS, &before.saturating_add(failures), &mut changed);
            encode_key(RETRY_STATE, WireType::LengthDelimited, &mut bytes);
            encode_varint(changed.len() as u64, &mut bytes);
            bytes.extend_from_slice(&changed);
        }
        Ok(Activation(bytes))
    }
}

/// What decides about an activation; the rest is skipped.
#[derive(Clone, PartialEq, Message)]
pub struct Known {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub namespace: String,
    #[prost(string, tag = "3")]
    pub taskname: String,
    #[prost(message, optional, tag = "6")]
    pub received_at: Option<Moment>,
    #[prost(message, optional, tag = "7")]
    pub retry_state: Option<RetryState>,
    /// Seconds.
    #[prost(uint64, tag = "8")]
    pub processing_deadline_duration: u64,
    /// Seconds.
    #[prost(uint64, optional, tag = "9")]
    pub expires: Option<u64>,
    /// Seconds.
    #[prost(uint64, optional, tag = "11")]
    pub delay: Option<u64>,
    #[prost(string, optional, tag = "12")]
    pub application: Option<String>,
    #[prost(bytes = "vec", tag = "13")]
    pub parameters_bytes: Vec<u8>,
}

/// What workers read, and nobody here.
#[derive(Clone, PartialEq, Message)]
struct Others {
    #[prost(string, tag = "4")]
    parameters: String,
    #[prost(btree_map = "string, string", tag = "5")]
    headers: BTreeMap<String, String>,
}

/// A `google.protobuf.Timestamp`.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Moment {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Moment {
    /// Milliseconds since 1970.
    pub fn ms(self) -> i64 {
        let sub_ms = i64::from(self.nanos) / 1_000_000;
        self.seconds.saturating_mul(1_000).saturating_add(sub_ms)
    }

    pub fn from_ms(ms: i64) -> Moment {
        let below = Duration::from_millis(ms.rem_euclid(1_000).unsigned_abs());
        Moment { seconds: ms.div_euclid(1_000), nanos: below.subsec_nanos().cast_signed() }
    }
}

/// One field of a message.
struct Field<'a> {
    tag: u32,
    /// With its key.
    whole: &'a [u8],
    /// Without its key and its length.
    content: &'a [u8],
}

/// The fields of a message, in their order.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = Result<Field<'_>, DecodeError>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest);
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, DecodeError> {
    let begin = *rest;
    let (tag, wire_type) = decode_key(rest)?;
    let mut content = *rest;
    skip_field(wire_type, tag, rest, DecodeContext::default())?;
    if wire_type == WireType::LengthDelimited {
        decode_varint(&mut content)?;
    }
    let content = &content[..content.len() - rest.len()];
    Ok(Field { tag, whole: &begin[..begin.len() - rest.len()], content })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let known = Known {
            id: "a1".into(),
            namespace: "mail".into(),
            taskname: "send".into(),
            received_at: Some(Moment::from_ms(1_700_000_000_123)),
            retry_state: Some(RetryState { attempts: 1, max_attempts: 3, ..RetryState::default() }),
            processing_deadline_duration: 10,
            application: Some("app".into()),
            parameters_bytes: vec![0, 1, 2],
            ..Known::default()
        };
        let mut bytes = known.encode_to_vec();
        // Fields of tomorrow: one of each kind.
        prost::encoding::string::encode(99, &"new".to_owned(), &mut bytes);
        prost::encoding::uint64::encode(98, &7, &mut bytes);
        prost::encoding::fixed32::encode(97, &7, &mut bytes);
        prost::encoding::fixed64::encode(96, &7, &mut bytes);
        bytes
    }

    #[derive(Clone, PartialEq, Message)]
    struct Around {
        #[prost(message, optional, tag = "1")]
        task: Option<Activation>,
        #[prost(uint32, tag = "2")]
        after: u32,
    }

    #[test]
    fn the_bytes_of_a_task_go_through_as_they_came() {
        let task = Activation::from_bytes(sample());
        let around = Around { task: Some(task), after: 5 };
        let read = Around::decode(&around.encode_to_vec()[..]).unwrap();
        assert_eq!(read, around);
        assert_eq!(read.task.unwrap().as_bytes(), sample());
    }

    #[test]
    fn an_attempt_changes_its_id_and_what_failed_before_and_nothing_else() {
        let task = Activation::from_bytes(sample());
        let attempt = task.attempt("b2", 2).unwrap();
        let (before, after) = (task.known().unwrap(), attempt.known().unwrap());
        assert_eq!(after.id, "b2");
        let state = after.retry_state.unwrap();
        assert_eq!((state.attempts, state.max_attempts), (3, 3));
        assert_eq!(Known { id: before.id.clone(), retry_state: before.retry_state, ..after }, before);
        let unknown = |task: &Activation| {
            let all = fields(task.as_bytes()).map(|field| field.unwrap());
            all.filter(|field| field.tag > 90).map(|field| field.whole.to_vec()).collect::<Vec<_>>()
        };
        assert_eq!(unknown(&attempt), unknown(&task));
        assert_eq!(unknown(&attempt).len(), 4);
        let bare = Activation::from_bytes(Known::default().encode_to_vec());
        assert_eq!(bare.attempt("c", 1).unwrap().known().unwrap().retry_state, None);
    }

    #[test]
    fn what_is_cut_off_or_garbled_is_an_error() {
        let whole = sample();
        for end in 0..whole.len() {
            // Between two fields it is a shorter message.
            let cut = Activation::from_bytes(&whole[..end]);
            assert_eq!(cut.known().is_ok(), cut.attempt("x", 1).is_ok(), "{end}");
        }
        for first in 0..=u8::MAX {
            let garbled = Activation::from_bytes([first, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F, 1]);
            assert!(garbled.attempt("x", 1).is_err() || garbled.known().is_err() || first < 128, "{first}");
        }
    }

    #[test]
    fn a_moment_is_kept_to_the_millisecond() {
        for ms in [0, 1, 999, 1_000, 1_700_000_000_123, -1, -1_001] {
            assert_eq!(Moment::from_ms(ms).ms(), ms);
        }
        assert_eq!(Moment { seconds: i64::MAX, nanos: 5 }.ms(), i64::MAX);
    }
}
