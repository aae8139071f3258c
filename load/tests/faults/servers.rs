//! Brokers and databases killed under load.

use std::time::Duration;

use load::eventually::eventually;
use load::orders::Run;
use load::pipeline::{Producer, Setup};

use crate::servers_of_its_own::Servers;
use crate::world::{SETUP, World, mixed_orders};

const PATIENCE: Duration = Duration::from_secs(120);

/// Slow enough that a run outlasts the faults that are thrown at it.
fn steady() -> Run {
    Run { concurrency: 8, cancel_every: 10, patience: PATIENCE, ..Run::default() }
}

#[tokio::test]
async fn a_broker_killed_under_load_costs_time_and_no_order() {
    let servers = Servers::up(1).await;
    let world = World::on(servers.stack(), "broker", SETUP).await;
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    let run = steady();
    let placing = producer.client.place_all(mixed_orders(3_000, 60), &run, |_| ());
    let killing = async {
        for _ in 0..3 {
            more_orders(&producer, 100.0).await;
            servers.kill("kafka").await;
            servers.restart("kafka").await;
        }
    };
    let (placed, ()) = tokio::join!(placing, killing);

    placed.unwrap();
    world.expect_reconciled(3_000).await;
}

#[tokio::test]
async fn while_temporal_is_down_orders_go_on_and_their_workflows_follow() {
    let servers = Servers::up(1).await;
    let world = World::supervised_on(servers.stack(), "temporal", SETUP, &[]).await;
    let stages = world.stages(&[]).await;
    let _worker = world.pipeline.start_worker("worker", |spec| spec).await.unwrap();
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let mut tables = world.pipeline.tables().await.unwrap();

    producer.client.place_all(mixed_orders(50, 62), &steady(), |_| ()).await.unwrap();
    servers.kill("temporal").await;
    producer.client.place_all(mixed_orders(200, 63), &steady(), |_| ()).await.unwrap();

    eventually(PATIENCE, "orders become final without Temporal", async || {
        let statuses = tables.orders_by_status().await?;
        let open: i64 =
            ["placed", "reserved", "paid"].iter().filter_map(|status| statuses.get(*status)).sum();
        let all: i64 = statuses.values().sum();
        anyhow::ensure!(all == 250 && open == 0, "{statuses:?}");
        Ok(())
    })
    .await
    .unwrap();
    let untold = [("stage", "workflow"), ("outcome", "untold")];
    // Said when a call has had all its time.
    eventually(PATIENCE, "the stage says that it cannot tell", async || {
        let untold = stages.metric("stage_messages_total", &untold).await?;
        anyhow::ensure!(untold.is_some_and(|messages| messages > 0.0), "{untold:?} untold");
        Ok(())
    })
    .await
    .unwrap();
    servers.restart("temporal").await;

    let audit = world.expect_reconciled(250).await;
    assert_eq!(audit.workflows.unwrap().closed, 250, "{audit:#?}");
}

#[tokio::test]
async fn a_database_killed_under_load_costs_time_and_no_order() {
    let servers = Servers::up(1).await;
    let world = World::on(servers.stack(), "database", SETUP).await;
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    // Cancelling asks the projection first, and waits for the database with it.
    let run = steady();
    let placing = producer.client.place_all(mixed_orders(3_000, 61), &run, |_| ());
    let killing = async {
        for _ in 0..3 {
            more_orders(&producer, 100.0).await;
            servers.kill("postgres").await;
            servers.restart("postgres").await;
        }
    };
    let (placed, ()) = tokio::join!(placing, killing);

    placed.unwrap();
    world.expect_reconciled(3_000).await;
}

#[tokio::test]
async fn of_three_brokers_each_may_die_in_turn() {
    let servers = Servers::up(3).await;
    let world = World::on(servers.stack(), "three", Setup { replication: 3, ..SETUP }).await;
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    let run = steady();
    let placing = producer.client.place_all(mixed_orders(3_000, 62), &run, |_| ());
    let killing = async {
        for broker in ["kafka-1", "kafka-2", "kafka-3"] {
            more_orders(&producer, 100.0).await;
            servers.kill(broker).await;
            // Two of three go on without it.
            more_orders(&producer, 100.0).await;
            servers.restart(broker).await;
        }
    };
    let (placed, ()) = tokio::join!(placing, killing);

    placed.unwrap();
    world.expect_reconciled(3_000).await;
}

/// Waits until `count` more orders were accepted, or all are.
async fn more_orders(producer: &Producer, count: f64) {
    let created = async || producer.process.metric("orders_created_total", &[]).await;
    let before = created().await.unwrap().unwrap_or(0.0);
    let waited = eventually(PATIENCE, "orders come in", async || {
        let now = created().await?.unwrap_or(0.0);
        anyhow::ensure!(now >= before + count, "{before} orders then, {now} now");
        Ok(())
    });
    waited.await.unwrap();
}
