//! What two places tell differently.

use schemas::EventType;
use schemas::inventory::ReleaseReason;

use super::scene::{Scene, assert_found, report};
use super::tale::{SKU, TOTAL, Tale, arranged, captured, refunded};
use crate::reconcile::rules::Kind;
use crate::reconcile::states::{PaymentState, ReservationState, ShipmentState, Status};
use crate::reconcile::tables::{StatusCount, Stock};

#[test]
fn states_that_disagree_are_mismatched() {
    let mut status = Tale::shipped(1);
    status.status = Some(Status::Paid);
    let mut reservation = Tale::shipped(1);
    reservation.reservation = Some(ReservationState::Rejected);
    let mut payment = Tale::shipped(1);
    payment.payment = Some((PaymentState::Declined, TOTAL));
    let mut shipment = Tale::shipped(1);
    shipment.shipment = Some(ShipmentState::Refused);

    let behind = report([status]);

    assert_found(&behind, Kind::Mismatched, "orders.status differs from the events");
    assert_eq!((behind.final_orders, behind.lost), (1, 0));
    let inventory = "reservations.state differs from the events of inventory";
    assert_found(&report([reservation]), Kind::Mismatched, inventory);
    assert_found(
        &report([payment]),
        Kind::Mismatched,
        "payments.state differs from the events of payment",
    );
    assert_found(
        &report([shipment]),
        Kind::Mismatched,
        "shipments.state differs from the events of shipping",
    );
}

#[test]
fn amounts_that_disagree_are_mismatched() {
    let mut overcharged = Tale::reserved(1);
    overcharged.tell(captured(overcharged.order, TOTAL + 1));
    overcharged.tell(arranged(overcharged.order));
    overcharged.payment = Some((PaymentState::Captured, TOTAL + 1));
    overcharged.shipment = Some(ShipmentState::Arranged);
    overcharged.status = Some(Status::Shipped);
    let mut short_refund = Tale::refused(1);
    short_refund.untell(EventType::PaymentRefunded);
    short_refund.tell(refunded(short_refund.order, TOTAL - 1));
    let mut other_row = Tale::shipped(1);
    other_row.payment = Some((PaymentState::Captured, 1));
    let mut other_total = Tale::shipped(1);
    other_total.total_cents = Some(1);
    let mut other_units = Tale::declined(1);
    other_units.untell(EventType::StockReleased);
    let other_units =
        other_units.released(ReleaseReason::PaymentDeclined, Vec::new(), Status::Declined);

    let overcharged = report([overcharged]);

    assert_found(&overcharged, Kind::Mismatched, "captured another amount than the order's total");
    assert_found(&overcharged, Kind::Mismatched, "payments.amount_cents is not the order's total");
    assert_found(
        &report([short_refund]),
        Kind::Mismatched,
        "refunded another amount than was captured",
    );
    let other_row = report([other_row]);
    assert_found(&other_row, Kind::Mismatched, "payments.amount_cents is not the order's total");
    assert_found(&other_row, Kind::Mismatched, "money captured and not refunded");
    assert_found(
        &report([other_total]),
        Kind::Mismatched,
        "orders.total_cents is not the order's total",
    );
    assert_found(
        &report([other_units]),
        Kind::Mismatched,
        "released other quantities than were reserved",
    );
}

#[test]
fn stock_that_disagrees_is_mismatched() {
    let with = |change: fn(&mut Stock)| {
        let mut scene = Scene::of([Tale::shipped(1)]);
        change(&mut scene.snapshot.stock[0]);
        scene.report()
    };

    let twice = with(|stock| stock.reserved *= 2);
    assert_found(&twice, Kind::Mismatched, "stock.reserved is not the sum over reservations");
    assert_found(&twice, Kind::Mismatched, "stock.reserved is not what the topics tell");
    assert_eq!(twice.findings[0].ids, [SKU]);
    assert_found(
        &with(|stock| stock.on_hand = 1),
        Kind::Mismatched,
        "more stock reserved than there is",
    );
    let both_wrong = with(|stock| (stock.reserved, stock.in_reservations) = (9, 9));
    assert_found(&both_wrong, Kind::Mismatched, "stock.reserved is not what the topics tell");
    let ghost = with(|stock| stock.sku = "GHOST".to_owned());
    assert_eq!(ghost.findings[0].count, 2, "one SKU holds too little, the other too much");
}

#[test]
fn counts_by_status_that_disagree_are_mismatched() {
    let mut scene = Scene::of([Tale::shipped(1)]);
    scene.snapshot.statuses.insert("placed".to_owned(), StatusCount { counted: 1, rows: 0 });

    let report = scene.report();

    assert_found(&report, Kind::Mismatched, "order_status_counts differs from orders");
    assert_eq!(report.findings[0].ids, ["placed"]);
}
