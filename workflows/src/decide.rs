//! What supervision does next. Pure and deterministic: the same facts, progress and time give the same step, on the
//! worker that decides first and on every one that replays it.
//!
//! Nothing is released or refunded before a verdict is known (a shipment that failed, a payment declined): the
//! shipping stage alone decides between shipping and cancelling, and stock freed too early would be sold twice.

use std::collections::BTreeMap;

use schemas::saga::SagaReason;
use schemas::shipments::ShipmentFailure;
use serde::{Deserialize, Serialize};

use crate::facts::{FactKind, Facts, Status};

/// How long each step of an order may take, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadlines {
    /// From when the order was heard of until its stock is reserved or rejected.
    pub reservation_ms: u64,
    /// From when the reservation was heard of until the payment is captured or declined.
    pub payment_ms: u64,
    /// From when the payment was heard of until the shipment is arranged or has failed.
    pub shipping_ms: u64,
    /// From a request (or a customer's cancellation) until it is confirmed.
    pub compensation_ms: u64,
}

/// What supervision can ask of the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// Put the stock back on the shelf.
    StockRelease,
    /// Give the money back.
    Refund,
    /// Give the order up, if it does not ship already.
    OrderCancelled,
}

/// One request. A repeat is equal to the first one, reason and time included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SagaRequest {
    /// What.
    pub kind: RequestKind,
    /// Why.
    pub reason: SagaReason,
    /// When it was first made, in milliseconds since the Unix epoch.
    pub first_at_ms: u64,
}

/// How often a request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// What the first one said.
    pub request: SagaRequest,
    /// Times it was acknowledged by the broker.
    pub times: u32,
    /// When that happened last, in milliseconds since the Unix epoch.
    pub last_at_ms: u64,
}

/// What supervision itself has seen and done, in workflow time. Carried through continue-as-new.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// When the order was heard of.
    pub started_ms: u64,
    /// When each fact was heard of: a signal may lag behind its event, and a deadline must not.
    pub heard_ms: BTreeMap<FactKind, u64>,
    /// When Postgres was last asked.
    pub looked_ms: Option<u64>,
    /// Requests made.
    pub made: BTreeMap<RequestKind, Made>,
}

/// What a waiting workflow waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named for what has to happen")]
pub enum Awaited {
    Reservation,
    Payment,
    Shipment,
    /// Whether the order ships or is cancelled.
    Verdict,
    StockRelease,
    Refund,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until something is heard or this time has come.
    Wait {
        /// What should happen meanwhile.
        awaited: Awaited,
        /// Milliseconds since the Unix epoch.
        until_ms: u64,
    },
    /// Ask what Postgres knows.
    Look,
    /// Make a request.
    Publish(SagaRequest),
    /// The order has ended and nothing is owed.
    Close(Status),
}

/// Waits between repeats grow up to this, or to the compensation deadline when that is longer.
const REPEAT_LIMIT_MS: u64 = 60 * 60 * 1000;

/// Decides.
pub fn next(facts: &Facts, progress: &Progress, deadlines: &Deadlines, now_ms: u64) -> Step {
    let view = View { facts, progress, deadlines, now_ms };
    if view.settled() {
        return Step::Close(facts.status());
    }
    if view.verdict() { view.compensate() } else { view.follow() }
}

impl Progress {
    /// Notes what `facts` know and was not known before.
    pub fn hear(&mut self, facts: &Facts, now_ms: u64) {
        for kind in facts.kinds() {
            self.heard_ms.entry(kind).or_insert(now_ms);
        }
    }

    /// Notes an answer of Postgres.
    pub fn looked(&mut self, now_ms: u64) {
        self.looked_ms = Some(now_ms);
    }

    /// Notes that the broker acknowledged a request.
    pub fn published(&mut self, request: SagaRequest, now_ms: u64) {
        let made =
            self.made.entry(request.kind).or_insert(Made { request, times: 0, last_at_ms: 0 });
        made.times = made.times.saturating_add(1);
        made.last_at_ms = now_ms;
    }
}

struct View<'a> {
    facts: &'a Facts,
    progress: &'a Progress,
    deadlines: &'a Deadlines,
    now_ms: u64,
}

