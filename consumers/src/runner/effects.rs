//! Effects between decision and wire: given ids that never change, encoded for the outbox, told to Kafka or to the
//! stage's outlet.
//!
//! The encoded form is internal: it lives in `outbox` rows between a commit and its acknowledgement, and every build
//! must read what the build before it wrote.

use anyhow::Context;
use producers::publisher::Record;
use schemas::{Envelope, EventId, Timestamp, TopicPrefix};
use serde::{Deserialize, Serialize};

use super::traces::Followed;
use crate::stage::{Effect, Message, Received};

/// Everything that a batch tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outgoing {
    /// For Kafka.
    pub(crate) records: Vec<OutgoingRecord>,
    /// For the stage's outlet.
    pub(crate) messages: Vec<Message>,
}

/// A record as it will be published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutgoingRecord {
    pub(crate) topic: String,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(String, Option<Vec<u8>>)>,
}

/// Gives each effect its envelope. `now` is when the decisions were made.
pub(crate) fn records(
    stage: &'static str,
    prefix: &TopicPrefix,
    events: &[Received],
    followed: &Followed,
    effects: &[Effect],
    now: Timestamp,
) -> Vec<OutgoingRecord> {
    let mut numbers: std::collections::HashMap<(EventId, &'static str), u32> =
        std::collections::HashMap::new();
    effects
        .iter()
        .map(|effect| {
            let cause = &events[effect.cause];
            let event_type = effect.event.event_type();
            let number = numbers.entry((cause.id, event_type.as_str())).or_default();
            let id = EventId::derived(cause.id, stage, event_type.as_str(), *number);
            let envelope = Envelope {
                id,
                event_type,
                source: format!("/stages/{stage}"),
                time: now,
                traceparent: followed.onward(cause, id),
            };
            *number += 1;
            OutgoingRecord {
                topic: prefix.topic(event_type.topic()),
                key: Some(effect.event.order_id().to_string().into_bytes()),
                value: Some(effect.event.to_json()),
                headers: envelope
                    .headers()
                    .into_iter()
                    .map(|(name, value)| (name.to_owned(), Some(value.into_bytes())))
                    .collect(),
            }
        })
        .collect()
}

/// Encoded and compressed, for the outbox.
pub(crate) fn encode(outgoing: &Outgoing) -> anyhow::Result<Vec<u8>> {
    let plain = postcard::to_allocvec(outgoing).context("encoding the effects of a batch")?;
    Ok(lz4_flex::compress_prepend_size(&plain))
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode(bytes: &[u8]) -> anyhow::Result<Outgoing> {
    let plain =
        lz4_flex::decompress_size_prepended(bytes).context("decompressing an outbox row")?;
    postcard::from_bytes(&plain).context("decoding an outbox row")
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len() + self.messages.len()
    }
}

impl OutgoingRecord {
    /// The value of the header `name`, as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(known, _)| known == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// Hands `self` to `send` in the form the publisher takes.
    pub(crate) fn with_record<T>(&self, send: impl FnOnce(&Record<'_>) -> T) -> T {
        let headers: Vec<(&str, Option<&[u8]>)> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        send(&Record {
            topic: &self.topic,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
            headers: &headers,
        })
    }
}

#[cfg(test)]
mod tests {
    use schemas::OrderId;

    use super::*;

    #[test]
    fn the_outbox_gives_back_what_was_put_in() {
        let record = OutgoingRecord {
            topic: "inventory".to_owned(),
            key: Some(b"k".to_vec()),
            value: Some(vec![0, 255, 1]),
            headers: vec![("ce_id".to_owned(), Some(b"x".to_vec())), ("empty".to_owned(), None)],
        };
        let bare = OutgoingRecord { key: None, value: Some(Vec::new()), ..record.clone() };
        let message = Message { order_id: OrderId::fresh(), body: vec![0, 1] };
        let outgoing = Outgoing { records: vec![record, bare], messages: vec![message] };

        let read = decode(&encode(&outgoing).unwrap()).unwrap();

        assert_eq!(read, outgoing);
    }

    #[test]
    fn a_torn_outbox_row_is_an_error_not_a_panic() {
        let whole = encode(&Outgoing::default()).unwrap();

        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err());
        }
    }
}
