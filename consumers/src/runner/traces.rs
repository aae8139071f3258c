//! What is recorded of a stage's batches, so that one order can be followed through all of them.
//!
//! A batch has one span, `process`, with its calls to the outside, its transaction and its emission below it. It belongs to
//! every order in it, so it links to them. To be followable in *one* trace, each followed event also has a span in its order's
//! trace, and what the stage tells because of it goes on from there; where a batch is one event, the two are the same span.
//!
//! Followed are events that somebody decided to sample, and of one batch no more than [`FOLLOWED`] of those: the ones with
//! the smallest trace ids, so that every stage chooses the same orders and those that are followed are followed to their end.
//! What an event that is not followed leads to carries its trace on as it came.
//!
//! Places are given out before the transaction, spans are written down after the commit: an attempt that failed leaves none.

use std::sync::Arc;
use std::time::SystemTime;

use producers::spans::{self, FOLLOWED, messaging, postgres};
use schemas::EventId;
use telemetry::traces::{KeyValue, Parent, Span, SpanKind};
use telemetry::{TraceContext, Tracer};

use super::batch::Batch;
use super::progress::Partition;
use super::transaction::Committed;
use crate::stage::{Received, SourcePartition};

/// What a stage says about its batches.
pub(crate) struct StageTraces {
    pub(crate) tracer: Tracer,
    /// The stage's consumer group.
    pub(crate) group: String,
    /// Name of the topic it writes.
    pub(crate) output: Option<String>,
    /// Name of the database it writes.
    pub(crate) database: String,
}

/// The places of a batch and of what is followed in it; nothing when none of it is recorded. Clones are cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Followed(Option<Arc<Places>>);

#[derive(Debug)]
struct Places {
    batch: TraceContext,
    /// The batch is one event, and its span that event's.
    single: bool,
    /// In the order of their records.
    events: Vec<FollowedEvent>,
}

#[derive(Debug)]
struct FollowedEvent {
    record: usize,
    offset: i64,
    /// Its own place is the one of its processing.
    event: spans::Event,
    sender: TraceContext,
}

/// When the steps of the attempt that succeeded were done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) began: SystemTime,
    pub(crate) prepared: SystemTime,
    pub(crate) committed: SystemTime,
}

/// Effects on their way.
pub(crate) struct Sending {
    tracer: Tracer,
    topic: String,
    followed: Followed,
    effects: Vec<(spans::Event, TraceContext)>,
    records: usize,
    messages: usize,
    began: SystemTime,
}

impl StageTraces {
    /// Chooses what is followed in `batch` and gives places out: `events` go on from theirs.
    pub(crate) fn follow(&self, batch: &Batch, events: &mut [Received]) -> Followed {
        if !self.tracer.is_on() {
            return Followed::default();
        }
        let chosen = self.choose(events);
        let single = events.len() == 1;
        let mut followed = Vec::with_capacity(chosen.len());
        for number in chosen {
            let received = &mut events[number];
            let Some(sender) = sender(received) else { continue };
            let place = self.tracer.enter(Some(&sender));
            received.traceparent = Some(place.as_str().to_owned());
            if place.is_sampled() {
                followed.push(FollowedEvent {
                    record: received.record,
                    offset: batch.record(received.record).offset(),
                    event: spans::Event {
                        id: received.id,
                        event_type: received.event.event_type(),
                        order_id: received.order_id(),
                        place,
                    },
                    sender,
                });
            }
        }
        let Some(first) = followed.first() else { return Followed::default() };
        let batch = if single { first.event.place } else { TraceContext::fresh() };
        Followed(Some(Arc::new(Places { batch, single, events: followed })))
    }

    /// Numbers of the events to follow, in order.
    fn choose(&self, events: &[Received]) -> Vec<usize> {
        let candidates = events.iter().enumerate().filter_map(|(number, received)| {
            let text = received.traceparent.as_deref()?;
            // The half of a trace id that samplers look at, too.
            self.tracer.may_follow(text).then_some((text.get(19..35)?, number))
        });
        smallest(candidates.collect(), FOLLOWED)
    }

    /// Writes down what `committed` took, and begins to watch its effects.
    pub(crate) fn committed(
        &self,
        partition: &Partition,
        records: usize,
        committed: &Committed,
        began: SystemTime,
    ) -> Option<Sending> {
        let places = committed.followed.0.as_deref()?;
        let end = committed.times.map_or_else(SystemTime::now, |times| times.committed);
        self.record_batch(places, &partition.source, records, committed, (began, end));
        if !places.single {
            for followed in &places.events {
                let error = refusal(committed, followed.record);
                let span = self.process(followed, &partition.source, error, (began, end));
                self.tracer.record(Span { links: vec![places.batch], ..span });
            }
        }
        let outgoing = &committed.outgoing;
        (!outgoing.is_empty()).then(|| Sending {
            tracer: self.tracer.clone(),
            topic: self.output.clone().unwrap_or_default(),
            followed: committed.followed.clone(),
            effects: places.effects(committed),
            records: outgoing.records.len(),
            messages: outgoing.messages.len(),
            began: end,
        })
    }

