//! Records that are gone before they were read: a stage stops and says so, and never goes on in silence.

use std::time::Duration;

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
    let world = World::on(servers.stack(), "anew", SETUP).await;
    let mut stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    producer.client.place_all(plain_orders(100, 82), &run(0), |_| ()).await.unwrap();
    world.expect_reconciled(100).await;
    stages.stop(STOP_PATIENCE).await.unwrap();
    let records = Records::of(&world.pipeline).unwrap();
    records.delete_topic(Topic::Orders).await.unwrap();
    load::eventually::eventually(PATIENCE, "the topic exists anew", async || {
        world.pipeline.tool(&["topics", "--partitions", "4"]).await?;
        let left = records.read(Topic::Orders).await?;
        anyhow::ensure!(left.is_empty(), "it has {} records", left.len());
        Ok(())
    })
    .await
    .unwrap();

    let stopped = stops_by_itself(&world).await;

    assert!(stopped.log().contains("the topic was made anew"), "{}", stopped.log());
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
