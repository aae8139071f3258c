//! `orders`, `order_events` and `order_status_counts`: the projection.
//!
//! Every update is a join of facts (`least`, `greatest`, `coalesce`): any order, any number of times, the same row.

use std::collections::{BTreeMap, HashMap};

use schemas::orders::{Item, OrderPlaced};
use schemas::{EventId, OrderId, Timestamp};
use sqlx::Row;
use uuid::Uuid;

use super::binary_copy::Rows;
use super::operations::Operation;
use super::session::Session;
use super::types::PgTime;

/// An order's facts that one batch adds. Null means: says nothing about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) reserved_at: Option<Timestamp>,
    pub(crate) rejected_at: Option<Timestamp>,
    pub(crate) paid_at: Option<Timestamp>,
    pub(crate) declined_at: Option<Timestamp>,
    pub(crate) refunded_at: Option<Timestamp>,
    pub(crate) shipped_at: Option<Timestamp>,
    pub(crate) released_at: Option<Timestamp>,
    pub(crate) cancel_requested_at: Option<Timestamp>,
    pub(crate) release_reason: Option<&'static str>,
    pub(crate) reason: Option<String>,
    pub(crate) updated_at: Option<Timestamp>,
}

/// A line of the timeline.
#[derive(Clone, Debug)]
pub(crate) struct TimelineRow<'a> {
    pub(crate) order_id: OrderId,
    pub(crate) event_id: EventId,
    pub(crate) event_type: &'static str,
    pub(crate) occurred_at: Timestamp,
    pub(crate) reason: Option<&'a str>,
}

/// An order's status at some moment, with what its clock needs.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) order_id: OrderId,
    pub(crate) status: String,
    pub(crate) placed_at: Option<Timestamp>,
    /// When it became final; absent while it is not.
    pub(crate) ended_at: Option<Timestamp>,
}

impl Standing {
    /// Seconds from accepted to final, once both are known, in whichever order that happens.
    pub(crate) fn seconds_to_final(&self) -> Option<f64> {
        Some(self.ended_at?.seconds_since(self.placed_at?))
    }
}

/// Adds new orders by COPY. Fails with a unique violation when any of them is known already.
pub(crate) async fn copy_new(
    db: &mut Session<'_>,
    orders: &[&OrderPlaced],
) -> Result<u64, sqlx::Error> {
    let mut rows = Rows::with_capacity(orders.len() * 320);
    for order in orders {
        rows.row(7)
            .uuid(order.order_id.0)
            .text(order.customer_id.as_str())
            .text(order.currency.as_str())
            .bigint(order.total_cents)
            .jsonb(|json| write_items(json, &order.items))
            .time(PgTime(order.placed_at))
            .time(PgTime(order.placed_at));
    }
    let statement =
        "copy orders (order_id, customer_id, currency, total_cents, items, placed_at, updated_at)
                     from stdin (format binary)";
    rows.copy_into(&mut db.timed(Operation::OrdersCopyNew), statement).await
}

/// Adds orders or fills in the details of orders of which only later facts are known. The first details stay.
pub(crate) async fn merge_placed(
    db: &mut Session<'_>,
    orders: &[&OrderPlaced],
) -> Result<Vec<Standing>, sqlx::Error> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.order_id.0).collect();
    let customers: Vec<&str> = orders.iter().map(|order| order.customer_id.as_str()).collect();
    let currencies: Vec<&str> = orders.iter().map(|order| order.currency.as_str()).collect();
    let totals: Vec<i64> = orders.iter().map(|order| order.total_cents).collect();
    let items: Vec<String> = orders.iter().map(|order| items_json(&order.items)).collect();
    let times: Vec<PgTime> = orders.iter().map(|order| PgTime(order.placed_at)).collect();
    let rows = sqlx::query(
        "insert into orders (order_id, customer_id, currency, total_cents, items, placed_at, updated_at)
         select order_id, customer_id, currency, total_cents, items::jsonb, placed_at, placed_at
           from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[])
             as placed (order_id, customer_id, currency, total_cents, items, placed_at)
         on conflict on constraint orders_pkey do update
            set customer_id = coalesce(orders.customer_id, excluded.customer_id),
                currency    = coalesce(orders.currency, excluded.currency),
                total_cents = coalesce(orders.total_cents, excluded.total_cents),
                items       = coalesce(orders.items, excluded.items),
                placed_at   = coalesce(orders.placed_at, excluded.placed_at),
                updated_at  = greatest(orders.updated_at, excluded.updated_at)
         returning order_id, status, placed_at, coalesce(shipped_at, rejected_at, released_at)",
    )
    .bind(ids)
    .bind(customers)
    .bind(currencies)
    .bind(totals)
    .bind(items)
    .bind(times)
    .fetch_all(&mut *db.timed(Operation::OrdersMergePlaced))
    .await?;
    rows.into_iter().map(standing).collect()
}

