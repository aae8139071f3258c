//! Stages: processes that are gone or held up, effects that do not get out, records that cannot be applied or are lost.

use anyhow::Context;
use futures::FutureExt;
use schemas::Topic;
use sqlx::{AssertSqlSafe, Connection};

use super::PATIENCE;
use crate::alerts::fault::{Fault, alert};
use crate::alerts::proof::Proof;
use crate::eventually::eventually;
use crate::pipeline::{READY_PATIENCE, STOP_PATIENCE};
use crate::records::{Record, Records};
use crate::scene::gateway::Mood;
use crate::scene::{ORDERS_PER_SECOND, PARTITIONS, Scene, shorter};

pub(in crate::alerts) const FAULTS: &[Fault] = &[
    Fault {
        what: "a stage's only process is killed",
        proves: &[
            alert("ConsumerGone", &[("stage", "payment")]),
            alert("TargetDown", &[("job", "consumers")]),
        ],
        follows: &[
            ("ConsumerLagHigh", "nobody works on what waits for it"),
            ("ConsumerLagGrowing", "nobody works on what waits for it"),
            ("SlowOrderProcessing", "orders that waited for it are final late"),
        ],
        temporal: false,
        deafens: false,
        strike: |scene, proof| killed(scene, proof).boxed_local(),
    },
    Fault {
        what: "a table is locked under a stage",
        proves: &[
            alert("ConsumerLagHigh", &[("consumergroup", "orders.payment")]),
            alert("ConsumerLagGrowing", &[("consumergroup", "orders.payment")]),
            alert("ThroughputDrop", &[("stage", "payment")]),
        ],
        follows: &[
            ("ConsumerStuck", "none of its partitions moves"),
            ("OutboxStuck", "its last batch is told, and noted as told with the next, which waits"),
            (
                "HighOrderProcessingErrorRate",
                "attempts end when they have waited for the lock too long",
            ),
            ("SlowDatabaseOperations", "the statements that waited for the lock are slow ones"),
            ("SlowOrderProcessing", "orders that waited for it are final late"),
        ],
        temporal: false,
        deafens: false,
        strike: |scene, proof| locked(scene, proof).boxed_local(),
    },
    Fault {
        what: "one partition of a stage is held",
        proves: &[alert("ConsumerStuck", &[("stage", "shipping"), ("partition", "1")])],
        follows: &[
            ("ConsumerLagHigh", "the oldest record of the group waits there"),
            ("ConsumerLagGrowing", "the oldest record of the group waits there"),
            ("HighOrderProcessingErrorRate", "attempts end when they have waited too long"),
            ("SlowDatabaseOperations", "the statements that waited are slow ones"),
            ("SlowOrderProcessing", "its orders are final late"),
        ],
        temporal: false,
        deafens: false,
        strike: |scene, proof| held(scene, proof).boxed_local(),
    },
    Fault {
        what: "a record that is no event",
        proves: &[alert("DeadLetters", &[("stage", "inventory")])],
        follows: &[],
        temporal: false,
        deafens: false,
        strike: |scene, proof| poisoned(scene, proof).boxed_local(),
    },
    Fault {
        what: "the gateway fails at every second call",
        proves: &[alert("HighOrderProcessingErrorRate", &[("stage", "payment")])],
        follows: &[
            ("ConsumerLagHigh", "batches are tried until every call of theirs has worked"),
            ("ConsumerLagGrowing", "batches are tried until every call of theirs has worked"),
            ("ConsumerStuck", "batches are tried until every call of theirs has worked"),
            ("ThroughputDrop", "batches are tried until every call of theirs has worked"),
            ("SlowOrderProcessing", "orders that waited for it are final late"),
        ],
        temporal: false,
        deafens: false,
        strike: |scene, proof| failing(scene, proof).boxed_local(),
    },
    Fault {
        what: "a topic takes no more effects",
        proves: &[alert("OutboxStuck", &[("stage", "inventory")])],
        follows: &[
            ("ConsumerLagHigh", "a partition goes on when its effects are out"),
            ("ConsumerLagGrowing", "a partition goes on when its effects are out"),
            ("ConsumerStuck", "a partition goes on when its effects are out"),
            ("ThroughputDrop", "a partition goes on when its effects are out"),
            ("HighOrderProcessingErrorRate", "telling them is tried again and again"),
            ("SlowOrderProcessing", "orders that waited for it are final late"),
        ],
        temporal: false,
        deafens: false,
        strike: |scene, proof| untold(scene, proof).boxed_local(),
    },
    Fault {
        what: "a second process keeps coming and going",
        proves: &[alert("RebalanceStorm", &[("stage", "shipping")])],
        follows: &[
            ("ConsumerLagHigh", "each move of partitions is a pause"),
            ("ConsumerLagGrowing", "each move of partitions is a pause"),
            ("ConsumerStuck", "each move of partitions is a pause"),
            ("SlowOrderProcessing", "each move of partitions is a pause"),
            ("ThroughputDrop", "each move of partitions is a pause"),
        ],
        temporal: false,
        deafens: false,
        strike: |scene, proof| storm(scene, proof).boxed_local(),
    },
];

/// What cannot be undone: the records are gone.
pub(in crate::alerts) const FOR_GOOD: &[Fault] = &[Fault {
    what: "retention takes what a stopped stage has not read",
    proves: &[alert("RecordsLost", &[("stage", "shipping")])],
    follows: &[
        ("ConsumerGone", "the stage has stopped, and its process with it"),
        ("TargetDown", "the stage has stopped, and its process with it"),
        ("ConsumerLagHigh", "nobody works on what came since"),
        ("ConsumerLagGrowing", "nobody works on what came since"),
        ("SlowOrderProcessing", "orders that came since are final late"),
    ],
    temporal: false,
    deafens: false,
    strike: |scene, proof| lost(scene, proof).boxed_local(),
}];