    fn record_batch(
        &self,
        places: &Places,
        source: &SourcePartition,
        records: usize,
        committed: &Committed,
        times: (SystemTime, SystemTime),
    ) {
        let senders = places.events.iter().map(|followed| followed.sender).collect();
        let mut span = match &places.events[..] {
            [only] if places.single => {
                self.process(only, source, refusal(committed, only.record), times)
            }
            _ => {
                let name = format!("process {}", source.topic);
                let parent = Parent::None;
                let mut span = Span::new(places.batch, parent, name, SpanKind::Consumer, times);
                span.attributes = self.attributes(source);
                let records = i64::try_from(records).unwrap_or(i64::MAX);
                span.attributes.push(KeyValue::new("messaging.batch.message_count", records));
                span
            }
        };
        span.links = senders;
        self.tracer.record(span);
        let Some(Times { began, prepared, committed }) = committed.times else { return };
        let part = |name: String, kind, times| {
            let parent = Parent::Here(places.batch);
            Span::new(places.batch.child(), parent, name, kind, times)
        };
        self.tracer.record(part("prepare".to_owned(), SpanKind::Internal, (began, prepared)));
        let name = format!("transaction {}", self.database);
        let mut transaction = part(name, SpanKind::Client, (prepared, committed));
        transaction.attributes = postgres(&self.database, "transaction");
        self.tracer.record(transaction);
    }

    /// The processing of one event.
    fn process(
        &self,
        followed: &FollowedEvent,
        source: &SourcePartition,
        error: Option<&'static str>,
        times: (SystemTime, SystemTime),
    ) -> Span {
        let name = format!("process {}", source.topic);
        let (place, parent) = (followed.event.place, Parent::Elsewhere(followed.sender));
        let mut span = Span::new(place, parent, name, SpanKind::Consumer, times);
        span.attributes = self.attributes(source);
        span.attributes.push(KeyValue::new("messaging.kafka.offset", followed.offset));
        span.attributes.extend(followed.event.attributes());
        if let Some(code) = error {
            span.attributes.push(KeyValue::new("error.type", code));
            span.error = Some("set aside as a dead letter, or behind one".into());
        }
        span
    }

    fn attributes(&self, source: &SourcePartition) -> Vec<KeyValue> {
        let mut attributes = messaging("process", &source.topic);
        attributes.extend([
            KeyValue::new("messaging.destination.partition.id", source.partition.to_string()),
            KeyValue::new("messaging.consumer.group.name", self.group.clone()),
        ]);
        attributes
    }
}

impl Followed {
    /// What the event `id`, told because of `cause`, carries: its own place if `cause` is followed. The same however often
    /// the batch is tried, and whoever tells it.
    pub(crate) fn onward(&self, cause: &Received, id: EventId) -> Option<String> {
        let own = self.0.as_ref().and_then(|places| places.effect(cause.record, id));
        own.map(|own| own.as_str().to_owned()).or_else(|| cause.traceparent.clone())
    }
}

impl Places {
    fn effect(&self, cause: usize, id: EventId) -> Option<TraceContext> {
        let place = self.events.binary_search_by_key(&cause, |followed| followed.record).ok()?;
        self.events[place].event.place.with_span(id.0.as_u64_pair().1)
    }

    /// Events told because of what is followed, each with the place it was told at.
    fn effects(&self, committed: &Committed) -> Vec<(spans::Event, TraceContext)> {
        // Records of effects come first, in their order.
        let told = committed.effects.iter().zip(&committed.outgoing.records);
        let effects = told.filter_map(|(effect, record)| {
            let cause = committed.applied.get(effect.cause)?;
            let id = record.header("ce_id")?.parse().ok()?;
            let event = spans::Event {
                id,
                event_type: effect.event.event_type(),
                order_id: effect.event.order_id(),
                place: self.effect(cause.record, id)?,
            };
            Some((event, sender(cause)?))
        });
        effects.take(FOLLOWED).collect()
    }
}

