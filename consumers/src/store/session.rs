//! A connection as stages and runner have it: every statement on it says what it is for, and is timed under that name.
//!
//! Promises: a statement is timed once, from being sent to its answer; also one that fails, and one that nobody waits
//! for any more. Costs two looks at the clock and a lock that hardly anybody else wants.

use std::ops::{Deref, DerefMut};
use std::time::Instant;

use prometheus_client::metrics::histogram::Histogram;
use sqlx::PgConnection;

use super::operations::{Operation, OperationTimes};

/// A connection, with the clocks of its statements.
#[derive(Debug)]
pub struct Session<'a> {
    connection: &'a mut PgConnection,
    times: &'a OperationTimes,
}

/// The connection while one statement runs.
pub(super) struct Timed<'a> {
    connection: &'a mut PgConnection,
    seconds: &'a Histogram,
    began: Instant,
}

impl<'a> Session<'a> {
    pub(crate) fn new(connection: &'a mut PgConnection, times: &'a OperationTimes) -> Self {
        Self { connection, times }
    }

    /// The connection for one statement: its time ends when this is dropped.
    pub(super) fn timed(&mut self, operation: Operation) -> Timed<'_> {
        Timed {
            connection: self.connection,
            seconds: self.times.of(operation),
            began: Instant::now(),
        }
    }

    pub(crate) async fn begin(&mut self) -> Result<(), sqlx::Error> {
        self.command("begin", Operation::Begin).await
    }

    /// Commits; once this returned the transaction is on disk.
    pub(crate) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        sqlx::raw_sql("commit").execute(&mut *self.timed(Operation::Commit)).await?;
        Ok(())
    }

    /// Commits without waiting for the disk: a database that crashes may forget the transaction, all of it.
    pub(crate) async fn commit_forgettable(&mut self) -> Result<(), sqlx::Error> {
        let commit = "set local synchronous_commit = off; commit";
        sqlx::raw_sql(commit).execute(&mut *self.timed(Operation::Commit)).await?;
        Ok(())
    }

    pub(crate) async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        self.command("rollback", Operation::Rollback).await
    }

    /// A place in the transaction to go back to: the one before what may fail.
    pub(crate) async fn savepoint(&mut self) -> Result<(), sqlx::Error> {
        self.command("savepoint here", Operation::Savepoint).await
    }

    /// Goes back there; the transaction goes on.
    pub(crate) async fn rollback_to_savepoint(&mut self) -> Result<(), sqlx::Error> {
        self.command("rollback to savepoint here", Operation::RollbackToSavepoint).await
    }

    async fn command(
        &mut self,
        command: &'static str,
        operation: Operation,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(command).execute(&mut *self.timed(operation)).await?;
        Ok(())
    }
}

impl Deref for Timed<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection
    }
}

impl DerefMut for Timed<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::store::shipments;
    use crate::test_database::TestDatabase;

    /// The operations that were timed, each as often as it was.
    fn counted(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        let counts = text.lines().filter_map(|line| {
            line.strip_prefix("db_operation_duration_seconds_count{operation=\"")
        });
        counts.map(|line| line.replace("\"}", "")).filter(|line| !line.ends_with(" 0")).collect()
    }

    #[tokio::test]
    async fn every_statement_is_timed_under_its_own_name_whatever_becomes_of_it() {
        let database = TestDatabase::create().await;
        let mut registry = Registry::default();
        let times = OperationTimes::of_stages(&mut registry);
        let (mut ours, mut other) = (database.connect().await, database.connect().await);
        let mut db = Session::new(&mut ours, &times);
        let nobody = counted(&registry);

        db.begin().await.unwrap();
        shipments::insert(&mut db, &[]).await.unwrap();
        shipments::read(&mut db, &[]).await.unwrap();
        db.commit().await.unwrap();
        let all_is_well = counted(&registry);
        sqlx::query("begin").execute(&mut other).await.unwrap();
        sqlx::query("lock table shipments").execute(&mut other).await.unwrap();
        // Nobody waits for this one to its end, and the next one is refused.
        let waiting = shipments::read(&mut db, &[]);
        let given_up = tokio::time::timeout(Duration::from_millis(50), waiting).await;
        sqlx::query("rollback").execute(&mut other).await.unwrap();
        let refused = db.rollback_to_savepoint().await;

        let once = ["transaction.begin 1", "transaction.commit 1", "shipments.insert 1"];
        assert_eq!(nobody, Vec::<String>::new());
        assert!(once.iter().all(|one| all_is_well.iter().any(|it| it == one)), "{all_is_well:?}");
        assert_eq!(all_is_well.len(), 4, "{all_is_well:?}");
        assert!(given_up.is_err() && refused.is_err(), "{given_up:?} {refused:?}");
        let at_last = counted(&registry);
        for told in ["shipments.read 2", "transaction.rollback_to_savepoint 1"] {
            assert!(at_last.iter().any(|it| it == told), "{at_last:?}");
        }
        drop((ours, other));
        database.drop_it().await;
    }
}
