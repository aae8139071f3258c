//! Keeps the projection that people read: one row per order, and its timeline.
//!
//! Owns `orders`, `order_events`, `order_status_counts`. Emits nothing. Rejects `unknown_order`: a cancellation of an
//! order that was never placed. Topics race each other, so every write is a join of facts that any order of arrival,
//! and any repetition, leaves the same.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};

use schemas::orders::OrderPlaced;
use schemas::{Event, EventType, OrderId, Topic};
use uuid::Uuid;

use crate::config::StageConfig;
use crate::stage::{Fault, Finished, Outcome, Received, Rejection, Stage};
use crate::store::orders::{self, Facts, Standing, TimelineRow};
use crate::store::session::Session;

/// After a batch met rows that exist, this many batches take the way that expects them. COPY costs the database half
/// of an upsert, but meeting a row costs the whole batch again; rows come before their order only when this stage is
/// behind, and then they come in numbers.
const BATCHES_BY_MERGE: u32 = 16;

/// The stage.
pub(crate) struct Order {
    merges_left: AtomicU32,
}

impl Stage for Order {
    const NAME: &'static str = "order";
    const INPUTS: &'static [EventType] = &EventType::ALL;
    const OUTPUT: Option<Topic> = None;
    type Prepared = ();

    fn from_config(_: &StageConfig) -> anyhow::Result<Self> {
        Ok(Self { merges_left: AtomicU32::new(0) })
    }

    async fn prepare(&self, _: &mut Session<'_>, _: &[Received]) -> Result<(), Fault> {
        Ok(())
    }

    async fn apply(
        &self,
        db: &mut Session<'_>,
        events: &[Received],
        (): &(),
    ) -> Result<Outcome, Fault> {
        let placed = placed_once(events);
        let facts = facts(events);
        let lines = timeline(events);
        let by_copy = facts.is_empty() && self.expects_new_rows();
        if by_copy && self.copy(db, &placed, &lines).await? {
            let counts = BTreeMap::from([("placed".to_owned(), as_count(placed.len()))]);
            count_statuses(db, events, &counts).await?;
            return Ok(Outcome { duplicates: events.len() - lines.len(), ..Outcome::default() });
        }
        self.merge(db, events, &placed, &facts, &lines).await
    }
}

impl Order {
    fn expects_new_rows(&self) -> bool {
        let left = self
            .merges_left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.is_err()
    }

