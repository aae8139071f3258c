//! A worker is killed; another one goes on from the history.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use prometheus_client::registry::Registry;
use telemetry::Shutdown;
use workflows::{ActivityMetrics, Deadlines, FactKind, Status, WorkerArgs, worker};

use crate::bench::{Bench, Files, PATIENT, because, eventually, fact, settings, stop};

const ROLE: &str = "WORKFLOWS_TEST_WORKER";

/// Not a test but the program that the next one kills: this binary, started with a role.
#[tokio::test]
async fn worker_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let [address, queue, directory] = role.split('|').collect::<Vec<_>>().try_into().unwrap();
    let metrics = ActivityMetrics::register(&mut Registry::default());
    let world = Arc::new(Files(PathBuf::from(directory)));
    let args = WorkerArgs::for_tests(queue);
    worker::run(settings(address), args, world, metrics, Shutdown::new()).await.unwrap();
}

#[tokio::test]
async fn a_killed_worker_loses_nothing() {
    let bench = Bench::new(Deadlines { payment_ms: 3000, ..PATIENT });
    let mut first = start(&bench);
    bench.tell(&[fact(FactKind::OrderPlaced), fact(FactKind::StockReserved)]).await;
    eventually("the first worker has it", async || {
        match bench.supervisor.status(bench.order).await {
            Ok(workflows::Standing::Open(report)) if report.awaited.is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    first.kill().unwrap();
    first.wait().unwrap();
    let second = bench.worker();

    // Its deadline passes on the second worker's watch.
    bench.publishes(&["saga.order-cancelled.v1"]).await;
    let failed = because(FactKind::ShipmentFailed, "cancelled");
    bench.tell(&[failed, because(FactKind::StockReleased, "cancelled")]).await;
    bench.closes(Status::Cancelled).await;
    assert_eq!(bench.published_types(), ["saga.order-cancelled.v1"]);
    stop(second).await;
}

fn start(bench: &Bench) -> Child {
    let role =
        format!("{}|{}|{}", bench.settings.address(), bench.queue, bench.directory().display());
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "takeover::worker_process"])
        .env(ROLE, role)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}
