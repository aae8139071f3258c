//! A look into a pipeline's database, as an operator with psql would take it. Reads, never writes.

use std::collections::BTreeMap;

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use uuid::Uuid;

/// What an order may end as.
pub const FINAL: [&str; 4] = ["shipped", "rejected", "declined", "cancelled"];

/// A connection for questions.
#[derive(Debug)]
pub struct Tables {
    options: PgConnectOptions,
    connection: Option<PgConnection>,
}

/// How long orders took.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    pub p50_seconds: f64,
    pub p95_seconds: f64,
    /// From the first order accepted to the last one final.
    pub span_seconds: f64,
}

/// What became of an order.
#[derive(Clone, Debug)]
pub struct Fate {
    pub order_id: Uuid,
    pub status: String,
    /// From accepted to final; absent while it is not.
    pub seconds: Option<f64>,
}

impl Tables {
    pub(super) async fn connect(options: &PgConnectOptions) -> anyhow::Result<Self> {
        let mut tables = Self { options: options.clone(), connection: None };
        tables.connection().await?;
        Ok(tables)
    }

    /// Connects anew after an error: the server may have been killed meanwhile.
    async fn connection(&mut self) -> anyhow::Result<&mut PgConnection> {
        if let Some(connection) = &mut self.connection
            && connection.ping().await.is_err()
        {
            self.connection = None;
        }
        if self.connection.is_none() {
            let connection =
                PgConnection::connect_with(&self.options).await.context("connect to Postgres")?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().context("a connection was just made")
    }

    /// Orders by status.
    pub async fn orders_by_status(&mut self) -> anyhow::Result<BTreeMap<String, i64>> {
        let db = self.connection().await?;
        let rows = sqlx::query(
            "select status, sum(orders)::bigint from order_status_counts group by status",
        )
        .fetch_all(db)
        .await
        .context("count orders by status")?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Orders that have come to their end.
    pub async fn final_orders(&mut self) -> anyhow::Result<u64> {
        let statuses = self.orders_by_status().await?;
        let orders: i64 = FINAL.iter().filter_map(|status| statuses.get(*status)).sum();
        Ok(orders.unsigned_abs())
    }

    /// How long orders placed at or after `since` took from accepted to final; `None` when there is none.
    pub async fn latency(&mut self, since_micros: i64) -> anyhow::Result<Option<Latency>> {
        let db = self.connection().await?;
        let row = sqlx::query(
            "with ended as (
                select placed_at, coalesce(shipped_at, rejected_at, released_at) as ended_at
                  from orders
                 where placed_at >= to_timestamp($1::double precision / 1000000))
             select percentile_cont(0.5) within group (order by extract(epoch from ended_at - placed_at)),
                    percentile_cont(0.95) within group (order by extract(epoch from ended_at - placed_at)),
                    extract(epoch from max(ended_at) - min(placed_at))::double precision
               from ended
              where ended_at is not null",
        )
        .bind(since_micros)
        .fetch_one(db)
        .await
        .context("measure how long orders took")?;
        let [p50, p95, span]: [Option<f64>; 3] =
            [row.try_get(0)?, row.try_get(1)?, row.try_get(2)?];
        let latency = p50.zip(p95).zip(span);
        Ok(latency.map(|((p50_seconds, p95_seconds), span_seconds)| Latency {
            p50_seconds,
            p95_seconds,
            span_seconds,
        }))
    }

    /// Every order placed at or after `since`, and those of which only later facts have arrived.
    pub async fn fates(&mut self, since_micros: i64) -> anyhow::Result<Vec<Fate>> {
        let db = self.connection().await?;
        let rows = sqlx::query(
            "select order_id, status,
                    extract(epoch from coalesce(shipped_at, rejected_at, released_at) - placed_at)::double precision
               from orders
              where placed_at is null
                 or placed_at >= to_timestamp($1::double precision / 1000000)",
        )
        .bind(since_micros)
        .fetch_all(db)
        .await
        .context("read what became of the orders")?;
        let fate = |row: &sqlx::postgres::PgRow| {
            let (order_id, status, seconds) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(Fate { order_id, status, seconds })
        };
        rows.iter().map(fate).collect()
    }

    /// The single number that `query` asks for. For constant queries of tests.
    pub async fn number(&mut self, query: &str) -> anyhow::Result<i64> {
        let db = self.connection().await?;
        let row = sqlx::query(AssertSqlSafe(query))
            .fetch_one(db)
            .await
            .with_context(|| format!("ask {query}"))?;
        let number: Option<i64> =
            row.try_get(0).with_context(|| format!("read the answer to {query}"))?;
        Ok(number.unwrap_or(0))
    }

    /// The rows that `query` answers with, as texts. For constant queries of tests.
    pub async fn rows(&mut self, query: &str) -> anyhow::Result<Vec<Vec<Option<String>>>> {
        let db = self.connection().await?;
        let rows = sqlx::query(AssertSqlSafe(query))
            .fetch_all(db)
            .await
            .with_context(|| format!("ask {query}"))?;
        rows.iter()
            .map(|row| (0..row.len()).map(|column| Ok(row.try_get(column)?)).collect())
            .collect()
    }

    /// One digest per table over everything the stages decided. Equal digests: nothing changed, not even a time.
    pub async fn digests(&mut self) -> anyhow::Result<BTreeMap<&'static str, String>> {
        let mut digests = BTreeMap::new();
        for table in [
            "stock",
            "reservations",
            "payments",
            "shipments",
            "orders",
            "order_events",
            "order_status_counts",
            "dead_letters",
        ] {
            let query = format!(
                "select coalesce(md5(string_agg(t::text, '|' order by t::text)), '') from {table} t"
            );
            let db = self.connection().await?;
            let row = sqlx::query(AssertSqlSafe(query))
                .fetch_one(db)
                .await
                .with_context(|| format!("digest {table}"))?;
            digests.insert(table, row.try_get(0)?);
        }
        Ok(digests)
    }
}