    /// Writes orders and timeline by COPY. `false`: some row exists, nothing was written.
    async fn copy(
        &self,
        db: &mut Session<'_>,
        placed: &[&OrderPlaced],
        lines: &[TimelineRow<'_>],
    ) -> Result<bool, Fault> {
        db.savepoint().await?;
        let copied = async {
            orders::copy_new(db, placed).await?;
            orders::copy_timeline(db, lines).await
        };
        match copied.await {
            Ok(_) => Ok(true),
            Err(error) if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => {
                db.rollback_to_savepoint().await?;
                self.merges_left.store(BATCHES_BY_MERGE, Ordering::Relaxed);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn merge(
        &self,
        db: &mut Session<'_>,
        events: &[Received],
        placed: &[&OrderPlaced],
        facts: &BTreeMap<OrderId, Facts>,
        lines: &[TimelineRow<'_>],
    ) -> Result<Outcome, Fault> {
        let mut ids: Vec<Uuid> = events.iter().map(|received| received.order_id().0).collect();
        ids.sort_unstable();
        ids.dedup();
        let before = orders::lock(db, &ids).await?;
        refuse_unknown(events, &before)?;
        let mut after: HashMap<OrderId, Standing> = HashMap::with_capacity(ids.len());
        if !placed.is_empty() {
            let mut sorted = placed.to_vec();
            sorted.sort_unstable_by_key(|order| order.order_id);
            let updated = orders::merge_placed(db, &sorted).await?;
            after.extend(updated.into_iter().map(|updated| (updated.order_id, updated)));
        }
        if !facts.is_empty() {
            let updated = orders::merge_facts(db, facts).await?;
            after.extend(updated.into_iter().map(|updated| (updated.order_id, updated)));
        }
        let new_lines = orders::insert_timeline(db, lines).await?;
        count_statuses(db, events, &status_changes(&before, &after)).await?;
        Ok(Outcome {
            duplicates: events.len() - usize::try_from(new_lines).unwrap_or(0).min(events.len()),
            finished: finished(events, &before, &after),
            ..Outcome::default()
        })
    }
}

/// The first event of each order placed in the batch.
fn placed_once(events: &[Received]) -> Vec<&OrderPlaced> {
    let mut seen = HashSet::with_capacity(events.len());
    events
        .iter()
        .filter_map(|received| match &received.event {
            Event::OrderPlaced(order) => Some(order),
            _ => None,
        })
        .filter(|order| seen.insert(order.order_id))
        .collect()
}

/// Everything the batch says about orders that exist, joined per order.
fn facts(events: &[Received]) -> BTreeMap<OrderId, Facts> {
    let mut all: BTreeMap<OrderId, Facts> = BTreeMap::new();
    for received in events {
        if !matches!(received.event, Event::OrderPlaced(_)) {
            note(all.entry(received.order_id()).or_default(), received);
        }
    }
    all
}

fn note(facts: &mut Facts, received: &Received) {
    let time = received.time;
    let at = match &received.event {
        Event::StockReserved(_) => &mut facts.reserved_at,
        Event::StockRejected(_) => &mut facts.rejected_at,
        Event::StockReleased(_) => &mut facts.released_at,
        Event::PaymentCaptured(_) => &mut facts.paid_at,
        Event::PaymentDeclined(_) => &mut facts.declined_at,
        Event::PaymentRefunded(_) => &mut facts.refunded_at,
        Event::ShipmentArranged(_) => &mut facts.shipped_at,
        Event::CancelRequested(_) => &mut facts.cancel_requested_at,
        // Known by what follows from it: the release, and the refund where due.
        Event::OrderPlaced(_)
        | Event::ShipmentFailed(_)
        | Event::StockReleaseRequested(_)
        | Event::RefundRequested(_)
        | Event::OrderCancelled(_) => &mut None,
    };
    *at = Some(at.map_or(time, |known| known.min(time)));
    facts.updated_at = Some(facts.updated_at.map_or(time, |known| known.max(time)));
    if let Event::StockReleased(released) = &received.event {
        let reason = released.reason.as_str();
        facts.release_reason = Some(facts.release_reason.map_or(reason, |known| known.min(reason)));
    }
    // What supervision asked for is in the timeline; how the order ended is for those who answered to tell.
    let ended = received.event.event_type().topic() != Topic::Saga;
    if let Some(reason) = reason(&received.event).filter(|_| ended) {
        let known = facts.reason.take();
        facts.reason =
            Some(known.map_or_else(|| reason.to_owned(), |known| known.min(reason.to_owned())));
    }
}

/// Why something happened to an order, where its event says so.
fn reason(event: &Event) -> Option<&str> {
    match event {
        Event::StockRejected(rejected) => Some(match rejected.reason {
            schemas::inventory::StockRejection::InsufficientStock => "insufficient_stock",
            schemas::inventory::StockRejection::UnknownSku => "unknown_sku",
        }),
        Event::PaymentDeclined(declined) => Some(declined.reason.as_str()),
        Event::ShipmentFailed(failed) => Some(failed.reason.as_str()),
        Event::StockReleaseRequested(asked) => Some(asked.reason.as_str()),
        Event::RefundRequested(asked) => Some(asked.reason.as_str()),
        Event::OrderCancelled(cancelled) => Some(cancelled.reason.as_str()),
        _ => None,
    }
}

fn timeline(events: &[Received]) -> Vec<TimelineRow<'_>> {
    let mut seen = HashSet::with_capacity(events.len());
    events
        .iter()
        .filter(|received| seen.insert(received.id))
        .map(|received| TimelineRow {
            order_id: received.order_id(),
            event_id: received.id,
            event_type: received.event.event_type().as_str(),
            occurred_at: received.time,
            reason: reason(&received.event),
        })
        .collect()
}

/// The producer lets only placed orders be cancelled, and both travel in one partition: whatever else asks is wrong,
/// also when other stages answered it already.
fn refuse_unknown(events: &[Received], before: &HashMap<OrderId, Standing>) -> Result<(), Fault> {
    let mut placed = HashSet::new();
    let mut rejections = Vec::new();
    for (number, received) in events.iter().enumerate() {
        match &received.event {
            Event::OrderPlaced(order) => {
                placed.insert(order.order_id);
            }
            Event::CancelRequested(cancel)
                if !placed.contains(&cancel.order_id)
                    && before.get(&cancel.order_id).is_none_or(|o| o.placed_at.is_none()) =>
            {
                rejections.push(Rejection {
                    event: number,
                    code: "unknown_order",
                    detail: "no order was placed under this id".to_owned(),
                });
            }
            _ => {}
        }
    }
    if rejections.is_empty() { Ok(()) } else { Err(Fault::Rejected(rejections)) }
}

fn status_changes(
    before: &HashMap<OrderId, Standing>,
    after: &HashMap<OrderId, Standing>,
) -> BTreeMap<String, i64> {
    let mut changes: BTreeMap<String, i64> = BTreeMap::new();
    for (order, updated) in after {
        *changes.entry(updated.status.clone()).or_default() += 1;
        if let Some(old) = before.get(order) {
            *changes.entry(old.status.clone()).or_default() -= 1;
        }
    }
    changes
}

async fn count_statuses(
    db: &mut Session<'_>,
    events: &[Received],
    changes: &BTreeMap<String, i64>,
) -> Result<(), Fault> {
    let Some(first) = events.first() else { return Ok(()) };
    orders::add_status_counts(db, &first.source.topic, first.source.partition, changes).await?;
    Ok(())
}

/// Orders of which this batch completed what their clock needs: topics run beside each other, so an order may be shipped
/// before it is heard that it was placed.
fn finished(
    events: &[Received],
    before: &HashMap<OrderId, Standing>,
    after: &HashMap<OrderId, Standing>,
) -> Vec<Finished> {
    let mut seen = HashSet::new();
    events
        .iter()
        .enumerate()
        .filter_map(|(cause, received)| {
            let updated = after.get(&received.order_id())?;
            let seconds = updated.seconds_to_final()?;
            let known = before.get(&updated.order_id).and_then(Standing::seconds_to_final);
            if known.is_some() || !seen.insert(updated.order_id) {
                return None;
            }
            Some(Finished { status: final_status(&updated.status)?, seconds, cause })
        })
        .collect()
}

fn final_status(status: &str) -> Option<&'static str> {
    ["shipped", "rejected", "declined", "cancelled"].into_iter().find(|known| *known == status)
}

fn as_count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prometheus_client::registry::Registry;
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt, SeedableRng};
    use schemas::inventory::{ReleaseReason, StockReleased, StockReserved};
    use schemas::orders::{CancelRequested, Item};
    use schemas::payments::{PaymentCaptured, PaymentRefunded};
    use schemas::shipments::{ShipmentFailed, ShipmentFailure};
    use schemas::{Currency, EventId, ShortText, Timestamp};
    use sqlx::{PgConnection, Row};

    use super::*;
    use crate::stage::SourcePartition;
    use crate::store::operations::OperationTimes;
    use crate::test_database::TestDatabase;

    /// A life of an order that touches most facts: reserved, paid, cancelled too late for the money but in time for the
    /// parcel, refunded.
    fn life(order_id: OrderId) -> Vec<Received> {
        let source = Arc::new(SourcePartition { topic: "orders".to_owned(), partition: 0 });
        let start = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        let customer_id: schemas::CustomerId = "C-1".parse().unwrap();
        let payment_id: ShortText = "p-1".parse().unwrap();
        let currency = Currency::EUR;
        let items = vec![Item { sku: "SKU-1".parse().unwrap(), quantity: 1, unit_price_cents: 5 }];
        let events = [
            Event::OrderPlaced(OrderPlaced {
                order_id,
                customer_id: customer_id.clone(),
                currency,
                placed_at: start,
                total_cents: 5,
                items,
            }),
            Event::StockReserved(StockReserved {
                order_id,
                customer_id: customer_id.clone(),
                currency,
                total_cents: 5,
                items: vec![],
            }),
            Event::PaymentCaptured(PaymentCaptured {
                order_id,
                customer_id,
                payment_id: payment_id.clone(),
                amount_cents: 5,
                currency,
            }),
            Event::CancelRequested(CancelRequested { order_id, requested_at: start }),
            Event::ShipmentFailed(ShipmentFailed { order_id, reason: ShipmentFailure::Cancelled }),
            Event::StockReleased(StockReleased {
                order_id,
                reason: ReleaseReason::Cancelled,
                items: vec![],
            }),
            Event::PaymentRefunded(PaymentRefunded {
                order_id,
                payment_id,
                amount_cents: 5,
                currency,
            }),
        ];
        let at =
            |n: usize| Timestamp::from_micros(start.as_micros() + n as i64 * 1_000_000).unwrap();
        let received = |(n, event): (usize, Event)| Received {
            id: EventId::opening(order_id, event.event_type().as_str()),
            time: at(n),
            event,
            traceparent: None,
            replay_of: None,
            source: source.clone(),
            record: n,
        };
        events.into_iter().enumerate().map(received).collect()
    }

    fn times() -> OperationTimes {
        OperationTimes::of_stages(&mut Registry::default())
    }

    async fn apply(stage: &Order, db: &mut PgConnection, events: &[Received]) -> Vec<Finished> {
        let times = times();
        let mut db = Session::new(db, &times);
        db.begin().await.unwrap();
        let outcome = stage.apply(&mut db, events, &()).await.unwrap();
        db.commit().await.unwrap();
        outcome.finished
    }

    /// Everything the projection says about an order, as text.
    async fn row(db: &mut PgConnection, order: OrderId) -> String {
        let row = sqlx::query(
            "select (to_jsonb(orders) - 'order_id')::text || (select count(*) from order_events where order_id = $1)
               from orders where order_id = $1",
        )
        .bind(order.0)
        .fetch_one(db)
        .await
        .unwrap();
        row.get(0)
    }

    #[tokio::test]
    async fn any_order_of_arrival_and_any_repetition_give_the_same_row() {
        let database = TestDatabase::create().await;
        let mut db = database.connect().await;
        let stage = Order { merges_left: AtomicU32::new(0) };
        let reference = OrderId::fresh();
        for event in life(reference) {
            apply(&stage, &mut db, &[event]).await;
        }
        let expected = row(&mut db, reference).await;
        assert!(expected.contains(r#""status": "cancelled""#), "{expected}");

        for seed in 0..60 {
            let mut random = StdRng::seed_from_u64(seed);
            let order = OrderId::fresh();
            let mut events: Vec<Received> = life(order);
            let repeated: Vec<Received> =
                events.iter().filter(|_| random.random_bool(0.5)).cloned().collect();
            events.extend(repeated);
            events.shuffle(&mut random);
            // A cancellation of an order of which nothing is known is refused; it never comes first.
            events.sort_by_key(|received| matches!(received.event, Event::CancelRequested(_)));
            let mut finished = Vec::new();
            while !events.is_empty() {
                let rest = events.split_off(random.random_range(1..=events.len()));
                finished.extend(apply(&stage, &mut db, &events).await);
                events = rest;
            }

            // The release, five seconds after it was placed, made it final.
            let finished: Vec<_> = finished.iter().map(|end| (end.status, end.seconds)).collect();
            assert_eq!(finished, [("cancelled", 5.0)], "seed {seed}");
            assert_eq!(row(&mut db, order).await, expected, "seed {seed}");
        }
        let counts: Vec<(String, i64)> =
            sqlx::query("select status, sum(orders)::bigint from order_status_counts group by 1 having sum(orders) <> 0")
                .fetch_all(&mut db)
                .await
                .unwrap()
                .into_iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect();
        assert_eq!(counts, [("cancelled".to_owned(), 61)], "the counts moved with the rows");
        drop(db);
        database.drop_it().await;
    }

    #[tokio::test]
    async fn a_cancellation_of_an_order_never_placed_is_refused_alone() {
        let database = TestDatabase::create().await;
        let mut db = database.connect().await;
        let stage = Order { merges_left: AtomicU32::new(0) };
        let (known, unknown) = (life(OrderId::fresh()), life(OrderId::fresh()));
        // Shipping may have answered it already: a row without what was placed is no order.
        apply(&stage, &mut db, &unknown[4..6]).await;
        let events = [known[0].clone(), known[3].clone(), unknown[3].clone()];

        let times = times();
        let mut session = Session::new(&mut db, &times);
        session.begin().await.unwrap();
        let fault = stage.apply(&mut session, &events, &()).await.unwrap_err();

        let Fault::Rejected(rejections) = fault else { panic!("{fault:?}") };
        assert_eq!(
            rejections.iter().map(|r| (r.event, r.code)).collect::<Vec<_>>(),
            [(2, "unknown_order")]
        );
        drop(db);
        database.drop_it().await;
    }
}
