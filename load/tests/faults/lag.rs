//! What is told about lag while servers are away: the last two lines of the table in `tests/it/lag/sources.rs`.

use std::time::Duration;

use load::eventually::eventually;

use crate::page::Page;
use crate::servers_of_its_own::Servers;
use crate::watched::{Told, Watched};
use crate::world::{SETUP, World};

#[tokio::test]
async fn while_the_broker_is_down_nobody_claims_to_know_what_waits() {
    let servers = Servers::up(1).await;
    let world = World::on(servers.stack(), "broker-down", SETUP).await;
    let watched = Watched::on(world, &[]).await;
    let hold = watched.hold().await;
    watched.place(20).await;
    let waits = |told: &Told| told.sum() == 20.0;
    watched.expect_inside("all of it waits", waits).await;
    watched.expect_outside("all of it waits", waits).await;

    servers.kill("kafka").await;

    let nothing = |told: &Told| told == &Told::default();
    watched.expect_inside("the session is over", nothing).await;
    watched.expect_outside("the last look is too old", nothing).await;
    let page = watched.outside_page().await;
    let looked = page.sum("kafka_lag_exporter_last_update_timestamp_seconds", &[]).unwrap();
    let errors = [("source", "cluster")];
    assert!(page.sum("kafka_lag_exporter_errors_total", &errors).unwrap() > 0.0);
    hold.release().await;
    servers.restart("kafka").await;
    watched.expect_drained().await;
    let page = watched.outside_page().await;
    assert!(page.sum("kafka_lag_exporter_last_update_timestamp_seconds", &[]).unwrap() > looked);
}

#[tokio::test]
async fn while_postgres_is_down_both_tell_the_truth() {
    let servers = Servers::up(1).await;
    let world = World::on(servers.stack(), "postgres-down", SETUP).await;
    let watched = Watched::on(world, &[]).await;
    watched.place(20).await;
    watched.expect_drained().await;

    servers.kill("postgres").await;
    watched.place(30).await;

    // The client asks again after a 503, with the same key: a record may be there twice.
    let waits = |told: &Told| told.sum() >= 30.0;
    let longest = watched
        .agree_until(async |inside, outside| {
            waits(inside) && inside.sum() == outside.sum() && inside.longest() > 5.0
        })
        .await;
    assert!(longest > 4.0, "{longest}");
    let retried = [("stage", "order"), ("outcome", "retried")];
    let failed = [("stage", "order"), ("reason", "transient")];
    eventually(Duration::from_secs(20), "failed attempts are counted", async || {
        let page = Page::of(watched.stage.admin()).await?;
        let counts = ["stage_events_total", "order_processing_errors_total"];
        let counts = [page.sum(counts[0], &retried), page.sum(counts[1], &failed)];
        anyhow::ensure!(counts.iter().all(|count| *count > Some(0.0)), "{counts:?}");
        Ok(())
    })
    .await
    .unwrap();
    let page = watched.outside_page().await;
    let errors = page.sum("kafka_lag_exporter_errors_total", &[("source", "postgres")]);
    assert!(errors > Some(0.0), "{errors:?}");
    servers.restart("postgres").await;
    watched.expect_drained().await;
}
