//! What a stage is. An author writes rules and set-based SQL; delivery belongs to the runner.
//!
//! The runner guarantees: [`Stage::apply`] runs inside one transaction together with the stage's progress, so what it
//! writes happens exactly once or not at all; the effects it returns are told after that transaction committed, at
//! least once, under ids that never change. A stage never retries, counts, commits, produces or sleeps.

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;

use futures::future::BoxFuture;
use schemas::{Event, EventId, EventType, OrderId, Timestamp, Topic};
use serde::{Deserialize, Serialize};

use crate::config::StageConfig;
use crate::store::session::Session;

/// One step of the pipeline. Its name is its file, its metric label, its consumer group suffix and its health check.
pub trait Stage: Send + Sync + Sized + 'static {
    /// A noun named after the domain.
    const NAME: &'static str;
    /// The event types it acts on; it reads their topics and passes over what else is there.
    const INPUTS: &'static [EventType];
    /// The topic it writes, if any. One writer per topic.
    const OUTPUT: Option<Topic>;
    /// Most records it takes at a time, for a stage whose effects leave slowly: what is decided and not yet told does
    /// not show as lag.
    const MOST_RECORDS: usize = usize::MAX;
    /// What [`Self::prepare`] found out.
    type Prepared: Send + Sync;

    /// Builds the stage.
    fn from_config(config: &StageConfig) -> anyhow::Result<Self>;

    /// Calls to the outside world that [`Self::apply`] depends on, before its transaction and without a lock. Runs
    /// again with every attempt, so each call carries an idempotency key. `db` is for plain reads.
    fn prepare(
        &self,
        db: &mut Session<'_>,
        events: &[Received],
    ) -> impl Future<Output = Result<Self::Prepared, Fault>> + Send;

    /// Decides on `events` and writes the decisions, inside the runner's transaction. Idempotent by natural key: an
    /// event whose row exists changes nothing and has no effect.
    fn apply(
        &self,
        db: &mut Session<'_>,
        events: &[Received],
        prepared: &Self::Prepared,
    ) -> impl Future<Output = Result<Outcome, Fault>> + Send;

    /// Where its messages go, for a stage that tells something other than Kafka.
    fn outlet(&self) -> Option<Arc<dyn Outlet>> {
        None
    }
}

/// A system outside Kafka that a stage tells what it decided. It must take a message twice as it takes it once.
pub trait Outlet: Send + Sync {
    /// Tells every message, those of one order in the order given.
    fn tell(&self, messages: Vec<Message>) -> BoxFuture<'_, Told>;
}

/// What an [`Outlet`] is told about an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The order.
    pub order_id: OrderId,
    /// What the stage and its outlet agreed on.
    pub body: Vec<u8>,
}

/// What became of messages.
#[derive(Debug, Default)]
pub struct Told {
    /// How many were taken.
    pub applied: u64,
    /// How many came after the end of what they are about, which is a normal answer.
    pub closed: u64,
    /// Those not known to have arrived, to be told again in this order, with the reason of the first.
    pub untold: Option<(Vec<Message>, anyhow::Error)>,
}

/// An event in hand.
#[derive(Clone, Debug)]
pub struct Received {
    /// Data.
    pub event: Event,
    /// `ce_id`.
    pub id: EventId,
    /// `ce_time`.
    pub time: Timestamp,
    /// Trace it belongs to.
    pub traceparent: Option<String>,
    /// The dead letter it is replayed from.
    pub replay_of: Option<i64>,
    /// Where it was read.
    pub source: Arc<SourcePartition>,
    /// Its record's place in the batch; the runner's.
    pub(crate) record: usize,
}

impl Received {
    /// The order it speaks of.
    pub fn order_id(&self) -> OrderId {
        self.event.order_id()
    }
}

/// A partition as the broker names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SourcePartition {
    /// Name of the topic on the broker.
    pub topic: String,
    /// Number of the partition.
    pub partition: i32,
}

/// What a stage decided on a batch.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Facts to tell, in order.
    pub effects: Vec<Effect>,
    /// Messages for the stage's outlet, in order.
    pub messages: Vec<Message>,
    /// Events that had been applied before.
    pub duplicates: usize,
    /// Orders that became final, for the clocks on the dashboard.
    pub finished: Vec<Finished>,
}

/// A new fact.
#[derive(Clone, Debug)]
pub struct Effect {
    /// The fact.
    pub event: Event,
    /// Number of the event in the batch that led to it.
    pub cause: usize,
}

/// An order that became final, told once.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Its final status.
    pub status: &'static str,
    /// From accepted to final, in seconds.
    pub seconds: f64,
    /// Number of the event in the batch after which that was known.
    pub cause: usize,
}

/// Why a batch was not applied.
#[derive(Debug)]
pub enum Fault {
    /// The same batch may work later: a dependency is down, slow, or another transaction won. Retried in place.
    Transient(anyhow::Error),
    /// These events never will. They become dead letters; the rest is applied without them.
    Rejected(Vec<Rejection>),
    /// Some event of the batch never will, and the database does not say which. The runner finds it.
    Unattributed(anyhow::Error),
}

/// An event that can never be applied.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// Its number in the batch.
    pub event: usize,
    /// Reason, from a closed set.
    pub code: &'static str,
    /// A sentence for the person who will look at it, without personal data.
    pub detail: String,
}

impl Fault {
    /// The state of the world changed between prepare and apply; the next attempt sees it.
    pub fn raced(what: &'static str) -> Self {
        Self::Transient(anyhow::anyhow!(what))
    }
}

impl From<sqlx::Error> for Fault {
    /// Data exceptions (22) and broken constraints (23) come from what was written; everything else from the database's
    /// circumstances. When unsure, transient: lag is visible, a lost order is not.
    fn from(error: sqlx::Error) -> Self {
        let class =
            error.as_database_error().and_then(|e| e.code()).map(|code| code[..2].to_owned());
        match class.as_deref() {
            Some("22" | "23") => Self::Unattributed(error.into()),
            _ => Self::Transient(error.into()),
        }
    }
}

/// The first event of each order: what comes later in a batch repeats it.
pub fn first_of_each_order(events: &[Received]) -> Vec<&Received> {
    let mut seen = HashSet::with_capacity(events.len());
    events.iter().filter(|received| seen.insert(received.order_id())).collect()
}
