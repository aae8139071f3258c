//! Events of the topic `saga`, written by the Temporal worker.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::OrderId;

/// The order's supervision wants its stock back on the shelf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StockReleaseRequested {
    /// The order.
    pub order_id: OrderId,
    /// Why.
    pub reason: SagaReason,
}

/// The order's supervision wants its money back with the customer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RefundRequested {
    /// The order.
    pub order_id: OrderId,
    /// Why.
    pub reason: SagaReason,
}

/// The order's supervision gave it up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderCancelled {
    /// The order.
    pub order_id: OrderId,
    /// Why.
    pub reason: SagaReason,
}

impl SagaReason {
    /// As it is spelled in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::PaymentDeclined => "payment_declined",
            Self::ShipmentFailed => "shipment_failed",
        }
    }
}

/// Why supervision stepped in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SagaReason {
    /// A customer asked for it.
    Cancelled,
    /// A step took longer than its deadline.
    DeadlineExceeded,
    /// The payment was declined.
    PaymentDeclined,
    /// No carrier takes it.
    ShipmentFailed,
}
