//! Where every stage is, from Postgres and Kafka alone: what is left to ask when no process answers.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use producers::kafka::KafkaArgs;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};

use crate::stages::CATALOGUE;

/// A stage, summed over its partitions.
#[derive(Clone, Debug)]
pub(super) struct StageStatus {
    /// Its name.
    pub(super) stage: String,
    /// Partitions it ever read.
    pub(super) partitions: usize,
    /// Processes that own them.
    pub(super) owners: usize,
    /// Records behind.
    pub(super) lag: i64,
    /// Batches whose effects are not known to be out.
    pub(super) outbox: i64,
    /// Dead letters that wait for a person.
    pub(super) dead_letters: i64,
    /// Orders that wait behind them.
    pub(super) parked_orders: i64,
}

const BROKER_PATIENCE: Duration = Duration::from_secs(10);

/// Reads the status of every stage in the catalogue.
pub(super) async fn read(
    kafka: &KafkaArgs,
    database: &PgConnectOptions,
) -> anyhow::Result<Vec<StageStatus>> {
    let mut db = PgConnection::connect_with(database).await.context("connecting to Postgres")?;
    let progress =
        sqlx::query("select stage, topic, partition, next_offset, owner from stage_progress")
            .fetch_all(&mut db)
            .await
            .context("reading stage_progress; was the database migrated? order-consumer migrate")?;
    let consumer: BaseConsumer =
        BaseConsumer::from_config(&kafka.client_config("order-consumer-status")?)
            .context("creating a Kafka client")?;
    let mut ends: BTreeMap<(String, i32), i64> = BTreeMap::new();
    let mut stages: BTreeMap<String, (StageStatus, std::collections::BTreeSet<String>)> =
        BTreeMap::new();
    for row in progress {
        let (stage, topic, partition): (String, String, i32) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let (next, owner): (i64, String) = (row.try_get(3)?, row.try_get(4)?);
        let end = match ends.get(&(topic.clone(), partition)) {
            Some(end) => *end,
            None => {
                let (_, high) = consumer
                    .fetch_watermarks(&topic, partition, BROKER_PATIENCE)
                    .with_context(|| format!("asking where {topic} [{partition}] ends"))?;
                ends.insert((topic, partition), high);
                high
            }
        };
        let (status, owners) = stages
            .entry(stage.clone())
            .or_insert_with(|| (empty(stage), std::collections::BTreeSet::new()));
        status.partitions += 1;
        status.lag += (end - next).max(0);
        owners.insert(owner);
        status.owners = owners.len();
    }
    let mut all = Vec::new();
    for entry in CATALOGUE {
        let mut status = stages
            .remove(entry.name)
            .map_or_else(|| empty(entry.name.to_owned()), |(status, _)| status);
        let row = sqlx::query(
            "select (select count(*) from outbox where stage = $1),
                    (select count(*) from dead_letters where stage = $1 and state in ('open', 'replaying')),
                    (select count(*) from parked_orders where stage = $1)",
        )
        .bind(entry.name)
        .fetch_one(&mut db)
        .await
        .context("counting what waits")?;
        status.outbox = row.try_get(0)?;
        status.dead_letters = row.try_get(1)?;
        status.parked_orders = row.try_get(2)?;
        all.push(status);
    }
    Ok(all)
}

fn empty(stage: String) -> StageStatus {
    StageStatus {
        stage,
        partitions: 0,
        owners: 0,
        lag: 0,
        outbox: 0,
        dead_letters: 0,
        parked_orders: 0,
    }
}
