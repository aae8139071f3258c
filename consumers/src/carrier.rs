//! Who ships: a simulator that refuses by rule, and an HTTP client for a real carrier.
//!
//! Every call carries an idempotency key that is an event id, so that a repeat arranges nothing twice.

use std::time::Duration;

use clap::Args;
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Method, StatusCode, Url};

use schemas::{CustomerId, EventId, OrderId, ShortText};
use serde::{Deserialize, Serialize};

use crate::outside::Service;
use crate::stage::Fault;

/// Which carrier to use.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Carrier")]
pub struct CarrierArgs {
    /// Base URL of the carrier; without it shipments are simulated. Its token: CARRIER_TOKEN or CARRIER_TOKEN_FILE.
    #[arg(long, env = "CARRIER_URL", value_name = "URL")]
    pub carrier_url: Option<Url>,

    /// How long one call to the carrier may take, in milliseconds.
    #[arg(long, env = "CARRIER_TIMEOUT_MS", default_value_t = 5_000)]
    pub carrier_timeout_ms: u64,

    /// The simulator refuses customers whose id starts with this; empty refuses nobody.
    #[arg(long, env = "SIMULATED_UNREACHABLE_PREFIX", default_value = "UNREACHABLE-")]
    pub simulated_unreachable_prefix: String,
}

/// A shipment to be arranged.
#[derive(Clone, Debug, Serialize)]
pub struct Shipment<'a> {
    /// The order to be shipped.
    pub order_id: OrderId,
    /// To whom.
    pub customer_id: &'a CustomerId,
}

/// The carrier's last word on a shipment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShipmentResult {
    /// It takes it.
    Arranged {
        /// Its name.
        carrier: ShortText,
        /// Its id of the shipment.
        tracking_number: ShortText,
    },
    /// It never will.
    Refused,
}

/// A carrier.
pub trait Carrier: Send + Sync {
    /// Arranges a shipment, once per `key`.
    fn arrange<'a>(
        &'a self,
        key: EventId,
        shipment: Shipment<'a>,
    ) -> BoxFuture<'a, Result<ShipmentResult, Fault>>;

    /// Makes sure that nothing ships under `key`; does nothing if nothing was arranged.
    fn cancel(&self, key: EventId) -> BoxFuture<'_, Result<(), Fault>>;
}

/// The carrier that `args` ask for.
pub fn from_args(args: &CarrierArgs) -> anyhow::Result<Box<dyn Carrier>> {
    Ok(match &args.carrier_url {
        None => {
            Box::new(Simulator { unreachable_prefix: args.simulated_unreachable_prefix.clone() })
        }
        Some(url) => {
            let timeout = Duration::from_millis(args.carrier_timeout_ms);
            Box::new(HttpCarrier {
                service: Service::new("carrier", url, timeout, "CARRIER_TOKEN")?,
            })
        }
    })
}

/// Refuses customers by their id. Its ids follow from the keys, so it needs no memory to be idempotent.
struct Simulator {
    unreachable_prefix: String,
}

/// Speaks to a real carrier: `POST shipments` (200 `{"carrier","tracking_number"}`, 422 when it never will),
/// `POST shipments/cancel`, each with an `Idempotency-Key`.
struct HttpCarrier {
    service: Service,
}

#[derive(Deserialize)]
struct Arranged {
    carrier: ShortText,
    tracking_number: ShortText,
}

impl Carrier for Simulator {
    fn arrange<'a>(
        &'a self,
        key: EventId,
        shipment: Shipment<'a>,
    ) -> BoxFuture<'a, Result<ShipmentResult, Fault>> {
        let prefix = &self.unreachable_prefix;
        let unreachable = !prefix.is_empty() && shipment.customer_id.as_str().starts_with(prefix);
        let result = if unreachable {
            ShipmentResult::Refused
        } else {
            ShipmentResult::Arranged {
                carrier: ShortText::from_static("simulated"),
                tracking_number: ShortText::from_id("sim", key.0),
            }
        };
        std::future::ready(Ok(result)).boxed()
    }

    fn cancel(&self, _: EventId) -> BoxFuture<'_, Result<(), Fault>> {
        std::future::ready(Ok(())).boxed()
    }
}

impl Carrier for HttpCarrier {
    fn arrange<'a>(
        &'a self,
        key: EventId,
        shipment: Shipment<'a>,
    ) -> BoxFuture<'a, Result<ShipmentResult, Fault>> {
        async move {
            let request = self.service.request(Method::POST, "shipments", key)?.json(&shipment);
            let response = self.service.send(request, &[StatusCode::UNPROCESSABLE_ENTITY]).await?;
            if response.status() == StatusCode::UNPROCESSABLE_ENTITY {
                return Ok(ShipmentResult::Refused);
            }
            let Arranged { carrier, tracking_number } = self.service.json(response).await?;
            Ok(ShipmentResult::Arranged { carrier, tracking_number })
        }
        .boxed()
    }

    fn cancel(&self, key: EventId) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            self.service
                .send(self.service.request(Method::POST, "shipments/cancel", key)?, &[])
                .await?;
            Ok(())
        }
        .boxed()
    }
}
