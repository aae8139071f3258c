//! What the business notices: money refused, shelves that get empty, orders that come late.

use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use producers::generate::{Generator, Mix};
use schemas::{OrderId, Timestamp, Topic};

use super::PATIENCE;
use crate::alerts::fault::{Fault, alert};
use crate::alerts::proof::Proof;
use crate::eventually::eventually;
use crate::records::{Record, Records};
use crate::scene::gateway::Mood;
use crate::scene::history;
use crate::scene::{ORDERS_PER_SECOND, SKUS, Scene, shorter};

/// From the fault to the end that is told: a window of half an hour and a quarter more, twice, in faster time.
const LENGTH_OF_YESTERDAY: Duration = Duration::from_secs(420);

pub(in crate::alerts) const FAULTS: &[Fault] = &[
    Fault {
        what: "the gateway declines every second payment",
        proves: &[alert("HighPaymentFailureRate", &[("job", "consumers")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| declining(scene, proof).boxed_local(),
    },
    Fault {
        what: "one article is nearly sold out",
        proves: &[alert("LowInventory", &[("sku", "SKU-00007")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| sold_out(scene, proof).boxed_local(),
    },
    Fault {
        what: "orders reach the topic late",
        proves: &[alert("SlowOrderProcessing", &[("job", "consumers")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| late(scene, proof).boxed_local(),
    },
    Fault {
        what: "orders come in at less than half of yesterday's rate",
        proves: &[alert("UnusualOrderRate", &[("job", "order_processing_api")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| fewer(scene, proof).boxed_local(),
    },
];

async fn declining(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    scene.gateway.set(Mood::Declining);
    let arrived = proof.arrives(PATIENCE).await;
    scene.gateway.set(Mood::Good);
    arrived
}

async fn sold_out(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut db = scene.database().await?;
    // As many as are promised already, and five: the next customers take those.
    sqlx::query("update stock set on_hand = reserved + 5 where sku = 'SKU-00007'")
        .execute(&mut db)
        .await
        .context("empty a shelf")?;
    let arrived = proof.arrives(PATIENCE).await;
    sqlx::query("update stock set on_hand = 1000000 where sku = 'SKU-00007'")
        .execute(&mut db)
        .await
        .context("fill the shelf")?;
    arrived
}

/// As from a shop that was cut off and hands in what it took meanwhile.
async fn late(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let records = Records::of(&scene.pipeline)?;
    // Twice what is slow.
    let age = i64::try_from(shorter(600).as_micros())?;
    let mix = Mix {
        seed: 300,
        skus: SKUS,
        decline_ratio: 0.0,
        out_of_stock_ratio: 0.0,
        ..Mix::default()
    };
    let mut orders = Generator::new(mix);
    // As many again as come in time.
    let mut timer = tokio::time::interval(Duration::from_secs(1) / ORDERS_PER_SECOND);
    proof
        .arrives_during(PATIENCE, async || {
            timer.tick().await;
            let order = orders.next().context("orders never end")?;
            let placed_at = Timestamp::from_micros(Timestamp::now().as_micros() - age)?;
            let event = order.placed(OrderId::fresh(), placed_at).context("an order is sound")?;
            let record = Record::of(&event, "/late-shop", placed_at);
            records.write(Topic::Orders, &[record]).await.map(drop)
        })
        .await
}

/// Yesterday had as many as today; then today has fewer.
async fn fewer(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let series = "job:orders_created:rate30m{job=\"order_processing_api\"}";
    let usual = f64::from(scene.usual_rate());
    history::yesterday(scene, series, usual, LENGTH_OF_YESTERDAY).await?;
    let yesterday = format!("{series} offset {}ms", shorter(86_400).as_millis());
    let ratio = format!("{series} / ({yesterday})");
    eventually(PATIENCE, "Prometheus knows yesterday, and today is like it", async || {
        let ratio = scene.prometheus.value(&ratio).await?.context("it does not know it")?;
        anyhow::ensure!((0.8..1.2).contains(&ratio), "today has {ratio} times as many");
        Ok(())
    })
    .await?;
    proof.begins();
    scene.orders.set_rate(scene.usual_rate() * 2 / 5);
    let arrived = proof.arrives(PATIENCE).await;
    scene.orders.set_rate(scene.usual_rate());
    arrived
}
