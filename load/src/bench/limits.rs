//! What the same server does with the same rows when nobody reads a topic: the limit that a stage is measured against.
//!
//! Rows lie ready in memory, in batches as large as the stage's, and two connections write them as fast as they are
//! taken.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use schemas::orders::OrderPlaced;
use serde_json::value::RawValue;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgConnectOptions, PgHasArrayType, PgTypeInfo};
use sqlx::types::Json;
use sqlx::{Connection, Encode, PgConnection, Postgres, Type};
use uuid::Uuid;

use super::copy_bytes::{self, COPY_EVENTS, COPY_ORDERS};
use super::sample::Sample;
use crate::usage::{self, Subject};

/// As many as a stage has lanes.
const CONNECTIONS: usize = 2;
/// As many as a stage's batch has records.
const BATCH: usize = 4_096;

/// A plain table of eight columns, as one would write it by hand.
pub(super) const CREATE_TABLE: &str = "create table if not exists orders_limit (
    order_id    uuid        primary key,
    customer_id text        not null,
    currency    text        not null,
    total_cents bigint      not null,
    status      text        not null,
    items       jsonb       not null,
    placed_at   timestamptz not null,
    updated_at  timestamptz not null)";

const UPSERT: &str = "insert into orders_limit
        (order_id, customer_id, currency, total_cents, status, items, placed_at, updated_at)
 select * from unnest($1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::jsonb[], $7::timestamptz[],
        $8::timestamptz[])
 on conflict (order_id) do update
    set customer_id = excluded.customer_id,
        currency    = excluded.currency,
        total_cents = excluded.total_cents,
        status      = excluded.status,
        items       = excluded.items,
        placed_at   = excluded.placed_at,
        updated_at  = excluded.updated_at";

/// How the rows are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    /// One upsert per batch, into a plain table.
    Upsert,
    /// What the order stage does in its transaction.
    StageSql,
}

enum Batch {
    Upsert(Box<Columns>),
    StageSql { orders: Vec<u8>, events: Vec<u8>, rows: i64 },
}

struct Columns {
    ids: Vec<Uuid>,
    customers: Vec<String>,
    currencies: Vec<String>,
    totals: Vec<i64>,
    statuses: Vec<String>,
    items: Vec<Json<Box<RawValue>>>,
    times: Vec<Micros>,
}

