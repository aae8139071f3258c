//! What the activities of an order's workflow reach: the topic `saga`, and what the stages decided.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use futures::future::{BoxFuture, FutureExt};
use producers::publisher::{Publisher, Record};
use producers::spans;
use schemas::{Envelope, EventId, EventType, OrderId, TopicPrefix};
use sqlx::PgPool;
use telemetry::traces::Parent;
use telemetry::{TraceContext, Tracer};
use workflows::{Fact, FactKind, SagaEvent, World};

use crate::store::operations::OperationTimes;
use crate::store::session::Session;
use crate::store::supervision::{Decided, decided};

/// `ce_source` of everything that supervision asks for.
const SOURCE: &str = "/order-workflow";

/// Kafka and Postgres, as supervision sees them.
pub(super) struct Pipeline {
    pub(super) publisher: Publisher,
    pub(super) prefix: TopicPrefix,
    pub(super) reads: PgPool,
    pub(super) operations: OperationTimes,
    pub(super) tracer: Tracer,
}

impl World for Pipeline {
    fn publish(
        &self,
        event: SagaEvent,
        trace: Option<TraceContext>,
    ) -> BoxFuture<'_, anyhow::Result<()>> {
        self.publish_event(event, trace).boxed()
    }

    fn look(&self, order: OrderId) -> BoxFuture<'_, anyhow::Result<Vec<Fact>>> {
        async move {
            let mut db = self.reads.acquire().await.context("connecting to Postgres")?;
            let mut db = Session::new(&mut db, &self.operations);
            let decided = decided(&mut db, order).await.context("reading what was decided")?;
            Ok(facts(order, &decided))
        }
        .boxed()
    }
}

impl Pipeline {
    async fn publish_event(
        &self,
        asked: SagaEvent,
        trace: Option<TraceContext>,
    ) -> anyhow::Result<()> {
        let event_type = asked.event.event_type();
        let place = trace.map(|trace| self.tracer.part_of(&trace));
        let began = SystemTime::now();
        let envelope = Envelope {
            id: asked.id,
            event_type,
            source: SOURCE.to_owned(),
            time: asked.occurred_at,
            traceparent: place.map(|place| place.as_str().to_owned()),
        };
        let headers = envelope.headers();
        let headers: Vec<(&str, Option<&[u8]>)> =
            headers.iter().map(|(name, value)| (*name, Some(value.as_bytes()))).collect();
        let key = asked.event.order_id().to_string();
        let topic = self.prefix.topic(event_type.topic());
        let mut batch = self.publisher.batch();
        let record = Record {
            topic: &topic,
            key: Some(key.as_bytes()),
            value: Some(&asked.event.to_json()),
            headers: &headers,
        };
        batch.add(&record).context("publishing to saga")?;
        let failed = batch.acknowledged().await;
        if let (Some(trace), Some(place)) = (trace, place) {
            let order_id = asked.event.order_id();
            let event = spans::Event { id: asked.id, event_type, order_id, place };
            let error = failed.is_err().then_some("outcome_unknown");
            event.sent(&self.tracer, &topic, Parent::Here(trace), began, error);
        }
        failed.map_err(|mut failed| failed.swap_remove(0).1).context("publishing to saga")
    }
}

/// What the rows say, as facts. Their ids are made up: facts add up by kind.
fn facts(order: OrderId, decided: &Decided) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut known = |event_type: EventType, reason: Option<&str>| {
        let Some(kind) = FactKind::from(event_type) else { return };
        let id = EventId::derived(
            EventId::opening(order, EventType::OrderPlaced.as_str()),
            "look",
            event_type.as_str(),
            0,
        );
        facts.push(Fact { id: id.0, kind, reason: reason.map(str::to_owned) });
    };
    if decided.placed {
        known(EventType::OrderPlaced, None);
    }
    if decided.cancel_requested {
        known(EventType::CancelRequested, None);
    }
    match decided.reservation.as_ref().map(|(state, reason)| (state.as_str(), reason.as_deref())) {
        Some(("reserved", _)) => known(EventType::StockReserved, None),
        Some(("rejected", _)) => known(EventType::StockRejected, None),
        Some(("released", reason)) => known(EventType::StockReleased, reason),
        _ => {}
    }
    match decided.payment.as_deref() {
        Some("captured") => known(EventType::PaymentCaptured, None),
        Some("declined") => known(EventType::PaymentDeclined, None),
        Some("refunded") => {
            known(EventType::PaymentCaptured, None);
            known(EventType::PaymentRefunded, None);
        }
        _ => {}
    }
    match decided.shipment.as_deref() {
        Some("arranged") => known(EventType::ShipmentArranged, None),
        Some("cancelled") => known(EventType::ShipmentFailed, Some("cancelled")),
        Some("refused") => known(EventType::ShipmentFailed, Some("carrier_refused")),
        _ => {}
    }
    facts
}

/// How long a request may wait for the brokers before the activity is tried again.
pub(super) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(decided: &Decided) -> Vec<FactKind> {
        facts(OrderId::fresh(), decided).into_iter().map(|fact| fact.kind).collect()
    }

    #[test]
    fn an_order_that_was_cancelled_after_it_was_paid_shows_all_of_it() {
        let decided = Decided {
            placed: true,
            cancel_requested: true,
            reservation: Some(("released".to_owned(), Some("cancelled".to_owned()))),
            payment: Some("refunded".to_owned()),
            shipment: Some("cancelled".to_owned()),
        };

        assert_eq!(
            kinds(&decided),
            [
                FactKind::OrderPlaced,
                FactKind::CancelRequested,
                FactKind::StockReleased,
                FactKind::PaymentCaptured,
                FactKind::PaymentRefunded,
                FactKind::ShipmentFailed,
            ]
        );
    }

    #[test]
    fn nothing_decided_is_nothing_known() {
        assert!(kinds(&Decided::default()).is_empty());
    }
}
