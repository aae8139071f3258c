//! Events of the topic `inventory`, written by the inventory stage.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::{amount_cents, reserved_quantity};
use crate::{Currency, CustomerId, OrderId, Sku};

/// Every item of the order is reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockReserved {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered; the next stages need no look-up.
    pub customer_id: CustomerId,
    /// Currency of `total_cents`.
    pub currency: Currency,
    /// Amount to be paid, in minor units.
    #[schemars(range(min = 0, max = 100_000_000_000_000_i64))]
    #[serde(deserialize_with = "amount_cents")]
    pub total_cents: i64,
    /// What is held, each SKU once.
    pub items: Vec<ReservedItem>,
}

/// Stock held for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReservedItem {
    /// What.
    pub sku: Sku,
    /// How many.
    #[schemars(range(min = 1, max = 1_000_000))]
    #[serde(deserialize_with = "reserved_quantity")]
    pub quantity: u32,
}

/// Nothing is reserved: the order cannot be fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockRejected {
    /// The order.
    pub order_id: OrderId,
    /// Why.
    pub reason: StockRejection,
    /// The first item that could not be had.
    pub sku: Sku,
}

/// Why stock was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StockRejection {
    /// There is not enough of it.
    InsufficientStock,
    /// Nobody ever stocked it.
    UnknownSku,
}

/// Stock of an order that will not ship is free again. Told once per order; its reason is how the order ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockReleased {
    /// The order.
    pub order_id: OrderId,
    /// Why the order ended.
    pub reason: ReleaseReason,
    /// What is free again; empty when the order ended before anything was reserved.
    pub items: Vec<ReservedItem>,
}

/// Why stock was released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseReason {
    /// The payment was declined: the order ends `declined`.
    PaymentDeclined,
    /// The order was cancelled in time: it ends `cancelled`.
    Cancelled,
    /// No carrier takes it: the order ends `cancelled`.
    ShipmentFailed,
}

impl ReleaseReason {
    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PaymentDeclined => "payment_declined",
            Self::Cancelled => "cancelled",
            Self::ShipmentFailed => "shipment_failed",
        }
    }
}
