//! One order as topics and tables tell it, and the facts it is told in.

use schemas::inventory::{
    ReleaseReason, ReservedItem, StockRejected, StockRejection, StockReleased, StockReserved,
};
use schemas::orders::{CancelRequested, Item, OrderPlaced};
use schemas::payments::{PaymentCaptured, PaymentDeclined, PaymentRefunded};
use schemas::shipments::{ShipmentArranged, ShipmentFailed, ShipmentFailure};
use schemas::{Currency, Event, EventId, EventType, OrderId, Timestamp};
use uuid::Uuid;

use crate::reconcile::states::{PaymentState, ReservationState, ShipmentState, Status};
use crate::reconcile::supervision::Workflow;

/// Two of these at 500 each is what everyone orders.
pub(super) const SKU: &str = "SKU-1";
pub(super) const UNITS: u32 = 2;
pub(super) const TOTAL: i64 = 1000;

/// One order as topics and tables tell it.
#[derive(Clone)]
pub(super) struct Tale {
    pub(super) order: OrderId,
    pub(super) events: Vec<(EventId, Event)>,
    pub(super) timeline: Vec<(EventId, EventType)>,
    pub(super) status: Option<Status>,
    pub(super) total_cents: Option<i64>,
    pub(super) reservation: Option<ReservationState>,
    pub(super) payment: Option<(PaymentState, i64)>,
    pub(super) shipment: Option<ShipmentState>,
    pub(super) dead_lettered: bool,
    pub(super) moving: bool,
    pub(super) workflows: Vec<Workflow>,
}

impl Tale {
    pub(super) fn placed(number: u128) -> Self {
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
            workflows: Vec::new(),
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

    pub(super) fn reserved(number: u128) -> Self {
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

    pub(super) fn paid(number: u128) -> Self {
        let mut tale = Self::reserved(number);
        tale.tell(captured(tale.order, TOTAL));
        tale.payment = Some((PaymentState::Captured, TOTAL));
        tale.status = Some(Status::Paid);
        tale
    }

    pub(super) fn shipped(number: u128) -> Self {
        let mut tale = Self::paid(number);
        tale.tell(arranged(tale.order));
        tale.shipment = Some(ShipmentState::Arranged);
        tale.status = Some(Status::Shipped);
        tale
    }

    pub(super) fn rejected(number: u128) -> Self {
        let mut tale = Self::placed(number);
        tale.tell(rejected(tale.order));
        tale.reservation = Some(ReservationState::Rejected);
        tale.status = Some(Status::Rejected);
        tale
    }

    pub(super) fn declined(number: u128) -> Self {
        let mut tale = Self::reserved(number);
        tale.tell(declined(tale.order));
        tale.payment = Some((PaymentState::Declined, TOTAL));
        tale.released(ReleaseReason::PaymentDeclined, items(), Status::Declined)
    }

    /// No carrier took it, so it was refunded.
    pub(super) fn refused(number: u128) -> Self {
        let mut tale = Self::paid(number);
        tale.tell(failed(tale.order, ShipmentFailure::CarrierRefused));
        tale.shipment = Some(ShipmentState::Refused);
        tale.tell(refunded(tale.order, TOTAL));
        tale.payment = Some((PaymentState::Refunded, TOTAL));
        tale.released(ReleaseReason::ShipmentFailed, items(), Status::Cancelled)
    }

    /// Cancelled before inventory had seen it, and never charged.
    pub(super) fn cancelled(number: u128) -> Self {
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
    pub(super) fn shipped_despite_cancel(number: u128) -> Self {
        let mut tale = Self::shipped(number);
        tale.tell(Event::CancelRequested(CancelRequested {
            order_id: tale.order,
            requested_at: time(),
        }));
        tale
    }

    pub(super) fn released(
        mut self,
        reason: ReleaseReason,
        items: Vec<ReservedItem>,
        status: Status,
    ) -> Self {
        self.tell(Event::StockReleased(StockReleased { order_id: self.order, reason, items }));
        self.reservation = Some(ReservationState::Released);
        self.status = Some(status);
        self
    }

    /// A fact in its topic and in the timeline.
    pub(super) fn tell(&mut self, event: Event) {
        let event_type = event.event_type();
        let id = EventId::opening(self.order, event_type.as_str());
        self.events.push((id, event));
        self.timeline.push((id, event_type));
    }

    pub(super) fn untell(&mut self, event_type: EventType) {
        self.events.retain(|(_, event)| event.event_type() != event_type);
        self.timeline.retain(|(_, found)| *found != event_type);
    }
}

pub(super) fn time() -> Timestamp {
    Timestamp::parse("2026-11-22T10:20:30Z").unwrap()
}

pub(super) fn items() -> Vec<ReservedItem> {
    vec![ReservedItem { sku: SKU.parse().unwrap(), quantity: UNITS }]
}

pub(super) fn captured(order_id: OrderId, amount_cents: i64) -> Event {
    Event::PaymentCaptured(PaymentCaptured {
        order_id,
        customer_id: "C-1".parse().unwrap(),
        payment_id: "pay_1".parse().unwrap(),
        amount_cents,
        currency: Currency::EUR,
    })
}

pub(super) fn refunded(order_id: OrderId, amount_cents: i64) -> Event {
    let payment_id = "pay_1".parse().unwrap();
    Event::PaymentRefunded(PaymentRefunded {
        order_id,
        payment_id,
        amount_cents,
        currency: Currency::EUR,
    })
}

pub(super) fn declined(order_id: OrderId) -> Event {
    let reason = "card_declined".parse().unwrap();
    Event::PaymentDeclined(PaymentDeclined {
        order_id,
        reason,
        amount_cents: TOTAL,
        currency: Currency::EUR,
    })
}

pub(super) fn rejected(order_id: OrderId) -> Event {
    let reason = StockRejection::InsufficientStock;
    Event::StockRejected(StockRejected { order_id, reason, sku: SKU.parse().unwrap() })
}

pub(super) fn arranged(order_id: OrderId) -> Event {
    let tracking_number = "T-1".parse().unwrap();
    Event::ShipmentArranged(ShipmentArranged {
        order_id,
        carrier: "simulated".parse().unwrap(),
        tracking_number,
    })
}

pub(super) fn failed(order_id: OrderId, reason: ShipmentFailure) -> Event {
    Event::ShipmentFailed(ShipmentFailed { order_id, reason })
}
