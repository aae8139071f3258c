//! The orders of a run: made once, published to the topic and written by the limits.

use anyhow::Context;
use producers::generate::{Generator, Mix};
use schemas::orders::OrderPlaced;
use schemas::{Event, OrderId, Timestamp};

/// Realistic orders, with the ids and times that the API would give them.
pub(super) fn placed(count: u32) -> anyhow::Result<Vec<OrderPlaced>> {
    Generator::new(Mix::default())
        .take(count as usize)
        .map(|order| match order.placed(OrderId::fresh(), Timestamp::now()) {
            Some(Event::OrderPlaced(placed)) => Ok(placed),
            _ => None.context("a generated order keeps the rules"),
        })
        .collect()
}