/// Joins facts into orders. `facts` is sorted by order id, so that two batches never wait in a circle.
pub(crate) async fn merge_facts(
    db: &mut Session<'_>,
    facts: &BTreeMap<OrderId, Facts>,
) -> Result<Vec<Standing>, sqlx::Error> {
    fn times(
        facts: &BTreeMap<OrderId, Facts>,
        get: impl Fn(&Facts) -> Option<Timestamp>,
    ) -> Vec<Option<PgTime>> {
        facts.values().map(|fact| get(fact).map(PgTime)).collect()
    }
    let ids: Vec<Uuid> = facts.keys().map(|id| id.0).collect();
    let release_reasons: Vec<Option<&str>> =
        facts.values().map(|fact| fact.release_reason).collect();
    let reasons: Vec<Option<&str>> = facts.values().map(|fact| fact.reason.as_deref()).collect();
    let rows = sqlx::query(
        "insert into orders
                (order_id, updated_at, reserved_at, rejected_at, paid_at, declined_at, refunded_at, shipped_at,
                 released_at, cancel_requested_at, release_reason, reason)
         select * from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::timestamptz[],
                $6::timestamptz[], $7::timestamptz[], $8::timestamptz[], $9::timestamptz[], $10::timestamptz[],
                $11::text[], $12::text[])
         on conflict on constraint orders_pkey do update
            set updated_at          = greatest(orders.updated_at, excluded.updated_at),
                reserved_at         = least(orders.reserved_at, excluded.reserved_at),
                rejected_at         = least(orders.rejected_at, excluded.rejected_at),
                paid_at             = least(orders.paid_at, excluded.paid_at),
                declined_at         = least(orders.declined_at, excluded.declined_at),
                refunded_at         = least(orders.refunded_at, excluded.refunded_at),
                shipped_at          = least(orders.shipped_at, excluded.shipped_at),
                released_at         = least(orders.released_at, excluded.released_at),
                cancel_requested_at = least(orders.cancel_requested_at, excluded.cancel_requested_at),
                release_reason      = least(orders.release_reason, excluded.release_reason),
                reason              = least(orders.reason, excluded.reason)
         returning order_id, status, placed_at, coalesce(shipped_at, rejected_at, released_at)",
    )
    .bind(ids)
    .bind(times(facts, |fact| fact.updated_at))
    .bind(times(facts, |fact| fact.reserved_at))
    .bind(times(facts, |fact| fact.rejected_at))
    .bind(times(facts, |fact| fact.paid_at))
    .bind(times(facts, |fact| fact.declined_at))
    .bind(times(facts, |fact| fact.refunded_at))
    .bind(times(facts, |fact| fact.shipped_at))
    .bind(times(facts, |fact| fact.released_at))
    .bind(times(facts, |fact| fact.cancel_requested_at))
    .bind(release_reasons)
    .bind(reasons)
    .fetch_all(&mut *db.timed(Operation::OrdersMergeFacts))
    .await?;
    rows.into_iter().map(standing).collect()
}

