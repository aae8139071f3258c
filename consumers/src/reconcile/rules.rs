//! What must hold for one order. Each rule that does not is a finding, in words.
//!
//! A stage's row is committed before its event is told, so an event without its row is wrong at any time. The other
//! way round something may still be under way: such rules are gaps, and gaps are findings only once all is quiet.

use schemas::EventType;
use schemas::inventory::ReleaseReason;
use schemas::shipments::ShipmentFailure;
use serde::Serialize;

use super::ledger::Facts;
use super::states::{PaymentState, ReservationState, ShipmentState, Status};

/// What a finding means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Should be there and is not.
    Lost,
    /// Happened twice, or together with its opposite.
    Duplicated,
    /// Is there without a reason.
    Phantom,
    /// Two places tell it differently.
    Mismatched,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Duplicated => "duplicated",
            Self::Phantom => "phantom",
            Self::Mismatched => "mismatched",
        }
    }
}

/// A broken rule.
pub(super) type Broken = (Kind, &'static str);

/// How an order ended, as its events tell.
pub(super) fn fate(order: &Facts) -> Option<Status> {
    let status = status(order);
    matches!(status, Status::Shipped | Status::Rejected | Status::Declined | Status::Cancelled)
        .then_some(status)
}

/// An order's status, as its events tell.
fn status(order: &Facts) -> Status {
    if order.told(EventType::ShipmentArranged) {
        Status::Shipped
    } else if order.told(EventType::StockRejected) {
        Status::Rejected
    } else if order.release == Some(ReleaseReason::PaymentDeclined) {
        Status::Declined
    } else if order.release.is_some() {
        Status::Cancelled
    } else if order.told(EventType::PaymentCaptured) {
        Status::Paid
    } else if order.told(EventType::StockReserved) {
        Status::Reserved
    } else {
        Status::Placed
    }
}

/// Pairs of events of which an order has at most one.
const OPPOSITES: [(EventType, EventType, &str); 9] = [
    (EventType::StockReserved, EventType::StockRejected, "stock both reserved and rejected"),
    (EventType::StockRejected, EventType::StockReleased, "stock both rejected and released"),
    (EventType::StockRejected, EventType::PaymentCaptured, "rejected, yet paid"),
    (EventType::StockRejected, EventType::ShipmentArranged, "rejected, yet shipped"),
    (EventType::PaymentCaptured, EventType::PaymentDeclined, "payment both captured and declined"),
    (EventType::PaymentDeclined, EventType::PaymentRefunded, "payment both declined and refunded"),
    (EventType::ShipmentArranged, EventType::ShipmentFailed, "shipment both arranged and failed"),
    (EventType::ShipmentArranged, EventType::StockReleased, "shipped, yet its stock released"),
    (EventType::ShipmentArranged, EventType::PaymentRefunded, "shipped, yet refunded"),
];

/// Things that happened twice. Wrong at any time.
pub(super) fn duplicates(order: &Facts) -> impl Iterator<Item = Broken> {
    let twice = order.duplicated().map(|event_type| (Kind::Duplicated, told_twice(event_type)));
    let both = OPPOSITES
        .iter()
        .filter(|(one, other, _)| order.told(*one) && order.told(*other))
        .map(|(_, _, what)| (Kind::Duplicated, *what));
    twice.chain(both)
}

const fn told_twice(event_type: EventType) -> &'static str {
    match event_type {
        EventType::OrderPlaced => "order-placed under different ids",
        EventType::CancelRequested => "cancel-requested under different ids",
        EventType::StockReserved => "stock-reserved under different ids",
        EventType::StockRejected => "stock-rejected under different ids",
        EventType::StockReleased => "stock-released under different ids",
        EventType::PaymentCaptured => "payment-captured under different ids",
        EventType::PaymentDeclined => "payment-declined under different ids",
        EventType::PaymentRefunded => "payment-refunded under different ids",
        EventType::ShipmentArranged => "shipment-arranged under different ids",
        EventType::ShipmentFailed => "shipment-failed under different ids",
        EventType::StockReleaseRequested
        | EventType::RefundRequested
        | EventType::OrderCancelled => "a request of supervision under different ids",
    }
}

/// What disagrees about an order that did not move since the cut. Wrong at any time.
pub(super) fn disagreements(order: &Facts) -> Vec<Broken> {
    let mut broken = Vec::new();
    causes(order, &mut broken);
    rows_of_events(order, &mut broken);
    amounts(order, &mut broken);
    if order.unknown_line {
        broken.push((Kind::Phantom, "line in order_events without its event in the topics"));
    }
    broken
}

