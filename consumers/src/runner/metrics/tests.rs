//! Each family moves when it should, and nothing else moves with it: what is compared is the whole page.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::anyhow;
use prometheus_client::encoding::text::encode;
use schemas::inventory::{
    ReleaseReason, StockRejected, StockRejection, StockReleased, StockReserved,
};
use schemas::payments::{PaymentCaptured, PaymentDeclined};
use schemas::shipments::ShipmentArranged;
use schemas::{Currency, Event, EventId, OrderId, Sku, Timestamp, Topic};
use telemetry::TraceContext;

use super::*;
use crate::runner::intake::Refused;
use crate::runner::progress::Partition;
use crate::stage::{Effect, Finished, Message, Received, SourcePartition};
use crate::store::progress::Claim;

/// Series and their values.
type Page = BTreeMap<String, f64>;

struct World {
    registry: Registry,
    families: Families,
}

impl World {
    fn new() -> Self {
        let mut registry = Registry::default();
        let families = Families::register(&mut registry);
        Self { registry, families }
    }

    fn stage(&self, name: &'static str) -> StageMetrics {
        self.families.stage(name, &TopicPrefix::default(), &Owned::default())
    }

    /// Every series but sums and buckets of histograms, which follow their counts.
    fn page(&self) -> Page {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples =
            samples.map(|line| line.split(" # ").next().unwrap().rsplit_once(' ').unwrap());
        samples
            .filter(|(series, _)| !series.contains("_bucket{") && !series.contains("_sum"))
            .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// What `act` moves, and by how much; a series that is new began at zero.
    fn moved(&self, act: impl FnOnce()) -> Vec<(String, f64)> {
        let before = self.page();
        act();
        let after = self.page();
        let gone: Vec<_> = before.keys().filter(|series| !after.contains_key(*series)).collect();
        assert_eq!(gone, Vec::<&String>::new(), "no series goes away");
        let moved = after.into_iter().map(|(series, value)| {
            let was = before.get(&series).copied().unwrap_or(0.0);
            (series, value - was)
        });
        moved.filter(|(_, by)| *by != 0.0).collect()
    }
}

fn series(expected: &[(&str, f64)]) -> Vec<(String, f64)> {
    expected.iter().map(|(series, by)| ((*series).to_owned(), *by)).collect()
}

fn order() -> OrderId {
    OrderId::fresh()
}

fn received(age_seconds: i64) -> Received {
    let event = Event::ShipmentArranged(ShipmentArranged {
        order_id: order(),
        carrier: "carrier".parse().unwrap(),
        tracking_number: "T-1".parse().unwrap(),
    });
    let now = Timestamp::now().as_micros();
    Received {
        id: EventId::derived(EventId(uuid::Uuid::nil()), "test", "test", 0),
        event,
        time: Timestamp::from_micros(now - age_seconds * 1_000_000).unwrap(),
        traceparent: None,
        replay_of: None,
        source: Arc::new(SourcePartition { topic: "t".to_owned(), partition: 0 }),
        record: 0,
    }
}

fn refused(code: &'static str) -> Refused {
    Refused {
        record: 0,
        order_id: None,
        event_id: None,
        replay_of: None,
        code,
        detail: String::new(),
    }
}

#[test]
fn every_series_of_a_stage_but_what_is_not_known_yet_exists_at_zero() {
    let world = World::new();
    world.stage("payment");
    world.stage("inventory");
    world.stage("workflow");
    world.stage("order");

    let page = world.page();

    assert!(page.values().all(|value| *value == 0.0), "{page:#?}");
    for series in [
        r#"stage_events_total{stage="payment",outcome="applied"}"#,
        r#"stage_in_flight_events{stage="payment"}"#,
        r#"dead_letters_total{stage="payment",code="bad_data"}"#,
        r#"dead_letters_total{stage="payment",code="unknown_order"}"#,
        r#"order_processing_errors_total{stage="inventory",reason="fenced"}"#,
        r#"payments_processed_total{status="failure"}"#,
        r#"inventory_updates_total{operation="release"}"#,
        r#"stage_messages_total{stage="workflow",outcome="untold"}"#,
        r#"order_processing_duration_seconds_count{status="cancelled"}"#,
    ] {
        assert!(page.contains_key(series), "{series} is not in {page:#?}");
    }
    let unknown = |series: &&String| {
        series.starts_with("dead_letters_open") || series.starts_with("parked_orders")
    };
    assert_eq!(page.keys().filter(unknown).count(), 0);
    assert!(!page.contains_key(r#"stage_messages_total{stage="payment",outcome="applied"}"#));
}

#[test]
fn a_committed_batch_is_counted_by_what_became_of_each_event() {
    let world = World::new();
    let (stage, _other) = (world.stage("payment"), world.stage("shipping"));
    let committed = Committed {
        applied: vec![received(1), received(2), received(3)],
        duplicates: 1,
        refused: vec![refused("bad_data"), refused("unknown_order")],
        parked: 4,
        ..Committed::default()
    };

    let moved = world.moved(|| stage.committed(&committed, 0.5));

    let expected = [
        (r#"dead_letters_total{stage="payment",code="bad_data"}"#, 1.0),
        (r#"dead_letters_total{stage="payment",code="unknown_order"}"#, 1.0),
        (r#"order_processing_errors_total{stage="payment",reason="rejected"}"#, 2.0),
        (r#"stage_batch_events_count{stage="payment"}"#, 1.0),
        (r#"stage_event_age_seconds_count{stage="payment"}"#, 3.0),
        (r#"stage_events_total{stage="payment",outcome="applied"}"#, 2.0),
        (r#"stage_events_total{stage="payment",outcome="duplicate"}"#, 1.0),
        (r#"stage_events_total{stage="payment",outcome="parked"}"#, 4.0),
        (r#"stage_events_total{stage="payment",outcome="rejected"}"#, 2.0),
        (r#"stage_processing_seconds_count{stage="payment"}"#, 3.0),
    ];
    assert_eq!(moved, series(&expected));
}

#[test]
fn a_batch_of_nothing_but_what_the_stage_does_not_read_moves_no_events() {
    let world = World::new();
    let stage = world.stage("payment");

    let moved = world.moved(|| stage.committed(&Committed::default(), 0.5));

    let expected = [(r#"stage_batch_events_count{stage="payment"}"#, 1.0)];
    assert_eq!(moved, series(&expected));
}

#[test]
fn facts_move_the_business_figures_once_each() {
    let world = World::new();
    let stage = world.stage("payment");
    let (order_id, sku) = (order(), "SKU-1".parse::<Sku>().unwrap());
    let currency: Currency = "EUR".parse().unwrap();
    let facts = [
        Event::PaymentCaptured(PaymentCaptured {
            order_id,
            customer_id: "C-1".parse().unwrap(),
            payment_id: "P-1".parse().unwrap(),
            amount_cents: 1,
            currency,
        }),
        Event::PaymentDeclined(PaymentDeclined {
            order_id,
            reason: "no".parse().unwrap(),
            amount_cents: 1,
            currency,
        }),
        Event::StockReserved(StockReserved {
            order_id,
            customer_id: "C-1".parse().unwrap(),
            currency,
            total_cents: 1,
            items: Vec::new(),
        }),
        Event::StockRejected(StockRejected { order_id, reason: StockRejection::UnknownSku, sku }),
        Event::StockReleased(StockReleased {
            order_id,
            reason: ReleaseReason::Cancelled,
            items: Vec::new(),
        }),
        received(0).event,
    ];
    let effects = facts.into_iter().map(|event| Effect { event, cause: 0 }).collect();
    let finished = vec![
        Finished { status: "shipped", seconds: 1.0, cause: 0 },
        Finished { status: "declined", seconds: 2.0, cause: 0 },
    ];
    let committed =
        Committed { applied: vec![received(1)], effects, finished, ..Committed::default() };

    let moved = world.moved(|| world.families.orders.committed(&committed));

    let expected = [
        (r#"inventory_updates_total{operation="reject"}"#, 1.0),
        (r#"inventory_updates_total{operation="release"}"#, 1.0),
        (r#"inventory_updates_total{operation="reserve"}"#, 1.0),
        (r#"order_processing_duration_seconds_count{status="declined"}"#, 1.0),
        (r#"order_processing_duration_seconds_count{status="shipped"}"#, 1.0),
        ("order_processing_seconds_count", 2.0),
        (r#"payments_processed_total{status="failure"}"#, 1.0),
        (r#"payments_processed_total{status="success"}"#, 1.0),
        ("shipping_arrangement_seconds_count", 1.0),
    ];
    assert_eq!(moved, series(&expected));
    drop(stage);
}

#[test]
fn a_batch_has_one_example_and_that_is_of_a_trace_that_somebody_records() {
    let world = World::new();
    let stage = world.stage("order");
    let [unrecorded, first, second] = [false, true, true].map(|sampled| {
        let trace = TraceContext::fresh().sampled(sampled);
        Received { traceparent: Some(trace.as_str().to_owned()), ..received(1) }
    });
    let of = |received: &Received| received.traceparent.clone().unwrap()[3..35].to_owned();
    let [unrecorded_id, first_id, second_id] = [&unrecorded, &first, &second].map(of);
    // The last event finished the order; nobody records that of the first.
    let finished = [(1, "shipped"), (3, "declined")];
    let finished =
        finished.map(|(cause, status)| Finished { status, seconds: 1.0, cause }).to_vec();
    let applied = vec![received(1), unrecorded, first, second];

    stage.committed(&Committed { applied, finished, ..Committed::default() }, 0.5);

    let mut text = String::new();
    encode(&mut text, &world.registry).unwrap();
    let named = |family: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with(family));
        let traces = lines.filter_map(|line| Some(line.split_once(r#"# {trace_id=""#)?.1));
        traces.map(|rest| rest[..32].to_owned()).collect()
    };
    assert_eq!(named("stage_processing_seconds_bucket"), [&*first_id]);
    assert_eq!(named("stage_event_age_seconds_bucket"), [&*first_id]);
    assert_eq!(named("order_processing_seconds_bucket"), [&*second_id]);
    assert_eq!(named("order_processing_duration_seconds_bucket"), [&*second_id]);
    assert!(!text.contains(&unrecorded_id), "{text}");
}

#[test]
fn an_attempt_that_failed_is_retried_and_nothing_else() {
    let world = World::new();
    let stage = world.stage("order");

    let moved = world.moved(|| stage.retried(7));

    let expected = [
        (r#"order_processing_errors_total{stage="order",reason="transient"}"#, 1.0),
        (r#"stage_events_total{stage="order",outcome="retried"}"#, 7.0),
    ];
    assert_eq!(moved, series(&expected));
}

#[test]
fn a_batch_given_up_is_fenced_and_nothing_else() {
    let world = World::new();
    let stage = world.stage("order");

    let moved = world.moved(|| stage.stepped_down());

    let expected = [
        (r#"order_processing_errors_total{stage="order",reason="fenced"}"#, 1.0),
        (r#"stage_fenced_total{stage="order"}"#, 1.0),
    ];
    assert_eq!(moved, series(&expected));
}

#[test]
fn messages_are_counted_by_their_answer() {
    let world = World::new();
    let stage = world.stage("workflow");
    let message = Message { order_id: order(), body: Vec::new() };
    let told = Told {
        applied: 5,
        closed: 2,
        untold: Some((vec![message; 3], anyhow!("Temporal is away"))),
    };

    let moved = world.moved(|| stage.told(&told));

    let expected = [
        (r#"stage_messages_total{stage="workflow",outcome="applied"}"#, 5.0),
        (r#"stage_messages_total{stage="workflow",outcome="closed"}"#, 2.0),
        (r#"stage_messages_total{stage="workflow",outcome="untold"}"#, 3.0),
    ];
    assert_eq!(moved, series(&expected));
}

#[test]
fn effects_are_pending_until_they_are_dropped_however_that_comes() {
    let world = World::new();
    let stage = world.stage("payment");
    let pending = r#"stage_outbox_pending{stage="payment"}"#;
    let mut held = Vec::new();

    let moved = world.moved(|| held.extend([stage.pending(), stage.pending()]));

    assert_eq!(moved, series(&[(pending, 2.0)]));
    drop(held.pop());
    assert_eq!(world.page()[pending], 1.0);
    held.clear();
    assert_eq!(world.page()[pending], 0.0);
}

#[test]
fn what_waits_for_a_person_is_told_once_it_is_known() {
    let world = World::new();
    let stage = world.stage("payment");

    stage.waiting(0, 0);
    let moved = world.moved(|| stage.waiting(3, 2));

    let expected = [
        (r#"dead_letters_open{stage="payment"}"#, 3.0),
        (r#"parked_orders{stage="payment"}"#, 2.0),
    ];
    assert_eq!(moved, series(&expected));
}

#[test]
fn a_clock_that_is_ahead_makes_no_negative_age() {
    let world = World::new();
    let stage = world.stage("payment");
    let committed = Committed { applied: vec![received(-3600)], ..Committed::default() };

    stage.committed(&committed, 0.1);

    let mut text = String::new();
    encode(&mut text, &world.registry).unwrap();
    assert!(text.contains("stage_event_age_seconds_sum{stage=\"payment\"} 0.0\n"), "{text}");
}

#[test]
fn a_partition_has_lag_while_it_is_owned_and_no_series_after_that() {
    let world = World::new();
    let owned = Owned::default();
    let _stage = world.families.stage("payment", &"shop.".parse().unwrap(), &owned);
    let claim =
        Claim { topic: "shop.inventory".to_owned(), partition: 3, next_offset: 5, epoch: 1 };
    let partition = Arc::new(Partition::new(claim, Topic::Inventory, 7));
    let lag = r#"{consumergroup="shop.orders.payment",topic="shop.inventory",partition="3"}"#;
    let (records, seconds) =
        (format!("kafka_consumergroup_lag{lag}"), format!("kafka_consumergroup_lag_seconds{lag}"));
    let before = world.page();

    owned.replace(vec![partition.clone()]);

    let page = world.page();
    assert_eq!(page[&records], 2.0);
    assert!(!page.contains_key(&seconds), "the record is not in hand: {page:#?}");
    let progress = r#"stage_last_progress_timestamp_seconds{stage="payment",topic="shop.inventory",partition="3"}"#;
    assert!(page[progress] > 1_700_000_000.0, "{page:#?}");
    partition.waiting_since(Timestamp::now().as_micros() / 1000 - 5_000);
    let page = world.page();
    assert!((5.0..60.0).contains(&page[&seconds]), "{page:#?}");
    partition.committed(7);
    let page = world.page();
    assert_eq!((page[&records], page[&seconds]), (0.0, 0.0));

    owned.replace(Vec::new());

    assert_eq!(world.page(), before);
}
