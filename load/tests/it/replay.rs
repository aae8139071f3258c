//! Dead letters that a person corrects, replays or gives up.

use std::process::Output;

use load::pipeline::Tables;
use load::records::Records;
use schemas::{OrderId, Topic};

use crate::events::{cancel_requested, edited, placed};
use crate::world::{REST_PATIENCE, SETUP, World, plain_orders, run};

#[tokio::test]
async fn a_corrected_dead_letter_is_applied_once_and_what_waited_behind_it_follows() {
    let world = World::new("replay", SETUP).await;
    let _stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let records = Records::of(&world.pipeline).unwrap();
    let (shipped, cancelled) = (OrderId::fresh(), OrderId::fresh());
    let broken = |order_id| edited(placed(order_id), "\"total_cents\":", "\"total_cents\":9");
    let written = [broken(shipped), broken(cancelled), cancel_requested(cancelled)];
    records.write(Topic::Orders, &written).await.unwrap();
    producer.client.place_all(plain_orders(50, 15), &run(0), |_| ()).await.unwrap();
    world.expect_sound().await;
    let mut tables = world.pipeline.tables().await.unwrap();
    assert_eq!(parked(&mut tables).await, 4);

    for order_id in [shipped, cancelled] {
        let value = world.pipeline.directory().join("value.json");
        std::fs::write(&value, placed(order_id).value.unwrap()).unwrap();
        for stage in ["inventory", "order"] {
            let letter = letter_of(&mut tables, stage, order_id).await;
            replay(&world, &[&letter, "--value-file", value.to_str().unwrap()]).await;
        }
    }

    let audit = world.expect_reconciled(52).await;
    assert_eq!((audit.count("shipped"), audit.count("cancelled")), (51, 1), "{audit:#?}");
    assert_eq!(parked(&mut tables).await, 0);
    let waiting = "select count(*) from dead_letters where state <> 'replayed'";
    assert_eq!(tables.number(waiting).await.unwrap(), 0);
    let before = tables.digests().await.unwrap();

    let again = replay(&world, &["--all"]).await;

    assert!(again.status.success());
    world.expect_reconciled(52).await;
    assert_eq!(tables.digests().await.unwrap(), before);
}

#[tokio::test]
async fn what_is_given_up_lets_the_events_behind_it_go() {
    let world = World::new("discard", SETUP).await;
    let _stages = world.stages(&[]).await;
    let records = Records::of(&world.pipeline).unwrap();
    let order_id = OrderId::fresh();
    let junk = edited(placed(order_id), "\"items\"", "\"itmes\"");
    records.write(Topic::Orders, &[junk, placed(order_id)]).await.unwrap();
    world.expect_sound().await;
    let mut tables = world.pipeline.tables().await.unwrap();
    assert_eq!(parked(&mut tables).await, 2);

    for stage in ["inventory", "order"] {
        let letter = letter_of(&mut tables, stage, order_id).await;
        world
            .pipeline
            .tool(&["dead-letters", "discard", &letter, "--reason", "sent by mistake"])
            .await
            .unwrap();
    }

    let audit = world.expect_reconciled(1).await;
    assert_eq!(audit.count("shipped"), 1, "{audit:#?}");
    assert_eq!(parked(&mut tables).await, 0);
}

/// The open letter of an order at a stage.
async fn letter_of(tables: &mut Tables, stage: &str, order_id: OrderId) -> String {
    let query = format!(
        "select dead_letter_id from dead_letters where stage = '{stage}' and order_id = '{order_id}' and state = 'open'"
    );
    tables.number(&query).await.unwrap().to_string()
}

async fn replay(world: &World, arguments: &[&str]) -> Output {
    let wait = format!("{}s", REST_PATIENCE.as_secs());
    let arguments = [&["dead-letters", "replay", "--wait", &wait], arguments].concat();
    let output = world.pipeline.try_tool(&arguments).await.unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output
}

async fn parked(tables: &mut Tables) -> i64 {
    tables.number("select count(*) from parked_orders").await.unwrap()
}
