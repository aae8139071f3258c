//! Events of the topic `orders`, written by order-producer.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::values::{MAX_ITEMS, MAX_QUANTITY, MAX_UNIT_PRICE_CENTS};
use crate::{Currency, CustomerId, OrderId, Sku, Timestamp};

/// A customer placed an order and the broker holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderPlaced {
    /// The order.
    pub order_id: OrderId,
    /// Who ordered.
    pub customer_id: CustomerId,
    /// Currency of every amount in this order.
    pub currency: Currency,
    /// When the order was accepted.
    pub placed_at: Timestamp,
    /// Sum of quantity × unit price over the items, in minor units.
    #[schemars(range(min = 0, max = 100_000_000_000_000_i64))]
    pub total_cents: i64,
    /// What was ordered.
    #[schemars(length(min = 1, max = 100))]
    pub items: Vec<Item>,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Item {
    /// What.
    pub sku: Sku,
    /// How many.
    #[schemars(range(min = 1, max = 10_000))]
    pub quantity: u32,
    /// Price of one, in minor units.
    #[schemars(range(min = 0, max = 100_000_000))]
    pub unit_price_cents: i64,
}

/// A customer asked to cancel an order. Whether it still can be is decided downstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CancelRequested {
    /// The order.
    pub order_id: OrderId,
    /// When the cancellation was accepted.
    pub requested_at: Timestamp,
}

/// What is wrong with an order that is well-formed JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrder {
    /// No item, or too many.
    #[error("an order has 1 to {MAX_ITEMS} items")]
    ItemCount,
    /// A quantity outside its range.
    #[error("items[{0}].quantity is not between 1 and {MAX_QUANTITY}")]
    Quantity(usize),
    /// A price outside its range.
    #[error("items[{0}].unit_price_cents is not between 0 and {MAX_UNIT_PRICE_CENTS}")]
    UnitPrice(usize),
    /// The total is not the sum of the items.
    #[error("total_cents is not the sum of the items")]
    Total,
}

/// Tells two orders apart by what was ordered, not by how its JSON was spelled or when it was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

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

impl OrderPlaced {
    /// Identifies what was ordered.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.customer_id.as_str(), self.currency.as_str(), &self.items)
    }

    /// Checks what the types cannot: ranges, and that the total is the sum.
    pub fn validate(&self) -> Result<(), InvalidOrder> {
        if total_of(&self.items)? == self.total_cents { Ok(()) } else { Err(InvalidOrder::Total) }
    }
}

/// Sum of `items` in minor units, once every line is inside its range.
pub fn total_of(items: &[Item]) -> Result<i64, InvalidOrder> {
    if items.is_empty() || items.len() > MAX_ITEMS {
        return Err(InvalidOrder::ItemCount);
    }
    let mut total = 0;
    for (index, item) in items.iter().enumerate() {
        if !(1..=MAX_QUANTITY).contains(&item.quantity) {
            return Err(InvalidOrder::Quantity(index));
        }
        if !(0..=MAX_UNIT_PRICE_CENTS).contains(&item.unit_price_cents) {
            return Err(InvalidOrder::UnitPrice(index));
        }
        // 100 items × 10⁴ × 10⁸ = 10¹⁴: far inside i64.
        total += i64::from(item.quantity) * item.unit_price_cents;
    }
    Ok(total)
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
