//! The catalogue of event types: name on the wire, topic, data.
//!
//! Adding an event is a variant here, a struct in its topic's file and a golden file (CONTRIBUTING.md).

use crate::inventory::{StockRejected, StockReleased, StockReserved};
use crate::orders::{CancelRequested, InvalidOrder, OrderPlaced};
use crate::payments::{PaymentCaptured, PaymentDeclined, PaymentRefunded};
use crate::saga::{OrderCancelled, RefundRequested, StockReleaseRequested};
use crate::shipments::{ShipmentArranged, ShipmentFailed};
use crate::{OrderId, Topic};

/// A decoded event of any type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is documented at its data")]
pub enum Event {
    OrderPlaced(OrderPlaced),
    CancelRequested(CancelRequested),
    StockReserved(StockReserved),
    StockRejected(StockRejected),
    StockReleased(StockReleased),
    PaymentCaptured(PaymentCaptured),
    PaymentDeclined(PaymentDeclined),
    PaymentRefunded(PaymentRefunded),
    ShipmentArranged(ShipmentArranged),
    ShipmentFailed(ShipmentFailed),
    StockReleaseRequested(StockReleaseRequested),
    RefundRequested(RefundRequested),
    OrderCancelled(OrderCancelled),
}

/// The type of an event, `ce_type` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each variant is documented at its data")]
pub enum EventType {
    OrderPlaced,
    CancelRequested,
    StockReserved,
    StockRejected,
    StockReleased,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    ShipmentArranged,
    ShipmentFailed,
    StockReleaseRequested,
    RefundRequested,
    OrderCancelled,
}

/// Data that is not what its event type says.
#[derive(Debug, thiserror::Error)]
pub enum InvalidData {
    /// Not JSON, or JSON of another shape.
    #[error("the value is not the JSON of its event type")]
    Json(#[from] serde_json::Error),
    /// The right shape, breaking a rule.
    #[error("the order breaks a rule")]
    Order(#[from] InvalidOrder),
}

impl EventType {
    /// Every event type.
    pub const ALL: [Self; 13] = [
        Self::OrderPlaced,
        Self::CancelRequested,
        Self::StockReserved,
        Self::StockRejected,
        Self::StockReleased,
        Self::PaymentCaptured,
        Self::PaymentDeclined,
        Self::PaymentRefunded,
        Self::ShipmentArranged,
        Self::ShipmentFailed,
        Self::StockReleaseRequested,
        Self::RefundRequested,
        Self::OrderCancelled,
    ];

    /// `ce_type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrderPlaced => "orders.order-placed.v1",
            Self::CancelRequested => "orders.cancel-requested.v1",
            Self::StockReserved => "inventory.stock-reserved.v1",
            Self::StockRejected => "inventory.stock-rejected.v1",
            Self::StockReleased => "inventory.stock-released.v1",
            Self::PaymentCaptured => "payments.payment-captured.v1",
            Self::PaymentDeclined => "payments.payment-declined.v1",
            Self::PaymentRefunded => "payments.payment-refunded.v1",
            Self::ShipmentArranged => "shipments.shipment-arranged.v1",
            Self::ShipmentFailed => "shipments.shipment-failed.v1",
            Self::StockReleaseRequested => "saga.stock-release-requested.v1",
            Self::RefundRequested => "saga.refund-requested.v1",
            Self::OrderCancelled => "saga.order-cancelled.v1",
        }
    }

