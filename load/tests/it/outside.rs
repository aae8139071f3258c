//! Gateways and carriers that lose their answers, processes that die between the call and the note of it, and customers
//! who change their minds in between.

use std::time::Duration;

use load::pipeline::Tables;
use load::process::Process;

use crate::ledger::{Mood, Outside};
use crate::world::{SETUP, World, hasty, mixed_orders, plain_orders, run};

#[tokio::test]
async fn whatever_answers_are_lost_money_and_parcels_move_once_per_order() {
    let world = World::new("outside", SETUP).await;
    let outside =
        Outside::serve(Mood { loses_answer_every: 9, fails_every: 7, ..Mood::default() }).await;
    let _others = world.stages(&["inventory", "order"]).await;
    let mut callers = Vec::new();
    for stage in ["payment", "shipping"] {
        // Dies with the answers in hand and nothing noted.
        callers.push(launch(&world, &outside, stage, &format!("{stage}.prepared:kill:2")));
    }
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    producer.client.place_all(mixed_orders(200, 8), &run(5), |_| ()).await.unwrap();
    for caller in &mut callers {
        caller.ended(Duration::from_secs(60)).await.unwrap();
        caller.start_again(|spec| spec.environment.retain(|(name, _)| name != "CRASH_AT")).unwrap();
    }

    let audit = world.expect_reconciled(200).await;
    assert!(audit.count("declined") > 0 && audit.count("shipped") > 100, "{audit:#?}");
    {
        let ledger = outside.ledger();
        assert!(
            ledger.lost_answers > 10 && ledger.failures > 10,
            "{} {}",
            ledger.lost_answers,
            ledger.failures
        );
    }
    expect_ledger_agrees(&outside, &mut world.pipeline.tables().await.unwrap(), 200).await;
}

#[tokio::test]
async fn an_order_is_shipped_or_cancelled_and_never_both() {
    let world = World::new("race", SETUP).await;
    let mood =
        Mood { arranging: Duration::from_millis(30), loses_answer_every: 11, ..Mood::default() };
    let outside = Outside::serve(mood).await;
    let _others = world.stages(&["inventory", "order"]).await;
    let _callers = ["payment", "shipping"].map(|stage| launch(&world, &outside, stage, "nowhere"));
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    producer.client.place_all(plain_orders(200, 9), &run(1), |_| ()).await.unwrap();

    let audit = world.expect_reconciled(200).await;
    assert_eq!(audit.count("shipped") + audit.count("cancelled"), 200, "{audit:#?}");
    assert!(audit.count("cancelled") > 0, "{audit:#?}");
    expect_ledger_agrees(&outside, &mut world.pipeline.tables().await.unwrap(), 200).await;
}

pub(crate) fn launch(world: &World, outside: &Outside, stage: &str, crash_at: &str) -> Process {
    let arguments = outside.arguments();
    let change =
        |spec| hasty(spec).arguments(arguments.iter().map(String::as_str)).crash_at(crash_at);
    world.pipeline.launch_stages(stage, &[stage], change).unwrap()
}

/// What really happened outside is what the tables say.
pub(crate) async fn expect_ledger_agrees(outside: &Outside, tables: &mut Tables, orders: usize) {
    let query = "select order_id::text, status, total_cents::text from orders";
    let rows = tables.rows(query).await.unwrap();
    assert_eq!(rows.len(), orders);
    let ledger = outside.ledger();
    for row in rows {
        let [order_id, status, total] = &row[..] else { panic!("{row:?}") };
        let (order_id, status) = (order_id.as_deref().unwrap(), status.as_deref().unwrap());
        let paid: Vec<String> =
            ledger.paid(order_id).iter().map(|charge| charge.amount_cents.to_string()).collect();
        let (wanted, parcels) = match status {
            "shipped" => (vec![total.clone().unwrap()], 1),
            _ => (Vec::new(), 0),
        };
        assert_eq!((paid, ledger.shipped(order_id)), (wanted, parcels), "{order_id} is {status}");
    }
    for (key, charge) in &ledger.charges {
        assert!(charge.taken_back <= 1, "{key} was given back {} times", charge.taken_back);
    }
}
