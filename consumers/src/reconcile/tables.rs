//! Reads the tables, all of them as they are at one moment.

use std::collections::BTreeMap;

use anyhow::Context;
use futures::TryStreamExt;
use schemas::{EventId, EventType, OrderId, TopicPrefix};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};

use super::ledger::{Ledger, Place};
use super::progress::Progress;
use super::states::{PaymentState, ReservationState, ShipmentState, Status};

/// What the tables say beyond single orders.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    pub(super) progress: Progress,
    pub(super) stock: Vec<Stock>,
    pub(super) statuses: BTreeMap<String, StatusCount>,
    pub(super) dead_letters: BTreeMap<String, i64>,
}

/// What is promised of a SKU, by both tables that say so.
#[derive(Clone, Debug)]
pub(super) struct Stock {
    pub(super) sku: String,
    pub(super) on_hand: i64,
    pub(super) reserved: i64,
    /// Sum over `reservations` in state reserved.
    pub(super) in_reservations: i64,
}

/// How many orders have a status.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct StatusCount {
    /// By `order_status_counts`.
    pub(super) counted: i64,
    /// By `orders`.
    pub(super) rows: i64,
}

/// How far the stages are.
pub(super) async fn progress(
    db: &PgConnectOptions,
    prefix: &TopicPrefix,
) -> anyhow::Result<Progress> {
    let mut db = connect(db).await?;
    let progress = read_progress(&mut db, prefix).await?;
    close(db).await;
    Ok(progress)
}

/// Reads every table into `ledger`.
pub(super) async fn read(
    db: &PgConnectOptions,
    prefix: &TopicPrefix,
    ledger: &mut Ledger,
) -> anyhow::Result<Snapshot> {
    let mut db = connect(db).await?;
    // One moment for all tables, whatever is committed meanwhile.
    sqlx::query("begin isolation level repeatable read, read only").execute(&mut db).await?;
    let snapshot = Snapshot {
        progress: read_progress(&mut db, prefix).await?,
        stock: stock(&mut db).await?,
        statuses: statuses(&mut db).await?,
        dead_letters: dead_letters(&mut db, prefix, ledger).await?,
    };
    orders(&mut db, ledger).await.context("reading orders")?;
    reservations(&mut db, ledger).await.context("reading reservations")?;
    payments(&mut db, ledger).await.context("reading payments")?;
    shipments(&mut db, ledger).await.context("reading shipments")?;
    order_events(&mut db, ledger).await.context("reading order_events")?;
    dead_letter_orders(&mut db, ledger).await.context("reading dead_letters")?;
    close(db).await;
    Ok(snapshot)
}

async fn connect(db: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    PgConnection::connect_with(db).await.context("connecting to Postgres")
}

/// Only read from, so nothing is lost when saying goodbye fails.
async fn close(db: PgConnection) {
    drop(db.close().await);
}

async fn read_progress(db: &mut PgConnection, prefix: &TopicPrefix) -> anyhow::Result<Progress> {
    let mut progress = Progress::default();
    let rows = sqlx::query("select stage, topic, partition, next_offset from stage_progress")
        .fetch_all(&mut *db)
        .await
        .context("reading stage_progress")?;
    for row in rows {
        let topic: &str = row.try_get(1)?;
        // Rows of a pipeline with another prefix are none of ours.
        if let Some(topic) = prefix.role_of(topic) {
            let stage: String = row.try_get(0)?;
            progress
                .next_offsets
                .entry(stage)
                .or_default()
                .insert((topic, row.try_get(2)?), row.try_get(3)?);
        }
    }
    let rows: i64 = sqlx::query_scalar("select count(*) from outbox")
        .fetch_one(&mut *db)
        .await
        .context("reading outbox")?;
    progress.outbox_rows = rows.unsigned_abs();
    Ok(progress)
}

async fn stock(db: &mut PgConnection) -> anyhow::Result<Vec<Stock>> {
    let rows = sqlx::query(
        "with promised as (
            select item.sku, sum(item.quantity)::bigint as quantity
              from reservations, unnest(skus, quantities) as item (sku, quantity)
             where state = 'reserved'
             group by item.sku)
         select coalesce(stock.sku, promised.sku), coalesce(on_hand, 0), coalesce(reserved, 0), coalesce(quantity, 0)
           from stock full join promised on promised.sku = stock.sku",
    )
    .fetch_all(db)
    .await
    .context("reading stock")?;
    rows.iter()
        .map(|row| {
            Ok(Stock {
                sku: row.try_get(0)?,
                on_hand: row.try_get(1)?,
                reserved: row.try_get(2)?,
                in_reservations: row.try_get(3)?,
            })
        })
        .collect()
}