/// Every effect has its cause.
fn causes(order: &Facts, broken: &mut Vec<Broken>) {
    use EventType::{
        CancelRequested, PaymentCaptured, PaymentDeclined, PaymentRefunded, ShipmentArranged,
        ShipmentFailed, StockReleased, StockReserved,
    };
    let told = |event_type| order.told(event_type);
    let refused = order.failure == Some(ShipmentFailure::CarrierRefused);
    let cancelled = order.failure == Some(ShipmentFailure::Cancelled);
    let given_up = told(PaymentDeclined) || told(ShipmentFailed) || order.saga;
    let mut expect = |holds: bool, what| {
        if !holds {
            broken.push((Kind::Phantom, what));
        }
    };
    let decided = told(PaymentCaptured) || told(PaymentDeclined);
    expect(!decided || told(StockReserved), "payment decided without stock-reserved");
    expect(!told(PaymentRefunded) || told(PaymentCaptured), "refunded without payment-captured");
    expect(!told(ShipmentArranged) || told(PaymentCaptured), "shipped without payment-captured");
    expect(!refused || told(PaymentCaptured), "refused by a carrier without payment-captured");
    expect(!cancelled || told(CancelRequested) || order.saga, "cancelled without cancel-requested");
    expect(!told(StockReleased) || given_up, "stock released without a reason in the topics");
}

/// Every event has the row it was told from.
fn rows_of_events(order: &Facts, broken: &mut Vec<Broken>) {
    use EventType::{
        PaymentCaptured, PaymentDeclined, PaymentRefunded, ShipmentArranged, StockRejected,
        StockReleased, StockReserved,
    };
    use {PaymentState as P, ReservationState as R, ShipmentState as S};
    let reserved = [R::Reserved, R::Released];
    let captured = [P::Captured, P::Refunded];
    let mut expect = |told: bool,
                      row_is: Option<bool>,
                      lost: &'static str,
                      mismatched: &'static str| match row_is {
        None if told => broken.push((Kind::Lost, lost)),
        Some(false) if told => broken.push((Kind::Mismatched, mismatched)),
        _ => {}
    };
    let inventory = "told by inventory, no row in reservations";
    let stock = "reservations.state differs from the events of inventory";
    expect(
        order.told(StockReserved),
        order.reservation.map(|r| reserved.contains(&r)),
        inventory,
        stock,
    );
    expect(
        order.told(StockRejected),
        order.reservation.map(|r| r == R::Rejected),
        inventory,
        stock,
    );
    expect(
        order.told(StockReleased),
        order.reservation.map(|r| r == R::Released),
        inventory,
        stock,
    );
    let payment = "told by payment, no row in payments";
    let money = "payments.state differs from the events of payment";
    expect(
        order.told(PaymentCaptured),
        order.payment.map(|p| captured.contains(&p)),
        payment,
        money,
    );
    expect(order.told(PaymentDeclined), order.payment.map(|p| p == P::Declined), payment, money);
    expect(order.told(PaymentRefunded), order.payment.map(|p| p == P::Refunded), payment, money);
    let shipping = "told by shipping, no row in shipments";
    let parcel = "shipments.state differs from the events of shipping";
    expect(
        order.told(ShipmentArranged),
        order.shipment.map(|s| s == S::Arranged),
        shipping,
        parcel,
    );
    if let Some(failure) = order.failure {
        let state = match failure {
            ShipmentFailure::Cancelled => S::Cancelled,
            ShipmentFailure::CarrierRefused => S::Refused,
        };
        expect(true, order.shipment.map(|s| s == state), shipping, parcel);
    }
}

/// Every place tells the same amounts.
fn amounts(order: &Facts, broken: &mut Vec<Broken>) {
    let charged = matches!(
        order.payment,
        Some(PaymentState::Captured | PaymentState::Declined | PaymentState::Refunded)
    );
    let captured = order.told(EventType::PaymentCaptured);
    let refunded = order.told(EventType::PaymentRefunded);
    let reserved = order.told(EventType::StockReserved);
    let released = order.told(EventType::StockReleased);
    let mut expect = |holds: bool, what| {
        if !holds {
            broken.push((Kind::Mismatched, what));
        }
    };
    expect(
        !captured || order.captured_cents == order.total_cents,
        "captured another amount than the order's total",
    );
    expect(
        !refunded || order.refunded_cents == order.captured_cents,
        "refunded another amount than was captured",
    );
    expect(
        !charged || order.row_amount_cents == order.total_cents,
        "payments.amount_cents is not the order's total",
    );
    let total = order.row_total_cents.unwrap_or(order.total_cents);
    expect(total == order.total_cents, "orders.total_cents is not the order's total");
    expect(
        !reserved || order.reserved_units == order.placed_units,
        "reserved other quantities than were ordered",
    );
    expect(
        !released || order.released_units == order.reserved_units,
        "released other quantities than were reserved",
    );
}

