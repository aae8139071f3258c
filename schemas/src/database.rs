//! The database schema, as migrations that are only ever appended.

/// Applied by `order-consumer migrate`; no service migrates on its own.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");