async fn statuses(db: &mut PgConnection) -> anyhow::Result<BTreeMap<String, StatusCount>> {
    let mut statuses: BTreeMap<String, StatusCount> = BTreeMap::new();
    let rows =
        sqlx::query("select status, sum(orders)::bigint from order_status_counts group by status")
            .fetch_all(&mut *db)
            .await
            .context("reading order_status_counts")?;
    for row in rows {
        statuses.entry(row.try_get(0)?).or_default().counted = row.try_get(1)?;
    }
    let rows = sqlx::query("select status, count(*) from orders group by status")
        .fetch_all(db)
        .await
        .context("counting orders by status")?;
    for row in rows {
        statuses.entry(row.try_get(0)?).or_default().rows = row.try_get(1)?;
    }
    Ok(statuses)
}

async fn dead_letters(
    db: &mut PgConnection,
    prefix: &TopicPrefix,
    ledger: &mut Ledger,
) -> anyhow::Result<BTreeMap<String, i64>> {
    let rows = sqlx::query("select state, count(*) from dead_letters group by state")
        .fetch_all(&mut *db)
        .await
        .context("counting dead letters")?;
    let counts: Result<_, sqlx::Error> =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect();
    let mut rows =
        sqlx::query("select topic, partition, record_offset from dead_letters").fetch(db);
    while let Some(row) = rows.try_next().await? {
        if let Some(topic) = prefix.role_of(row.try_get(0)?) {
            ledger.set_aside.insert(Place {
                topic,
                partition: row.try_get(1)?,
                offset: row.try_get(2)?,
            });
        }
    }
    Ok(counts?)
}

async fn orders(db: &mut PgConnection, ledger: &mut Ledger) -> anyhow::Result<()> {
    let mut rows = sqlx::query("select order_id, status, total_cents from orders").fetch(db);
    while let Some(row) = rows.try_next().await? {
        ledger.order_row(
            OrderId(row.try_get(0)?),
            Status::parse(row.try_get(1)?)?,
            row.try_get(2)?,
        );
    }
    Ok(())
}

async fn reservations(db: &mut PgConnection, ledger: &mut Ledger) -> anyhow::Result<()> {
    let mut rows = sqlx::query("select order_id, state from reservations").fetch(db);
    while let Some(row) = rows.try_next().await? {
        ledger.reservation_row(OrderId(row.try_get(0)?), ReservationState::parse(row.try_get(1)?)?);
    }
    Ok(())
}

async fn payments(db: &mut PgConnection, ledger: &mut Ledger) -> anyhow::Result<()> {
    let mut rows = sqlx::query("select order_id, state, amount_cents from payments").fetch(db);
    while let Some(row) = rows.try_next().await? {
        ledger.payment_row(
            OrderId(row.try_get(0)?),
            PaymentState::parse(row.try_get(1)?)?,
            row.try_get(2)?,
        );
    }
    Ok(())
}

async fn shipments(db: &mut PgConnection, ledger: &mut Ledger) -> anyhow::Result<()> {
    let mut rows = sqlx::query("select order_id, state from shipments").fetch(db);
    while let Some(row) = rows.try_next().await? {
        ledger.shipment_row(OrderId(row.try_get(0)?), ShipmentState::parse(row.try_get(1)?)?);
    }
    Ok(())
}

async fn order_events(db: &mut PgConnection, ledger: &mut Ledger) -> anyhow::Result<()> {
    let mut rows = sqlx::query("select order_id, event_id, event_type from order_events").fetch(db);
    while let Some(row) = rows.try_next().await? {
        let name: &str = row.try_get(2)?;
        let event_type = EventType::from_wire(name.as_bytes()).with_context(|| {
            format!("order_events.event_type holds {name:?}, which is no event type known here")
        })?;
        ledger.timeline_row(OrderId(row.try_get(0)?), EventId(row.try_get(1)?), event_type);
    }
    Ok(())
}

/// A replayed letter was applied in the end; any other keeps its order from going on.
async fn dead_letter_orders(db: &mut PgConnection, ledger: &mut Ledger) -> anyhow::Result<()> {
    let mut rows = sqlx::query(
        "select distinct order_id from dead_letters where state <> 'replayed' and order_id is not null",
    )
    .fetch(db);
    while let Some(row) = rows.try_next().await? {
        ledger.dead_letter(OrderId(row.try_get(0)?));
    }
    Ok(())
}
