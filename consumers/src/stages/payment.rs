//! Charges orders whose stock is reserved, once each, and gives the money back when they will not ship.
//!
//! Owns `payments`. Emits payment-captured, payment-declined, payment-refunded. The gateway is called before the
//! transaction, keyed by event id; the transaction then checks that nobody decided on the order meanwhile.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use schemas::inventory::StockReserved;
use schemas::payments::{PaymentCaptured, PaymentDeclined, PaymentRefunded};
use schemas::{Currency, Event, EventType, ShortText, Topic};
use uuid::Uuid;

use crate::config::StageConfig;
use crate::outside::concurrently;
use crate::payment_gateway::{self, Charge, ChargeResult, PaymentGateway};
use crate::stage::{Effect, Fault, Outcome, Received, Stage, first_of_each_order};
use crate::store::payments::{self, NewPayment, State};
use crate::store::session::Session;

/// The stage.
pub(crate) struct Payment {
    gateway: Box<dyn PaymentGateway>,
}

/// What happens to an order's money, as far as one event decides it.
pub(crate) enum Decision {
    /// First word on this order: the gateway charged it or declined.
    Charged(ChargeResult),
    /// Captured before; given back now.
    Refunded { payment_id: ShortText, amount_cents: i64, currency: Currency },
    /// Given up before it was charged.
    Voided,
}

impl Stage for Payment {
    const NAME: &'static str = "payment";
    const INPUTS: &'static [EventType] =
        &[EventType::StockReserved, EventType::ShipmentFailed, EventType::RefundRequested];
    const OUTPUT: Option<Topic> = Some(Topic::Payments);
    /// Decisions by record; an event without one repeats what is settled.
    type Prepared = HashMap<usize, Decision>;

    fn from_config(config: &StageConfig) -> anyhow::Result<Self> {
        Ok(Self { gateway: payment_gateway::from_args(&config.gateway)? })
    }

    async fn prepare(
        &self,
        db: &mut Session<'_>,
        events: &[Received],
    ) -> Result<Self::Prepared, Fault> {
        let orders: Vec<Uuid> = events.iter().map(|received| received.order_id().0).collect();
        let settled = payments::read(db, &orders).await?;
        let mut calls: Vec<BoxFuture<'_, _>> = Vec::with_capacity(events.len());
        for received in first_of_each_order(events) {
            let payment = settled.get(&received.order_id());
            calls.push(
                async move { Ok((received.record, self.decide(received, payment).await?)) }.boxed(),
            );
        }
        let decisions: Vec<(usize, Option<Decision>)> = concurrently(calls).await?;
        Ok(decisions
            .into_iter()
            .filter_map(|(record, decision)| Some((record, decision?)))
            .collect())
    }

    async fn apply(
        &self,
        db: &mut Session<'_>,
        events: &[Received],
        decisions: &Self::Prepared,
    ) -> Result<Outcome, Fault> {
        let mut outcome = Outcome::default();
        let mut rows = Vec::new();
        let mut refunds = Vec::new();
        for (cause, received) in events.iter().enumerate() {
            let Some(decision) = decisions.get(&received.record) else {
                outcome.duplicates += 1;
                continue;
            };
            match decision {
                Decision::Refunded { .. } => refunds.push(received.order_id().0),
                Decision::Charged(_) | Decision::Voided => {
                    rows.push(new_row(&received.event, decision))
                }
            }
            outcome
                .effects
                .extend(effect(&received.event, decision).map(|event| Effect { event, cause }));
        }
        if !rows.is_empty() && payments::insert(db, &rows).await? < rows.len() {
            return Err(Fault::raced("another event decided on a payment of this batch meanwhile"));
        }
        if !refunds.is_empty() && payments::refund(db, &refunds).await? < refunds.len() {
            return Err(Fault::raced("another event refunded a payment of this batch meanwhile"));
        }
        Ok(outcome)
    }
}

