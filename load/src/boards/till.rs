//! Orders at a known rate, each counted when it was accepted and timed as its client saw it.

use std::time::Duration;

use futures::future::try_join_all;
use producers::generate::{Generator, Mix};
use schemas::OrderId;
use tokio::time::{Instant, sleep_until};

use crate::orders::{Client, Run};

/// Where orders are placed.
pub(super) struct Till {
    client: Client,
    orders: std::iter::Zip<std::ops::RangeFrom<u64>, Generator>,
    run: Run,
    per_second: u32,
    /// Everything that was accepted.
    pub(super) placed: Vec<OrderId>,
    /// What each client waited for its answer.
    pub(super) seconds: Vec<f64>,
}

impl Till {
    /// Orders are of `skus` articles, and there is nothing wrong with them.
    pub(super) fn new(client: Client, skus: u32, per_second: u32) -> Self {
        let mix = Mix { skus, decline_ratio: 0.0, out_of_stock_ratio: 0.0, ..Mix::default() };
        Self {
            client,
            orders: (0..).zip(Generator::new(mix)),
            run: Run::default(),
            per_second,
            placed: Vec::new(),
            seconds: Vec::new(),
        }
    }

    /// Places orders for `seconds`, and returns when each was accepted.
    pub(super) async fn place_for(&mut self, seconds: u32) -> anyhow::Result<Vec<OrderId>> {
        let orders = self.orders.by_ref().take((seconds * self.per_second) as usize);
        let orders: Vec<_> = orders.collect();
        let pause = Duration::from_secs(1) / self.per_second;
        let begun = Instant::now();
        let asking = orders.iter().zip(0..).map(|((number, order), turn)| {
            let (client, run) = (&self.client, &self.run);
            async move {
                // Its turn in the rate, whatever those before it wait for.
                sleep_until(begun + pause * turn).await;
                let asked = Instant::now();
                let order = client.place(order, &run.key(*number), run.patience).await?;
                anyhow::Ok((order, asked.elapsed().as_secs_f64()))
            }
        });
        let (placed, seconds): (Vec<_>, Vec<_>) = try_join_all(asking).await?.into_iter().unzip();
        self.seconds.extend(seconds);
        self.placed.extend(&placed);
        Ok(placed)
    }

    /// Wishes to cancel `order`, and hears that the wish is recorded.
    pub(super) async fn cancel(&self, order: OrderId) -> anyhow::Result<()> {
        self.client.cancel(order, self.run.patience).await.map(drop)
    }
}
