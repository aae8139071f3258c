//! Promising only what is there.

use load::pipeline::Setup;
use producers::request::{ItemRequest, OrderRequest};

use crate::world::{SETUP, World, hasty, run};

#[tokio::test]
async fn of_a_hundred_pieces_five_hundred_customers_get_exactly_a_hundred() {
    let world = World::new("stock", Setup { scarce: 1, scarce_quantity: 100, ..SETUP }).await;
    let _others = world.stages(&["payment", "shipping", "order"]).await;
    let mut replicas = Vec::new();
    for number in 0..3 {
        let name = format!("inventory-{number}");
        replicas.push(world.pipeline.start_stages(&name, &["inventory"], hasty).await.unwrap());
    }
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    let wanting = (0..500).map(|customer| OrderRequest {
        customer_id: format!("C-{customer}"),
        currency: "EUR".to_owned(),
        items: vec![ItemRequest {
            sku: "SKU-SCARCE-00".to_owned(),
            quantity: 1,
            unit_price_cents: 999,
        }],
    });
    producer.client.place_all(wanting, &run(0), |_| ()).await.unwrap();

    let audit = world.expect_reconciled(500).await;
    assert_eq!((audit.count("shipped"), audit.count("rejected")), (100, 400), "{audit:#?}");
    let mut tables = world.pipeline.tables().await.unwrap();
    let left = tables
        .number("select on_hand - reserved from stock where sku = 'SKU-SCARCE-00'")
        .await
        .unwrap();
    assert_eq!(left, 0);
    let mut busy = 0;
    for replica in &replicas {
        let applied =
            replica.metric("stage_events_total", &[("outcome", "applied")]).await.unwrap();
        busy += usize::from(applied.is_some_and(|events| events > 0.0));
    }
    assert_eq!(busy, 3, "every replica took part");
}
