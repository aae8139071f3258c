//! Realistic orders, the same for the same seed.
//!
//! Order number n depends only on the seed, the mix and n, so that runs can be split and repeated. SKUs are
//! `SKU-00000`… with a hot head; some orders ask for `SKU-SCARCE-00`…`09`, of which there is too little, and some
//! cost more than the simulated card limit, so that every ending of an order occurs.

use std::collections::BTreeSet;

use clap::Args;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use schemas::orders::Item;
use schemas::{Event, OrderId, Timestamp};

use crate::order::NewOrder;
use crate::request::{ItemRequest, OrderRequest};

/// The payment simulator declines amounts above this (10,000.00).
pub const CARD_LIMIT_CENTS: i64 = 1_000_000;
/// How many SKUs are scarce.
pub const SCARCE_SKUS: u32 = 10;
/// Customers orders come from.
const CUSTOMERS: u32 = 100_000;
/// Most different items, and most of each, in an ordinary order: 5 × 3 × 199.99 stays below the card limit.
const MOST_ITEMS: u32 = 5;
const MOST_OF_EACH: u32 = 3;

/// What the orders are like.
#[derive(Args, Clone, Debug)]
pub struct Mix {
    /// Same seed, same orders.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Different SKUs, SKU-00000 and up.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub skus: u32,

    /// Share of items drawn from a Zipf distribution, where SKU n is bought 1/(n+1) as often as the first; the rest
    /// is spread evenly.
    #[arg(long, default_value_t = 0.2, value_parser = share)]
    pub hot: f64,

    /// Share of orders above the card limit, which the payment simulator declines.
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    pub decline_ratio: f64,

    /// Share of orders with an item of which there is too little.
    #[arg(long, default_value_t = 0.02, value_parser = share)]
    pub out_of_stock_ratio: f64,
}

/// Makes orders, one after the other.
#[derive(Clone, Debug)]
pub struct Generator {
    mix: Mix,
    next: u64,
}

impl Default for Mix {
    fn default() -> Self {
        Self { seed: 1, skus: 1_000, hot: 0.2, decline_ratio: 0.02, out_of_stock_ratio: 0.02 }
    }
}

impl Generator {
    /// Starts with order 0.
    pub fn new(mix: Mix) -> Self {
        Self { mix, next: 0 }
    }

    /// Order number `n`.
    pub fn order(&self, n: u64) -> OrderRequest {
        // One generator per order; the multiplier keeps neighbouring numbers and seeds apart.
        let state = self.mix.seed ^ n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = Xoshiro256PlusPlus::seed_from_u64(state);
        let mut items = self.items(&mut random);
        // One of the two at most: an order that is never reserved is never charged.
        if random.random_bool(self.mix.out_of_stock_ratio) {
            items[0].sku = format!("SKU-SCARCE-{:02}", random.random_range(0..SCARCE_SKUS));
        } else if random.random_bool(self.mix.decline_ratio) {
            items[0].unit_price_cents =
                CARD_LIMIT_CENTS + random.random_range(1..=CARD_LIMIT_CENTS);
        }
        let currency = if random.random_bool(0.9) { "EUR" } else { "USD" };
        OrderRequest {
            customer_id: format!("C-{:06}", random.random_range(0..CUSTOMERS)),
            currency: currency.to_owned(),
            items,
        }
    }

    fn items(&self, random: &mut Xoshiro256PlusPlus) -> Vec<ItemRequest> {
        // Most baskets are small.
        let wanted = random.random_range(1..=MOST_ITEMS).min(random.random_range(1..=MOST_ITEMS));
        let different: BTreeSet<u32> = (0..wanted).map(|_| self.sku(random)).collect();
        different
            .into_iter()
            .map(|sku| ItemRequest {
                sku: format!("SKU-{sku:05}"),
                quantity: random.random_range(1..=MOST_OF_EACH),
                unit_price_cents: price_cents(sku),
            })
            .collect()
    }

    fn sku(&self, random: &mut Xoshiro256PlusPlus) -> u32 {
        let skus = self.mix.skus;
        if random.random_bool(self.mix.hot) {
            // Uniform in the logarithm is Zipf with exponent 1.
            let rank = f64::from(skus + 1).powf(random.random::<f64>());
            (rank as u32).saturating_sub(1).min(skus - 1)
        } else {
            random.random_range(0..skus)
        }
    }
}

impl Iterator for Generator {
    type Item = OrderRequest;

    fn next(&mut self) -> Option<OrderRequest> {
        let order = self.order(self.next);
        self.next += 1;
        Some(order)
    }
}

impl OrderRequest {
    /// The event that this order, placed as `order_id`, becomes. Only for orders that keep the rules, such as
    /// generated ones; `None` for others.
    pub fn placed(&self, order_id: OrderId, placed_at: Timestamp) -> Option<Event> {
        let items = self.items.iter().map(|item| {
            Some(Item {
                sku: item.sku.parse().ok()?,
                quantity: item.quantity,
                unit_price_cents: item.unit_price_cents,
            })
        });
        let items = items.collect::<Option<Vec<_>>>()?;
        let order =
            NewOrder::new(self.customer_id.parse().ok()?, self.currency.parse().ok()?, items)
                .ok()?;
        Some(Event::OrderPlaced(order.placed(order_id, placed_at)))
    }
}

/// The same price for the same SKU, from 1.99 to 199.99.
fn price_cents(sku: u32) -> i64 {
    199 + i64::from(sku.wrapping_mul(2_654_435_761) >> 8) % 199 * 100
}

fn share(text: &str) -> Result<f64, &'static str> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or("a share is a number from 0 to 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::parse_order;

    #[test]
    fn the_same_seed_makes_the_same_orders_and_another_seed_others() {
        let orders =
            |seed| -> Vec<_> { Generator::new(Mix { seed, ..Mix::default() }).take(100).collect() };

        assert_eq!(orders(7), orders(7));
        assert_ne!(orders(7), orders(8));
        assert_eq!(Generator::new(Mix { seed: 7, ..Mix::default() }).order(42), orders(7)[42]);
    }

    #[test]
    fn every_generated_order_is_accepted_and_the_shares_are_kept() {
        let mut declined = 0;
        let mut scarce = 0;
        let mut hottest = 0;
        for order in Generator::new(Mix::default()).take(20_000) {
            let json = serde_json::to_vec(&order).unwrap();
            let parsed = parse_order(&json).unwrap();
            assert!(order.placed(OrderId::fresh(), Timestamp::now()).is_some());
            declined += u32::from(parsed.total_cents() > CARD_LIMIT_CENTS);
            scarce += u32::from(order.items.iter().any(|item| item.sku.starts_with("SKU-SCARCE-")));
            hottest += u32::from(order.items.iter().any(|item| item.sku == "SKU-00000"));
        }

        assert!((300..500).contains(&declined), "{declined}");
        assert!((300..500).contains(&scarce), "{scarce}");
        // 2 items × 20 % × 10 %, against 0.2 % for a cold one.
        assert!(hottest > 400, "{hottest}");
    }

    #[test]
    fn a_mix_without_failures_has_none() {
        let mix = Mix { decline_ratio: 0.0, out_of_stock_ratio: 0.0, skus: 1, ..Mix::default() };
        for order in Generator::new(mix).take(1_000) {
            let total: i64 = order
                .items
                .iter()
                .map(|item| i64::from(item.quantity) * item.unit_price_cents)
                .sum();
            assert!(total <= CARD_LIMIT_CENTS);
            assert!(order.items.iter().all(|item| item.sku == "SKU-00000"));
        }
    }
}
