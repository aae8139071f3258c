//! Where money moves: a simulator that declines by rule, and an HTTP client for a real gateway.
//!
//! Every call carries an idempotency key that is an event id, so that a repeat moves nothing twice.

use std::time::Duration;

use clap::Args;
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::{Method, StatusCode, Url};

use schemas::{Currency, CustomerId, EventId, OrderId, ShortText};
use serde::{Deserialize, Serialize};

use crate::outside::Service;
use crate::stage::Fault;

/// Which gateway to use.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Payment gateway")]
pub struct GatewayArgs {
    /// Base URL of the payment gateway; without it payments are simulated. Its token: PAYMENT_GATEWAY_TOKEN or PAYMENT_GATEWAY_TOKEN_FILE.
    #[arg(long, env = "PAYMENT_GATEWAY_URL", value_name = "URL")]
    pub payment_gateway_url: Option<Url>,

    /// How long one call to the gateway may take, in milliseconds.
    #[arg(long, env = "PAYMENT_GATEWAY_TIMEOUT_MS", default_value_t = 5_000)]
    pub payment_gateway_timeout_ms: u64,

    /// The simulator declines amounts above this, in minor units.
    #[arg(long, env = "SIMULATED_CARD_LIMIT_CENTS", default_value_t = 1_000_000)]
    pub simulated_card_limit_cents: i64,
}

/// A charge to be made.
#[derive(Clone, Debug, Serialize)]
pub struct Charge<'a> {
    /// The order it pays.
    pub order_id: OrderId,
    /// Who pays.
    pub customer_id: &'a CustomerId,
    /// How much, in minor units.
    pub amount_cents: i64,
    /// In which currency.
    pub currency: Currency,
}

/// The gateway's last word on a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChargeResult {
    /// Money moved; the gateway's id of the charge.
    Captured(ShortText),
    /// None did; the gateway's reason.
    Declined(ShortText),
}

/// A payment gateway.
pub trait PaymentGateway: Send + Sync {
    /// Charges, once per `key`.
    fn charge<'a>(
        &'a self,
        key: EventId,
        charge: Charge<'a>,
    ) -> BoxFuture<'a, Result<ChargeResult, Fault>>;

    /// Gives back all of a captured charge, once per `key`.
    fn refund<'a>(&'a self, key: EventId, payment_id: &'a str) -> BoxFuture<'a, Result<(), Fault>>;

    /// Makes sure that nothing is charged under `key`: gives back what was, and does nothing if nothing was.
    fn void(&self, key: EventId) -> BoxFuture<'_, Result<(), Fault>>;
}

/// The gateway that `args` ask for.
pub fn from_args(args: &GatewayArgs) -> anyhow::Result<Box<dyn PaymentGateway>> {
    Ok(match &args.payment_gateway_url {
        None => Box::new(Simulator { card_limit_cents: args.simulated_card_limit_cents }),
        Some(url) => {
            let timeout = Duration::from_millis(args.payment_gateway_timeout_ms);
            let service = Service::new("payment gateway", url, timeout, "PAYMENT_GATEWAY_TOKEN")?;
            Box::new(HttpGateway { service })
        }
    })
}

/// Declines what is over the card limit. Its ids follow from the keys, so it needs no memory to be idempotent.
struct Simulator {
    card_limit_cents: i64,
}

/// Speaks to a real gateway: `POST charges` (200 `{"payment_id"}`, 402 `{"reason"}`), `POST charges/<id>/refund`,
/// `POST charges/void`, each with an `Idempotency-Key`.
struct HttpGateway {
    service: Service,
}

#[derive(Deserialize)]
struct Captured {
    payment_id: ShortText,
}

#[derive(Deserialize)]
struct Declined {
    reason: ShortText,
}

impl PaymentGateway for Simulator {
    fn charge<'a>(
        &'a self,
        key: EventId,
        charge: Charge<'a>,
    ) -> BoxFuture<'a, Result<ChargeResult, Fault>> {
        let result = if charge.amount_cents > self.card_limit_cents {
            ChargeResult::Declined(ShortText::from_static("card_limit_exceeded"))
        } else {
            ChargeResult::Captured(ShortText::from_id("sim", key.0))
        };
        std::future::ready(Ok(result)).boxed()
    }

    fn refund<'a>(&'a self, _: EventId, _: &'a str) -> BoxFuture<'a, Result<(), Fault>> {
        std::future::ready(Ok(())).boxed()
    }

    fn void(&self, _: EventId) -> BoxFuture<'_, Result<(), Fault>> {
        std::future::ready(Ok(())).boxed()
    }
}

impl PaymentGateway for HttpGateway {
    fn charge<'a>(
        &'a self,
        key: EventId,
        charge: Charge<'a>,
    ) -> BoxFuture<'a, Result<ChargeResult, Fault>> {
        async move {
            let request = self.service.request(Method::POST, "charges", key)?.json(&charge);
            let response = self.service.send(request, &[StatusCode::PAYMENT_REQUIRED]).await?;
            if response.status() == StatusCode::PAYMENT_REQUIRED {
                let declined: Declined = self.service.json(response).await?;
                return Ok(ChargeResult::Declined(declined.reason));
            }
            let captured: Captured = self.service.json(response).await?;
            Ok(ChargeResult::Captured(captured.payment_id))
        }
        .boxed()
    }

    fn refund<'a>(&'a self, key: EventId, payment_id: &'a str) -> BoxFuture<'a, Result<(), Fault>> {
        async move {
            let path = format!("charges/{payment_id}/refund");
            self.service.send(self.service.request(Method::POST, &path, key)?, &[]).await?;
            Ok(())
        }
        .boxed()
    }

    fn void(&self, key: EventId) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            self.service
                .send(self.service.request(Method::POST, "charges/void", key)?, &[])
                .await?;
            Ok(())
        }
        .boxed()
    }
}
