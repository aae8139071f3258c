//! What has no cause.

use schemas::{EventId, EventType};
use uuid::Uuid;

use super::scene::{Scene, assert_found, report};
use super::tale::Tale;
use crate::reconcile::rules::Kind;
use crate::reconcile::tables::Snapshot;

#[test]
fn rows_and_events_of_orders_nobody_placed_are_phantoms() {
    let mut row_only = Tale::shipped(1);
    row_only.events.clear();
    row_only.timeline.clear();
    let mut unplaced = Tale::shipped(2);
    unplaced.untell(EventType::OrderPlaced);

    let rows = Scene { snapshot: Snapshot::default(), ..Scene::of([row_only]) }.report();
    let events = report([unplaced]);

    assert_found(&rows, Kind::Phantom, "row of an order that was never placed");
    assert_found(&events, Kind::Phantom, "event of an order that was never placed");
    assert_eq!((events.placed, events.phantom), (0, 1));
}

#[test]
fn a_cancellation_of_an_order_nobody_placed_is_no_finding() {
    let mut tale = Tale::cancelled(1);
    tale.untell(EventType::OrderPlaced);

    let report = report([Tale::shipped(2), tale]);

    assert!(report.reconciled, "{:?}", report.findings);
    assert_eq!((report.placed, report.cancelled_unplaced), (1, 1));
}

#[test]
fn effects_without_their_cause_are_phantoms() {
    let without = |mut tale: Tale, event_type| {
        tale.untell(event_type);
        report([tale])
    };

    let cases = [
        (
            without(Tale::shipped(1), EventType::StockReserved),
            "payment decided without stock-reserved",
        ),
        (without(Tale::shipped(1), EventType::PaymentCaptured), "shipped without payment-captured"),
        (
            without(Tale::refused(1), EventType::PaymentCaptured),
            "refunded without payment-captured",
        ),
        (
            without(Tale::refused(1), EventType::PaymentCaptured),
            "refused by a carrier without payment-captured",
        ),
        (
            without(Tale::cancelled(1), EventType::CancelRequested),
            "cancelled without cancel-requested",
        ),
        (
            without(Tale::declined(1), EventType::PaymentDeclined),
            "stock released without a reason in the topics",
        ),
    ];
    for (report, what) in cases {
        assert_found(&report, Kind::Phantom, what);
    }
    let mut line = Tale::shipped(1);
    line.timeline.push((EventId(Uuid::from_u128(77)), EventType::PaymentCaptured));
    assert_found(
        &report([line]),
        Kind::Phantom,
        "line in order_events without its event in the topics",
    );
}
