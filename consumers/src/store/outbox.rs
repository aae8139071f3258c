//! `outbox`: effects that are decided and not yet known to be out, one row per batch.

use sqlx::Row;

use super::operations::Operation;
use super::progress::Claim;
use super::session::Session;

/// Names an outbox row: the batch of this partition that the owner of `epoch` ended before `next_offset`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) epoch: i64,
    pub(crate) next_offset: i64,
}

/// An encoded batch of effects.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) key: Key,
    pub(crate) effects: Vec<u8>,
}

pub(crate) async fn insert(
    db: &mut Session<'_>,
    stage: &str,
    key: &Key,
    effects: &[u8],
    count: usize,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into outbox (stage, topic, partition, epoch, next_offset, effects, effect_count)
         values ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(stage)
    .bind(&key.topic)
    .bind(key.partition)
    .bind(key.epoch)
    .bind(key.next_offset)
    .bind(effects)
    .bind(i32::try_from(count).unwrap_or(i32::MAX))
    .execute(&mut *db.timed(Operation::OutboxInsert))
    .await?;
    Ok(())
}

/// Rows of one partition, oldest batch first.
pub(crate) async fn pending(
    db: &mut Session<'_>,
    stage: &str,
    claim: &Claim,
) -> Result<Vec<Pending>, sqlx::Error> {
    let rows = sqlx::query(
        "select epoch, next_offset, effects
           from outbox
          where stage = $1 and topic = $2 and partition = $3
          order by epoch, next_offset",
    )
    .bind(stage)
    .bind(&claim.topic)
    .bind(claim.partition)
    .fetch_all(&mut *db.timed(Operation::OutboxPending))
    .await?;
    rows.into_iter()
        .map(|row| {
            let key = Key {
                topic: claim.topic.clone(),
                partition: claim.partition,
                epoch: row.try_get(0)?,
                next_offset: row.try_get(1)?,
            };
            Ok(Pending { key, effects: row.try_get(2)? })
        })
        .collect()
}

/// Forgets batches whose every effect was acknowledged. Safe from anyone at any time.
pub(crate) async fn delete(
    db: &mut Session<'_>,
    stage: &str,
    keys: &[Key],
) -> Result<(), sqlx::Error> {
    let topics: Vec<&str> = keys.iter().map(|key| key.topic.as_str()).collect();
    let partitions: Vec<i32> = keys.iter().map(|key| key.partition).collect();
    let epochs: Vec<i64> = keys.iter().map(|key| key.epoch).collect();
    let offsets: Vec<i64> = keys.iter().map(|key| key.next_offset).collect();
    sqlx::query(
        "delete from outbox
          using unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[]) as done (topic, partition, epoch, next_offset)
          where outbox.stage = $1 and outbox.topic = done.topic and outbox.partition = done.partition
            and outbox.epoch = done.epoch and outbox.next_offset = done.next_offset",
    )
    .bind(stage)
    .bind(topics)
    .bind(partitions)
    .bind(epochs)
    .bind(offsets)
    .execute(&mut *db.timed(Operation::OutboxDelete))
    .await?;
    Ok(())
}
