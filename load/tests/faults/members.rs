//! Stages joining and leaving under load.

use std::time::Duration;

use load::orders::Run;
use load::pipeline::STOP_PATIENCE;

use crate::servers_of_its_own::Servers;
use crate::world::{SETUP, World, hasty, mixed_orders, ready};

#[tokio::test]
async fn replicas_that_come_and_go_share_the_work_without_doubling_it() {
    let servers = Servers::up(1).await;
    let world = World::on(servers.stack(), "members", SETUP).await;
    let _first = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    let run = Run {
        concurrency: 8,
        cancel_every: 10,
        patience: Duration::from_secs(120),
        ..Run::default()
    };
    let placing = producer.client.place_all(mixed_orders(6_000, 70), &run, |_| ());
    let coming_and_going = async {
        let mut others = Vec::new();
        for number in 0..2 {
            let name = format!("replica-{number}");
            others.push(world.pipeline.start_stages(&name, &[], hasty).await.unwrap());
        }
        for _ in 0..3 {
            others[0].stop(STOP_PATIENCE).await.unwrap();
            others[1].kill().await.unwrap();
            for other in &mut others {
                other.start_again(|_| ()).unwrap();
                ready(other).await;
            }
        }
        for mut other in others {
            other.stop(STOP_PATIENCE).await.unwrap();
        }
    };
    let (placed, ()) = tokio::join!(placing, coming_and_going);

    placed.unwrap();
    world.expect_reconciled(6_000).await;
}
