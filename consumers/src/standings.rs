//! How the business stands, read from Postgres: orders by status, what is nearly sold out, effects that wait to be told. Right
//! after a restart too, since nothing of it is counted here.
//!
//! Read every few seconds by one bounded query each, never by a scrape. What is not known any more is not shown.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection, Row};
use telemetry::Shutdown;

/// How often Postgres is asked. Each answer costs it a scan of `stock`, which has no index on what is left of a SKU: that
/// index would cost every reservation more than this.
const READ_EVERY: Duration = Duration::from_secs(15);

/// After this time without an answer nothing is shown.
const STALE_AFTER: Duration = Duration::from_secs(60);

/// SKUs shown, those with the least left first: the bound on the series.
const LOWEST_SKUS: i64 = 20;

/// A SKU of which fewer than this are left is low, as for the alert.
const LOW: i64 = 10;

/// Statuses of an order; each has a series, whether any order has it or not.
const STATUSES: [&str; 7] =
    ["placed", "reserved", "paid", "shipped", "rejected", "declined", "cancelled"];

/// What was read last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standings {
    last: Arc<Mutex<Option<(Instant, Reading)>>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Reading {
    orders: BTreeMap<String, i64>,
    lowest: Vec<(String, i64)>,
    low_skus: i64,
    /// Since when the oldest batch of effects waits, per stage, in seconds since the epoch.
    outbox_oldest: BTreeMap<String, f64>,
    /// Stages that have progress.
    stages: Vec<String>,
}

impl Standings {
    /// Reads until shutdown.
    pub(crate) async fn keep(self, options: PgConnectOptions, shutdown: Shutdown) {
        let options = options.options([("statement_timeout", "5s")]);
        let mut connection = None;
        loop {
            match read(&mut connection, &options).await {
                Ok(reading) => self.set(Some((Instant::now(), reading))),
                Err(error) => {
                    connection = None;
                    tracing::debug!(error = format!("{error:#}"), "how orders stand is not known");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(READ_EVERY) => {}
                () = shutdown.wait() => return,
            }
        }
    }

    fn set(&self, reading: Option<(Instant, Reading)>) {
        *self.last.lock().expect("no code panics while it holds this lock") = reading;
    }

    fn fresh(&self) -> Option<Reading> {
        let last = self.last.lock().expect("no code panics while it holds this lock");
        last.as_ref()
            .filter(|(at, _)| at.elapsed() < STALE_AFTER)
            .map(|(_, reading)| reading.clone())
    }
}

async fn read(
    connection: &mut Option<PgConnection>,
    options: &PgConnectOptions,
) -> anyhow::Result<Reading> {
    let db = match connection {
        Some(db) => db,
        None => connection.insert(PgConnection::connect_with(options).await.context("connecting")?),
    };
    let mut reading = Reading::default();
    let rows =
        sqlx::query("select status, sum(orders)::bigint from order_status_counts group by 1")
            .fetch_all(&mut *db)
            .await
            .context("reading order_status_counts")?;
    for row in rows {
        reading.orders.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let rows = sqlx::query(
        "select sku, on_hand - reserved, count(*) filter (where on_hand - reserved < $1) over ()
           from stock order by on_hand - reserved, sku limit $2",
    )
    .bind(LOW)
    .bind(LOWEST_SKUS)
    .fetch_all(&mut *db)
    .await
    .context("reading stock")?;
    for row in rows {
        reading.lowest.push((row.try_get(0)?, row.try_get(1)?));
        reading.low_skus = row.try_get(2)?;
    }
    let rows = sqlx::query(
        "select stage, extract(epoch from oldest)::double precision
           from (select distinct stage from stage_progress) as stages
           left join (select stage, min(created_at) as oldest from outbox group by stage) as waiting
                using (stage)",
    )
    .fetch_all(&mut *db)
    .await
    .context("reading outbox")?;
    for row in rows {
        let (stage, oldest): (String, Option<f64>) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(oldest) = oldest {
            reading.outbox_oldest.insert(stage.clone(), oldest);
        }
        reading.stages.push(stage);
    }
    Ok(reading)
}

impl Collector for Standings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let Some(reading) = self.fresh() else { return Ok(()) };
        let orders = STATUSES.map(|status| {
            (status.to_owned(), reading.orders.get(status).copied().unwrap_or(0) as f64)
        });
        gauges(&mut encoder, "orders_by_status", "Orders by where they stand", "status", orders)?;
        let lowest = reading.lowest.into_iter().map(|(sku, left)| (sku, left as f64));
        gauges(&mut encoder, "inventory_level", "What is left of the lowest SKUs", "sku", lowest)?;
        let low = encoder.encode_descriptor(
            "inventory_low_skus",
            "SKUs of which fewer than 10 are left",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(reading.low_skus).encode(low)?;
        let oldest = reading.stages.into_iter().map(|stage| {
            let since = reading.outbox_oldest.get(&stage).copied().unwrap_or(0.0);
            (stage, since)
        });
        let help = "Since when the oldest effects wait that were decided and not told; 0 for none";
        gauges(&mut encoder, "stage_outbox_oldest_timestamp_seconds", help, "stage", oldest)
    }
}

fn gauges(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (String, f64)>,
) -> std::fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (text, value) in values {
        let labels = [(label, text.as_str())];
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::test_database::TestDatabase;

    fn shown(standings: &Standings) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(standings.clone()));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[tokio::test]
    async fn what_the_tables_say_is_shown_and_only_the_lowest_skus() {
        let database = TestDatabase::create().await;
        let mut db = database.connect().await;
        sqlx::raw_sql(
            "insert into order_status_counts values ('orders', 0, 'placed', 3), ('orders', 1, 'placed', 2),
                                                    ('shipments', 0, 'placed', -4), ('shipments', 0, 'shipped', 4);
             insert into stock (sku, on_hand, reserved) select 'SKU-' || n, 5 + n, 3 from generate_series(1, 100) n;
             insert into stage_progress values ('payment', 't', 0, 0, 1, 'x'), ('order', 't', 0, 0, 1, 'x');
             insert into outbox values ('payment', 't', 0, 1, 9, '', 1, to_timestamp(1700000000));",
        )
        .execute(&mut db)
        .await
        .unwrap();
        let mut connection = Some(db);
        let standings = Standings::default();

        let reading = read(&mut connection, &PgConnectOptions::new()).await.unwrap();
        standings.set(Some((Instant::now(), reading)));

        let text = shown(&standings);
        for line in [
            "orders_by_status{status=\"placed\"} 1",
            "orders_by_status{status=\"shipped\"} 4",
            "orders_by_status{status=\"declined\"} 0",
            "inventory_level{sku=\"SKU-1\"} 3",
            "inventory_low_skus 7",
            "stage_outbox_oldest_timestamp_seconds{stage=\"payment\"} 1700000000",
            "stage_outbox_oldest_timestamp_seconds{stage=\"order\"} 0",
        ] {
            assert!(
                text.lines().any(|shown| shown.trim_end_matches(".0") == line),
                "{line}: {text}"
            );
        }
        assert_eq!(text.matches("inventory_level{").count(), 20);
        drop(connection);
        database.drop_it().await;
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let standings = Standings::default();
        assert!(!shown(&standings).contains("orders_by_status"));

        let long_ago = Instant::now().checked_sub(STALE_AFTER).unwrap();
        standings.set(Some((long_ago, Reading::default())));
        assert!(!shown(&standings).contains("orders_by_status"));
    }
}
