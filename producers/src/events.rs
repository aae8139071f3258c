//! Events of this producer as records of the topic `orders`.

use schemas::codec::Header;
use schemas::{Envelope, Event, EventId, Timestamp, Topic, TopicPrefix};
use telemetry::TraceContext;

use crate::publisher::{Batch, PublishError, Record};
use crate::spans;

/// `ce_source` of everything this component tells.
pub const SOURCE: &str = "/order-producer";

/// The topic `orders` under its name on the broker.
#[derive(Clone, Debug)]
pub struct OrdersTopic(String);

/// An event, ready for the wire.
#[derive(Clone, Debug)]
pub struct Encoded {
    named: spans::Event,
    headers: Vec<Header>,
    value: Vec<u8>,
}

impl OrdersTopic {
    /// The name behind `prefix`.
    pub fn new(prefix: &TopicPrefix) -> Self {
        Self(prefix.topic(Topic::Orders))
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Hands `event` over for writing.
    pub fn add(&self, batch: &mut Batch, event: &Encoded) -> Result<(), PublishError> {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let key = event.named.order_id.0.as_hyphenated().encode_lower(&mut text).as_bytes();
        let headers: Vec<(&str, Option<&[u8]>)> =
            event.headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        let (key, value) = (Some(key), Some(event.value.as_slice()));
        batch.add(&Record { topic: &self.0, key, value, headers: &headers })
    }
}

impl Encoded {
    /// Encodes an event that opens something for its order; `time` is when the fact happened, `trace` what readers go on
    /// from.
    pub fn opening(event: &Event, time: Timestamp, trace: &TraceContext) -> Self {
        let order_id = event.order_id();
        let event_type = event.event_type();
        let id = EventId::opening(order_id, event_type.as_str());
        let envelope = Envelope {
            id,
            event_type,
            source: SOURCE.to_owned(),
            time,
            traceparent: Some(trace.as_str().to_owned()),
        };
        let (headers, value) = (envelope.headers(), event.to_json());
        let named = spans::Event { id, event_type, order_id, place: *trace };
        Self { named, headers, value }
    }

    /// What it is, for whoever tells of it.
    pub(crate) fn named(&self) -> &spans::Event {
        &self.named
    }
}
