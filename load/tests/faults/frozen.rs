//! Processes that sleep through their session while somebody else takes over, and wake up with a batch in hand.

use std::time::{Duration, Instant};

use load::eventually::eventually;
use load::pipeline::Producer;
use load::process::{Process, Signal};

use crate::servers_of_its_own::Servers;
use crate::world::{SETUP, World, hasty, mixed_orders, run, unsupervised_stages};

const PATIENCE: Duration = Duration::from_secs(60);

/// In each round.
const ORDERS: u64 = 200;

/// The session (2 s), the end of the frozen transaction (10 s), and a slow machine.
const TAKE_OVER: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_stage_that_wakes_up_after_its_session_is_fenced_and_changes_nothing() {
    let servers = Servers::up(1).await;
    let world = World::on(servers.stack(), "zombie", SETUP).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let mut placed = 0;
    for stage in unsupervised_stages() {
        // Holds a batch, and has not begun its transaction.
        let (mut zombie, _others) = freeze_with_a_batch(&world, stage.name, "prepared").await;
        let frozen = zombie.frozen(PATIENCE);
        let (_, _successor) =
            replace_under_load(&world, &producer, stage.name, placed, frozen).await;
        placed += ORDERS;
        world.expect_reconciled(placed).await;

        zombie.signal(Signal::CONT).unwrap();

        eventually(PATIENCE, "the zombie notices that it was fenced", async || {
            let fenced = zombie.metric("stage_fenced_total", &[("stage", stage.name)]).await?;
            anyhow::ensure!(fenced >= Some(1.0), "fenced {fenced:?} times");
            Ok(())
        })
        .await
        .unwrap();
        world.expect_reconciled(placed).await;
    }
}

#[tokio::test]
async fn a_stage_frozen_inside_its_transaction_does_not_keep_its_successor_waiting() {
    let servers = Servers::up(1).await;
    let world = World::on(servers.stack(), "inside", SETUP).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let mut placed = 0;
    for stage in unsupervised_stages() {
        let (mut zombie, _others) = freeze_with_a_batch(&world, stage.name, "before_commit").await;
        let frozen = zombie.frozen(PATIENCE);
        let (frozen_at, _successor) =
            replace_under_load(&world, &producer, stage.name, placed, frozen).await;
        placed += ORDERS;
        world.expect_reconciled(placed).await;

        let took = frozen_at.elapsed();
        assert!(took < TAKE_OVER, "{} took {took:?} to go on", stage.name);
        zombie.signal(Signal::CONT).unwrap();
        zombie.ready(PATIENCE).await.unwrap();
        world.expect_reconciled(placed).await;
    }
}

/// The stage that will freeze at its first batch, and all others.
async fn freeze_with_a_batch(world: &World, stage: &str, point: &str) -> (Process, Process) {
    let others: Vec<&str> =
        unsupervised_stages().map(|other| other.name).filter(|other| *other != stage).collect();
    let others = world.stages(&others).await;
    let crash_at = format!("{stage}.{point}:stop");
    let zombie = world
        .pipeline
        .start_stages(stage, &[stage], |spec| hasty(spec).crash_at(&crash_at))
        .await
        .unwrap();
    (zombie, others)
}

/// Places orders; starts another member for the stage as soon as the first one is frozen, and returns it ready, with the
/// moment at which that was.
async fn replace_under_load(
    world: &World,
    producer: &Producer,
    stage: &str,
    seed: u64,
    frozen: impl Future<Output = anyhow::Result<()>>,
) -> (Instant, Process) {
    let run = run(9);
    let placing = producer.client.place_all(mixed_orders(ORDERS as usize, seed), &run, |_| ());
    let replacing = async {
        frozen.await.unwrap();
        let name = format!("{stage}-successor");
        (Instant::now(), world.pipeline.start_stages(&name, &[stage], hasty).await.unwrap())
    };
    let (placed, replaced) = tokio::join!(placing, replacing);
    placed.unwrap();
    replaced
}
