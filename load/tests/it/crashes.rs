//! Processes killed at every step of the delivery protocol.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use consumers::stages::Entry;
use load::eventually::eventually;
use load::orders::Run;
use load::pipeline::{READY_PATIENCE, STOP_PATIENCE};
use load::process::{Process, Signal};
use load::records::Records;
use schemas::Topic;

use crate::world::{
    SETUP, World, hasty, mixed_orders, plain_orders, ready, run, unsupervised_stages,
};

/// Every step at which a stage can die; those of emission only exist in stages that tell something.
const POINTS: [&str; 6] =
    ["after_claim", "prepared", "before_commit", "after_commit", "after_emission", "after_tidy"];

/// From the start to the passage of a crash point.
const DEATH_PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_stage_killed_at_any_step_loses_and_doubles_nothing() {
    let world = World::new("crashes", SETUP).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    for (round, point) in (1..).zip(POINTS) {
        let mut stages: Vec<Process> =
            unsupervised_stages().map(|stage| launch(&world, stage, point)).collect();

        producer
            .client
            .place_all(
                mixed_orders(200, round),
                &Run { patience: DEATH_PATIENCE, ..run(0) },
                |_| (),
            )
            .await
            .unwrap();
        for (stage, process) in unsupervised_stages().zip(&mut stages) {
            if passes(stage, point) {
                killed_by_itself(process).await;
                process
                    .start_again(|spec| spec.environment.retain(|(name, _)| name != "CRASH_AT"))
                    .unwrap();
            }
        }

        let audit = world.pipeline.audit(crate::world::REST_PATIENCE).await.unwrap();
        assert!(audit.reconciled && audit.placed == round * 200, "after {point}: {audit:#?}");
        let stopping = stages.iter_mut().map(|process| process.stop(STOP_PATIENCE));
        for stopped in futures::future::join_all(stopping).await {
            stopped.unwrap();
        }
    }
}

#[tokio::test]
async fn what_was_not_committed_was_not_told() {
    let world = World::new("untold", SETUP).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    producer.client.place_all(plain_orders(100, 7), &run(0), |_| ()).await.unwrap();
    let records = Records::of(&world.pipeline).unwrap();
    let mut stages = Vec::new();
    // In the order in which they hear of an order.
    for name in ["inventory", "payment", "shipping"] {
        let stage = consumers::stages::find(name).unwrap();
        let output = stage.output.unwrap();

        let mut process = launch(&world, stage, "before_commit");
        killed_by_itself(&mut process).await;

        let told = records.read(output).await.unwrap();
        assert!(told.is_empty(), "{name} told {} decisions and committed none", told.len());
        process
            .start_again(|spec| spec.environment.retain(|(name, _)| name != "CRASH_AT"))
            .unwrap();
        eventually(DEATH_PATIENCE, "the stage tells something", async || {
            let told = records.read(output).await?;
            anyhow::ensure!(!told.is_empty(), "nothing yet");
            Ok(())
        })
        .await
        .unwrap();
        stages.push(process);
    }
    stages.push(world.stages(&["order"]).await);

    world.expect_reconciled(100).await;
}

fn launch(world: &World, stage: &Entry, point: &str) -> Process {
    let crash_at = format!("{}.{point}", stage.name);
    world
        .pipeline
        .launch_stages(stage.name, &[stage.name], |spec| hasty(spec).crash_at(&crash_at))
        .unwrap()
}

fn passes(stage: &Entry, point: &str) -> bool {
    stage.output.is_some() || !["after_emission", "after_tidy"].contains(&point)
}

/// Otherwise the point was never passed and the test proves nothing.
async fn killed_by_itself(process: &mut Process) {
    let status = process.ended(DEATH_PATIENCE).await.unwrap();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
}

#[tokio::test]
async fn an_order_whose_answer_was_lost_is_the_same_order_when_sent_again() {
    let world = World::new("answers", SETUP).await;
    let orders: Vec<_> = plain_orders(2, 5).collect();
    let mut ids = Vec::new();

    for (point, order) in ["producer.before_produce", "producer.after_ack"].into_iter().zip(&orders)
    {
        let mut producer =
            world.pipeline.start_producer(|spec| spec.crash_at(point)).await.unwrap();
        let key = format!("key-{point}");
        let lost = producer.client.post_once(order, &key).await;
        assert!(lost.is_err(), "{lost:?}");
        killed_by_itself(&mut producer.process).await;
        producer
            .process
            .start_again(|spec| spec.environment.retain(|(name, _)| name != "CRASH_AT"))
            .unwrap();
        ready(&mut producer.process).await;
        for _ in 0..3 {
            ids.push(producer.client.place(order, &key, READY_PATIENCE).await.unwrap());
        }
    }

    assert_eq!((ids[0], ids[3]), (ids[2], ids[5]));
    assert_ne!(ids[0], ids[3]);
    // No stage was at work: nobody could know the second order but the topic, which has it twice now.
    let told = Records::of(&world.pipeline).unwrap().read(Topic::Orders).await.unwrap();
    assert_eq!(told.len(), 3, "{} records", told.len());
    let _stages = world.stages(&[]).await;
    world.expect_reconciled(2).await;
}

#[tokio::test]
async fn a_producer_killed_under_load_keeps_every_order_it_answered_for() {
    let world = World::new("producer", SETUP).await;
    let _stages = world.stages(&[]).await;
    let mut producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let (client, run) = (producer.client.clone(), run(0));

    let placing = client.place_all(plain_orders(600, 6), &run, |_| ());
    let killing = async {
        for _ in 0..3 {
            let seen = created(&producer.process).await;
            eventually(DEATH_PATIENCE, "orders come in", async || {
                let now = created(&producer.process).await;
                anyhow::ensure!(now >= seen + 50.0, "{now} orders");
                Ok(())
            })
            .await
            .unwrap();
            producer.process.kill().await.unwrap();
            producer.process.start_again(|_| ()).unwrap();
            ready(&mut producer.process).await;
        }
    };
    let (placed, ()) = tokio::join!(placing, killing);

    assert_eq!(placed.unwrap().len(), 600);
    world.expect_reconciled(600).await;
}

async fn created(process: &Process) -> f64 {
    process.metric("orders_created_total", &[]).await.unwrap().unwrap_or(0.0)
}
