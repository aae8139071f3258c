//! Supervision end to end: orders that hang, orders in trouble, and whoever supervises them killed in between.

use std::collections::HashSet;
use std::time::Duration;

use load::eventually::eventually;
use load::pipeline::Tables;
use load::process::{Process, Signal};
use load::records::{Record, Records};
use schemas::{EventType, Topic};

use crate::ledger::{Mood, Outside};
use crate::outside::{expect_ledger_agrees, launch};
use crate::world::{SETUP, World, hasty, mixed_orders, plain_orders, run};

/// From a deadline of seconds to all that follows from it, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Deadlines that a test can wait for: only the payment's passes.
const HURRIED: [(&str, &str); 4] = [
    ("DEADLINE_RESERVATION_SECONDS", "120"),
    ("DEADLINE_PAYMENT_SECONDS", "4"),
    ("DEADLINE_SHIPPING_SECONDS", "120"),
    ("DEADLINE_COMPENSATION_SECONDS", "5"),
];

#[tokio::test]
async fn an_order_whose_payment_hangs_is_undone_once_whoever_is_killed() {
    let world = World::supervised("hangs", SETUP, &HURRIED).await;
    let outside = Outside::serve(Mood::default()).await;
    let _stages = world.stages(&["inventory", "shipping", "order"]).await;
    // Dies with money taken and nothing noted, and stays dead past the deadline.
    let mut payment = launch(&world, &outside, "payment", "payment.prepared");
    // Dies with signals decided and not sent.
    let crash_at = "workflow.after_commit:kill:2";
    let change = |spec| hasty(spec).crash_at(crash_at);
    let mut signals = world.pipeline.launch_stages("workflow", &["workflow"], change).unwrap();
    let mut worker = world.pipeline.start_worker("worker", |spec| spec).await.unwrap();
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    producer.client.place_all(plain_orders(12, 41), &run(0), |_| ()).await.unwrap();
    killed_by_itself(&mut payment).await;
    killed_by_itself(&mut signals).await;
    signals.start_again(forget_to_crash).unwrap();
    let records = Records::of(&world.pipeline).unwrap();
    requests(&records, EventType::OrderCancelled, 1).await;
    worker.kill().await.unwrap();
    let _other = world.pipeline.start_worker("other-worker", |spec| spec).await.unwrap();
    let mut tables = world.pipeline.tables().await.unwrap();
    orders_are(&mut tables, "cancelled", 12).await;
    payment.start_again(forget_to_crash).unwrap();

    let audit = world.expect_reconciled(12).await;
    let workflows = audit.workflows.unwrap();
    assert_eq!((audit.count("cancelled"), workflows.closed, workflows.open), (12, 12, 0));
    expect_ledger_agrees(&outside, &mut tables, 12).await;
    let held = tables.number("select sum(reserved)::bigint from stock").await.unwrap();
    assert_eq!(held, 0, "everything is back on the shelf");
    let asked = ids(&records.read(Topic::Saga).await.unwrap(), EventType::OrderCancelled);
    assert_eq!(asked.len(), 12, "one request per order, however often it was told");
}

#[tokio::test]
async fn with_exceptions_only_orders_in_trouble_have_a_workflow() {
    let settings: Vec<_> = HURRIED
        .into_iter()
        .chain([("SUPERVISE", "exceptions"), ("SUPERVISION_GRACE_SECONDS", "2")])
        .collect();
    let world = World::supervised("exceptions", SETUP, &settings).await;
    let _stages = world.stages(&["inventory", "shipping", "order", "workflow"]).await;
    let payment = world.stages(&["payment"]).await;
    let _worker = world.pipeline.start_worker("worker", |spec| spec).await.unwrap();
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    producer.client.place_all(mixed_orders(60, 42), &run(10), |_| ()).await.unwrap();
    let audit = world.expect_reconciled(60).await;
    let in_trouble = audit.count("declined") + audit.count("cancelled");
    let closed = audit.workflows.unwrap().closed;
    assert!(in_trouble > 0 && (in_trouble..30).contains(&closed), "{closed}: {audit:#?}");

    // These are in no trouble that any event tells of: they are just not getting on.
    crate::world::stop(payment).await;
    producer.client.place_all(plain_orders(5, 43), &run(0), |_| ()).await.unwrap();
    let mut tables = world.pipeline.tables().await.unwrap();
    orders_are(&mut tables, "cancelled", audit.count("cancelled") + 5).await;
    let _payment = world.stages(&["payment"]).await;

    let after = world.expect_reconciled(65).await;
    assert_eq!(after.count("cancelled"), audit.count("cancelled") + 5, "{after:#?}");
    assert_eq!(after.workflows.unwrap().closed, closed + 5, "{after:#?}");
}

#[tokio::test]
async fn every_order_has_a_workflow_that_ends_as_the_order_does() {
    let world = World::supervised("all", SETUP, &[]).await;
    let _stages = world.stages(&[]).await;
    let _worker = world.pipeline.start_worker("worker", |spec| spec).await.unwrap();
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    producer.client.place_all(mixed_orders(60, 44), &run(10), |_| ()).await.unwrap();

    let audit = world.expect_reconciled(60).await;
    assert_eq!(audit.workflows.unwrap().closed, 60, "{audit:#?}");
    // A cancellation may come too late, so none is certain to end cancelled.
    let certain = ["shipped", "rejected", "declined"];
    assert!(certain.iter().all(|status| audit.count(status) > 0), "{audit:#?}");
}

/// Waits until `count` different orders were asked about.
async fn requests(records: &Records<'_>, wanted: EventType, count: usize) {
    eventually(PATIENCE, "supervision asks", async || {
        let found = ids(&records.read(Topic::Saga).await?, wanted).len();
        anyhow::ensure!(found >= count, "{found} of {count} requests");
        Ok(())
    })
    .await
    .unwrap();
}

fn ids(records: &[Record], wanted: EventType) -> HashSet<Vec<u8>> {
    let wanted = Some(wanted.as_str().as_bytes());
    let of_type = records.iter().filter(|record| record.header("ce_type") == wanted);
    of_type.filter_map(|record| Some(record.header("ce_id")?.to_vec())).collect()
}

async fn orders_are(tables: &mut Tables, status: &str, count: u64) {
    eventually(PATIENCE, "orders come to their end", async || {
        let statuses = tables.orders_by_status().await?;
        let found = statuses.get(status).copied().unwrap_or(0);
        anyhow::ensure!(found.unsigned_abs() == count, "{statuses:?}");
        Ok(())
    })
    .await
    .unwrap();
}

async fn killed_by_itself(process: &mut Process) {
    use std::os::unix::process::ExitStatusExt;
    let status = process.ended(PATIENCE).await.unwrap();
    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{status}");
}

fn forget_to_crash(spec: &mut load::process::Spec) {
    spec.environment.retain(|(name, _)| name != "CRASH_AT");
}
