//! `reservations`: what the inventory stage decided, one row per order.

use std::collections::{HashMap, HashSet};

use schemas::OrderId;
use sqlx::Row;
use uuid::Uuid;

use super::operations::Operation;
use super::session::Session;

/// An order that wants stock. Items are text because Postgres has no arrays of arrays of different lengths.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) digest: [u8; 16],
    pub(crate) skus: Vec<&'a str>,
    pub(crate) quantities: Vec<i32>,
}

/// An order that is given up.
#[derive(Debug)]
pub(crate) struct Released {
    pub(crate) order_id: OrderId,
    pub(crate) skus: Vec<String>,
    pub(crate) quantities: Vec<i32>,
}

/// Writes each order as reserved and returns those that were new; for the others somebody decided before.
pub(crate) async fn insert_reserved(
    db: &mut Session<'_>,
    wanted: &[Wanted<'_>],
) -> Result<HashSet<OrderId>, sqlx::Error> {
    let ids: Vec<Uuid> = wanted.iter().map(|order| order.order_id.0).collect();
    let digests: Vec<&[u8]> = wanted.iter().map(|order| order.digest.as_slice()).collect();
    // One row per order; its items as array literals of their own. SKUs and digits need no quoting there.
    let skus: Vec<String> = wanted.iter().map(|order| literal(&order.skus)).collect();
    let quantities: Vec<String> = wanted.iter().map(|order| literal(&order.quantities)).collect();
    let rows = sqlx::query(
        "insert into reservations (order_id, state, digest, skus, quantities)
         select order_id, 'reserved', digest, skus::text[], quantities::integer[]
           from unnest($1::uuid[], $2::bytea[], $3::text[], $4::text[]) as wanted (order_id, digest, skus, quantities)
         on conflict on constraint reservations_pkey do nothing
         returning order_id",
    )
    .bind(ids)
    .bind(digests)
    .bind(skus)
    .bind(quantities)
    .fetch_all(&mut *db.timed(Operation::ReservationsInsertReserved))
    .await?;
    rows.into_iter().map(|row| Ok(OrderId(row.try_get(0)?))).collect()
}

/// Turns orders just written as reserved into rejected ones.
pub(crate) async fn reject(
    db: &mut Session<'_>,
    orders: &[Uuid],
    reasons: &[&str],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update reservations
            set state = 'rejected', reason = rejected.reason, updated_at = now()
           from unnest($1::uuid[], $2::text[]) as rejected (order_id, reason)
          where reservations.order_id = rejected.order_id",
    )
    .bind(orders)
    .bind(reasons)
    .execute(&mut *db.timed(Operation::ReservationsReject))
    .await?;
    Ok(())
}

/// What was ordered under ids that are decided already. `None`: released before the order was seen.
pub(crate) async fn digests(
    db: &mut Session<'_>,
    orders: &[Uuid],
) -> Result<HashMap<OrderId, Option<Vec<u8>>>, sqlx::Error> {
    let rows = sqlx::query("select order_id, digest from reservations where order_id = any($1)")
        .bind(orders)
        .fetch_all(&mut *db.timed(Operation::ReservationsDigests))
        .await?;
    rows.into_iter().map(|row| Ok((OrderId(row.try_get(0)?), row.try_get(1)?))).collect()
}

/// Gives up orders, once each: returns those that held stock until now, and those never seen, which will get none.
pub(crate) async fn release(
    db: &mut Session<'_>,
    orders: &[Uuid],
    reasons: &[&str],
) -> Result<Vec<Released>, sqlx::Error> {
    let rows = sqlx::query(
        "insert into reservations (order_id, state, reason, skus, quantities)
         select order_id, 'released', reason, '{}', '{}'
           from unnest($1::uuid[], $2::text[]) as released (order_id, reason)
         on conflict on constraint reservations_pkey do update
            set state = 'released', reason = excluded.reason, updated_at = now()
          where reservations.state = 'reserved'
         returning order_id, skus, quantities",
    )
    .bind(orders)
    .bind(reasons)
    .fetch_all(&mut *db.timed(Operation::ReservationsRelease))
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Released {
                order_id: OrderId(row.try_get(0)?),
                skus: row.try_get(1)?,
                quantities: row.try_get(2)?,
            })
        })
        .collect()
}

/// `{a,b,c}`. Only for values without commas, braces, quotes or blanks, as SKUs and numbers are.
fn literal<T: std::fmt::Display>(values: &[T]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("{");
    for (number, value) in values.iter().enumerate() {
        let comma = if number == 0 { "" } else { "," };
        write!(text, "{comma}{value}").expect("writing to a string never fails");
    }
    text.push('}');
    text
}
