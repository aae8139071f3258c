//! What is missing, where it is missing.

use schemas::{EventType, Topic};

use super::scene::{Scene, assert_found, report};
use super::tale::{TOTAL, Tale};
use crate::reconcile::ledger::Place;
use crate::reconcile::rules::Kind;
use crate::reconcile::states::{PaymentState, ReservationState};

#[test]
fn what_stops_at_a_hop_is_lost_there() {
    let cases = [
        (Tale::placed(1), "placed, not decided by inventory"),
        (Tale::reserved(1), "reserved, not decided by payment"),
        (Tale::paid(1), "paid, not decided by shipping"),
    ];
    for (tale, what) in cases {
        let report = report([tale, Tale::shipped(2)]);

        assert_found(&report, Kind::Lost, what);
        assert_eq!((report.placed, report.final_orders, report.lost), (2, 1, 1));
    }
}

#[test]
fn a_decision_that_was_never_told_is_lost() {
    let untold = |mut tale: Tale, event_type| {
        tale.untell(event_type);
        report([tale])
    };

    let cases = [
        (untold(Tale::rejected(1), EventType::StockRejected), "rejected, and never told"),
        (untold(Tale::declined(1), EventType::StockReleased), "released, and never told"),
        (untold(Tale::refused(1), EventType::PaymentRefunded), "refunded, and never told"),
        (untold(Tale::shipped(1), EventType::ShipmentArranged), "shipped, and never told"),
        (untold(Tale::declined(1), EventType::PaymentDeclined), "declined, and never told"),
        (untold(Tale::cancelled(1), EventType::ShipmentFailed), "not shipped, and never told"),
    ];
    for (report, what) in cases {
        assert_found(&report, Kind::Lost, what);
        assert_eq!(report.lost, 1);
    }
}

#[test]
fn an_event_without_the_row_it_was_told_from_is_lost_even_while_all_moves() {
    let mut no_reservation = Tale::shipped(1);
    no_reservation.reservation = None;
    let mut no_payment = Tale::shipped(1);
    no_payment.payment = None;
    let mut no_shipment = Tale::shipped(1);
    no_shipment.shipment = None;

    for (tale, what) in [
        (no_reservation, "told by inventory, no row in reservations"),
        (no_payment, "told by payment, no row in payments"),
        (no_shipment, "told by shipping, no row in shipments"),
    ] {
        assert_found(
            &Scene { quiet: false, ..Scene::of([tale.clone()]) }.report(),
            Kind::Lost,
            what,
        );
        assert_found(&report([tale]), Kind::Lost, what);
    }
}

#[test]
fn an_order_missing_in_the_projection_or_the_timeline_is_lost() {
    let mut no_row = Tale::shipped(1);
    no_row.status = None;
    let mut no_details = Tale::shipped(1);
    no_details.total_cents = None;
    let mut no_line = Tale::shipped(1);
    no_line.timeline.pop();

    assert_found(&report([no_row]), Kind::Lost, "no row in orders");
    assert_found(&report([no_details]), Kind::Lost, "orders lacks what was placed");
    assert_found(&report([no_line]), Kind::Lost, "event missing in order_events");
}

#[test]
fn compensation_that_did_not_happen_is_lost() {
    let mut kept_stock = Tale::declined(1);
    kept_stock.untell(EventType::StockReleased);
    kept_stock.reservation = Some(ReservationState::Reserved);
    let mut kept_money = Tale::refused(1);
    kept_money.untell(EventType::PaymentRefunded);
    kept_money.payment = Some((PaymentState::Captured, TOTAL));
    let mut ignored = Tale::cancelled(1);
    ignored.untell(EventType::ShipmentFailed);
    ignored.shipment = None;

    assert_found(&report([kept_stock]), Kind::Lost, "given up, its stock not released");
    assert_found(&report([kept_money]), Kind::Lost, "given up, its payment not refunded");
    assert_found(&report([ignored]), Kind::Lost, "cancellation not decided by shipping");
}

#[test]
fn an_unreadable_record_is_set_aside_or_lost() {
    let place = Place { topic: Topic::Orders, partition: 3, offset: 17 };
    let dropped = Scene { unreadable: vec![place], ..Scene::of([Tale::shipped(1)]) };
    let set_aside =
        Scene { unreadable: vec![place], set_aside: vec![place], ..Scene::of([Tale::shipped(1)]) };

    let dropped = dropped.report();
    let set_aside = set_aside.report();

    assert_found(&dropped, Kind::Lost, "unreadable record that is not in dead_letters");
    assert_eq!(dropped.findings[0].ids, ["orders/3@17"]);
    assert!(set_aside.reconciled && set_aside.unreadable == 1);
}