impl Payment {
    /// What `received` decides, given what is settled about its order. `None`: nothing, it repeats.
    async fn decide(
        &self,
        received: &Received,
        settled: Option<&payments::Payment>,
    ) -> Result<Option<Decision>, Fault> {
        let state = settled.map(|payment| payment.state);
        match (&received.event, state) {
            (Event::StockReserved(reserved), None) => {
                let result = self.gateway.charge(received.id, charge(reserved)).await?;
                Ok(Some(Decision::Charged(result)))
            }
            // Given up before we got here. An attempt that died after the gateway's answer may have charged it.
            (Event::StockReserved(_), Some(State::Voided)) => {
                self.gateway.void(received.id).await?;
                Ok(None)
            }
            (Event::ShipmentFailed(_) | Event::RefundRequested(_), None) => {
                Ok(Some(Decision::Voided))
            }
            (Event::ShipmentFailed(_) | Event::RefundRequested(_), Some(State::Captured)) => {
                let refund = refund(settled.expect("matched above"))?;
                if let Decision::Refunded { payment_id, .. } = &refund {
                    self.gateway.refund(received.id, payment_id.as_str()).await?;
                }
                Ok(Some(refund))
            }
            _ => Ok(None),
        }
    }
}

fn charge(reserved: &StockReserved) -> Charge<'_> {
    Charge {
        order_id: reserved.order_id,
        customer_id: &reserved.customer_id,
        amount_cents: reserved.total_cents,
        currency: reserved.currency,
    }
}

fn refund(payment: &payments::Payment) -> Result<Decision, Fault> {
    let unreadable = |what: &str| {
        Fault::Transient(anyhow::anyhow!("the row of a captured payment has no {what}"))
    };
    let payment_id = payment.payment_id.as_deref().and_then(|id| id.parse().ok());
    Ok(Decision::Refunded {
        payment_id: payment_id.ok_or_else(|| unreadable("payment id"))?,
        amount_cents: payment.amount_cents,
        currency: payment.currency.parse().map_err(|_| unreadable("currency"))?,
    })
}

/// The row that a first decision on an order leaves.
fn new_row<'a>(event: &'a Event, decision: &'a Decision) -> NewPayment<'a> {
    let (amount_cents, currency) = match event {
        Event::StockReserved(reserved) => (reserved.total_cents, reserved.currency.as_str()),
        // Nothing was asked for, so nothing is known of its amount; XXX is ISO 4217's code for no currency.
        _ => (0, "XXX"),
    };
    let (state, payment_id, reason) = match decision {
        Decision::Charged(ChargeResult::Captured(id)) => (State::Captured, Some(id.as_str()), None),
        Decision::Charged(ChargeResult::Declined(reason)) => {
            (State::Declined, None, Some(reason.as_str()))
        }
        Decision::Voided | Decision::Refunded { .. } => (State::Voided, None, None),
    };
    NewPayment { order_id: event.order_id(), state, payment_id, amount_cents, currency, reason }
}

/// The fact that a decision makes known; giving up what was never charged is none.
fn effect(event: &Event, decision: &Decision) -> Option<Event> {
    match (event, decision) {
        (Event::StockReserved(reserved), Decision::Charged(ChargeResult::Captured(payment_id))) => {
            Some(Event::PaymentCaptured(PaymentCaptured {
                order_id: reserved.order_id,
                customer_id: reserved.customer_id.clone(),
                payment_id: payment_id.clone(),
                amount_cents: reserved.total_cents,
                currency: reserved.currency,
            }))
        }
        (Event::StockReserved(reserved), Decision::Charged(ChargeResult::Declined(reason))) => {
            Some(Event::PaymentDeclined(PaymentDeclined {
                order_id: reserved.order_id,
                reason: reason.clone(),
                amount_cents: reserved.total_cents,
                currency: reserved.currency,
            }))
        }
        (event, Decision::Refunded { payment_id, amount_cents, currency }) => {
            Some(Event::PaymentRefunded(PaymentRefunded {
                order_id: event.order_id(),
                payment_id: payment_id.clone(),
                amount_cents: *amount_cents,
                currency: *currency,
            }))
        }
        _ => None,
    }
}
