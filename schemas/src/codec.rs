//! CloudEvents 1.0, Kafka binding, binary mode: attributes in headers, data as JSON in the value.
//!
//! [`decode`] takes whatever a topic may hold and never panics; every way a record can be wrong has a code of
//! a closed set, which is also the `code` of its dead letter and the label of its metric.

use std::fmt::Write as _;

use crate::event::InvalidData;
use crate::{Event, EventId, EventType, OrderId, Timestamp, Topic};

/// The only content type of this pipeline.
pub const CONTENT_TYPE: &str = "application/json";
/// The only CloudEvents version of this pipeline.
pub const SPEC_VERSION: &str = "1.0";
/// Names the dead letter that a record was replayed from; only `dead-letters replay` sets it.
pub const REPLAY_HEADER: &str = "dlq-replay-of";
/// Largest value that is decoded, in bytes. An order of the largest allowed size is below 20 KiB.
pub const MAX_VALUE_BYTES: usize = 256 * 1024;

/// What travels in the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// `ce_id`.
    pub id: EventId,
    /// `ce_type`.
    pub event_type: EventType,
    /// `ce_source`, a URI reference: which component tells the fact.
    pub source: String,
    /// `ce_time`: when the fact happened.
    pub time: Timestamp,
    /// `traceparent`, as W3C Trace Context writes it; dropped when malformed.
    pub traceparent: Option<String>,
}

/// A header as it goes onto the wire.
pub type Header = (&'static str, String);

/// A record as it came off a topic, borrowed from wherever it lies.
#[derive(Clone, Copy, Debug)]
pub struct RawRecord<'a, H> {
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Iterates over headers.
    pub headers: H,
}

/// A record understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Headers.
    pub envelope: Envelope,
    /// Data.
    pub event: Event,
    /// The dead letter this record was replayed from.
    pub replay_of: Option<i64>,
}

/// Why a record can never be applied.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The record has no value.
    #[error("the record has no value")]
    NullValue,
    /// The value is larger than any event may be.
    #[error("the value has {0} bytes, more than {MAX_VALUE_BYTES}")]
    TooLarge(usize),
    /// No key, so it belongs to no order.
    #[error("the record has no key")]
    NullKey,
    /// A key that is no order id.
    #[error("the key is not a UUID")]
    BadKey,
    /// The key names another order than the data.
    #[error("the key and the data name different orders")]
    KeyMismatch,
    /// A required header is absent.
    #[error("header {0} is missing")]
    MissingHeader(&'static str),
    /// A required header cannot be read.
    #[error("header {0} is malformed")]
    BadHeader(&'static str),
    /// Another encoding than this pipeline's.
    #[error("content-type is not {CONTENT_TYPE}")]
    UnsupportedContentType,
    /// A type or version this build does not know.
    #[error("the event type is not known here")]
    UnknownType,
    /// The type belongs on another topic.
    #[error("event type {0} does not belong on this topic")]
    WrongTopic(&'static str),
    /// The value is not what the type says.
    #[error("the data cannot be read")]
    BadData(#[source] InvalidData),
}

impl DecodeError {
    /// Every code that [`Self::code`] can answer.
    pub const CODES: [&'static str; 11] = [
        "null_value",
        "too_large",
        "null_key",
        "bad_key",
        "key_mismatch",
        "missing_header",
        "bad_header",
        "unsupported_content_type",
        "unknown_type",
        "wrong_topic",
        "bad_data",
    ];

    /// Stable name of the reason.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NullValue => "null_value",
            Self::TooLarge(_) => "too_large",
            Self::NullKey => "null_key",
            Self::BadKey => "bad_key",
            Self::KeyMismatch => "key_mismatch",
            Self::MissingHeader(_) => "missing_header",
            Self::BadHeader(_) => "bad_header",
            Self::UnsupportedContentType => "unsupported_content_type",
            Self::UnknownType => "unknown_type",
            Self::WrongTopic(_) => "wrong_topic",
            Self::BadData(_) => "bad_data",
        }
    }
}

impl Envelope {
    /// The headers of this envelope, in a fixed order.
    pub fn headers(&self) -> Vec<Header> {
        let mut time = String::with_capacity(27);
        write!(time, "{}", self.time).expect("writing to a string never fails");
        let mut headers = Vec::with_capacity(8);
        headers.push(("content-type", CONTENT_TYPE.to_owned()));
        headers.push(("ce_specversion", SPEC_VERSION.to_owned()));
        headers.push(("ce_id", self.id.to_string()));
        headers.push(("ce_type", self.event_type.as_str().to_owned()));
        headers.push(("ce_source", self.source.clone()));
        headers.push(("ce_time", time));
        if let Some(traceparent) = &self.traceparent {
            headers.push(("traceparent", traceparent.clone()));
        }
        headers
    }
}

/// Reads a record of `topic`. `headers` yields each name with its value; when a name repeats, its last value counts.
pub fn decode<'a, H>(topic: Topic, record: RawRecord<'a, H>) -> Result<Decoded, DecodeError>
where
    H: Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
{
    let decoded = decode_wanted(topic, record, &EventType::ALL)?;
    Ok(decoded.expect("every type is wanted"))
}

