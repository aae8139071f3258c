//! An upgrade in the order that docs/running-at-scale.md names: the tables first, then stage by stage, the worker, the API,
//! each drained by SIGTERM while orders come in.
//!
//! `UPGRADE_FROM=FOLDER` names the programs of the build before; without it this build follows upon itself.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use consumers::stages::CATALOGUE;
use load::orders::{Client, Run};
use load::pipeline::STOP_PATIENCE;
use load::process::{Process, Spec};

use crate::servers_of_its_own::Servers;
use crate::world::{SETUP, World, hasty, mixed_orders, ready};

/// What the development server of Temporal keeps up with: twenty orders, five times a second.
const AT_A_TIME: usize = 20;
const PACE: Duration = Duration::from_millis(200);

#[tokio::test]
async fn an_upgrade_in_the_documented_order_loses_nothing() {
    let servers = Servers::up(1).await;
    // This build's tables under the build before.
    let world = World::supervised_on(servers.stack(), "upgraded", SETUP, &[]).await;
    let before = std::env::var_os("UPGRADE_FROM").map(PathBuf::from);
    let of_before = |spec| from(spec, before.as_deref());
    let mut processes = Vec::new();
    for stage in CATALOGUE {
        let spec = |spec| hasty(of_before(spec));
        let started = world.pipeline.start_stages(stage.name, &[stage.name], spec).await;
        processes.push(started.unwrap());
    }
    processes.push(world.pipeline.start_worker("worker", of_before).await.unwrap());
    let producer = world.pipeline.start_producer(of_before).await.unwrap();
    let client = producer.client.clone();
    processes.push(producer.process);

    let upgraded = Cell::new(false);
    let placing = place_until(&client, &upgraded);
    let upgrading = async {
        for process in &mut processes {
            upgrade(process, &world).await;
        }
        upgraded.set(true);
    };
    let (placed, ()) = tokio::join!(placing, upgrading);

    let audit = world.expect_reconciled(placed).await;
    assert_eq!(audit.workflows.unwrap().closed, placed, "{audit:#?}");
}

/// An orderly end, and the same with this build's program.
async fn upgrade(process: &mut Process, world: &World) {
    process.stop(STOP_PATIENCE).await.unwrap();
    let folder = world.pipeline.programs();
    process.start_again(|spec| *spec = from(spec.clone(), Some(folder))).unwrap();
    ready(process).await;
}

/// The same with the program of that name in `folder`.
fn from(spec: Spec, folder: Option<&Path>) -> Spec {
    let Some(folder) = folder else { return spec };
    Spec { program: folder.join(spec.program.file_name().unwrap()), ..spec }
}

/// Customers who do not know of it, until it is done and they have had their answers; returns how many.
async fn place_until(client: &Client, upgraded: &Cell<bool>) -> u64 {
    let mut timer = tokio::time::interval(PACE);
    let mut placed = 0;
    while !upgraded.get() {
        timer.tick().await;
        let run = Run { cancel_every: 10, ..Run::default() };
        let accepted = client.place_all(mixed_orders(AT_A_TIME, placed), &run, |_| ()).await;
        placed += accepted.unwrap().len() as u64;
    }
    placed
}
