//! `dead_letters` and `parked_orders`: records that can never be applied, and those that wait behind them.

use std::collections::HashSet;

use schemas::{EventId, OrderId};
use sqlx::Row;
use uuid::Uuid;

use super::operations::Operation;
use super::session::Session;

/// A record set aside, byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct DeadLetter<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) order_id: Option<OrderId>,
    pub(crate) event_id: Option<EventId>,
    pub(crate) code: &'a str,
    pub(crate) detail: &'a str,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) header_names: Vec<String>,
    pub(crate) header_values: Vec<Option<Vec<u8>>>,
}

/// Code of a record that is sound but waits behind a dead letter of its order.
pub(crate) const PARKED: &str = "parked";

/// Sets a record aside. Returns its id.
pub(crate) async fn insert(
    db: &mut Session<'_>,
    stage: &str,
    letter: &DeadLetter<'_>,
) -> Result<i64, sqlx::Error> {
    let state = if letter.code == PARKED { "parked" } else { "open" };
    let row = sqlx::query(
        "insert into dead_letters
                (stage, topic, partition, record_offset, record_time, order_id, event_id, code, detail, state,
                 record_key, record_value, header_names, header_values)
         values ($1, $2, $3, $4, to_timestamp($5::double precision / 1000), $6, $7, $8, $9, $10, $11, $12, $13, $14)
         returning dead_letter_id",
    )
    .bind(stage)
    .bind(letter.topic)
    .bind(letter.partition)
    .bind(letter.offset)
    .bind(letter.timestamp_ms)
    .bind(letter.order_id.map(|id| id.0))
    .bind(letter.event_id.map(|id| id.0))
    .bind(letter.code)
    .bind(letter.detail)
    .bind(state)
    .bind(letter.key)
    .bind(letter.value)
    .bind(&letter.header_names)
    .bind(&letter.header_values)
    .fetch_one(&mut *db.timed(Operation::DeadLettersInsert))
    .await?;
    row.try_get(0)
}

/// Makes the later events of an order wait behind `dead_letter_id`, unless they wait already.
pub(crate) async fn park(
    db: &mut Session<'_>,
    stage: &str,
    order: OrderId,
    dead_letter_id: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into parked_orders (stage, order_id, dead_letter_id)
         values ($1, $2, $3)
         on conflict on constraint parked_orders_pkey do nothing",
    )
    .bind(stage)
    .bind(order.0)
    .bind(dead_letter_id)
    .execute(&mut *db.timed(Operation::DeadLettersPark))
    .await?;
    Ok(())
}

/// Which of `orders` are parked at `stage`. Locks their rows, so that nobody un-parks them meanwhile.
pub(crate) async fn parked_among(
    db: &mut Session<'_>,
    stage: &str,
    orders: &[Uuid],
) -> Result<HashSet<OrderId>, sqlx::Error> {
    let rows = sqlx::query(
        "select order_id
           from parked_orders
          where stage = $1 and order_id = any($2)
          order by order_id
            for update",
    )
    .bind(stage)
    .bind(orders)
    .fetch_all(&mut *db.timed(Operation::DeadLettersParkedAmong))
    .await?;
    rows.into_iter().map(|row| Ok(OrderId(row.try_get(0)?))).collect()
}

/// Of `letters`, those that are being replayed at `stage` and were not applied yet.
pub(crate) async fn replaying_among(
    db: &mut Session<'_>,
    stage: &str,
    letters: &[i64],
) -> Result<HashSet<i64>, sqlx::Error> {
    let rows = sqlx::query(
        "select dead_letter_id
           from dead_letters
          where stage = $1 and dead_letter_id = any($2) and state = 'replaying'
          order by dead_letter_id
            for update",
    )
    .bind(stage)
    .bind(letters)
    .fetch_all(&mut *db.timed(Operation::DeadLettersReplayingAmong))
    .await?;
    rows.into_iter().map(|row| row.try_get(0)).collect()
}

/// Notes that `letters` are applied, and lets go of their orders once nothing of them waits any more.
pub(crate) async fn replayed(
    db: &mut Session<'_>,
    stage: &str,
    letters: &[i64],
) -> Result<(), sqlx::Error> {
    sqlx::query("update dead_letters set state = 'replayed', updated_at = now() where stage = $1 and dead_letter_id = any($2)")
        .bind(stage)
        .bind(letters)
        .execute(&mut *db.timed(Operation::DeadLettersReplayed))
        .await?;
    sqlx::query(
        "delete from parked_orders
          where stage = $1
            and order_id in (select order_id from dead_letters where dead_letter_id = any($2))
            and not exists (
                select from dead_letters waiting
                 where waiting.stage = $1 and waiting.order_id = parked_orders.order_id
                   and waiting.state in ('open', 'parked', 'replaying'))",
    )
    .bind(stage)
    .bind(letters)
    .execute(&mut *db.timed(Operation::DeadLettersUnpark))
    .await?;
    Ok(())
}

/// A replayed record was rejected once more: it is open again.
pub(crate) async fn reopened(
    db: &mut Session<'_>,
    stage: &str,
    letter: i64,
    code: &str,
    detail: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update dead_letters
            set state = 'open', code = $3, detail = $4, attempts = attempts + 1, updated_at = now()
          where stage = $1 and dead_letter_id = $2",
    )
    .bind(stage)
    .bind(letter)
    .bind(code)
    .bind(detail)
    .execute(&mut *db.timed(Operation::DeadLettersReopened))
    .await?;
    Ok(())
}

/// Dead letters and parked orders that wait for a person, as `(open dead letters, parked orders)`.
pub(crate) async fn waiting(db: &mut Session<'_>, stage: &str) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query(
        "select (select count(*) from dead_letters where stage = $1 and state in ('open', 'replaying')),
                (select count(*) from parked_orders where stage = $1)",
    )
    .bind(stage)
    .fetch_one(&mut *db.timed(Operation::DeadLettersWaiting))
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
