//! One light connection that watches how far stages are, and prepares the tables between measurements.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use stack::Stack;

use super::LOOK_EVERY;
use super::sample::Sample;
use crate::process::Process;
use crate::usage::{self, Subject};

/// A connection for questions.
pub(super) struct Observer {
    db: PgConnection,
    admin: PgConnection,
}

/// A moment at which something was counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) count: i64,
}

impl Observer {
    pub(super) async fn connect(
        stack: &Stack,
        database: &PgConnectOptions,
    ) -> anyhow::Result<Self> {
        let db = PgConnection::connect_with(database).await.context("connect to Postgres")?;
        let admin: PgConnectOptions =
            stack.admin_database_url()?.parse().context("read the URL of the administrator")?;
        let admin = PgConnection::connect_with(&admin)
            .await
            .context("connect to Postgres as administrator")?;
        Ok(Self { db, admin })
    }

    /// The number that a constant `query` answers with.
    pub(super) async fn number(&mut self, query: &'static str) -> anyhow::Result<i64> {
        let row = sqlx::query(query)
            .fetch_one(&mut self.db)
            .await
            .with_context(|| format!("ask {query}"))?;
        row.try_get(0).with_context(|| format!("read the answer to {query}"))
    }

    pub(super) async fn execute(&mut self, statements: &'static str) -> anyhow::Result<()> {
        sqlx::raw_sql(statements)
            .execute(&mut self.db)
            .await
            .with_context(|| format!("run {statements}"))?;
        Ok(())
    }

    /// Empties `tables` and leaves the server with nothing to write, so that every measurement starts alike.
    pub(super) async fn fresh(&mut self, tables: &'static [&'static str]) -> anyhow::Result<()> {
        let list = tables.join(", ");
        // Names of tables from this program.
        let statements = format!("truncate {list}; vacuum (analyze) {list}");
        for statement in statements.split("; ") {
            sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
                .execute(&mut self.db)
                .await
                .context("empty the tables")?;
        }
        self.checkpoint().await
    }

    pub(super) async fn checkpoint(&mut self) -> anyhow::Result<()> {
        sqlx::raw_sql("checkpoint").execute(&mut self.admin).await.context("checkpoint")?;
        Ok(())
    }

    /// Asks until the number fulfils `enough`. `process` must live meanwhile.
    pub(super) async fn until(
        &mut self,
        query: &'static str,
        patience: Duration,
        process: &mut Process,
        enough: impl Fn(i64) -> bool,
    ) -> anyhow::Result<Seen> {
        let begun = Instant::now();
        loop {
            let count = self.number(query).await?;
            let seen = Seen { at: Instant::now(), count };
            if enough(count) {
                return Ok(seen);
            }
            if let Some(status) = process.poll()? {
                bail!("{} ended with {status} at {count}", process.name());
            }
            if begun.elapsed() > patience {
                bail!(
                    "{query} is at {count} after {patience:?}; the log ends with:\n{}",
                    tail(&process.log())
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The rate at which `process` does `work`, from when it is seen to have begun, and what that cost `subjects`.
    pub(super) async fn rate(
        &mut self,
        work: Work,
        process: &mut Process,
        subjects: &[Subject],
    ) -> anyhow::Result<Sample> {
        let Work { progress, amount, per, patience } = work;
        let first = self.until(progress, patience, process, |count| count > 0).await?;
        let before = usage::cpu(subjects)?;
        let last = self.until(progress, patience, process, |count| count >= amount).await?;
        let after = usage::cpu(subjects)?;
        let count = (last.count - first.count) as f64;
        ensure!(count > 0.0, "all was done before it was looked at; more of it must be asked for");
        Ok(Sample {
            per_second: count / (last.at - first.at).as_secs_f64(),
            cpu: usage::per(count / per, &before, &after),
        })
    }
}

/// What a process works through.
#[derive(Clone, Copy)]
pub(super) struct Work {
    /// Counts what is done of it.
    pub(super) progress: &'static str,
    /// How much there is.
    pub(super) amount: i64,
    /// How many of it CPU seconds are told for.
    pub(super) per: f64,
    /// How long `process` may take.
    pub(super) patience: Duration,
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
