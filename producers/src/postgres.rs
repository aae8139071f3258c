//! How every process connects to Postgres.

use std::time::Duration;

use anyhow::Context;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use telemetry::Secret;

/// Said when no database was named.
pub const HOW_TO_NAME_THE_DATABASE: &str = "set DATABASE_URL_FILE to a file that holds postgres://user:password@host:port/database, or DATABASE_URL";

/// Connection options from `DATABASE_URL` or `DATABASE_URL_FILE`; an error that never shows the URL otherwise.
pub fn connect_options(application: &str) -> anyhow::Result<PgConnectOptions> {
    let url = Secret::from_environment("DATABASE_URL")?.context(HOW_TO_NAME_THE_DATABASE)?;
    let options: PgConnectOptions = url.expose().parse().map_err(|_| {
        anyhow::anyhow!(
            "DATABASE_URL is not a URL of the form postgres://user:password@host:port/database"
        )
    })?;
    // Statements are logged nowhere: they carry customers' data.
    Ok(options.application_name(application).disable_statement_logging())
}

/// A pool for short reads. No transaction is ever opened on it, so a dropped future leaves nothing behind.
pub fn read_pool(options: PgConnectOptions, max_connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(Duration::from_secs(3))
        // A black-holed connection is noticed when it is next checked out, not for ever.
        .max_lifetime(Duration::from_secs(600))
        .connect_lazy_with(options.options([
            // Reads are by primary key or a bounded page; anything slower is a plan gone wrong.
            ("statement_timeout", "5s"),
            ("default_transaction_read_only", "on"),
        ]))
}
