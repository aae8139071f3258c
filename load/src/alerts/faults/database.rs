//! Postgres: gone, full of connections, slow, and read by somebody who reads everything.

use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use sqlx::{Connection, PgConnection};

use super::PATIENCE;
use crate::alerts::fault::{Fault, alert};
use crate::alerts::proof::Proof;
use crate::scene::Scene;

/// Above a hundred together with those of the programs, below the two hundred that the stack's Postgres takes.
const CONNECTIONS: usize = 110;

/// One lock's length: what waits for it takes longer than the second that is too much.
const LOCK: Duration = Duration::from_millis(2_000);

pub(in crate::alerts) const FAULTS: &[Fault] = &[
    Fault {
        what: "somebody holds 110 connections",
        proves: &[alert("HighDatabaseConnections", &[])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| connections(scene, proof).boxed_local(),
    },
    Fault {
        what: "somebody reads a large table again and again",
        proves: &[alert("LowCacheHitRatio", &[])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| scans(scene, proof).boxed_local(),
    },
    Fault {
        what: "a table is locked for two seconds, again and again",
        proves: &[alert("SlowDatabaseOperations", &[("operation", "shipments.insert")])],
        follows: &[
            ("ConsumerLagHigh", "batches wait for the lock"),
            ("ConsumerLagGrowing", "batches wait for the lock"),
            ("ThroughputDrop", "batches wait for the lock"),
        ],
        temporal: false,
        deafens: false,
        strike: |scene, proof| locks(scene, proof).boxed_local(),
    },
    Fault {
        what: "Postgres is killed",
        proves: &[alert("PostgresDown", &[])],
        follows: &[
            ("ConsumerLagHigh", "stages wait for it; told where it comes before PostgresDown"),
            ("ConsumerLagGrowing", "stages wait for it; told where it comes before PostgresDown"),
            ("ConsumerStuck", "stages wait for it; told where it comes before PostgresDown"),
            ("ThroughputDrop", "stages wait for it; told where it comes before PostgresDown"),
            ("OutboxStuck", "stages wait for it; told where it comes before PostgresDown"),
            ("HighOrderProcessingErrorRate", "every attempt fails; told where it comes first"),
            ("SlowOrderProcessing", "orders that waited for it are final late"),
        ],
        temporal: false,
        deafens: false,
        strike: |scene, proof| killed(scene, proof).boxed_local(),
    },
];

async fn connections(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut held = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        held.push(scene.database().await?);
    }
    let arrived = proof.arrives(PATIENCE).await;
    for connection in held {
        connection.close().await.context("close a connection")?;
    }
    arrived
}

/// A table larger than the cache: of a smaller one, even of one that is read past it, pages stay whose bits of visibility
/// are set at the first look and must be written.
async fn scans(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut db = scene.database().await?;
    let prepare = "create table archive as
                   select n, repeat('x', 1000) as what from generate_series(1, 200000) n";
    sqlx::raw_sql(prepare).execute(&mut db).await.context("make a large table")?;
    let arrived = proof
        .arrives_during(PATIENCE, async || {
            let read = sqlx::raw_sql("select count(what) from archive").execute(&mut db).await;
            read.map(drop).context("read the large table")
        })
        .await;
    sqlx::raw_sql("drop table archive").execute(&mut db).await.context("drop the large table")?;
    arrived
}

async fn locks(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut db = scene.database().await?;
    proof.arrives_during(PATIENCE, async || lock_once(&mut db).await).await
}

async fn lock_once(db: &mut PgConnection) -> anyhow::Result<()> {
    let mut lock = db.begin().await.context("begin")?;
    sqlx::query("lock table shipments in exclusive mode")
        .execute(&mut *lock)
        .await
        .context("lock a table")?;
    // The fault's own length; nothing is expected to have happened by then.
    tokio::time::sleep(LOCK).await;
    lock.rollback().await.context("let go of the table")
}

async fn killed(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    scene.server(|stack| stack.kill("postgres")).await?;
    let arrived = proof.arrives(PATIENCE).await;
    scene.server(|stack| stack.restart("postgres")).await?;
    scene.database_answers().await?;
    arrived
}
