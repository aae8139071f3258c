//! Tells each order's workflow in Temporal what happened to the order.
//!
//! Owns `supervised_orders`. Emits nothing; its effects are signals, one per order and batch. With `--supervise exceptions`
//! only orders in trouble have a workflow, and from then on it hears everything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use schemas::{Event, EventType, OrderId, Topic};
use uuid::Uuid;
use workflows::{Fact, FactKind};

use crate::config::StageConfig;
use crate::stage::{Fault, Message, Outcome, Outlet, Received, Stage};
use crate::store::session::Session;
use crate::store::supervision;
use crate::supervision::options::Supervise;
use crate::supervision::outlet::{TemporalOutlet, TracedFact, message};

/// The stage.
pub(crate) struct Workflow {
    supervise: Supervise,
    outlet: Arc<dyn Outlet>,
}

impl Stage for Workflow {
    const NAME: &'static str = "workflow";
    const INPUTS: &'static [EventType] = &[
        EventType::OrderPlaced,
        EventType::CancelRequested,
        EventType::StockReserved,
        EventType::StockRejected,
        EventType::StockReleased,
        EventType::PaymentCaptured,
        EventType::PaymentDeclined,
        EventType::PaymentRefunded,
        EventType::ShipmentArranged,
        EventType::ShipmentFailed,
    ];
    const OUTPUT: Option<Topic> = None;
    /// Signals leave at some hundred a second at best: what a batch holds is some seconds of them.
    const MOST_RECORDS: usize = 256;
    type Prepared = ();

    fn from_config(config: &StageConfig) -> anyhow::Result<Self> {
        Ok(Self {
            supervise: config.signals.supervision.supervise,
            outlet: Arc::new(TemporalOutlet::new(
                config.signals.supervisor()?,
                config.signals.temporal_calls.into(),
            )),
        })
    }

    async fn prepare(&self, _: &mut Session<'_>, _: &[Received]) -> Result<(), Fault> {
        Ok(())
    }

    async fn apply(
        &self,
        db: &mut Session<'_>,
        events: &[Received],
        (): &(),
    ) -> Result<Outcome, Fault> {
        let supervised = match self.supervise {
            Supervise::All => None,
            Supervise::Exceptions => Some(supervised(db, events).await?),
        };
        let told = events.iter().filter(|received| {
            supervised.as_ref().is_none_or(|orders| orders.contains(&received.order_id()))
        });
        Ok(Outcome { messages: messages(told), ..Outcome::default() })
    }

    fn outlet(&self) -> Option<Arc<dyn Outlet>> {
        Some(self.outlet.clone())
    }
}

/// The orders of this batch that have a workflow, those included that need one now.
async fn supervised(db: &mut Session<'_>, events: &[Received]) -> Result<HashSet<OrderId>, Fault> {
    let ids = |wanted: fn(&Event) -> bool| {
        let mut ids: Vec<Uuid> = events
            .iter()
            .filter(|received| wanted(&received.event))
            .map(|received| received.order_id().0)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let exceptional = ids(is_exceptional);
    if !exceptional.is_empty() {
        supervision::add(&mut *db, &exceptional).await?;
    }
    Ok(supervision::among(db, &ids(|_| true)).await?)
}

/// Whether an order needs supervision from here on.
fn is_exceptional(event: &Event) -> bool {
    matches!(
        event,
        Event::CancelRequested(_) | Event::PaymentDeclined(_) | Event::ShipmentFailed(_)
    )
}

/// One message per order, with its events in the order in which they were read.
fn messages<'a>(events: impl Iterator<Item = &'a Received>) -> Vec<Message> {
    let mut places: HashMap<OrderId, usize> = HashMap::new();
    let mut facts: Vec<(OrderId, Vec<TracedFact>)> = Vec::new();
    for received in events {
        let Some(fact) = fact(received) else { continue };
        let order = received.order_id();
        let place = *places.entry(order).or_insert_with(|| {
            facts.push((order, Vec::new()));
            facts.len() - 1
        });
        facts[place].1.push(TracedFact { fact, traceparent: received.traceparent.clone() });
    }
    facts.into_iter().map(|(order, facts)| message(order, &facts)).collect()
}

fn fact(received: &Received) -> Option<Fact> {
    let kind = FactKind::from(received.event.event_type())?;
    let reason = match &received.event {
        Event::StockReleased(released) => Some(released.reason.as_str().to_owned()),
        Event::ShipmentFailed(failed) => Some(failed.reason.as_str().to_owned()),
        _ => None,
    };
    Some(Fact { id: received.id.0, kind, reason })
}
