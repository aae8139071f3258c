//! Where reading begins: Postgres alone says so, whatever Kafka's consumer groups claim.

use load::eventually::eventually;
use load::pipeline::STOP_PATIENCE;
use load::records::Records;
use rdkafka::Offset;

use crate::world::{
    REST_PATIENCE, SETUP, World, mixed_orders, plain_orders, ready, run, unsupervised_stages,
};

#[tokio::test]
async fn groups_moved_in_kafka_make_no_stage_skip_or_repeat_anything() {
    let world = World::new("offsets", SETUP).await;
    let mut stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    producer.client.place_all(mixed_orders(100, 20), &run(0), |_| ()).await.unwrap();
    world.expect_reconciled(100).await;

    stages.stop(STOP_PATIENCE).await.unwrap();
    producer.client.place_all(mixed_orders(100, 21), &run(0), |_| ()).await.unwrap();
    move_groups(&world, Offset::End).await;
    stages.start_again(|_| ()).unwrap();
    ready(&mut stages).await;
    world.expect_reconciled(200).await;

    stages.stop(STOP_PATIENCE).await.unwrap();
    move_groups(&world, Offset::Beginning).await;
    stages.start_again(|_| ()).unwrap();
    ready(&mut stages).await;
    producer.client.place_all(plain_orders(10, 22), &run(0), |_| ()).await.unwrap();

    world.expect_reconciled(210).await;
    for (stage, events) in [("inventory", 10.0), ("payment", 10.0), ("shipping", 10.0)] {
        let handled = stages.metric("stage_events_total", &[("stage", stage)]).await.unwrap();
        assert_eq!(handled, Some(events), "{stage} since it was started again");
    }
}

/// Puts the group of every stage at `offset`, as soon as it has no members.
async fn move_groups(world: &World, offset: Offset) {
    let records = Records::of(&world.pipeline).unwrap();
    for stage in unsupervised_stages() {
        let group = world.pipeline.prefix().group(stage.name);
        for topic in stage.topics() {
            eventually(REST_PATIENCE, "a group is moved", async || {
                records.move_group(&group, topic, offset).await
            })
            .await
            .unwrap();
        }
    }
}
