//! An order that follows every rule, before the pipeline knows it.
//!
//! Whoever holds a [`NewOrder`] may publish it; there is no other way to make one than through the rules.

use std::fmt;

use schemas::orders::{InvalidOrder, Item, OrderPlaced, total_of};
use schemas::{Currency, CustomerId, OrderId, Timestamp};
use sha2::{Digest, Sha256};

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

/// Tells two orders apart by what was ordered, not by how its JSON was spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 16]);

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

impl Fingerprint {
    /// Of an order's parts. The total follows from the items.
    pub fn of(customer_id: &str, currency: &str, items: &[Item]) -> Self {
        let mut hash = Sha256::new();
        let mut text = |text: &str| {
            // Lengths first, or two orders could run together into the same bytes.
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        };
        text(customer_id);
        text(currency);
        for item in items {
            text(item.sku.as_str());
        }
        for item in items {
            hash.update(item.quantity.to_be_bytes());
            hash.update(item.unit_price_cents.to_be_bytes());
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        Self(half)
    }
}

impl fmt::LowerHex for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(sku: &str, quantity: u32) -> Item {
        Item { sku: sku.parse().unwrap(), quantity, unit_price_cents: 5 }
    }

    #[test]
    fn orders_that_run_together_have_different_fingerprints() {
        let one = Fingerprint::of("ab", "EUR", &[item("c", 1)]);

        assert_ne!(one, Fingerprint::of("a", "bEUR", &[item("c", 1)]));
        assert_ne!(one, Fingerprint::of("ab", "EUR", &[item("c", 1), item("c", 1)]));
        assert_ne!(one, Fingerprint::of("ab", "EUR", &[item("c", 2)]));
        assert_eq!(one, Fingerprint::of("ab", "EUR", &[item("c", 1)]));
    }
}
