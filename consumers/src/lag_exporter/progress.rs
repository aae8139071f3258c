//! `stage_progress`: the true positions of this pipeline's own stages, which Kafka's committed offsets follow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use uuid::Uuid;

use super::bounds::Place;

/// One small table; a database that takes longer is not well.
const PATIENCE: Duration = Duration::from_secs(5);
/// Stages times topics times partitions; far beyond any pipeline.
const MOST_ROWS: i64 = 100_000;

/// Where a stage is in a partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) next_offset: i64,
    /// The id of the topic that the offset is of; `None`: not known.
    pub(super) topic_id: Option<Uuid>,
}

/// By stage, where it is in each partition.
pub(super) type Stages = BTreeMap<Arc<str>, BTreeMap<Place, Standing>>;

/// Reads it over one connection, opened again after an error.
pub(super) struct Progress {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

impl Progress {
    pub(super) fn new(options: PgConnectOptions) -> Self {
        Self { options, connection: None }
    }

    /// Where every stage is.
    pub(super) async fn read(&mut self) -> anyhow::Result<Stages> {
        // Taken, so that a read that is given up takes its connection with it.
        let connection = self.connection.take();
        let reading = async {
            let mut db = match connection {
                Some(db) => db,
                None => PgConnection::connect_with(&self.options)
                    .await
                    .context("connecting to Postgres")?,
            };
            let rows = sqlx::query(
                "select stage, topic, partition, next_offset, topic_id from stage_progress limit $1",
            )
            .bind(MOST_ROWS)
            .fetch_all(&mut db)
            .await
            .context("reading stage_progress; was the database migrated? order-consumer migrate")?;
            anyhow::Ok((db, rows))
        };
        let read = tokio::time::timeout(PATIENCE, reading).await;
        let (db, rows) = read.context("Postgres did not answer in time")??;
        self.connection = Some(db);
        let mut stages = Stages::new();
        for row in rows {
            let (stage, topic): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let standing = Standing { next_offset: row.try_get(3)?, topic_id: row.try_get(4)? };
            stages
                .entry(stage.into())
                .or_default()
                .insert((topic.into(), row.try_get(2)?), standing);
        }
        Ok(stages)
    }
}