    /// The type named `text` on the wire.
    pub fn from_wire(text: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|event_type| event_type.as_str().as_bytes() == text)
    }

    /// The topic it travels on.
    pub const fn topic(self) -> Topic {
        match self {
            Self::OrderPlaced | Self::CancelRequested => Topic::Orders,
            Self::StockReserved | Self::StockRejected | Self::StockReleased => Topic::Inventory,
            Self::PaymentCaptured | Self::PaymentDeclined | Self::PaymentRefunded => {
                Topic::Payments
            }
            Self::ShipmentArranged | Self::ShipmentFailed => Topic::Shipments,
            Self::StockReleaseRequested | Self::RefundRequested | Self::OrderCancelled => {
                Topic::Saga
            }
        }
    }

    /// Reads the data of an event of this type.
    pub fn decode(self, value: &[u8]) -> Result<Event, InvalidData> {
        use serde_json::from_slice;
        Ok(match self {
            Self::OrderPlaced => {
                let placed: OrderPlaced = from_slice(value)?;
                placed.validate()?;
                Event::OrderPlaced(placed)
            }
            Self::CancelRequested => Event::CancelRequested(from_slice(value)?),
            Self::StockReserved => Event::StockReserved(from_slice(value)?),
            Self::StockRejected => Event::StockRejected(from_slice(value)?),
            Self::StockReleased => Event::StockReleased(from_slice(value)?),
            Self::PaymentCaptured => Event::PaymentCaptured(from_slice(value)?),
            Self::PaymentDeclined => Event::PaymentDeclined(from_slice(value)?),
            Self::PaymentRefunded => Event::PaymentRefunded(from_slice(value)?),
            Self::ShipmentArranged => Event::ShipmentArranged(from_slice(value)?),
            Self::ShipmentFailed => Event::ShipmentFailed(from_slice(value)?),
            Self::StockReleaseRequested => Event::StockReleaseRequested(from_slice(value)?),
            Self::RefundRequested => Event::RefundRequested(from_slice(value)?),
            Self::OrderCancelled => Event::OrderCancelled(from_slice(value)?),
        })
    }
}

impl Event {
    /// Its type.
    pub const fn event_type(&self) -> EventType {
        match self {
            Self::OrderPlaced(_) => EventType::OrderPlaced,
            Self::CancelRequested(_) => EventType::CancelRequested,
            Self::StockReserved(_) => EventType::StockReserved,
            Self::StockRejected(_) => EventType::StockRejected,
            Self::StockReleased(_) => EventType::StockReleased,
            Self::PaymentCaptured(_) => EventType::PaymentCaptured,
            Self::PaymentDeclined(_) => EventType::PaymentDeclined,
            Self::PaymentRefunded(_) => EventType::PaymentRefunded,
            Self::ShipmentArranged(_) => EventType::ShipmentArranged,
            Self::ShipmentFailed(_) => EventType::ShipmentFailed,
            Self::StockReleaseRequested(_) => EventType::StockReleaseRequested,
            Self::RefundRequested(_) => EventType::RefundRequested,
            Self::OrderCancelled(_) => EventType::OrderCancelled,
        }
    }

    /// The order it speaks of: the Kafka key.
    pub const fn order_id(&self) -> OrderId {
        match self {
            Self::OrderPlaced(data) => data.order_id,
            Self::CancelRequested(data) => data.order_id,
            Self::StockReserved(data) => data.order_id,
            Self::StockRejected(data) => data.order_id,
            Self::StockReleased(data) => data.order_id,
            Self::PaymentCaptured(data) => data.order_id,
            Self::PaymentDeclined(data) => data.order_id,
            Self::PaymentRefunded(data) => data.order_id,
            Self::ShipmentArranged(data) => data.order_id,
            Self::ShipmentFailed(data) => data.order_id,
            Self::StockReleaseRequested(data) => data.order_id,
            Self::RefundRequested(data) => data.order_id,
            Self::OrderCancelled(data) => data.order_id,
        }
    }

    /// The value on the wire: the data as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let json = match self {
            Self::OrderPlaced(data) => serde_json::to_vec(data),
            Self::CancelRequested(data) => serde_json::to_vec(data),
            Self::StockReserved(data) => serde_json::to_vec(data),
            Self::StockRejected(data) => serde_json::to_vec(data),
            Self::StockReleased(data) => serde_json::to_vec(data),
            Self::PaymentCaptured(data) => serde_json::to_vec(data),
            Self::PaymentDeclined(data) => serde_json::to_vec(data),
            Self::PaymentRefunded(data) => serde_json::to_vec(data),
            Self::ShipmentArranged(data) => serde_json::to_vec(data),
            Self::ShipmentFailed(data) => serde_json::to_vec(data),
            Self::StockReleaseRequested(data) => serde_json::to_vec(data),
            Self::RefundRequested(data) => serde_json::to_vec(data),
            Self::OrderCancelled(data) => serde_json::to_vec(data),
        };
        json.expect("event data has string keys and writes to memory, so it always serialises")
    }
}
