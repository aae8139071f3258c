//! Events of the topic `payments`, written by the payment stage.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::values::amount_cents;
use crate::{Currency, CustomerId, OrderId, ShortText};

/// The order is paid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentCaptured {
    /// The order.
    pub order_id: OrderId,
    /// Who paid.
    pub customer_id: CustomerId,
    /// The gateway's own id of the charge.
    pub payment_id: ShortText,
    /// Amount captured, in minor units.
    #[schemars(range(min = 0, max = 100_000_000_000_000_i64))]
    #[serde(deserialize_with = "amount_cents")]
    pub amount_cents: i64,
    /// Currency of the amount.
    pub currency: Currency,
}

/// The gateway refused; no money moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentDeclined {
    /// The order.
    pub order_id: OrderId,
    /// The gateway's reason, from a set of its own.
    pub reason: ShortText,
    /// Amount that was asked for, in minor units.
    #[schemars(range(min = 0, max = 100_000_000_000_000_i64))]
    #[serde(deserialize_with = "amount_cents")]
    pub amount_cents: i64,
    /// Currency of the amount.
    pub currency: Currency,
}

/// Money that was captured went back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PaymentRefunded {
    /// The order.
    pub order_id: OrderId,
    /// The gateway's own id of the charge that was refunded.
    pub payment_id: ShortText,
    /// Amount refunded, in minor units: always all of what was captured.
    #[schemars(range(min = 0, max = 100_000_000_000_000_i64))]
    #[serde(deserialize_with = "amount_cents")]
    pub amount_cents: i64,
    /// Currency of the amount.
    pub currency: Currency,
}
