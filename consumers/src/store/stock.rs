//! `stock`: how much of each SKU there is, and how much of it is promised.

use std::collections::{BTreeMap, HashMap};

use sqlx::{PgConnection, Row};

use super::operations::Operation;
use super::session::Session;

/// What is free of each of `skus`, with their rows locked until the transaction ends. Unknown SKUs are absent. Locked
/// in the order of the names, so that two batches never wait for each other in a circle.
pub(crate) async fn lock_available(
    db: &mut Session<'_>,
    skus: &[&str],
) -> Result<HashMap<String, i64>, sqlx::Error> {
    let rows = sqlx::query(
        "select sku, on_hand - reserved
           from stock
          where sku = any($1)
          order by sku
            for no key update",
    )
    .bind(skus)
    .fetch_all(&mut *db.timed(Operation::StockLockAvailable))
    .await?;
    rows.into_iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Adds to what is promised of each SKU; negative numbers free it. The rows must be locked.
pub(crate) async fn add_reserved(
    db: &mut Session<'_>,
    changes: &BTreeMap<String, i64>,
) -> Result<(), sqlx::Error> {
    let skus: Vec<&str> = changes.keys().map(String::as_str).collect();
    let quantities: Vec<i64> = changes.values().copied().collect();
    sqlx::query(
        "update stock
            set reserved = reserved + change.quantity, updated_at = now()
           from unnest($1::text[], $2::bigint[]) as change (sku, quantity)
          where stock.sku = change.sku",
    )
    .bind(skus)
    .bind(quantities)
    .execute(&mut *db.timed(Operation::StockAddReserved))
    .await?;
    Ok(())
}

/// Puts SKUs on the shelf, or sets how many there are of them. A tool's: nobody reads metrics of it.
pub(crate) async fn set_on_hand(
    db: &mut PgConnection,
    skus: &[String],
    quantities: &[i64],
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "insert into stock (sku, on_hand)
         select sku, quantity from unnest($1::text[], $2::bigint[]) as shelf (sku, quantity) order by sku
         on conflict on constraint stock_pkey do update
            set on_hand = excluded.on_hand, updated_at = now()",
    )
    .bind(skus)
    .bind(quantities)
    .execute(db)
    .await?;
    Ok(done.rows_affected())
}
