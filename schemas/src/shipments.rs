//! Events of the topic `shipments`, written by the shipping stage.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{OrderId, ShortText};

/// A carrier takes the order: it is fulfilled and can no longer be cancelled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShipmentArranged {
    /// The order.
    pub order_id: OrderId,
    /// Who ships.
    pub carrier: ShortText,
    /// The carrier's own id of the shipment.
    pub tracking_number: ShortText,
}

/// The order will never ship.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShipmentFailed {
    /// The order.
    pub order_id: OrderId,
    /// Why.
    pub reason: ShipmentFailure,
}

/// Why an order will never ship.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShipmentFailure {
    /// The cancellation came before a shipment was arranged.
    Cancelled,
    /// No carrier takes it.
    CarrierRefused,
}

impl ShipmentFailure {
    /// As on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::CarrierRefused => "carrier_refused",
        }
    }
}
