//! A database of its own for a test, on the stack that `make test` brings up.

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, Executor, PgConnection};
use stack::Stack;
use uuid::Uuid;

/// An empty, migrated database; dropped by [`TestDatabase::drop_it`].
pub(crate) struct TestDatabase {
    admin: String,
    name: String,
    pub(crate) options: PgConnectOptions,
}

impl TestDatabase {
    pub(crate) async fn create() -> Self {
        let state = std::env::var("ORDER_STACK_STATE_DIR")
            .expect("this test needs servers: run `make test`, or set ORDER_STACK_STATE_DIR to the state of a running order-stack");
        let stack =
            tokio::task::spawn_blocking(move || Stack::attach(state)).await.unwrap().unwrap();
        let admin = stack.database_url().unwrap();
        let name = format!("test_{}", Uuid::new_v4().simple());
        let mut db = PgConnection::connect(&admin).await.unwrap();
        db.execute(sqlx::AssertSqlSafe(format!("create database {name}"))).await.unwrap();
        let options = admin.parse::<PgConnectOptions>().unwrap().database(&name);
        crate::migrate::run(&options).await.unwrap();
        Self { admin, name, options }
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect_with(&self.options).await.unwrap()
    }

    pub(crate) async fn drop_it(self) {
        let mut db = PgConnection::connect(&self.admin).await.unwrap();
        db.execute(sqlx::AssertSqlSafe(format!("drop database {} with (force)", self.name)))
            .await
            .unwrap();
    }
}
