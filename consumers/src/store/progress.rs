//! `stage_progress`: how far each stage is, and who may move it.

use sqlx::Row;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::operations::Operation;
use super::session::Session;

/// A partition as its new owner found it.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) next_offset: i64,
    pub(crate) epoch: i64,
}

/// A partition to be claimed; `start` is where a stage that never read it begins.
#[derive(Clone, Debug)]
pub(crate) struct Unclaimed {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) start: i64,
    /// The topic's id now; `None`: not known.
    pub(crate) topic_id: Option<Uuid>,
}

/// A claim, and which log it is of.
#[derive(Clone, Debug)]
pub(crate) struct Claimed {
    pub(crate) claim: Claim,
    /// The topic's id when this stage first read it; `None`: not known.
    pub(crate) topic_id: Option<Uuid>,
}

/// Makes the caller the only one who can move these partitions: whoever held an older epoch is fenced from now on.
/// Waits for a transaction of the former owner that is still open.
pub(crate) async fn claim(
    db: &mut Session<'_>,
    stage: &str,
    owner: &str,
    partitions: &[Unclaimed],
) -> Result<Vec<Claimed>, sqlx::Error> {
    let topics: Vec<&str> = partitions.iter().map(|p| p.topic.as_str()).collect();
    let numbers: Vec<i32> = partitions.iter().map(|p| p.partition).collect();
    let starts: Vec<i64> = partitions.iter().map(|p| p.start).collect();
    let ids: Vec<Option<Uuid>> = partitions.iter().map(|p| p.topic_id).collect();
    let rows = sqlx::query(
        "insert into stage_progress (stage, topic, partition, next_offset, epoch, owner, topic_id)
         select $1, wanted.topic, wanted.partition, wanted.start, 1, $2, wanted.topic_id
           from unnest($3::text[], $4::integer[], $5::bigint[], $6::uuid[])
                as wanted (topic, partition, start, topic_id)
          order by wanted.topic, wanted.partition
         on conflict on constraint stage_progress_pkey do update
            set epoch = stage_progress.epoch + 1, owner = excluded.owner, updated_at = now(),
                topic_id = coalesce(stage_progress.topic_id, excluded.topic_id)
         returning topic, partition, next_offset, epoch, topic_id",
    )
    .bind(stage)
    .bind(owner)
    .bind(topics)
    .bind(numbers)
    .bind(starts)
    .bind(ids)
    .fetch_all(&mut *db.timed(Operation::ProgressClaim))
    .await?;
    let claimed = |row: &PgRow| Ok(Claimed { claim: read_claim(row)?, topic_id: row.try_get(4)? });
    rows.iter().map(claimed).collect()
}

/// What the fence let through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    /// Whether some order is parked at this stage, so that a closer look is due.
    pub(crate) any_parked: bool,
}

/// Moves a partition from `claim.next_offset` to `next_offset` for the owner of `claim.epoch`. `None`: fenced, someone
/// else owns it or moved it, and the transaction must be rolled back. Locks the row until the transaction ends.
pub(crate) async fn advance(
    db: &mut Session<'_>,
    stage: &str,
    claim: &Claim,
    next_offset: i64,
) -> Result<Option<Passed>, sqlx::Error> {
    let row = sqlx::query(
        "update stage_progress
            set next_offset = $5, updated_at = now()
          where stage = $1 and topic = $2 and partition = $3 and epoch = $4 and next_offset = $6
         returning exists (select from parked_orders where parked_orders.stage = $1)",
    )
    .bind(stage)
    .bind(&claim.topic)
    .bind(claim.partition)
    .bind(claim.epoch)
    .bind(next_offset)
    .bind(claim.next_offset)
    .fetch_optional(&mut *db.timed(Operation::ProgressAdvance))
    .await?;
    row.map(|row| Ok(Passed { any_parked: row.try_get(0)? })).transpose()
}

/// Where a partition stands, as `(next_offset, epoch)`.
pub(crate) async fn read(
    db: &mut Session<'_>,
    stage: &str,
    claim: &Claim,
) -> Result<Option<(i64, i64)>, sqlx::Error> {
    let row = sqlx::query(
        "select next_offset, epoch from stage_progress where stage = $1 and topic = $2 and partition = $3",
    )
    .bind(stage)
    .bind(&claim.topic)
    .bind(claim.partition)
    .fetch_optional(&mut *db.timed(Operation::ProgressRead))
    .await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// Where every partition of `stage` stands.
pub(crate) async fn standing(db: &mut Session<'_>, stage: &str) -> Result<Vec<Claim>, sqlx::Error> {
    let rows = sqlx::query(
        "select topic, partition, next_offset, epoch from stage_progress where stage = $1",
    )
    .bind(stage)
    .fetch_all(&mut *db.timed(Operation::ProgressStanding))
    .await?;
    rows.iter().map(read_claim).collect()
}

fn read_claim(row: &PgRow) -> Result<Claim, sqlx::Error> {
    Ok(Claim {
        topic: row.try_get(0)?,
        partition: row.try_get(1)?,
        next_offset: row.try_get(2)?,
        epoch: row.try_get(3)?,
    })
}
