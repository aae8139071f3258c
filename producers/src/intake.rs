//! Takes orders in: decides their ids, writes them to the topic, and says so only after the broker did.
//!
//! What was handed to the publisher cannot be taken back, so each write runs in a task of its own: a client that
//! leaves does not undo its order, and shutdown waits for these tasks. Never reads or writes Postgres itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use schemas::orders::CancelRequested;
use schemas::{Event, OrderId, Timestamp};
use telemetry::crash_point::crash_point;
use telemetry::traces::Parent;
use telemetry::{TraceContext, Tracer};
use tokio_util::task::TaskTracker;

use crate::events::{Encoded, OrdersTopic};
use crate::idempotency::{Claim, IdempotencyKey, Memory, Standing};
use crate::lookup::Lookup;
use crate::metrics::IntakeMetrics;
use crate::order::NewOrder;
use crate::publisher::{PublishError, Publisher};
use crate::spans::FOLLOWED;
use schemas::orders::Fingerprint;

/// Takes orders in. Clones share everything.
#[derive(Clone)]
pub struct Intake {
    publisher: Publisher,
    topic: Arc<OrdersTopic>,
    memory: Memory,
    lookup: Option<Lookup>,
    metrics: IntakeMetrics,
    tracer: Tracer,
    writes: TaskTracker,
}

/// An order to take in.
#[derive(Debug)]
pub struct Submission {
    /// What is ordered.
    pub order: NewOrder,
    /// The client's key, if it gave one.
    pub key: Option<IdempotencyKey>,
}

/// Why an order was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another order has this key.
    #[error("this idempotency key belongs to an order with other content")]
    KeyReused,
    /// Too much is in flight; nothing was written.
    #[error("too many orders are in flight; nothing was written")]
    Overloaded,
    /// The broker did not answer in time, or said no: the order may exist.
    #[error("the broker did not acknowledge the order in time; it may have been written")]
    Unknown,
}

/// How one submission ended.
pub type Outcome = Result<OrderId, Refusal>;

/// A submission whose order id is known and which is to be written.
struct Write {
    index: usize,
    order_id: OrderId,
    event: Encoded,
    claim: Option<Arc<Claim>>,
}

/// Where a submission stands before anything is written.
enum Stand {
    Write { order_id: OrderId, claim: Option<Arc<Claim>> },
    Done(Outcome),
}

impl Intake {
    /// An intake that writes to `topic`. Without `lookup` only this process's memory knows used keys.
    pub fn new(
        publisher: Publisher,
        topic: OrdersTopic,
        memory: Memory,
        lookup: Option<Lookup>,
        metrics: IntakeMetrics,
    ) -> Self {
        let (topic, tracer) = (Arc::new(topic), Tracer::off());
        Self { publisher, topic, memory, lookup, metrics, tracer, writes: TaskTracker::new() }
    }

    /// The same, recording what happens.
    pub fn traced(mut self, tracer: Tracer) -> Self {
        self.tracer = tracer;
        self
    }

    pub(crate) fn tracer(&self) -> &Tracer {
        &self.tracer
    }

    /// Takes `submissions` in together, for the request at `trace`. Outcomes are in their order.
    pub async fn place(&self, submissions: Vec<Submission>, trace: TraceContext) -> Vec<Outcome> {
        let stands = self.stand(&submissions, &trace).await;
        let mut outcomes = Vec::with_capacity(submissions.len());
        let mut writes = Vec::with_capacity(submissions.len());
        for (index, (stand, submission)) in stands.into_iter().zip(submissions).enumerate() {
            match stand {
                Stand::Done(outcome) => outcomes.push(outcome),
                Stand::Write { order_id, claim } => {
                    let placed_at =
                        claim.as_ref().map_or_else(Timestamp::now, |claim| claim.placed_at);
                    let event = Event::OrderPlaced(submission.order.placed(order_id, placed_at));
                    let own = if index < FOLLOWED { self.tracer.part_of(&trace) } else { trace };
                    let event = Encoded::opening(&event, placed_at, &own);
                    writes.push(Write { index, order_id, event, claim });
                    outcomes.push(Err(Refusal::Unknown));
                }
            }
        }
        if !writes.is_empty() {
            self.write(writes, trace, &mut outcomes).await;
        }
        outcomes
    }

    /// Writes the fact that a customer wants `order_id` cancelled. Repeats are one event.
    pub async fn cancel(&self, order_id: OrderId, trace: TraceContext) -> Result<(), Refusal> {
        let requested_at = Timestamp::now();
        let event = Event::CancelRequested(CancelRequested { order_id, requested_at });
        let event = Encoded::opening(&event, requested_at, &self.tracer.part_of(&trace));
        let this = self.clone();
        let written = self.writes.spawn(async move {
            let began = SystemTime::now();
            let mut batch = this.publisher.batch();
            let written = match this.topic.add(&mut batch, &event) {
                Ok(()) => batch.acknowledged().await.map_err(|failed| refusal_of_report(&failed)),
                Err(error) => Err(refusal(&error)),
            };
            this.record(&event, &trace, began, written.err());
            written
        });
        written.await.unwrap_or(Err(Refusal::Unknown))
    }

    /// Waits until everything handed to the publisher by this intake has an outcome.
    pub async fn drained(&self) {
        self.writes.close();
        self.writes.wait().await;
    }

