//! A stage that has more in hand than it can do counts what it has not fetched, too.

use load::eventually::eventually;
use load::pipeline::STOP_PATIENCE;
use sqlx::{Connection, PgConnection};

use crate::world::{REST_PATIENCE, SETUP, World, hasty, plain_orders, run};

#[tokio::test]
async fn lag_counts_what_a_stage_that_is_held_up_has_not_fetched() {
    let world = World::new("lag", SETUP).await;
    let group = world.pipeline.prefix().group("order");
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let little_room = ["--buffer-bytes", "1024"];
    let mut stage = world
        .pipeline
        .start_stages("order", &["order"], |spec| hasty(spec).arguments(little_room))
        .await
        .unwrap();
    let expect_lag = async |records: f64| {
        eventually(REST_PATIENCE, "the stage tells its lag", async || {
            let lag = stage.metric("kafka_consumergroup_lag", &[("consumergroup", &group)]).await?;
            anyhow::ensure!(lag == Some(records), "it says {lag:?}, not {records}");
            Ok(())
        })
        .await
        .unwrap();
    };
    let mut holder = PgConnection::connect_with(world.pipeline.database()).await.unwrap();
    let mut hold = holder.begin().await.unwrap();
    sqlx::query("lock table orders in exclusive mode").execute(&mut *hold).await.unwrap();

    producer.client.place_all(plain_orders(100, 51), &run(0), |_| ()).await.unwrap();
    expect_lag(100.0).await;
    // By now it has all it can hold, and reads no further.
    for placed in [200_u32, 300] {
        producer.client.place_all(plain_orders(100, placed.into()), &run(0), |_| ()).await.unwrap();
        expect_lag(placed.into()).await;
    }
    hold.rollback().await.unwrap();
    expect_lag(0.0).await;
    stage.stop(STOP_PATIENCE).await.unwrap();
}
