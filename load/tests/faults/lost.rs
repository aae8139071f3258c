//! Records that are gone before they were read: a stage stops and says so, and never goes on in silence.

use std::time::Duration;

use load::eventually::eventually;
use load::pipeline::STOP_PATIENCE;
use load::process::Process;
use load::records::Records;
use schemas::Topic;

use crate::servers_of_its_own::Servers;
use crate::world::{SETUP, World, hasty, plain_orders, run};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn records_deleted_before_they_were_read_stop_the_stage_until_a_person_accepts_it() {
    let servers = Servers::up(1).await;
    let world = World::on(servers.stack(), "deleted", SETUP).await;
    let mut stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    producer.client.place_all(plain_orders(100, 80), &run(0), |_| ()).await.unwrap();
    world.expect_reconciled(100).await;
    stages.stop(STOP_PATIENCE).await.unwrap();
    producer.client.place_all(plain_orders(100, 81), &run(0), |_| ()).await.unwrap();
    Records::of(&world.pipeline).unwrap().delete_all(Topic::Orders).await.unwrap();

    let stopped = stops_by_itself(&world).await;

    assert!(stopped.log().contains("are lost: the broker deleted offsets"), "{}", stopped.log());
    let mut tables = world.pipeline.tables().await.unwrap();
    assert_eq!(tables.number("select count(*) from orders").await.unwrap(), 100);
    accept_losses(&world, &["inventory"]).await;
    let _inventory = world.stages(&["inventory"]).await;
}

#[tokio::test]
async fn a_topic_made_anew_stops_the_stage_that_was_further() {
    let servers = Servers::up(1).await;
    let (_world, stopped) = made_anew_before(&servers, 0).await;

    assert!(stopped.log().contains("the topic was made anew"), "{}", stopped.log());
}

/// By its offsets the log could be the one that was read, and going on there would skip what it begins with.
#[tokio::test]
async fn a_topic_made_anew_and_longer_than_before_stops_the_stage_until_a_person_accepts_it() {
    let servers = Servers::up(1).await;
    let (world, stopped) = made_anew_before(&servers, 400).await;
    assert!(stopped.log().contains("the topic was made anew (its id was"), "{}", stopped.log());

    accept_losses(&world, &["inventory", "order"]).await;

    let _stages = world.stages(&["inventory", "order"]).await;
    eventually(PATIENCE, "every order of the new log is known", async || {
        let known = world.pipeline.tables().await?.number("select count(*) from orders").await?;
        anyhow::ensure!(known == 500, "{known} of 500");
        Ok(())
    })
    .await
    .unwrap();
}

/// After 100 orders the topic is made anew while no stage runs, and `count` more are placed; then `inventory` has stopped.
async fn made_anew_before(servers: &Servers, count: usize) -> (World, Process) {
    let world = World::on(servers.stack(), "anew", SETUP).await;
    let mut stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    producer.client.place_all(plain_orders(100, 82), &run(0), |_| ()).await.unwrap();
    world.expect_reconciled(100).await;
    stages.stop(STOP_PATIENCE).await.unwrap();
    Records::of(&world.pipeline).unwrap().make_anew(Topic::Orders).await.unwrap();
    producer.client.place_all(plain_orders(count, 83), &run(0), |_| ()).await.unwrap();
    let stopped = stops_by_itself(&world).await;
    (world, stopped)
}

async fn stops_by_itself(world: &World) -> Process {
    let mut stage = world.pipeline.launch_stages("inventory-stops", &["inventory"], hasty).unwrap();
    let status = stage.ended(PATIENCE).await.unwrap();
    assert!(!status.success(), "{status}");
    stage
}

async fn accept_losses(world: &World, stages: &[&str]) {
    let topic = world.pipeline.prefix().topic(Topic::Orders);
    for stage in stages {
        for partition in ["0", "1", "2", "3"] {
            let accept = [
                "progress",
                "accept-loss",
                "--stage",
                stage,
                "--topic",
                &topic,
                "--partition",
                partition,
                "--yes",
            ];
            world.pipeline.tool(&accept).await.unwrap();
        }
    }
}
