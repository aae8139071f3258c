//! Jobs that push: one that does not run any more, one whose results are refused, and one that finds something.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures::FutureExt;
use reqwest::Method;

use super::PATIENCE;
use crate::alerts::fault::{Fault, alert};
use crate::alerts::proof::Proof;
use crate::eventually::eventually;
use crate::scene::{Scene, shorter};

/// Two hours, and some.
const STALE_PATIENCE: Duration = Duration::from_secs(420);

pub(in crate::alerts) const FAULTS: &[Fault] = &[
    Fault {
        what: "the auditor finds another amount",
        proves: &[alert("ReconciliationMismatch", &[("job", "reconcile"), ("kind", "mismatched")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| mismatched(scene, proof).boxed_local(),
    },
    Fault {
        what: "another job pushes our names as another type",
        proves: &[alert("BatchJobPushFailed", &[("job", "reconcile")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| push_refused(scene, proof).boxed_local(),
    },
    Fault {
        what: "the auditor's job is killed",
        proves: &[alert("BatchJobStale", &[("job", "reconcile")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| stopped(scene, proof).boxed_local(),
    },
];

async fn mismatched(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut tables = scene.pipeline.tables().await?;
    let shipped = eventually(PATIENCE, "an order was shipped", async || {
        let rows = tables
            .rows("select order_id::text from orders where status = 'shipped' order by shipped_at limit 1")
            .await?;
        rows.into_iter().flatten().flatten().next().context("none yet")
    })
    .await?;
    let mut db = scene.database().await?;
    let change = |cents: i64| {
        sqlx::query(
            "update payments set amount_cents = amount_cents + $1 where order_id = $2::uuid",
        )
        .bind(cents)
        .bind(shipped.clone())
    };
    change(1).execute(&mut db).await.context("change an amount")?;
    scene.reconcile_now().await?;
    let arrived = proof.arrives(PATIENCE).await;
    change(-1).execute(&mut db).await.context("change it back")?;
    scene.reconcile_now().await?;
    arrived
}

/// The type of a family is that of whoever pushed it first; others are turned away.
async fn push_refused(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    scene.push(Method::DELETE, "reconcile", String::new()).await?;
    let text = "# TYPE batch_job_duration_seconds counter\nbatch_job_duration_seconds 1\n";
    let status = scene.push(Method::PUT, "another", text.to_owned()).await?;
    ensure!(status == 200, "the Pushgateway answered {status}");
    scene.reconcile_now().await?;
    let arrived = proof.arrives(PATIENCE).await;
    scene.push(Method::DELETE, "another", String::new()).await?;
    scene.reconcile_now().await?;
    arrived
}

async fn stopped(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut reconciler = scene.reconciler.lock().await;
    reconciler.kill().await?;
    let arrived = proof.arrives(STALE_PATIENCE).await;
    // It runs at once.
    reconciler.start_again(|_| ())?;
    let age = "time() - job:batch_job_last_success_timestamp_seconds:max";
    eventually(PATIENCE, "the job succeeds again", async || {
        let age = scene.prometheus.value(age).await?.context("it never has")?;
        ensure!(age < shorter(3600).as_secs_f64(), "{age:.0} s ago");
        Ok(())
    })
    .await?;
    arrived
}
