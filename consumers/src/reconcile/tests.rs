//! Each finding where it must be found, and quiet where all is well.

use std::collections::BTreeMap;

use schemas::inventory::{
    ReleaseReason, ReservedItem, StockRejected, StockRejection, StockReleased, StockReserved,
};
use schemas::orders::{CancelRequested, Item, OrderPlaced};
use schemas::payments::{PaymentCaptured, PaymentDeclined, PaymentRefunded};
use schemas::shipments::{ShipmentArranged, ShipmentFailed, ShipmentFailure};
use schemas::{Currency, Decoded, Envelope, Event, EventId, EventType, OrderId, Timestamp, Topic};
use uuid::Uuid;

use super::audit::{World, audit};
use super::ledger::{Ledger, Place};
use super::report::Report;
use super::rules::Kind;
use super::states::{PaymentState, ReservationState, ShipmentState, Status};
use super::tables::{Snapshot, StatusCount, Stock};
use super::topics::Offsets;

/// Two of these at 500 each is what everyone orders.
const SKU: &str = "SKU-1";
const UNITS: u32 = 2;
const TOTAL: i64 = 1000;

/// One order as topics and tables tell it.
#[derive(Clone)]
struct Tale {
    order: OrderId,
    events: Vec<(EventId, Event)>,
    timeline: Vec<(EventId, EventType)>,
    status: Option<Status>,
    total_cents: Option<i64>,
    reservation: Option<ReservationState>,
    payment: Option<(PaymentState, i64)>,
    shipment: Option<ShipmentState>,
    dead_lettered: bool,
    moving: bool,
}

impl Tale {
    fn placed(number: u128) -> Self {
        let order = OrderId(Uuid::from_u128(number));
        let mut tale = Self {
            order,
            events: Vec::new(),
            timeline: Vec::new(),
            status: Some(Status::Placed),
            total_cents: Some(TOTAL),
            reservation: None,
            payment: None,
            shipment: None,
            dead_lettered: false,
            moving: false,
        };
        tale.tell(Event::OrderPlaced(OrderPlaced {
            order_id: order,
            customer_id: "C-1".parse().unwrap(),
            currency: Currency::EUR,
            placed_at: time(),
            total_cents: TOTAL,
            items: vec![Item { sku: SKU.parse().unwrap(), quantity: UNITS, unit_price_cents: 500 }],
        }));
        tale
    }

    fn reserved(number: u128) -> Self {
        let mut tale = Self::placed(number);
        tale.tell(Event::StockReserved(StockReserved {
            order_id: tale.order,
            customer_id: "C-1".parse().unwrap(),
            currency: Currency::EUR,
            total_cents: TOTAL,
            items: items(),
        }));
        tale.reservation = Some(ReservationState::Reserved);
        tale.status = Some(Status::Reserved);
        tale
    }

    fn paid(number: u128) -> Self {
        let mut tale = Self::reserved(number);
        tale.tell(captured(tale.order, TOTAL));
        tale.payment = Some((PaymentState::Captured, TOTAL));
        tale.status = Some(Status::Paid);
        tale
    }

    fn shipped(number: u128) -> Self {
        let mut tale = Self::paid(number);
        tale.tell(arranged(tale.order));
        tale.shipment = Some(ShipmentState::Arranged);
        tale.status = Some(Status::Shipped);
        tale
    }

    fn rejected(number: u128) -> Self {
        let mut tale = Self::placed(number);
        tale.tell(rejected(tale.order));
        tale.reservation = Some(ReservationState::Rejected);
        tale.status = Some(Status::Rejected);
        tale
    }

    fn declined(number: u128) -> Self {
        let mut tale = Self::reserved(number);
        tale.tell(declined(tale.order));
        tale.payment = Some((PaymentState::Declined, TOTAL));
        tale.released(ReleaseReason::PaymentDeclined, items(), Status::Declined)
    }

    /// No carrier took it, so it was refunded.
    fn refused(number: u128) -> Self {
        let mut tale = Self::paid(number);
        tale.tell(failed(tale.order, ShipmentFailure::CarrierRefused));
        tale.shipment = Some(ShipmentState::Refused);
        tale.tell(refunded(tale.order, TOTAL));
        tale.payment = Some((PaymentState::Refunded, TOTAL));
        tale.released(ReleaseReason::ShipmentFailed, items(), Status::Cancelled)
    }

    /// Cancelled before inventory had seen it, and never charged.
    fn cancelled(number: u128) -> Self {
        let mut tale = Self::placed(number);
        tale.tell(Event::CancelRequested(CancelRequested {
            order_id: tale.order,
            requested_at: time(),
        }));
        tale.tell(failed(tale.order, ShipmentFailure::Cancelled));
        tale.shipment = Some(ShipmentState::Cancelled);
        tale.payment = Some((PaymentState::Voided, 0));
        tale.released(ReleaseReason::Cancelled, Vec::new(), Status::Cancelled)
    }