/// How `orders` stand now, with their rows locked until the transaction ends. Unknown orders are absent.
pub(crate) async fn lock(
    db: &mut Session<'_>,
    orders: &[Uuid],
) -> Result<HashMap<OrderId, Standing>, sqlx::Error> {
    let rows = sqlx::query(
        "select order_id, status, placed_at, coalesce(shipped_at, rejected_at, released_at)
           from orders where order_id = any($1)
          order by order_id for no key update",
    )
    .bind(orders)
    .fetch_all(&mut *db.timed(Operation::OrdersLock))
    .await?;
    rows.into_iter().map(|row| standing(row).map(|order| (order.order_id, order))).collect()
}

/// Adds lines to the timeline by COPY. Fails with a unique violation when any of them is there already.
pub(crate) async fn copy_timeline(
    db: &mut Session<'_>,
    lines: &[TimelineRow<'_>],
) -> Result<u64, sqlx::Error> {
    // A reason is rare enough that rows with one take the other way.
    let mut rows = Rows::with_capacity(lines.len() * 100);
    for line in lines {
        rows.row(4)
            .uuid(line.order_id.0)
            .uuid(line.event_id.0)
            .text(line.event_type)
            .time(PgTime(line.occurred_at));
    }
    let statement = "copy order_events (order_id, event_id, event_type, occurred_at) from stdin (format binary)";
    rows.copy_into(&mut db.timed(Operation::OrdersCopyTimeline), statement).await
}

/// Adds lines to the timeline; returns how many were new.
pub(crate) async fn insert_timeline(
    db: &mut Session<'_>,
    lines: &[TimelineRow<'_>],
) -> Result<u64, sqlx::Error> {
    let ids: Vec<Uuid> = lines.iter().map(|line| line.order_id.0).collect();
    let events: Vec<Uuid> = lines.iter().map(|line| line.event_id.0).collect();
    let types: Vec<&str> = lines.iter().map(|line| line.event_type).collect();
    let times: Vec<PgTime> = lines.iter().map(|line| PgTime(line.occurred_at)).collect();
    let reasons: Vec<Option<&str>> = lines.iter().map(|line| line.reason).collect();
    let done = sqlx::query(
        "insert into order_events (order_id, event_id, event_type, occurred_at, reason)
         select * from unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::text[])
         on conflict on constraint order_events_pkey do nothing",
    )
    .bind(ids)
    .bind(events)
    .bind(types)
    .bind(times)
    .bind(reasons)
    .execute(&mut *db.timed(Operation::OrdersInsertTimeline))
    .await?;
    Ok(done.rows_affected())
}

/// Keeps the count of orders per status in step with what this transaction did.
pub(crate) async fn add_status_counts(
    db: &mut Session<'_>,
    topic: &str,
    partition: i32,
    changes: &BTreeMap<String, i64>,
) -> Result<(), sqlx::Error> {
    let (statuses, counts): (Vec<&str>, Vec<i64>) = changes
        .iter()
        .filter(|(_, change)| **change != 0)
        .map(|(status, change)| (status.as_str(), *change))
        .unzip();
    if statuses.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "insert into order_status_counts (topic, partition, status, orders)
         select $1, $2, status, change from unnest($3::text[], $4::bigint[]) as changes (status, change)
         on conflict on constraint order_status_counts_pkey do update
            set orders = order_status_counts.orders + excluded.orders",
    )
    .bind(topic)
    .bind(partition)
    .bind(statuses)
    .bind(counts)
    .execute(&mut *db.timed(Operation::OrdersAddStatusCounts))
    .await?;
    Ok(())
}

fn standing(row: sqlx::postgres::PgRow) -> Result<Standing, sqlx::Error> {
    Ok(Standing {
        order_id: OrderId(row.try_get(0)?),
        status: row.try_get(1)?,
        placed_at: row.try_get::<Option<PgTime>, _>(2)?.map(|time| time.0),
        ended_at: row.try_get::<Option<PgTime>, _>(3)?.map(|time| time.0),
    })
}

fn items_json(items: &[Item]) -> String {
    serde_json::to_string(items)
        .expect("items have string keys and write to memory, so they always serialise")
}

fn write_items(json: &mut Vec<u8>, items: &[Item]) {
    serde_json::to_writer(json, items)
        .expect("items have string keys and write to memory, so they always serialise");
}
