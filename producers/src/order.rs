//! An order that follows every rule, before the pipeline knows it.
//!
//! Whoever holds a [`NewOrder`] may publish it; there is no other way to make one than through the rules.

use schemas::orders::{Fingerprint, InvalidOrder, Item, OrderPlaced, total_of};
use schemas::{Currency, CustomerId, OrderId, Timestamp};

/// Whose idempotency keys these are. One tenant until requests are authenticated; part of every derived order
/// id, so changing it makes every repeat a new order.
pub const TENANT: &str = "default";

/// A valid order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOrder {
    customer_id: CustomerId,
    currency: Currency,
    total_cents: i64,
    items: Vec<Item>,
}

impl NewOrder {
    /// Applies the rules that concern several values; each value has passed its own already.
    pub fn new(
        customer_id: CustomerId,
        currency: Currency,
        items: Vec<Item>,
    ) -> Result<Self, InvalidOrder> {
        let total_cents = total_of(&items)?;
        Ok(Self { customer_id, currency, total_cents, items })
    }

    /// Sum of the items, in minor units.
    pub fn total_cents(&self) -> i64 {
        self.total_cents
    }

    /// What was ordered.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// Identifies the content.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.customer_id.as_str(), self.currency.as_str(), &self.items)
    }

    /// The fact that this order was accepted.
    pub fn placed(self, order_id: OrderId, placed_at: Timestamp) -> OrderPlaced {
        OrderPlaced {
            order_id,
            customer_id: self.customer_id,
            currency: self.currency,
            placed_at,
            total_cents: self.total_cents,
            items: self.items,
        }
    }
}