    /// The cancellation came too late.
    fn shipped_despite_cancel(number: u128) -> Self {
        let mut tale = Self::shipped(number);
        tale.tell(Event::CancelRequested(CancelRequested {
            order_id: tale.order,
            requested_at: time(),
        }));
        tale
    }

    fn released(mut self, reason: ReleaseReason, items: Vec<ReservedItem>, status: Status) -> Self {
        self.tell(Event::StockReleased(StockReleased { order_id: self.order, reason, items }));
        self.reservation = Some(ReservationState::Released);
        self.status = Some(status);
        self
    }

    /// A fact in its topic and in the timeline.
    fn tell(&mut self, event: Event) {
        let event_type = event.event_type();
        let id = EventId::opening(self.order, event_type.as_str());
        self.events.push((id, event));
        self.timeline.push((id, event_type));
    }

    fn untell(&mut self, event_type: EventType) {
        self.events.retain(|(_, event)| event.event_type() != event_type);
        self.timeline.retain(|(_, found)| *found != event_type);
    }
}

/// What the topics and the tables say together.
struct Scene {
    tales: Vec<Tale>,
    snapshot: Snapshot,
    quiet: bool,
    windowed: bool,
    unreadable: Vec<Place>,
    set_aside: Vec<Place>,
    starts: Offsets,
}

impl Scene {
    fn of(tales: impl Into<Vec<Tale>>) -> Self {
        let tales = tales.into();
        let held = tales
            .iter()
            .filter(|tale| tale.reservation == Some(ReservationState::Reserved))
            .count();
        let units = i64::try_from(held).unwrap() * i64::from(UNITS);
        let stock = Stock {
            sku: SKU.to_owned(),
            on_hand: 1_000_000,
            reserved: units,
            in_reservations: units,
        };
        let mut statuses: BTreeMap<String, StatusCount> = BTreeMap::new();
        for status in tales.iter().filter_map(|tale| tale.status) {
            let count = statuses.entry(status.as_str().to_owned()).or_default();
            count.rows += 1;
            count.counted += 1;
        }
        Self {
            tales,
            snapshot: Snapshot { stock: vec![stock], statuses, ..Snapshot::default() },
            quiet: true,
            windowed: false,
            unreadable: Vec::new(),
            set_aside: Vec::new(),
            starts: Offsets::new(),
        }
    }

    fn report(self) -> Report {
        let mut ledger = Ledger::with_capacity(self.tales.len(), self.windowed);
        for (id, event) in self.tales.iter().flat_map(|tale| &tale.events) {
            ledger.event(&decoded(*id, event));
        }
        self.unreadable.iter().for_each(|place| ledger.unreadable(*place));
        for tale in &self.tales {
            if let Some(status) = tale.status {
                ledger.order_row(tale.order, status, tale.total_cents);
            }
            if let Some(state) = tale.reservation {
                ledger.reservation_row(tale.order, state);
            }
            if let Some((state, amount)) = tale.payment {
                ledger.payment_row(tale.order, state, amount);
            }
            if let Some(state) = tale.shipment {
                ledger.shipment_row(tale.order, state);
            }
            for (id, event_type) in &tale.timeline {
                ledger.timeline_row(tale.order, *id, *event_type);
            }
            if tale.dead_lettered {
                ledger.dead_letter(tale.order);
            }
            if tale.moving {
                ledger.late(tale.order);
            }
        }
        ledger.set_aside.extend(self.set_aside);
        let world = World {
            quiet: self.quiet,
            starts: self.starts,
            snapshot: self.snapshot,
            max_ids: 3,
            workflows: None,
        };
        audit(&ledger, &world)
    }
}

fn report(tales: impl Into<Vec<Tale>>) -> Report {
    Scene::of(tales).report()
}

/// The one finding is `kind: what`, and it is counted.
#[track_caller]
fn assert_found(report: &Report, kind: Kind, what: &str) {
    let found: Vec<_> =
        report.findings.iter().map(|finding| (finding.kind, finding.what)).collect();
    assert!(found.contains(&(kind, what)), "{found:?}");
    let counted = match kind {
        Kind::Lost => report.lost,
        Kind::Duplicated => report.duplicated,
        Kind::Phantom => report.phantom,
        Kind::Mismatched => report.mismatched,
    };
    assert!(counted > 0);
    assert!(
        !report.reconciled && report.verdict().starts_with("NOT reconciled: "),
        "{}",
        report.verdict()
    );
}

fn one_of_each() -> Vec<Tale> {
    vec![
        Tale::shipped(1),
        Tale::rejected(2),
        Tale::declined(3),
        Tale::refused(4),
        Tale::cancelled(5),
        Tale::shipped_despite_cancel(6),
    ]
}