/// Like [`decode`], for a reader that acts on some types only: the data of the others is not looked at (`None`), their
/// envelope is.
pub fn decode_wanted<'a, H>(
    topic: Topic,
    record: RawRecord<'a, H>,
    wanted: &[EventType],
) -> Result<Option<Decoded>, DecodeError>
where
    H: Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
{
    let value = record.value.ok_or(DecodeError::NullValue)?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(DecodeError::TooLarge(value.len()));
    }
    let key =
        OrderId::from_key(record.key.ok_or(DecodeError::NullKey)?).ok_or(DecodeError::BadKey)?;
    let (envelope, replay_of) = Headers::collect(record.headers).envelope()?;
    if envelope.event_type.topic() != topic {
        return Err(DecodeError::WrongTopic(envelope.event_type.as_str()));
    }
    if !wanted.contains(&envelope.event_type) {
        return Ok(None);
    }
    let event = envelope.event_type.decode(value).map_err(DecodeError::BadData)?;
    if event.order_id() != key {
        return Err(DecodeError::KeyMismatch);
    }
    Ok(Some(Decoded { envelope, event, replay_of }))
}

/// The dead letter that a record says it was replayed from, whatever else is wrong with it.
pub fn replay_of<'a>(headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Option<i64> {
    std::str::from_utf8(Headers::collect(headers).replay_of?).ok()?.parse().ok()
}

/// The headers that matter, as found.
#[derive(Default)]
struct Headers<'a> {
    content_type: Option<&'a [u8]>,
    spec_version: Option<&'a [u8]>,
    id: Option<&'a [u8]>,
    event_type: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    time: Option<&'a [u8]>,
    traceparent: Option<&'a [u8]>,
    replay_of: Option<&'a [u8]>,
}

impl<'a> Headers<'a> {
    fn collect(headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            match name {
                b"content-type" => found.content_type = value,
                b"ce_specversion" => found.spec_version = value,
                b"ce_id" => found.id = value,
                b"ce_type" => found.event_type = value,
                b"ce_source" => found.source = value,
                b"ce_time" => found.time = value,
                b"traceparent" => found.traceparent = value,
                name if name == REPLAY_HEADER.as_bytes() => found.replay_of = value,
                _ => {}
            }
        }
        found
    }

    fn envelope(&self) -> Result<(Envelope, Option<i64>), DecodeError> {
        if !self.content_type.is_some_and(is_json) {
            return Err(DecodeError::UnsupportedContentType);
        }
        if text("ce_specversion", self.spec_version)? != SPEC_VERSION {
            return Err(DecodeError::BadHeader("ce_specversion"));
        }
        let id = text("ce_id", self.id)?.parse().map_err(|_| DecodeError::BadHeader("ce_id"))?;
        let event_type = self.event_type.ok_or(DecodeError::MissingHeader("ce_type"))?;
        let event_type = EventType::from_wire(event_type).ok_or(DecodeError::UnknownType)?;
        let source = text("ce_source", self.source)?;
        if source.is_empty() || source.len() > 256 || source.chars().any(char::is_control) {
            return Err(DecodeError::BadHeader("ce_source"));
        }
        let time = Timestamp::parse(text("ce_time", self.time)?)
            .map_err(|_| DecodeError::BadHeader("ce_time"))?;
        let replay_of = match self.replay_of {
            None => None,
            Some(_) => Some(
                text(REPLAY_HEADER, self.replay_of)?
                    .parse()
                    .map_err(|_| DecodeError::BadHeader(REPLAY_HEADER))?,
            ),
        };
        let envelope = Envelope {
            id,
            event_type,
            source: source.to_owned(),
            time,
            traceparent: self.traceparent.and_then(trace_context),
        };
        Ok((envelope, replay_of))
    }
}

fn text<'a>(name: &'static str, value: Option<&'a [u8]>) -> Result<&'a str, DecodeError> {
    let value = value.ok_or(DecodeError::MissingHeader(name))?;
    std::str::from_utf8(value).map_err(|_| DecodeError::BadHeader(name))
}

/// Media types compare without case, and parameters (`; charset=utf-8`) do not change the type.
fn is_json(value: &[u8]) -> bool {
    let media_type = value.split(|&b| b == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(CONTENT_TYPE.as_bytes())
}

/// `00-<32 hex>-<16 hex>-<2 hex>`; tracing is best effort, so anything else is no trace, not an error.
fn trace_context(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?;
    let lengths_match = text.split('-').map(str::len).eq([2, 32, 16, 2]);
    let hex = text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (lengths_match && hex && !text.starts_with("ff")).then(|| text.to_owned())
}
