//! `order-consumer migrate`: brings the database to this build's schema. Idempotent; safe beside the build before.

use anyhow::Context;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};

/// Applies what is missing; answers how many migrations the schema has now.
pub async fn run(database: &PgConnectOptions) -> anyhow::Result<usize> {
    let mut db = PgConnection::connect_with(database).await.context("connecting to Postgres")?;
    schemas::database::MIGRATIONS.run(&mut db).await.context("applying the migrations")?;
    db.close().await.context("closing the connection")?;
    Ok(schemas::database::MIGRATIONS.iter().count())
}