#[test]
fn orders_that_ended_in_every_way_there_is_are_reconciled() {
    let report = report(one_of_each());

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.verdict(), "reconciled: placed=6 final=6 lost=0 duplicated=0");
    assert_eq!(report.text().lines().last(), Some(report.verdict().as_str()));
    assert_eq!(report.outcomes["shipped"], 2);
    assert_eq!(report.captured_cents, 2 * TOTAL);
}

#[test]
fn nothing_placed_is_reconciled() {
    assert_eq!(report([]).verdict(), "reconciled: placed=0 final=0 lost=0 duplicated=0");
}

#[test]
fn an_event_told_again_is_a_repeat_and_no_duplicate() {
    let mut tale = Tale::shipped(1);
    let again = tale.events.clone();
    tale.events.extend(again);

    let report = report([tale]);

    assert!(report.reconciled, "{:?}", report.findings);
    assert_eq!(report.events.iter().map(|row| row.repeats).sum::<u64>(), 4);
}

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
fn what_is_still_on_its_way_is_pending() {
    let unfinished = [Tale::placed(1), Tale::reserved(2), Tale::paid(3), Tale::shipped(4)];

    let report = Scene { quiet: false, ..Scene::of(unfinished) }.report();

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.placed, report.final_orders, report.pending), (4, 1, 3));
    assert!(!report.reconciled);
}

#[test]
fn an_order_with_events_after_the_cut_is_not_judged() {
    let mut tale = Tale::shipped(1);
    tale.untell(EventType::ShipmentArranged);
    tale.untell(EventType::PaymentCaptured);
    tale.moving = true;

    let report = report([tale]);

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.placed, report.pending), (1, 1));
}

