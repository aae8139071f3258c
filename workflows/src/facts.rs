//! What is known about an order. Pure: facts join in any order, any number of times, to the same knowledge, and the
//! status that follows is the one that the projection in Postgres computes from its columns.

use std::collections::{BTreeMap, BTreeSet};

use schemas::EventType;
use schemas::inventory::ReleaseReason;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What an event says, as far as supervision cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as the events are")]
pub enum FactKind {
    OrderPlaced,
    CancelRequested,
    StockReserved,
    StockRejected,
    StockReleased,
    PaymentCaptured,
    PaymentDeclined,
    PaymentRefunded,
    ShipmentArranged,
    ShipmentFailed,
}

impl FactKind {
    /// The fact that an event of this type states; `None` for what supervision itself asks for.
    pub const fn from(event_type: EventType) -> Option<Self> {
        Some(match event_type {
            EventType::OrderPlaced => Self::OrderPlaced,
            EventType::CancelRequested => Self::CancelRequested,
            EventType::StockReserved => Self::StockReserved,
            EventType::StockRejected => Self::StockRejected,
            EventType::StockReleased => Self::StockReleased,
            EventType::PaymentCaptured => Self::PaymentCaptured,
            EventType::PaymentDeclined => Self::PaymentDeclined,
            EventType::PaymentRefunded => Self::PaymentRefunded,
            EventType::ShipmentArranged => Self::ShipmentArranged,
            EventType::ShipmentFailed => Self::ShipmentFailed,
            EventType::StockReleaseRequested
            | EventType::RefundRequested
            | EventType::OrderCancelled => return None,
        })
    }
}

/// One event of an order, as a signal carries it. No personal data: Temporal keeps it for days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// The event's id.
    pub id: Uuid,
    /// What it says.
    pub kind: FactKind,
    /// Why, from a closed set of the event's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How an order stands, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named as in the column orders.status")]
pub enum Status {
    Placed,
    Reserved,
    Paid,
    Shipped,
    Rejected,
    Declined,
    Cancelled,
}

impl Status {
    /// As in the column `orders.status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Reserved => "reserved",
            Self::Paid => "paid",
            Self::Shipped => "shipped",
            Self::Rejected => "rejected",
            Self::Declined => "declined",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Everything known about one order: a set that only grows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    known: BTreeMap<FactKind, Option<String>>,
    seen: BTreeSet<Uuid>,
}

impl Facts {
    /// An order has a dozen events. Beyond the limit the largest ids are forgotten, which keeps joining independent of
    /// order; a forgotten id costs a wake-up when it is repeated, never a decision.
    pub const SEEN_LIMIT: usize = 64;

    /// Takes a fact in; whether that told anything new.
    pub fn join(&mut self, fact: &Fact) -> bool {
        let unseen = self.seen.insert(fact.id);
        while self.seen.len() > Self::SEEN_LIMIT {
            self.seen.pop_last();
        }
        let Some(reason) = self.known.get_mut(&fact.kind) else {
            self.known.insert(fact.kind, fact.reason.clone());
            return true;
        };
        // Two reasons for one fact would be a fault elsewhere; the least one wins whichever comes first.
        let joined = match (reason.as_deref(), fact.reason.as_deref()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let changed = joined != reason.as_deref();
        if changed {
            *reason = joined.map(str::to_owned);
        }
        changed || (unseen && self.seen.contains(&fact.id))
    }

    /// Whether this is known.
    pub fn has(&self, kind: FactKind) -> bool {
        self.known.contains_key(&kind)
    }

    /// Why, if this is known and has a reason.
    pub fn reason(&self, kind: FactKind) -> Option<&str> {
        self.known.get(&kind)?.as_deref()
    }

    /// What is known.
    pub fn kinds(&self) -> impl Iterator<Item = FactKind> {
        self.known.keys().copied()
    }

    /// How many different events were told.
    pub fn seen(&self) -> usize {
        self.seen.len()
    }

    /// As the generated column `orders.status` computes it.
    pub fn status(&self) -> Status {
        let release_reason = self.reason(FactKind::StockReleased);
        match () {
            () if self.has(FactKind::ShipmentArranged) => Status::Shipped,
            () if self.has(FactKind::StockRejected) => Status::Rejected,
            () if release_reason == Some(ReleaseReason::PaymentDeclined.as_str()) => {
                Status::Declined
            }
            () if self.has(FactKind::StockReleased) => Status::Cancelled,
            () if self.has(FactKind::PaymentCaptured) => Status::Paid,
            () if self.has(FactKind::StockReserved) => Status::Reserved,
            () => Status::Placed,
        }
    }
}