async fn killed(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut payment = scene.stage("payment").await?;
    payment.kill().await?;
    let arrived = proof.arrives(PATIENCE).await;
    payment.start_again(|_| ())?;
    payment.ready(READY_PATIENCE).await?;
    arrived
}

async fn locked(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    // What drops is compared with what was before.
    let before = shorter(600).as_millis();
    let before = format!("stage:stage_events:rate5m{{stage=\"payment\"}} offset {before}ms");
    eventually(PATIENCE, "the stage has a past", async || {
        let rate = scene.prometheus.value(&before).await?.context("it has none")?;
        anyhow::ensure!(rate > f64::from(ORDERS_PER_SECOND) / 2.0, "{rate} events per second");
        Ok(())
    })
    .await?;
    proof.begins();
    let mut db = scene.database().await?;
    let mut lock = db.begin().await.context("begin")?;
    sqlx::query("lock table payments in exclusive mode")
        .execute(&mut *lock)
        .await
        .context("lock a table")?;
    let arrived = proof.arrives(PATIENCE).await;
    lock.rollback().await.context("let go of the table")?;
    arrived
}

async fn held(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut db = scene.database().await?;
    let mut hold = db.begin().await.context("begin")?;
    // A name of a topic and nothing else.
    let topic = scene.topic(Topic::Payments);
    let row = format!(
        "select 1 from stage_progress
          where stage = 'shipping' and topic = '{topic}' and partition = 1 for update"
    );
    let rows = sqlx::query(AssertSqlSafe(row)).execute(&mut *hold).await.context("hold a row")?;
    anyhow::ensure!(rows.rows_affected() == 1, "shipping has no progress in partition 1");
    let arrived = proof.arrives(PATIENCE).await;
    hold.rollback().await.context("let go of the row")?;
    arrived
}

async fn poisoned(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let junk = Record {
        key: Some(b"42".to_vec()),
        value: Some(b"<order/>".to_vec()),
        ..Record::default()
    };
    Records::of(&scene.pipeline)?.write(Topic::Orders, &[junk]).await?;
    let arrived = proof.arrives(PATIENCE).await;
    let mut tables = scene.pipeline.tables().await?;
    let open =
        tables.rows("select dead_letter_id::text from dead_letters where state = 'open'").await?;
    let ids: Vec<String> = open.into_iter().flatten().flatten().collect();
    let mut discard = vec!["dead-letters", "discard", "--reason", "put there on purpose"];
    discard.extend(ids.iter().map(String::as_str));
    scene.pipeline.tool(&discard).await?;
    arrived
}

async fn failing(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    scene.gateway.set(Mood::Failing);
    let arrived = proof.arrives(PATIENCE).await;
    scene.gateway.set(Mood::Good);
    arrived
}

async fn untold(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let records = Records::of(&scene.pipeline)?;
    records.limit(Topic::Inventory, 64).await?;
    let arrived = proof.arrives(PATIENCE).await;
    records.limit(Topic::Inventory, 1 << 20).await?;
    arrived
}

async fn storm(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut other =
        scene.pipeline.start_stages("shipping-again", &["shipping"], |spec| spec).await?;
    let arrived = proof
        .arrives_during(PATIENCE, async || {
            other.stop(STOP_PATIENCE).await?;
            other.start_again(|_| ())?;
            other.ready(READY_PATIENCE).await
        })
        .await;
    other.stop(STOP_PATIENCE).await?;
    arrived
}

async fn lost(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    // It would find the gap too, for as long as the topics have it; that is proven elsewhere. Nor is it to be missed.
    scene.reconciler.lock().await.stop(STOP_PATIENCE).await?;
    scene.retire_auditor().await?;
    let mut shipping = scene.stage("shipping").await?;
    shipping.stop(STOP_PATIENCE).await?;
    waits(scene, "shipping", true).await?;
    // Others read the same topic, and are to have read it.
    scene.orders.set_rate(0);
    waits(scene, "order", false).await?;
    Records::of(&scene.pipeline)?.delete_all(Topic::Payments).await?;
    scene.orders.set_rate(ORDERS_PER_SECOND);
    shipping.start_again(|_| ())?;
    let status = shipping.ended(READY_PATIENCE).await?;
    anyhow::ensure!(!status.success(), "the stage went on over the gap");
    let arrived = proof.arrives(PATIENCE).await;
    let topic = scene.topic(Topic::Payments);
    for partition in 0..PARTITIONS {
        let partition = partition.to_string();
        let accept = ["progress", "accept-loss", "--stage", "shipping", "--topic", &topic];
        let here = ["--partition", &partition, "--yes"];
        // A partition of which nothing is lost has nothing to accept.
        scene.pipeline.try_tool(&[&accept[..], &here[..]].concat()).await?;
    }
    shipping.start_again(|_| ())?;
    shipping.ready(READY_PATIENCE).await?;
    arrived
}

/// Waits until records wait for a stage, or none do.
async fn waits(scene: &Scene, stage: &str, wanted: bool) -> anyhow::Result<()> {
    let lag = format!("stage:kafka_consumergroup_lag:sum{{stage=\"{stage}\"}}");
    eventually(PATIENCE, "as many records wait as should", async || {
        let lag = scene.prometheus.value(&lag).await?.context("lag is not known")?;
        anyhow::ensure!((lag > 0.0) == wanted, "{lag} records wait for {stage}");
        Ok(())
    })
    .await
}