#[test]
fn an_order_that_arrived_after_the_cut_belongs_to_the_next_audit() {
    let mut tale = Tale::shipped(1);
    tale.events.clear();
    tale.moving = true;

    let report = report([tale, Tale::shipped(2)]);

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!((report.placed, report.final_orders, report.arrived), (1, 1, 1));
    assert!(!report.reconciled, "sums could not be compared");
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
fn an_effect_under_two_ids_is_duplicated() {
    for (tale, what) in [
        (Tale::shipped(1), "payment-captured under different ids"),
        (Tale::shipped(1), "stock-reserved under different ids"),
        (Tale::shipped(1), "order-placed under different ids"),
        (Tale::shipped(1), "shipment-arranged under different ids"),
        (Tale::refused(1), "payment-refunded under different ids"),
        (Tale::declined(1), "stock-released under different ids"),
    ] {
        let mut tale = tale;
        let (_, event) = tale
            .events
            .iter()
            .find(|(_, event)| {
                event.event_type().as_str().contains(what.split(' ').next().unwrap())
            })
            .unwrap()
            .clone();
        tale.events.push((EventId(Uuid::from_u128(77)), event));

        for quiet in [true, false] {
            let report = Scene { quiet, ..Scene::of([tale.clone()]) }.report();

            assert_found(&report, Kind::Duplicated, what);
            assert_eq!(report.duplicated, 1);
        }
    }
}

#[test]
fn an_effect_and_its_opposite_are_duplicated() {
    let with = |mut tale: Tale, event: fn(OrderId) -> Event| {
        tale.tell(event(tale.order));
        report([tale])
    };

    let both = with(Tale::shipped(1), rejected);
    assert_found(&both, Kind::Duplicated, "stock both reserved and rejected");
    assert_found(&both, Kind::Duplicated, "rejected, yet shipped");
    assert_eq!(both.duplicated, 1, "one order, however many rules");
    assert_found(
        &with(Tale::shipped(1), declined),
        Kind::Duplicated,
        "payment both captured and declined",
    );
    let cancelled = |order| failed(order, ShipmentFailure::Cancelled);
    assert_found(
        &with(Tale::shipped(1), cancelled),
        Kind::Duplicated,
        "shipment both arranged and failed",
    );
    assert_found(
        &with(Tale::refused(1), arranged),
        Kind::Duplicated,
        "shipped, yet its stock released",
    );
    assert_found(&with(Tale::refused(1), arranged), Kind::Duplicated, "shipped, yet refunded");
}

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

#[test]
fn an_order_behind_a_dead_letter_is_neither_lost_nor_final() {
    let mut held_up = Tale::placed(1);
    held_up.dead_lettered = true;
    let mut ended = Tale::shipped(2);
    ended.dead_lettered = true;

    let report = report([held_up, ended]);

    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(
        (report.placed, report.final_orders, report.lost, report.dead_lettered),
        (2, 1, 0, 1)
    );
    assert_eq!(report.dead_lettered_ids.len(), 1);
    assert!(!report.reconciled);
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

#[test]
fn a_finding_counts_all_and_shows_the_first() {
    let report = report((1..=5).map(Tale::reserved).collect::<Vec<_>>());

    let finding = &report.findings[0];
    assert_eq!((finding.count, finding.ids.len()), (5, 3));
    assert!(report.text().contains("\n  and 2 more\n"), "{}", report.text());
}

#[test]
fn in_a_window_orders_from_before_are_left_out() {
    let mut before = Tale::shipped(1);
    before.untell(EventType::OrderPlaced);
    before.untell(EventType::StockReserved);
    let mut long_before = Tale::shipped(2);
    long_before.events.clear();

    let report =
        Scene { windowed: true, ..Scene::of([before, long_before, Tale::shipped(3)]) }.report();

    assert_eq!(report.verdict(), "reconciled: placed=1 final=1 lost=0 duplicated=0");
}

#[test]
fn topics_that_lost_their_first_records_are_named() {
    let starts = Offsets::from([((Topic::Orders, 0), 0), ((Topic::Payments, 5), 12)]);

    let report = Scene { starts, ..Scene::of([Tale::shipped(1)]) }.report();

    assert_eq!(report.retention, ["payments/5 starts at offset 12"]);
    assert!(report.text().contains("gone by retention"));
}

#[test]
fn a_duration_has_a_unit_or_is_in_seconds() {
    let parse = |text| super::parse_duration(text).map(|duration| duration.as_secs());

    assert_eq!(parse("90"), Ok(90));
    assert_eq!(parse("90s"), Ok(90));
    assert_eq!(parse("5m"), Ok(300));
    assert_eq!(parse("2h"), Ok(7200));
    assert_eq!(parse("7d"), Ok(604_800));
    for bad in ["", "m", "1.5h", "-1", "5 m", "5w", "99999999999999999999"] {
        assert!(parse(bad).is_err(), "{bad}");
    }
    assert!(
        super::parse_since("2026-11-22T10:20:30Z").is_ok() && super::parse_since("30m").is_ok()
    );
    assert!(super::parse_since("yesterday").is_err());
}

/// The backlog is told from the catalogue of components, so it must name the stages that are.
#[test]
fn the_components_that_the_backlog_counts_are_the_stages_that_run() {
    for entry in crate::stages::CATALOGUE {
        let component = schemas::components::Component::named(entry.name).expect(entry.name);
        let sorted = |types: &[EventType]| {
            let mut types = types.to_vec();
            types.sort_unstable();
            types
        };

        assert!(component.is_stage, "{}", entry.name);
        assert_eq!(sorted(entry.inputs), sorted(component.receives), "{}", entry.name);
        assert_eq!(
            entry.output,
            component.sends.first().map(|sent| sent.topic()),
            "{}",
            entry.name
        );
    }
}

fn decoded(id: EventId, event: &Event) -> Decoded {
    let envelope = Envelope {
        id,
        event_type: event.event_type(),
        source: "/test".to_owned(),
        time: time(),
        traceparent: None,
    };
    Decoded { envelope, event: event.clone(), replay_of: None }
}

fn time() -> Timestamp {
    Timestamp::parse("2026-11-22T10:20:30Z").unwrap()
}

fn items() -> Vec<ReservedItem> {
    vec![ReservedItem { sku: SKU.parse().unwrap(), quantity: UNITS }]
}

fn captured(order_id: OrderId, amount_cents: i64) -> Event {
    Event::PaymentCaptured(PaymentCaptured {
        order_id,
        customer_id: "C-1".parse().unwrap(),
        payment_id: "pay_1".parse().unwrap(),
        amount_cents,
        currency: Currency::EUR,
    })
}

fn refunded(order_id: OrderId, amount_cents: i64) -> Event {
    let payment_id = "pay_1".parse().unwrap();
    Event::PaymentRefunded(PaymentRefunded {
        order_id,
        payment_id,
        amount_cents,
        currency: Currency::EUR,
    })
}

fn declined(order_id: OrderId) -> Event {
    let reason = "card_declined".parse().unwrap();
    Event::PaymentDeclined(PaymentDeclined {
        order_id,
        reason,
        amount_cents: TOTAL,
        currency: Currency::EUR,
    })
}

fn rejected(order_id: OrderId) -> Event {
    let reason = StockRejection::InsufficientStock;
    Event::StockRejected(StockRejected { order_id, reason, sku: SKU.parse().unwrap() })
}

fn arranged(order_id: OrderId) -> Event {
    let tracking_number = "T-1".parse().unwrap();
    Event::ShipmentArranged(ShipmentArranged {
        order_id,
        carrier: "simulated".parse().unwrap(),
        tracking_number,
    })
}

fn failed(order_id: OrderId, reason: ShipmentFailure) -> Event {
    Event::ShipmentFailed(ShipmentFailed { order_id, reason })
}
