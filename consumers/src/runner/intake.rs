//! From bytes to events: decodes a batch, and sets aside what can never be applied, with everything a person needs to
//! find it again.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use schemas::{Decoded, EventId, EventType, OrderId, codec};

use super::batch::{Batch, Record};
use super::progress::Partition;
use super::traces::Followed;
use crate::stage::{Received, Rejection};
use crate::store::dead_letters::{DeadLetter, PARKED};

/// A batch understood.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// Events the stage acts on.
    pub(crate) events: Vec<Received>,
    /// Records that can never be applied here.
    pub(crate) refused: Vec<Refused>,
    /// Dead letters replayed here of which the stage wants nothing: settled by being read.
    pub(crate) nothing_to_do: Vec<i64>,
    /// What of it is recorded.
    pub(crate) followed: Followed,
}

/// A record to be set aside.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) record: usize,
    pub(crate) order_id: Option<OrderId>,
    pub(crate) event_id: Option<EventId>,
    pub(crate) replay_of: Option<i64>,
    pub(crate) code: &'static str,
    pub(crate) detail: String,
}

/// Longest detail that is kept.
const MAX_DETAIL_CHARS: usize = 300;

impl Intake {
    pub(crate) fn of(partition: &Partition, inputs: &[EventType], batch: &Batch) -> Self {
        let mut intake = Self { events: Vec::with_capacity(batch.len()), ..Self::default() };
        for (number, record) in batch.records().enumerate() {
            match codec::decode_wanted(partition.role, record.raw(), inputs) {
                Ok(Some(decoded)) => intake.events.push(received(partition, number, decoded)),
                Ok(None) => intake.nothing_to_do.extend(codec::replay_of(record.headers())),
                Err(error) => intake.refused.push(Refused {
                    record: number,
                    order_id: record.key().and_then(OrderId::from_key),
                    event_id: None,
                    replay_of: codec::replay_of(record.headers()),
                    code: error.code(),
                    detail: sentence(&error),
                }),
            }
        }
        intake
    }

    /// Moves the events that a stage rejected aside. Numbers are those of `events` as the stage saw them.
    pub(crate) fn refuse(&mut self, rejections: &[Rejection], seen: &[usize]) {
        for rejection in rejections {
            let Some(record) = seen.get(rejection.event) else { continue };
            let Some(place) = self.events.iter().position(|event| event.record == *record) else {
                continue;
            };
            let event = self.events.remove(place);
            self.refused.push(Refused {
                record: event.record,
                order_id: Some(event.order_id()),
                event_id: Some(event.id),
                replay_of: event.replay_of,
                code: rejection.code,
                detail: clean(&rejection.detail),
            });
        }
        self.refused.sort_by_key(|refused| refused.record);
    }

    /// Splits off the events that must wait: those of orders `parked` before, and those behind a refused record of
    /// their order in this batch. Replayed records (`replaying`) pass, each once.
    pub(crate) fn split_waiting(
        &self,
        parked: &HashSet<OrderId>,
        replaying: &HashSet<i64>,
    ) -> (Cow<'_, [Received]>, Vec<Refused>) {
        // Nearly always; and then nothing is copied.
        let undisturbed = parked.is_empty()
            && self.refused.is_empty()
            && self.events.iter().all(|event| event.replay_of.is_none());
        if undisturbed {
            return (Cow::Borrowed(&self.events), Vec::new());
        }
        let mut ready = Vec::with_capacity(self.events.len());
        let mut waiting = Vec::new();
        for event in &self.events {
            let order = event.order_id();
            let behind = self
                .refused
                .iter()
                .any(|refused| refused.order_id == Some(order) && refused.record < event.record);
            let passes = event.replay_of.is_some_and(|letter| replaying.contains(&letter));
            if behind || (parked.contains(&order) && !passes) {
                waiting.push(Refused {
                    record: event.record,
                    order_id: Some(order),
                    event_id: Some(event.id),
                    replay_of: event.replay_of,
                    code: PARKED,
                    detail: "waits behind a dead letter of its order".to_owned(),
                });
            } else if event.replay_of.is_none() || passes {
                ready.push(event.clone());
            }
        }
        (Cow::Owned(ready), waiting)
    }
}

impl Refused {
    pub(crate) fn letter<'a>(
        &'a self,
        partition: &'a Partition,
        record: &Record<'a>,
    ) -> DeadLetter<'a> {
        DeadLetter {
            topic: &partition.source.topic,
            partition: partition.source.partition,
            offset: record.offset(),
            timestamp_ms: record.timestamp_ms(),
            order_id: self.order_id,
            event_id: self.event_id,
            code: self.code,
            detail: &self.detail,
            key: record.key(),
            value: record.value(),
            header_names: record
                .headers()
                .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
                .collect(),
            header_values: record.headers().map(|(_, value)| value.map(<[u8]>::to_vec)).collect(),
        }
    }
}

fn received(partition: &Partition, record: usize, decoded: Decoded) -> Received {
    Received {
        event: decoded.event,
        id: decoded.envelope.id,
        time: decoded.envelope.time,
        traceparent: decoded.envelope.traceparent,
        replay_of: decoded.replay_of,
        source: Arc::clone(&partition.source),
        record,
    }
}

/// An error and its causes in one line. What a sender wrote may be part of it, so it is made harmless.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    clean(&text)
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_DETAIL_CHARS).collect()
}
