//! A database that went back in time, as after a restored backup or a failover to a copy that was behind: everything
//! since is in Kafka, and is read again.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use load::orders::Run;

use crate::servers_of_its_own::Servers;
use crate::world::{SETUP, World, mixed_orders};

const PATIENCE: Duration = Duration::from_secs(120);
/// Before the backup, and since.
const BEFORE: usize = 200;
const SINCE: usize = 300;
const ALL: u64 = (BEFORE + SINCE) as u64;

#[tokio::test]
async fn a_database_restored_from_a_backup_reads_what_it_lacks_from_kafka_again() {
    let servers = Servers::up(1).await;
    let world = World::supervised_on(servers.stack(), "restored", SETUP, &[]).await;
    let stages = world.stages(&[]).await;
    let _worker = world.pipeline.start_worker("worker", |spec| spec).await.unwrap();
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    // Each with keys of its own.
    let run = || Run { concurrency: 8, patience: PATIENCE, ..Run::default() };
    let data = servers.stack().data_dir("postgres").unwrap();
    let backup = data.with_file_name("postgres-backup");

    // In the middle of their way, so that the backup has effects that wait to be told.
    producer.client.place_all(mixed_orders(BEFORE, 70), &run(), |_| ()).await.unwrap();
    servers.stop("postgres").await;
    copy(&data, &backup);
    servers.restart("postgres").await;
    producer.client.place_all(mixed_orders(SINCE, 71), &run(), |_| ()).await.unwrap();
    world.expect_reconciled(ALL).await;

    servers.kill("postgres").await;
    fs::remove_dir_all(&data).unwrap();
    copy(&backup, &data);
    servers.restart("postgres").await;

    // Nothing comes in: whoever waits for a record to find out waits for ever.
    let audit = world.expect_reconciled(ALL).await;
    assert_eq!(audit.workflows.unwrap().closed, ALL, "{audit:#?}");
    assert!(stages.log().contains("the database has forgotten"), "{}", stages.log());
}

/// With owners and modes: the server refuses a folder that others may read.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--archive").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp ended with {status}");
}
