//! Arranges a shipment for orders that are paid, and decides between shipping and cancelling.
//!
//! Owns `shipments`, whose row is the arbiter: a cancellation that finds none inserts one and the order will never
//! ship; a shipment that is arranged first makes the cancellation come too late, be it the customer's or that of the
//! order's supervision. Emits shipment-arranged, shipment-failed.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use schemas::payments::PaymentCaptured;
use schemas::shipments::{ShipmentArranged, ShipmentFailed, ShipmentFailure};
use schemas::{Event, EventType, Topic};
use uuid::Uuid;

use crate::carrier::{self, Carrier, Shipment, ShipmentResult};
use crate::config::StageConfig;
use crate::outside::concurrently;
use crate::stage::{Effect, Fault, Outcome, Received, Stage, first_of_each_order};
use crate::store::session::Session;
use crate::store::shipments::{self, NewShipment, State};

/// The stage.
pub(crate) struct Shipping {
    carrier: Box<dyn Carrier>,
}

/// How an order's shipping ends, as far as one event decides it.
pub(crate) enum Decision {
    /// First word on this order: the carrier's.
    Asked(ShipmentResult),
    /// The cancellation, if it is still in time.
    Cancel,
}

impl Stage for Shipping {
    const NAME: &'static str = "shipping";
    const INPUTS: &'static [EventType] =
        &[EventType::PaymentCaptured, EventType::CancelRequested, EventType::OrderCancelled];
    const OUTPUT: Option<Topic> = Some(Topic::Shipments);
    /// Decisions by record; an event without one repeats what is settled.
    type Prepared = HashMap<usize, Decision>;

    fn from_config(config: &StageConfig) -> anyhow::Result<Self> {
        Ok(Self { carrier: carrier::from_args(&config.carrier)? })
    }

    async fn prepare(
        &self,
        db: &mut Session<'_>,
        events: &[Received],
    ) -> Result<Self::Prepared, Fault> {
        let orders: Vec<Uuid> = events.iter().map(|received| received.order_id().0).collect();
        let settled = shipments::read(db, &orders).await?;
        let mut calls: Vec<BoxFuture<'_, _>> = Vec::with_capacity(events.len());
        for received in first_of_each_order(events) {
            let state = settled.get(&received.order_id()).copied();
            calls.push(
                async move { Ok((received.record, self.decide(received, state).await?)) }.boxed(),
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
        let decided: Vec<(usize, &Received, &Decision)> = events
            .iter()
            .enumerate()
            .filter_map(|(cause, received)| {
                Some((cause, received, decisions.get(&received.record)?))
            })
            .collect();
        outcome.duplicates = events.len() - decided.len();
        if decided.is_empty() {
            return Ok(outcome);
        }
        let rows: Vec<NewShipment<'_>> =
            decided.iter().map(|(_, received, decision)| new_row(received, decision)).collect();
        let first = shipments::insert(db, &rows).await?;
        for (cause, received, decision) in decided {
            if first.contains(&received.order_id()) {
                outcome.effects.push(Effect { event: effect(&received.event, decision), cause });
            } else if matches!(decision, Decision::Cancel) {
                outcome.duplicates += 1; // too late, and the customer sees it in the order's status
            } else {
                return Err(Fault::raced("an order of this batch was cancelled meanwhile"));
            }
        }
        Ok(outcome)
    }
}

impl Shipping {
    /// What `received` decides, given what is settled about its order. `None`: nothing, it repeats or comes too late.
    async fn decide(
        &self,
        received: &Received,
        settled: Option<State>,
    ) -> Result<Option<Decision>, Fault> {
        match (&received.event, settled) {
            (Event::PaymentCaptured(captured), None) => {
                let result = self.carrier.arrange(received.id, shipment(captured)).await?;
                Ok(Some(Decision::Asked(result)))
            }
            // Cancelled before we got here. An attempt that died after the carrier's answer may have arranged it.
            (Event::PaymentCaptured(_), Some(State::Cancelled)) => {
                self.carrier.cancel(received.id).await?;
                Ok(None)
            }
            (Event::CancelRequested(_) | Event::OrderCancelled(_), None) => {
                Ok(Some(Decision::Cancel))
            }
            _ => Ok(None),
        }
    }
}

fn shipment(captured: &PaymentCaptured) -> Shipment<'_> {
    Shipment { order_id: captured.order_id, customer_id: &captured.customer_id }
}

fn new_row<'a>(received: &Received, decision: &'a Decision) -> NewShipment<'a> {
    let (state, carrier, tracking_number) = match decision {
        Decision::Asked(ShipmentResult::Arranged { carrier, tracking_number }) => {
            (State::Arranged, Some(carrier.as_str()), Some(tracking_number.as_str()))
        }
        Decision::Asked(ShipmentResult::Refused) => (State::Refused, None, None),
        Decision::Cancel => (State::Cancelled, None, None),
    };
    NewShipment { order_id: received.order_id(), state, carrier, tracking_number }
}

fn effect(event: &Event, decision: &Decision) -> Event {
    let order_id = event.order_id();
    match decision {
        Decision::Asked(ShipmentResult::Arranged { carrier, tracking_number }) => {
            Event::ShipmentArranged(ShipmentArranged {
                order_id,
                carrier: carrier.clone(),
                tracking_number: tracking_number.clone(),
            })
        }
        Decision::Asked(ShipmentResult::Refused) => Event::ShipmentFailed(ShipmentFailed {
            order_id,
            reason: ShipmentFailure::CarrierRefused,
        }),
        Decision::Cancel => {
            Event::ShipmentFailed(ShipmentFailed { order_id, reason: ShipmentFailure::Cancelled })
        }
    }
}