    /// Decides for every submission whether it is written, under which id.
    async fn stand(&self, submissions: &[Submission], trace: &TraceContext) -> Vec<Stand> {
        let claimed: Vec<_> = submissions
            .iter()
            .map(|submission| {
                let order_id = submission.key.as_ref()?.order_id();
                let fingerprint = submission.order.fingerprint();
                Some((order_id, fingerprint, self.memory.claim(order_id, fingerprint)))
            })
            .collect();
        let unverified: Vec<OrderId> = claimed
            .iter()
            .flatten()
            .filter(|(_, _, claim)| claim.standing() == Standing::Unverified)
            .map(|(order_id, ..)| *order_id)
            .collect();
        if !unverified.is_empty() {
            self.verify(unverified, &claimed, trace).await;
        }
        claimed
            .into_iter()
            .map(|claimed| match claimed {
                None => Stand::Write { order_id: OrderId::fresh(), claim: None },
                Some((order_id, fingerprint, claim)) => self.judge(order_id, fingerprint, claim),
            })
            .collect()
    }

    fn judge(&self, order_id: OrderId, fingerprint: Fingerprint, claim: Arc<Claim>) -> Stand {
        // Verification may have replaced the claim by an older order's.
        let claim = match claim.standing() {
            Standing::Unverified => self.memory.claim(order_id, fingerprint),
            _ => claim,
        };
        if claim.fingerprint != fingerprint {
            Stand::Done(Err(Refusal::KeyReused))
        } else if claim.standing() == Standing::Acknowledged {
            Stand::Done(Ok(order_id))
        } else {
            Stand::Write { order_id, claim: Some(claim) }
        }
    }

    /// Asks the projection about keys this process sees for the first time.
    async fn verify(
        &self,
        orders: Vec<OrderId>,
        claimed: &[Option<(OrderId, Fingerprint, Arc<Claim>)>],
        trace: &TraceContext,
    ) {
        let known = match &self.lookup {
            Some(lookup) => lookup.known(orders, &self.tracer, trace).await,
            None => Vec::new(),
        };
        let mut replaced = HashSet::with_capacity(known.len());
        for order in &known {
            if let Some((fingerprint, placed_at)) = order.placed {
                self.memory.correct(order.order_id, fingerprint, placed_at);
                replaced.insert(order.order_id);
            }
        }
        for (order_id, _, claim) in claimed.iter().flatten() {
            if !replaced.contains(order_id) {
                claim.raise(Standing::Verified);
            }
        }
    }

    async fn write(&self, writes: Vec<Write>, trace: TraceContext, outcomes: &mut [Outcome]) {
        let this = self.clone();
        let written = self.writes.spawn(async move { this.write_all(writes, &trace).await });
        match written.await {
            Ok(written) => {
                for (index, outcome) in written {
                    outcomes[index] = outcome;
                }
            }
            // The task panicked or the runtime is going down: the outcomes stay unknown.
            Err(error) => tracing::error!(
                %error,
                trace_id = trace.trace_id(),
                "a write ended without an outcome"
            ),
        }
    }

    async fn write_all(&self, writes: Vec<Write>, trace: &TraceContext) -> Vec<(usize, Outcome)> {
        crash_point("producer", "before_produce");
        let began = SystemTime::now();
        let mut batch = self.publisher.batch();
        let mut taken = Vec::with_capacity(writes.len());
        let mut written = Vec::with_capacity(writes.len());
        for write in writes {
            match self.topic.add(&mut batch, &write.event) {
                Ok(()) => taken.push(write),
                Err(error) => {
                    self.record(&write.event, trace, began, Some(refusal(&error)));
                    written.push((write.index, Err(refusal(&error))));
                }
            }
        }
        let mut failures = vec![None; taken.len()];
        if let Err(failed) = batch.acknowledged().await {
            for (number, error) in failed {
                let (order_id, trace_id) = (taken[number].order_id, trace.trace_id());
                tracing::debug!(%error, %order_id, trace_id, "the fate of order {order_id} is unknown");
                failures[number] = Some(refusal(&error));
            }
        }
        crash_point("producer", "after_ack");
        let mut created = 0;
        for (write, failure) in taken.into_iter().zip(failures) {
            self.record(&write.event, trace, began, failure);
            if failure.is_none() {
                created += 1;
                if let Some(claim) = &write.claim {
                    claim.raise(Standing::Acknowledged);
                }
            }
            written.push((write.index, failure.map_or(Ok(write.order_id), Err)));
        }
        self.metrics.created(created);
        written
    }

    /// Those that share the request's place have no span of their own.
    fn record(
        &self,
        event: &Encoded,
        trace: &TraceContext,
        began: SystemTime,
        failure: Option<Refusal>,
    ) {
        if event.named().place != *trace {
            let error = failure.map(|refusal| match refusal {
                Refusal::Overloaded => "overloaded",
                Refusal::Unknown | Refusal::KeyReused => "outcome_unknown",
            });
            let parent = Parent::Here(*trace);
            event.named().sent(&self.tracer, self.topic.name(), parent, began, error);
        }
    }
}

fn refusal(error: &PublishError) -> Refusal {
    match error {
        PublishError::Overloaded => Refusal::Overloaded,
        // A broker that refuses (no topic, no permission) needs an operator; for the client it is not settled.
        PublishError::Unfit(_) | PublishError::Refused(_) | PublishError::Unknown(_) => {
            Refusal::Unknown
        }
    }
}

fn refusal_of_report(failed: &[(usize, PublishError)]) -> Refusal {
    failed.first().map_or(Refusal::Unknown, |(_, error)| refusal(error))
}
