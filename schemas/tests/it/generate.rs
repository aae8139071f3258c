//! Generators of valid events, for properties.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use schemas::inventory::{
    ReleaseReason, ReservedItem, StockRejected, StockRejection, StockReleased, StockReserved,
};
use schemas::orders::{CancelRequested, Item, OrderPlaced, total_of};
use schemas::payments::{PaymentCaptured, PaymentDeclined, PaymentRefunded};
use schemas::saga::{OrderCancelled, RefundRequested, SagaReason, StockReleaseRequested};
use schemas::shipments::{ShipmentArranged, ShipmentFailed, ShipmentFailure};
use schemas::values::{
    MAX_AMOUNT_CENTS, MAX_ITEMS, MAX_QUANTITY, MAX_RESERVED_QUANTITY, MAX_UNIT_PRICE_CENTS,
};
use schemas::{Currency, CustomerId, Envelope, Event, EventId, OrderId, ShortText, Sku, Timestamp};
use uuid::Uuid;

/// Any valid event of any type, in a valid envelope.
pub(crate) fn record() -> impl Strategy<Value = (Envelope, Event)> {
    (event(), event_id(), source(), timestamp(), proptest::option::of(traceparent())).prop_map(
        |(event, id, source, time, traceparent)| {
            let event_type = event.event_type();
            (Envelope { id, event_type, source, time, traceparent }, event)
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    order_id().prop_flat_map(|order_id| {
        prop_oneof![orders_event(order_id), inventory_event(order_id), later_event(order_id)]
    })
}

fn orders_event(order_id: OrderId) -> BoxedStrategy<Event> {
    let placed = (customer_id(), currency(), timestamp(), vec(item(), 1..=MAX_ITEMS)).prop_map(
        move |(customer_id, currency, placed_at, items)| {
            let total_cents = total_of(&items).unwrap();
            let placed =
                OrderPlaced { order_id, customer_id, currency, placed_at, total_cents, items };
            Event::OrderPlaced(placed)
        },
    );
    let cancelled = timestamp().prop_map(move |requested_at| {
        Event::CancelRequested(CancelRequested { order_id, requested_at })
    });
    prop_oneof![placed, cancelled].boxed()
}

fn inventory_event(order_id: OrderId) -> BoxedStrategy<Event> {
    let reserved = (customer_id(), currency(), amount(), reserved_items()).prop_map(
        move |(customer_id, currency, total_cents, items)| {
            let reserved = StockReserved { order_id, customer_id, currency, total_cents, items };
            Event::StockReserved(reserved)
        },
    );
    let rejections = [StockRejection::InsufficientStock, StockRejection::UnknownSku];
    let rejected = (select(rejections.to_vec()), sku()).prop_map(move |(reason, sku)| {
        Event::StockRejected(StockRejected { order_id, reason, sku })
    });
    let reasons =
        [ReleaseReason::PaymentDeclined, ReleaseReason::Cancelled, ReleaseReason::ShipmentFailed];
    let released = (select(reasons.to_vec()), reserved_items()).prop_map(move |(reason, items)| {
        Event::StockReleased(StockReleased { order_id, reason, items })
    });
    prop_oneof![reserved, rejected, released].boxed()
}

fn later_event(order_id: OrderId) -> BoxedStrategy<Event> {
    let saga_reasons = [
        SagaReason::Cancelled,
        SagaReason::DeadlineExceeded,
        SagaReason::PaymentDeclined,
        SagaReason::ShipmentFailed,
    ];
    let failures = [ShipmentFailure::Cancelled, ShipmentFailure::CarrierRefused];
    (
        (customer_id(), short_text(), short_text(), amount(), currency()),
        select(failures.to_vec()),
        select(saga_reasons.to_vec()),
        0..8,
    )
        .prop_map(
            move |((customer_id, text, other, amount_cents, currency), failure, reason, which)| {
                match which {
                    0 => Event::PaymentCaptured(PaymentCaptured {
                        order_id,
                        customer_id,
                        payment_id: text,
                        amount_cents,
                        currency,
                    }),
                    1 => Event::PaymentDeclined(PaymentDeclined {
                        order_id,
                        reason: text,
                        amount_cents,
                        currency,
                    }),
                    2 => Event::PaymentRefunded(PaymentRefunded {
                        order_id,
                        payment_id: text,
                        amount_cents,
                        currency,
                    }),
                    3 => Event::ShipmentArranged(ShipmentArranged {
                        order_id,
                        carrier: text,
                        tracking_number: other,
                    }),
                    4 => Event::ShipmentFailed(ShipmentFailed { order_id, reason: failure }),
                    5 => Event::StockReleaseRequested(StockReleaseRequested { order_id, reason }),
                    6 => Event::RefundRequested(RefundRequested { order_id, reason }),
                    _ => Event::OrderCancelled(OrderCancelled { order_id, reason }),
                }
            },
        )
        .boxed()
}

fn order_id() -> impl Strategy<Value = OrderId> {
    any::<u128>().prop_map(|bits| OrderId(Uuid::from_u128(bits)))
}

fn event_id() -> impl Strategy<Value = EventId> {
    any::<u128>().prop_map(|bits| EventId(Uuid::from_u128(bits)))
}

fn timestamp() -> impl Strategy<Value = Timestamp> {
    (946_684_800_000_000_i64..4_102_444_800_000_000)
        .prop_map(|micros| Timestamp::from_micros(micros).unwrap())
}

fn source() -> impl Strategy<Value = String> {
    "/[a-z-]{1,40}"
}

fn traceparent() -> impl Strategy<Value = String> {
    "00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]"
}

fn customer_id() -> impl Strategy<Value = CustomerId> {
    "\\PC{1,64}".prop_map(|text| text.parse().unwrap())
}

fn short_text() -> impl Strategy<Value = ShortText> {
    "\\PC{1,128}".prop_map(|text| text.parse().unwrap())
}

fn sku() -> impl Strategy<Value = Sku> {
    "[A-Za-z0-9._-]{1,64}".prop_map(|text| text.parse().unwrap())
}

fn currency() -> impl Strategy<Value = Currency> {
    "[A-Z]{3}".prop_map(|text| text.parse().unwrap())
}

fn amount() -> impl Strategy<Value = i64> {
    0..=MAX_AMOUNT_CENTS
}

fn item() -> impl Strategy<Value = Item> {
    (sku(), 1..=MAX_QUANTITY, 0..=MAX_UNIT_PRICE_CENTS)
        .prop_map(|(sku, quantity, unit_price_cents)| Item { sku, quantity, unit_price_cents })
}

fn reserved_items() -> impl Strategy<Value = Vec<ReservedItem>> {
    let item = (sku(), 1..=MAX_RESERVED_QUANTITY)
        .prop_map(|(sku, quantity)| ReservedItem { sku, quantity });
    vec(item, 0..10)
}