impl Sending {
    /// Everything is acknowledged.
    pub(crate) fn told(self) {
        let Some(places) = &self.followed.0 else { return };
        for (event, cause) in &self.effects {
            event.sent(&self.tracer, &self.topic, Parent::Here(*cause), self.began, None);
        }
        let end = SystemTime::now();
        let part = |name: String, count: usize| {
            let (place, parent) = (places.batch.child(), Parent::Here(places.batch));
            let mut span = Span::new(place, parent, name, SpanKind::Client, (self.began, end));
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            span.attributes = vec![KeyValue::new("messaging.batch.message_count", count)];
            span
        };
        if self.records > 0 && !places.single {
            let mut span = part(format!("send {}", self.topic), self.records);
            span.attributes.extend(messaging("send", &self.topic));
            span.links = self.effects.iter().map(|(event, _)| event.place).collect();
            self.tracer.record(span);
        }
        if self.messages > 0 {
            self.tracer.record(part("tell".to_owned(), self.messages));
        }
    }
}

/// Numbers of the `limit` smallest, in order.
fn smallest(mut candidates: Vec<(&str, usize)>, limit: usize) -> Vec<usize> {
    if candidates.len() > limit {
        candidates.select_nth_unstable(limit);
        candidates.truncate(limit);
    }
    let mut chosen: Vec<usize> = candidates.into_iter().map(|(_, number)| number).collect();
    chosen.sort_unstable();
    chosen
}

/// Where an event comes from, or goes on from once it is followed.
fn sender(received: &Received) -> Option<TraceContext> {
    TraceContext::parse(received.traceparent.as_deref()?.as_bytes())
}

/// The trace that a record names, whatever else is wrong with it.
pub(crate) fn trace_of<'a>(
    mut headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
) -> Option<TraceContext> {
    let (_, value) = headers.find(|(name, _)| *name == b"traceparent")?;
    TraceContext::parse(value?)
}

fn refusal(committed: &Committed, record: usize) -> Option<&'static str> {
    committed.refused.iter().find(|refused| refused.record == record).map(|refused| refused.code)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schemas::orders::CancelRequested;
    use schemas::{Event, OrderId, Timestamp};

    use super::*;

    fn received(record: usize, trace: &TraceContext) -> Received {
        let order_id = OrderId::fresh();
        let requested_at = Timestamp::now();
        let event = Event::CancelRequested(CancelRequested { order_id, requested_at });
        Received {
            id: EventId::opening(order_id, "orders.cancel-requested.v1"),
            event,
            time: requested_at,
            traceparent: Some(trace.as_str().to_owned()),
            replay_of: None,
            source: Arc::new(SourcePartition { topic: "orders".to_owned(), partition: 0 }),
            record,
        }
    }

    #[test]
    fn the_same_orders_are_chosen_whatever_else_is_in_the_batch() {
        let ids: Vec<String> = (0..1000_u64).map(|n| format!("{:016x}", n * 7919 % 1000)).collect();
        let number = |batch: &[String]| {
            let candidates = batch.iter().enumerate().map(|(number, id)| (id.as_str(), number));
            let chosen = smallest(candidates.collect(), 10);
            assert!(chosen.is_sorted());
            chosen.into_iter().map(|number| batch[number].clone()).collect::<Vec<_>>()
        };

        let (mut all, mut half) = (number(&ids), number(&ids[..500]));

        all.sort_unstable();
        half.sort_unstable();
        let smallest: Vec<String> = (0..10_u64).map(|n| format!("{n:016x}")).collect();
        assert_eq!(all, smallest);
        let of_all_in_half = all.iter().filter(|id| ids[..500].contains(id));
        assert!(of_all_in_half.clone().count() > 0);
        assert!(of_all_in_half.into_iter().all(|id| half.contains(id)), "{half:?}");
        assert_eq!(number(&ids[..3]).len(), 3);
    }

    #[test]
    fn what_is_told_because_of_a_followed_event_has_one_place_however_often() {
        let (sender, place) = (TraceContext::fresh(), TraceContext::fresh());
        let (cause, other) = (received(3, &place), received(4, &sender));
        let event = spans::Event {
            id: cause.id,
            event_type: cause.event.event_type(),
            order_id: cause.order_id(),
            place,
        };
        let events = vec![FollowedEvent { record: 3, offset: 3, event, sender }];
        let followed = Followed(Some(Arc::new(Places { batch: place, single: true, events })));
        let ids = [0, 1].map(|n| EventId::derived(cause.id, "payment", "payments.x.v1", n));

        let told = ids.map(|id| followed.onward(&cause, id).unwrap());

        assert_eq!(followed.onward(&cause, ids[0]), Some(told[0].clone()), "told again");
        assert_ne!(told[0], told[1]);
        let read = TraceContext::parse(told[0].as_bytes()).unwrap();
        assert_eq!(read.trace_id(), place.trace_id());
        assert_ne!(read.span_id(), place.span_id());
        assert_eq!(followed.onward(&other, ids[0]), other.traceparent, "not followed: as it came");
        assert_eq!(Followed::default().onward(&cause, ids[0]), cause.traceparent);
    }
}
