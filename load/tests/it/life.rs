//! What happens to orders when nothing goes wrong.

use std::collections::BTreeSet;

use crate::world::{SETUP, World, mixed_orders, run, stop};

#[tokio::test]
async fn every_order_ends_shipped_rejected_declined_or_cancelled() {
    let world = World::new("life", SETUP).await;
    let stages = world.stages(&["inventory", "shipping", "order"]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    // Nothing is paid for until every cancellation is in.
    let placed = producer.client.place_all(mixed_orders(200, 1), &run(10), |_| ()).await.unwrap();
    let payment = world.stages(&["payment"]).await;

    let audit = world.expect_reconciled(200).await;
    for status in ["shipped", "rejected", "declined", "cancelled"] {
        assert!(audit.count(status) > 0, "{audit:#?}");
    }
    let ids: BTreeSet<_> = placed.iter().map(|order| order.order_id).collect();
    assert_eq!(ids.len(), 200);
    for order in &placed {
        let view = producer.client.order(order.order_id, "5s").await.unwrap().unwrap();
        assert!(view.is_final, "{view:?}");
    }
    let page = producer.client.json("/orders?status=shipped&limit=200").await.unwrap();
    assert_eq!(page["orders"].as_array().unwrap().len() as u64, audit.count("shipped"));
    let shipped = page["orders"][0]["order_id"].as_str().unwrap();
    let timeline = producer.client.json(&format!("/orders/{shipped}/events")).await.unwrap();
    assert!(timeline["events"].as_array().unwrap().len() >= 4, "{timeline}");
    stop(producer.process).await;
    stop(stages).await;
    stop(payment).await;
}

#[tokio::test]
async fn an_orderly_end_leaves_nothing_to_repeat() {
    let world = World::new("orderly", SETUP).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let mut stages = world.stages(&[]).await;
    let (client, run) = (producer.client.clone(), run(0));

    let placing = client.place_all(mixed_orders(400, 2), &run, |_| ());
    let restarting = async {
        for _ in 0..3 {
            stages.stop(load::pipeline::STOP_PATIENCE).await.unwrap();
            stages.start_again(|_| ()).unwrap();
            crate::world::ready(&mut stages).await;
        }
    };
    let (placed, ()) = tokio::join!(placing, restarting);

    placed.unwrap();
    world.expect_reconciled(400).await;
    let mut tables = world.pipeline.tables().await.unwrap();
    assert_eq!(tables.number("select count(*) from outbox").await.unwrap(), 0);
}
