//! `supervised_orders` and `supervision_sweeps`, and what supervision reads of an order in the tables of the stages.

use std::collections::HashSet;

use schemas::{OrderId, Timestamp};
use sqlx::Row;
use uuid::Uuid;

use super::operations::Operation;
use super::session::Session;
use super::types::PgTime;

/// What the stages decided on an order: their rows, which are there before any event tells of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decided {
    pub(crate) placed: bool,
    pub(crate) cancel_requested: bool,
    /// State and reason of its reservation.
    pub(crate) reservation: Option<(String, Option<String>)>,
    /// State of its payment.
    pub(crate) payment: Option<String>,
    /// State of its shipment.
    pub(crate) shipment: Option<String>,
}

/// An order that is not final.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Overdue {
    pub(crate) order_id: OrderId,
    pub(crate) placed_at: Timestamp,
}

/// Notes that `orders` have a workflow, or are about to.
pub(crate) async fn add(db: &mut Session<'_>, orders: &[Uuid]) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into supervised_orders (order_id) select unnest($1::uuid[])
         on conflict on constraint supervised_orders_pkey do nothing",
    )
    .bind(orders)
    .execute(&mut *db.timed(Operation::SupervisionAdd))
    .await?;
    Ok(())
}

/// Those of `orders` that have one.
pub(crate) async fn among(
    db: &mut Session<'_>,
    orders: &[Uuid],
) -> Result<HashSet<OrderId>, sqlx::Error> {
    let rows = sqlx::query("select order_id from supervised_orders where order_id = any($1)")
        .bind(orders)
        .fetch_all(&mut *db.timed(Operation::SupervisionAmong))
        .await?;
    rows.into_iter().map(|row| Ok(OrderId(row.try_get(0)?))).collect()
}

/// What was decided on `order`.
pub(crate) async fn decided(db: &mut Session<'_>, order: OrderId) -> Result<Decided, sqlx::Error> {
    let row = sqlx::query(
        "select o.placed_at is not null, o.cancel_requested_at is not null, r.state, r.reason, p.state, s.state
           from (select $1::uuid as order_id) as asked
           left join orders       o using (order_id)
           left join reservations r using (order_id)
           left join payments     p using (order_id)
           left join shipments    s using (order_id)",
    )
    .bind(order.0)
    .fetch_one(&mut *db.timed(Operation::SupervisionDecided))
    .await?;
    let reservation: Option<String> = row.try_get(2)?;
    let reason: Option<String> = row.try_get(3)?;
    Ok(Decided {
        placed: row.try_get(0)?,
        cancel_requested: row.try_get(1)?,
        reservation: reservation.map(|state| (state, reason)),
        payment: row.try_get(4)?,
        shipment: row.try_get(5)?,
    })
}

/// Until when orders were looked through.
pub(crate) async fn swept_until(db: &mut Session<'_>) -> Result<Option<Timestamp>, sqlx::Error> {
    let swept: Option<PgTime> = sqlx::query_scalar("select swept_until from supervision_sweeps")
        .fetch_optional(&mut *db.timed(Operation::SupervisionSweptUntil))
        .await?;
    Ok(swept.map(|time| time.0))
}

/// Moves it on; it never goes back.
pub(crate) async fn sweep_to(db: &mut Session<'_>, until: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query(
        "insert into supervision_sweeps (swept_until) values ($1)
         on conflict on constraint supervision_sweeps_pkey do update
            set swept_until = greatest(supervision_sweeps.swept_until, excluded.swept_until)",
    )
    .bind(PgTime(until))
    .execute(&mut *db.timed(Operation::SupervisionSweepTo))
    .await?;
    Ok(())
}

/// Orders placed in `[from, until)` that are not final and have no workflow yet, oldest first, at most `limit`.
pub(crate) async fn overdue(
    db: &mut Session<'_>,
    from: Timestamp,
    until: Timestamp,
    limit: i64,
) -> Result<Vec<Overdue>, sqlx::Error> {
    let rows = sqlx::query(
        "select order_id, placed_at from orders
          where placed_at >= $1 and placed_at < $2 and status in ('placed', 'reserved', 'paid')
            and not exists (select from supervised_orders s where s.order_id = orders.order_id)
          order by placed_at limit $3",
    )
    .bind(PgTime(from))
    .bind(PgTime(until))
    .bind(limit)
    .fetch_all(&mut *db.timed(Operation::SupervisionOverdue))
    .await?;
    rows.into_iter()
        .map(|row| {
            let placed_at: PgTime = row.try_get(1)?;
            Ok(Overdue { order_id: OrderId(row.try_get(0)?), placed_at: placed_at.0 })
        })
        .collect()
}
