//! Facts told again.

use load::records::Records;
use schemas::Topic;

use crate::world::{SETUP, World, mixed_orders, run};

#[tokio::test]
async fn events_told_twice_byte_for_byte_change_nothing() {
    let world = World::new("repeats", SETUP).await;
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    producer.client.place_all(mixed_orders(200, 3), &run(7), |_| ()).await.unwrap();
    world.expect_reconciled(200).await;
    let mut tables = world.pipeline.tables().await.unwrap();
    let before = tables.digests().await.unwrap();

    let records = Records::of(&world.pipeline).unwrap();
    let mut repeated = 0;
    for topic in [Topic::Shipments, Topic::Payments, Topic::Inventory, Topic::Orders] {
        let told = records.read(topic).await.unwrap();
        repeated += told.len();
        records.write(topic, &told).await.unwrap();
    }

    world.expect_reconciled(200).await;
    assert!(repeated > 700, "{repeated}");
    assert_eq!(tables.digests().await.unwrap(), before);
    let told: Vec<_> = records.read(Topic::DeadLetters).await.unwrap();
    assert!(told.is_empty(), "{told:?}");
}