impl View<'_> {
    fn has(&self, kind: FactKind) -> bool {
        self.facts.has(kind)
    }

    /// Whether the order will certainly not ship.
    fn verdict(&self) -> bool {
        self.has(FactKind::ShipmentFailed) || self.has(FactKind::PaymentDeclined)
    }

    fn refund_owed(&self) -> bool {
        self.has(FactKind::PaymentCaptured) && !self.has(FactKind::PaymentRefunded)
    }

    fn settled(&self) -> bool {
        self.has(FactKind::ShipmentArranged)
            || self.has(FactKind::StockRejected)
            || (self.verdict() && self.has(FactKind::StockReleased) && !self.refund_owed())
    }

    /// What is still owed for an order that will not ship.
    fn compensate(&self) -> Step {
        let owed = [
            (!self.has(FactKind::StockReleased))
                .then_some((RequestKind::StockRelease, Awaited::StockRelease)),
            self.refund_owed().then_some((RequestKind::Refund, Awaited::Refund)),
        ];
        let reason = self.compensation_reason();
        let steps = owed.into_iter().flatten().map(|(kind, awaited)| match self.made(kind) {
            Some(made) => self.repeat(made, awaited),
            None => Step::Publish(self.request(kind, reason)),
        });
        // `settled` was false, so something is owed.
        steps.min_by_key(urgency).unwrap_or(Step::Look)
    }

    fn compensation_reason(&self) -> SagaReason {
        match self.facts.reason(FactKind::ShipmentFailed) {
            _ if self.has(FactKind::PaymentDeclined) => SagaReason::PaymentDeclined,
            Some(reason) if reason == ShipmentFailure::CarrierRefused.as_str() => {
                SagaReason::ShipmentFailed
            }
            _ => match self.made(RequestKind::OrderCancelled) {
                Some(made) => made.request.reason,
                None => SagaReason::Cancelled,
            },
        }
    }

    /// The order may still ship: wait for its next step, or have the shipping stage decide.
    fn follow(&self) -> Step {
        if let Some(made) = self.made(RequestKind::OrderCancelled) {
            return self.repeat(made, Awaited::Verdict);
        }
        let (step, step_due) = self.next_step();
        let asked = [FactKind::CancelRequested, FactKind::StockReleased];
        let asked = asked.into_iter().filter_map(|kind| self.progress.heard_ms.get(&kind)).min();
        let verdict_due = asked.map(|at| at.saturating_add(self.deadlines.compensation_ms));
        let (awaited, due) = match verdict_due {
            Some(verdict_due) if verdict_due <= step_due => (Awaited::Verdict, verdict_due),
            _ => (step, step_due),
        };
        let reason = match self.has(FactKind::CancelRequested) {
            true => SagaReason::Cancelled,
            false => SagaReason::DeadlineExceeded,
        };
        self.after_a_look(due, awaited, self.request(RequestKind::OrderCancelled, reason))
    }

    /// Topics race, so what comes later counts even when what comes before was not heard of.
    fn next_step(&self) -> (Awaited, u64) {
        let heard = |kind| self.progress.heard_ms.get(&kind).copied();
        let (awaited, from, limit) = match () {
            () if self.has(FactKind::PaymentCaptured) => {
                (Awaited::Shipment, heard(FactKind::PaymentCaptured), self.deadlines.shipping_ms)
            }
            () if self.has(FactKind::StockReserved) => {
                (Awaited::Payment, heard(FactKind::StockReserved), self.deadlines.payment_ms)
            }
            () => (Awaited::Reservation, None, self.deadlines.reservation_ms),
        };
        (awaited, from.unwrap_or(self.progress.started_ms).saturating_add(limit))
    }

    /// A request that was made and is not confirmed.
    fn repeat(&self, made: &Made, awaited: Awaited) -> Step {
        let limit = REPEAT_LIMIT_MS.max(self.deadlines.compensation_ms);
        let doublings = made.times.saturating_sub(1).min(32);
        let wait = self.deadlines.compensation_ms.saturating_mul(1 << doublings).min(limit);
        self.after_a_look(made.last_at_ms.saturating_add(wait), awaited, made.request)
    }

    /// Signals may lag, so nothing is asked for before Postgres was.
    fn after_a_look(&self, due_ms: u64, awaited: Awaited, request: SagaRequest) -> Step {
        match self.progress.looked_ms {
            _ if self.now_ms < due_ms => Step::Wait { awaited, until_ms: due_ms },
            Some(looked_ms) if looked_ms >= due_ms => Step::Publish(request),
            _ => Step::Look,
        }
    }

    fn made(&self, kind: RequestKind) -> Option<&Made> {
        self.progress.made.get(&kind)
    }

    fn request(&self, kind: RequestKind, reason: SagaReason) -> SagaRequest {
        SagaRequest { kind, reason, first_at_ms: self.now_ms }
    }
}

/// What can be done now comes before waiting, and the earlier wake-up before the later one.
fn urgency(step: &Step) -> u64 {
    match step {
        Step::Wait { until_ms, .. } => *until_ms,
        Step::Look | Step::Publish(_) | Step::Close(_) => 0,
    }
}

#[cfg(test)]
mod tests;
