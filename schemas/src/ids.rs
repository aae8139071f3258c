//! Order and event ids.
//!
//! An id is derived wherever the fact behind it could be told twice, so that a repeat is recognisable by
//! its id alone; only an order without an idempotency key gets a fresh one.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Root of every derived id. Part of the wire contract: changing it makes every repeat look new.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f72_6465_722d_5069_9065_6c69_6e65_0001);

/// Identifies an order everywhere: Kafka key, primary key, Temporal workflow id (`order-<id>`).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct OrderId(pub Uuid);

/// Identifies one fact (`ce_id`). The same fact told twice carries the same id.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct EventId(pub Uuid);

impl OrderId {
    /// A new order that its client gave no idempotency key. Time-ordered (UUIDv7), so that rows of new
    /// orders land on the right edge of every index.
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// The order that `tenant` means by `idempotency_key`: the same pair is the same order for ever.
    pub fn from_idempotency_key(tenant: &str, idempotency_key: &str) -> Self {
        // Lengths are part of the name, or ("a", "bc") and ("ab", "c") would be one order.
        let name = format!("order|{}|{tenant}|{idempotency_key}", tenant.len());
        Self(Uuid::new_v5(&NAMESPACE, name.as_bytes()))
    }

    /// Parses the bytes of a Kafka key. Only the usual spelling (lower case, hyphens) is a key: another one
    /// of the same id lands on another partition, where the order's events would overtake each other.
    pub fn from_key(key: &[u8]) -> Option<Self> {
        let id = Uuid::try_parse_ascii(key).ok()?;
        let mut usual = Uuid::encode_buffer();
        let usual = id.as_hyphenated().encode_lower(&mut usual);
        (usual.as_bytes() == key).then_some(Self(id))
    }
}

impl EventId {
    /// The event that opens something for an order (placed, cancel requested): once per order and type.
    pub fn opening(order: OrderId, event_type: &str) -> Self {
        let mut name = Vec::with_capacity(17 + event_type.len());
        name.extend_from_slice(order.0.as_bytes());
        name.push(b'|');
        name.extend_from_slice(event_type.as_bytes());
        Self(Uuid::new_v5(&NAMESPACE, &name))
    }

    /// The `n`-th `effect` (an event type) that `stage` draws from the event `source`.
    pub fn derived(source: EventId, stage: &str, effect: &str, n: u32) -> Self {
        let mut name = Vec::with_capacity(32 + stage.len() + effect.len());
        name.extend_from_slice(source.0.as_bytes());
        for part in [stage.as_bytes(), effect.as_bytes()] {
            name.push(b'|');
            name.extend_from_slice(part);
        }
        name.push(b'|');
        name.extend_from_slice(&n.to_be_bytes());
        Self(Uuid::new_v5(&NAMESPACE, &name))
    }
}

macro_rules! text_form {
    ($id:ident) => {
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.as_hyphenated().fmt(f)
            }
        }

        impl FromStr for $id {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

text_form!(OrderId);
text_form!(EventId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_tenant_and_key_are_the_same_order_for_ever() {
        let id = OrderId::from_idempotency_key("acme", "k-1");

        // Pinned: a change here would make every retry across an upgrade a second order.
        assert_eq!(id.to_string(), "ac2c69e9-e535-5610-9867-2bfba40d8586");
        assert_ne!(id, OrderId::from_idempotency_key("acm", "ek-1"));
        assert_ne!(id, OrderId::from_idempotency_key("acme", "k-2"));
    }

    #[test]
    fn derived_event_ids_differ_by_stage_effect_and_number() {
        let source = EventId::opening(OrderId(Uuid::nil()), "orders.order-placed.v1");
        let ids = [
            EventId::derived(source, "inventory", "a", 0),
            EventId::derived(source, "inventory", "a", 1),
            EventId::derived(source, "inventory", "b", 0),
            EventId::derived(source, "payment", "a", 0),
        ];

        let distinct: std::collections::HashSet<_> = ids.iter().collect();

        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn event_ids_are_the_same_in_every_build() {
        let opening = EventId::opening(OrderId(Uuid::nil()), "orders.order-placed.v1");
        let derived = EventId::derived(opening, "inventory", "inventory.stock-reserved.v1", 7);

        // Pinned: a change here would make every repeat across an upgrade a second effect.
        assert_eq!(opening.to_string(), "e0700e56-ba8e-5206-a1d8-f6af1791c14c");
        assert_eq!(derived.to_string(), "89f8f85c-a214-556e-982e-178f4b980028");
    }

    #[test]
    fn a_key_has_one_spelling() {
        let id = Uuid::from_u128(0xa1b2_c3d4_e5f6);
        let text = id.to_string();

        assert_eq!(OrderId::from_key(text.as_bytes()), Some(OrderId(id)));
        for other in [
            text.to_uppercase(),
            id.simple().to_string(),
            id.braced().to_string(),
            id.urn().to_string(),
            String::new(),
        ] {
            assert_eq!(OrderId::from_key(other.as_bytes()), None, "{other}");
        }
    }
}