/// Writes `orders`; what it costs is counted per million.
pub(super) async fn measure(
    limit: Limit,
    orders: &[OrderPlaced],
    database: &PgConnectOptions,
    servers: &[Subject],
) -> anyhow::Result<Sample> {
    let batches: Vec<Batch> =
        orders.chunks(BATCH).map(|rows| Batch::of(limit, rows)).collect::<anyhow::Result<_>>()?;
    let batches = Arc::new(batches);
    let mut connections = Vec::new();
    for number in 0..CONNECTIONS {
        let mut db = PgConnection::connect_with(database).await.context("connect to Postgres")?;
        sqlx::query(
            "insert into stage_progress (stage, topic, partition, next_offset, epoch, owner)
             values ('limit', 'limit', $1, 0, 1, 'limit')
             on conflict on constraint stage_progress_pkey do update set next_offset = 0",
        )
        .bind(i32::try_from(number)?)
        .execute(&mut db)
        .await?;
        connections.push(db);
    }
    let subjects = [&[Subject::this("client")?], servers].concat();
    let before = usage::cpu(&subjects)?;
    let begun = Instant::now();
    let writing = connections
        .into_iter()
        .enumerate()
        .map(|(number, db)| tokio::spawn(write(db, number, batches.clone())));
    for written in futures::future::join_all(writing).await {
        written.context("the task that writes ended early")??;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let after = usage::cpu(&subjects)?;
    let count = orders.len() as f64;
    Ok(Sample { per_second: count / seconds, cpu: usage::per(count / 1e6, &before, &after) })
}

async fn write(
    mut db: PgConnection,
    number: usize,
    batches: Arc<Vec<Batch>>,
) -> anyhow::Result<()> {
    let mut offset = 0;
    for batch in batches.iter().skip(number).step_by(CONNECTIONS) {
        match batch {
            Batch::Upsert(columns) => upsert(&mut db, columns).await?,
            Batch::StageSql { orders, events, rows } => {
                stage_sql(&mut db, i32::try_from(number)?, offset, *rows, orders, events).await?;
                offset += rows;
            }
        }
    }
    db.close().await.context("close a connection")
}

async fn upsert(db: &mut PgConnection, columns: &Columns) -> anyhow::Result<()> {
    sqlx::query(UPSERT)
        .bind(&columns.ids[..])
        .bind(&columns.customers[..])
        .bind(&columns.currencies[..])
        .bind(&columns.totals[..])
        .bind(&columns.statuses[..])
        .bind(&columns.items[..])
        .bind(&columns.times[..])
        .bind(&columns.times[..])
        .execute(db)
        .await
        .context("upsert a batch")?;
    Ok(())
}

/// Statement by statement what the stage's transaction does with new orders.
async fn stage_sql(
    db: &mut PgConnection,
    partition: i32,
    offset: i64,
    rows: i64,
    orders: &[u8],
    events: &[u8],
) -> anyhow::Result<()> {
    sqlx::query("begin").execute(&mut *db).await?;
    sqlx::query(
        "update stage_progress
            set next_offset = $2, updated_at = now()
          where stage = 'limit' and topic = 'limit' and partition = $1 and epoch = 1 and next_offset = $3
         returning exists (select from parked_orders where parked_orders.stage = 'limit')",
    )
    .bind(partition)
    .bind(offset + rows)
    .bind(offset)
    .fetch_one(&mut *db)
    .await?;
    sqlx::query("savepoint before_copy").execute(&mut *db).await?;
    for (statement, bytes) in [(COPY_ORDERS, orders), (COPY_EVENTS, events)] {
        let mut copy = db.copy_in_raw(statement).await?;
        copy.send(bytes).await?;
        copy.finish().await?;
    }
    sqlx::query(
        "insert into order_status_counts (topic, partition, status, orders) values ('limit', $1, 'placed', $2)
         on conflict on constraint order_status_counts_pkey do update
            set orders = order_status_counts.orders + excluded.orders",
    )
    .bind(partition)
    .bind(rows)
    .execute(&mut *db)
    .await?;
    sqlx::query("commit").execute(db).await?;
    Ok(())
}

impl Batch {
    fn of(limit: Limit, orders: &[OrderPlaced]) -> anyhow::Result<Self> {
        Ok(match limit {
            Limit::Upsert => Self::Upsert(Box::new(Columns::of(orders)?)),
            Limit::StageSql => Self::StageSql {
                orders: copy_bytes::orders(orders)?,
                events: copy_bytes::events(orders)?,
                rows: i64::try_from(orders.len())?,
            },
        })
    }
}

impl Columns {
    fn of(orders: &[OrderPlaced]) -> anyhow::Result<Self> {
        let items =
            orders.iter().map(|order| Ok(Json(serde_json::value::to_raw_value(&order.items)?)));
        Ok(Self {
            ids: orders.iter().map(|order| order.order_id.0).collect(),
            customers: orders.iter().map(|order| order.customer_id.as_str().to_owned()).collect(),
            currencies: orders.iter().map(|order| order.currency.as_str().to_owned()).collect(),
            totals: orders.iter().map(|order| order.total_cents).collect(),
            statuses: orders.iter().map(|_| "placed".to_owned()).collect(),
            items: items.collect::<anyhow::Result<_>>()?,
            times: orders.iter().map(|order| Micros(copy_bytes::micros(order))).collect(),
        })
    }
}

/// `timestamptz` as it goes over the wire.
struct Micros(i64);

impl Type<Postgres> for Micros {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz")
    }
}

impl PgHasArrayType for Micros {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("timestamptz[]")
    }
}

impl Encode<'_, Postgres> for Micros {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode(self.0, buffer)
    }
}