/// What is not there yet. Lost when nothing moves any more.
pub(super) fn gaps(order: &Facts) -> Vec<Broken> {
    let mut gaps = Vec::new();
    next_steps(order, &mut gaps);
    untold(order, &mut gaps);
    match order.status {
        None => gaps.push((Kind::Lost, "no row in orders")),
        Some(_) if order.row_total_cents.is_none() => {
            gaps.push((Kind::Lost, "orders lacks what was placed"))
        }
        Some(found) if found != status(order) => {
            gaps.push((Kind::Mismatched, "orders.status differs from the events"));
        }
        Some(_) => {}
    }
    if order.missing_in_timeline() {
        gaps.push((Kind::Lost, "event missing in order_events"));
    }
    if gaps.is_empty() && fate(order).is_none() {
        gaps.push((Kind::Lost, "came to no end"));
    }
    gaps
}

/// Every event was answered by the stage that acts on it.
fn next_steps(order: &Facts, gaps: &mut Vec<Broken>) {
    use EventType::{
        CancelRequested, PaymentCaptured, PaymentDeclined, ShipmentArranged, ShipmentFailed,
        StockRejected, StockReleased, StockReserved,
    };
    let told = |event_type| order.told(event_type);
    let mut expect = |holds: bool, what| {
        if !holds {
            gaps.push((Kind::Lost, what));
        }
    };
    let inventory = told(StockReserved) || told(StockRejected) || told(StockReleased);
    let payment = told(PaymentCaptured) || told(PaymentDeclined);
    let shipping = told(ShipmentArranged) || told(ShipmentFailed);
    expect(inventory || order.reservation.is_some(), "placed, not decided by inventory");
    let paid = payment || order.payment.is_some();
    expect(!told(StockReserved) || paid, "reserved, not decided by payment");
    let shipped = shipping || order.shipment.is_some();
    expect(!told(PaymentCaptured) || shipped, "paid, not decided by shipping");
    expect(!told(CancelRequested) || shipped, "cancellation not decided by shipping");
    let given_up = told(PaymentDeclined) || told(ShipmentFailed);
    let held = order.reservation == Some(ReservationState::Reserved);
    expect(!given_up || !held, "given up, its stock not released");
    let kept = order.payment == Some(PaymentState::Captured);
    expect(!told(ShipmentFailed) || !kept, "given up, its payment not refunded");
}

/// Every row was told.
fn untold(order: &Facts, gaps: &mut Vec<Broken>) {
    use EventType::{
        PaymentCaptured, PaymentDeclined, PaymentRefunded, ShipmentArranged, ShipmentFailed,
        StockRejected, StockReleased, StockReserved,
    };
    let mut expect = |told: bool, what| {
        if !told {
            gaps.push((Kind::Lost, what));
        }
    };
    match order.reservation {
        Some(ReservationState::Reserved) => {
            expect(order.told(StockReserved), "reserved, and never told")
        }
        Some(ReservationState::Rejected) => {
            expect(order.told(StockRejected), "rejected, and never told")
        }
        Some(ReservationState::Released) => {
            expect(order.told(StockReleased), "released, and never told")
        }
        None => {}
    }
    match order.payment {
        Some(PaymentState::Captured) => {
            expect(order.told(PaymentCaptured), "captured, and never told")
        }
        Some(PaymentState::Declined) => {
            expect(order.told(PaymentDeclined), "declined, and never told")
        }
        Some(PaymentState::Refunded) => {
            expect(order.told(PaymentCaptured), "captured, and never told");
            expect(order.told(PaymentRefunded), "refunded, and never told");
        }
        // A payment that is never made is no news to anyone.
        Some(PaymentState::Voided) | None => {}
    }
    match order.shipment {
        Some(ShipmentState::Arranged) => {
            expect(order.told(ShipmentArranged), "shipped, and never told")
        }
        Some(ShipmentState::Cancelled | ShipmentState::Refused) => {
            expect(order.told(ShipmentFailed), "not shipped, and never told");
        }
        None => {}
    }
}
