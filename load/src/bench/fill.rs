//! Fills the topic of orders as the API would, without its HTTP.

use std::collections::VecDeque;
use std::time::Duration;

use producers::events::{Encoded, OrdersTopic};
use producers::publisher::{Batch, PublishError, Publisher, PublisherSettings};
use schemas::Event;
use schemas::orders::OrderPlaced;
use telemetry::TraceContext;

use super::kafka_of;
use crate::pipeline::Pipeline;

/// Records awaited together, and how many such groups are on their way.
const GROUP: usize = 2_000;
const GROUPS: usize = 16;

/// Publishes an order-placed event for each of `orders`, and returns when the broker has all of them.
pub(super) async fn fill(pipeline: &Pipeline, orders: &[OrderPlaced]) -> anyhow::Result<()> {
    let kafka = kafka_of(pipeline);
    let settings = PublisherSettings {
        delivery_timeout: Duration::from_secs(60),
        ..PublisherSettings::default()
    };
    let publisher = Publisher::connect(&kafka, &settings, "order-load-fill")?;
    let topic = OrdersTopic::new(&kafka.topic_prefix);
    let mut on_their_way: VecDeque<Batch> = VecDeque::new();
    for group in orders.chunks(GROUP) {
        let mut batch = publisher.batch();
        for order in group {
            let event = Event::OrderPlaced(order.clone());
            let event = Encoded::opening(&event, order.placed_at, &TraceContext::fresh());
            while let Err(error) = topic.add(&mut batch, &event) {
                anyhow::ensure!(
                    matches!(error, PublishError::Overloaded),
                    "publish an order: {error}"
                );
                match on_their_way.pop_front() {
                    Some(oldest) => acknowledged(oldest).await?,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        }
        on_their_way.push_back(batch);
        if on_their_way.len() >= GROUPS
            && let Some(oldest) = on_their_way.pop_front()
        {
            acknowledged(oldest).await?;
        }
    }
    for batch in on_their_way {
        acknowledged(batch).await?;
    }
    Ok(())
}

async fn acknowledged(batch: Batch) -> anyhow::Result<()> {
    match batch.acknowledged().await {
        Ok(()) => Ok(()),
        Err(failed) => anyhow::bail!(
            "{} orders were not acknowledged; the first: {}",
            failed.len(),
            failed[0].1
        ),
    }
}
