//! The one transaction of a batch: fence, domain writes, dead letters, outbox, progress. All of it or none.
//!
//! Nothing here leaves the process: effects are returned, to be told after the commit.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use schemas::{OrderId, Timestamp, TopicPrefix};
use sqlx::{Connection, PgConnection};
use telemetry::crash_point::crash_point;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::batch::Batch;
use super::dead_letter_copy;
use super::effects::{self, Outgoing, OutgoingRecord};
use super::intake::{Intake, Refused};
use super::progress::Partition;
use super::traces::{Followed, Times};
use crate::stage::{Fault, Finished, Outcome, Received, Stage};
use crate::store::session::Session;
use crate::store::{dead_letters, outbox, progress};

/// What was committed.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    /// Effects to tell now.
    pub(crate) outgoing: Outgoing,
    /// Events applied, in the order of the stage's numbers; left empty where they are all that were taken in.
    pub(crate) applied: Vec<Received>,
    pub(crate) all_applied: bool,
    pub(crate) effects: Vec<crate::stage::Effect>,
    pub(crate) finished: Vec<Finished>,
    pub(crate) duplicates: usize,
    pub(crate) refused: Vec<Refused>,
    pub(crate) parked: usize,
    pub(crate) followed: Followed,
    /// Unknown of a commit that nobody told us of.
    pub(crate) times: Option<Times>,
}

/// Why an attempt did not commit.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Someone else owns the partition or moved it: step down.
    Fenced,
    /// The partition was taken away while the outside world was being asked.
    Revoked,
    /// See [`Fault`]; `seen` are the records the stage was given, for the numbers in a rejection.
    Fault { fault: Fault, seen: Vec<usize> },
    /// The commit was sent and its answer did not come. If it went through, `decided` is what was committed.
    InDoubt { error: anyhow::Error, decided: Box<Committed> },
}

impl From<sqlx::Error> for Failure {
    /// From the runner's own statements: nothing in a batch can make them fail for good.
    fn from(error: sqlx::Error) -> Self {
        Self::transient(error.into())
    }
}

impl Failure {
    pub(crate) fn transient(error: anyhow::Error) -> Self {
        Self::Fault { fault: Fault::Transient(error), seen: Vec::new() }
    }
}

/// Everything an attempt needs.
pub(crate) struct Attempt<'a, S: Stage> {
    pub(crate) stage: &'a S,
    pub(crate) prefix: &'a TopicPrefix,
    pub(crate) partition: &'a Partition,
    pub(crate) batch: &'a Batch,
    pub(crate) intake: &'a Intake,
    /// Offset after the batch.
    pub(crate) next_offset: i64,
    /// Outbox rows that are known to be out.
    pub(crate) acknowledged: &'a [outbox::Key],
}

impl<S: Stage> Attempt<'_, S> {
    /// Runs to the commit. On any error the connection is in an unknown state and must be thrown away.
    pub(crate) async fn run(
        &self,
        db: &mut Session<'_>,
        timeout: Duration,
        revoked: &CancellationToken,
    ) -> Result<Committed, Failure> {
        let began = SystemTime::now();
        // Each call to the outside world has a deadline of its own; how long all of them take depends on the batch.
        let prepared = tokio::select! {
            prepared = self.stage.prepare(&mut *db, &self.intake.events) => prepared,
            () = revoked.cancelled() => return Err(Failure::Revoked),
        };
        let prepared = prepared
            .map_err(|fault| Failure::Fault { fault, seen: records(&self.intake.events) })?;
        let prepared_at = SystemTime::now();
        crash_point(S::NAME, "prepared");
        // Never cancelled by anything but this deadline, and then the connection goes with it: a `begin` or `commit`
        // dropped half-way would leave a transaction open under the next statement.
        let deadline = Instant::now() + timeout;
        let late = || anyhow::anyhow!("the transaction took longer than {timeout:?}");
        let decided = timeout_at(deadline, self.decide(db, &prepared)).await;
        let decided = decided.unwrap_or_else(|_| Err(Failure::transient(late())))?;
        crash_point(S::NAME, "before_commit");
        let error = match timeout_at(deadline, commit(db, &decided)).await {
            Ok(Ok(())) => {
                crash_point(S::NAME, "after_commit");
                let committed = SystemTime::now();
                let times = Some(Times { began, prepared: prepared_at, committed });
                return Ok(Committed { times, ..decided });
            }
            Ok(Err(error)) => anyhow::Error::from(error),
            Err(_) => late(),
        };
        Err(Failure::InDoubt { error, decided: Box::new(decided) })
    }

    /// Everything up to the commit.
    async fn decide(
        &self,
        db: &mut Session<'_>,
        prepared: &S::Prepared,
    ) -> Result<Committed, Failure> {
        db.begin().await?;
        self.write(db, prepared).await
    }

    async fn write(
        &self,
        db: &mut Session<'_>,
        prepared: &S::Prepared,
    ) -> Result<Committed, Failure> {
        let claim = self.partition.claim();
        let Some(passed) = progress::advance(&mut *db, S::NAME, &claim, self.next_offset).await?
        else {
            return Err(Failure::Fenced);
        };
        let parked = if passed.any_parked { self.parked(&mut *db).await? } else { HashSet::new() };
        let replaying = self.replaying(&mut *db).await?;
        // A record replayed twice was applied the first time.
        let stale = |letter: Option<i64>| letter.is_some_and(|letter| !replaying.contains(&letter));
        let (ready, waiting) = self.intake.split_waiting(&parked, &replaying);

        let outcome = if ready.is_empty() {
            Outcome::default()
        } else {
            let seen = records(&ready);
            let applied = self.stage.apply(&mut *db, &ready, prepared).await;
            applied.map_err(|fault| Failure::Fault { fault, seen })?
        };
        let mut outgoing = Outgoing {
            records: effects::records(
                S::NAME,
                self.prefix,
                &ready,
                &self.intake.followed,
                &outcome.effects,
                Timestamp::now(),
            ),
            messages: outcome.messages,
        };
        let set_aside: Vec<&Refused> = self
            .intake
            .refused
            .iter()
            .chain(waiting.iter())
            .filter(|refused| !stale(refused.replay_of))
            .collect();
        for refused in &set_aside {
            self.set_aside(&mut *db, refused, &mut outgoing.records).await?;
        }
        let applied = ready.iter().filter_map(|event| event.replay_of);
        let done: Vec<i64> = applied.chain(self.intake.nothing_to_do.iter().copied()).collect();
        if !done.is_empty() {
            dead_letters::replayed(&mut *db, S::NAME, &done).await?;
        }
        if !outgoing.is_empty() {
            let encoded = effects::encode(&outgoing).map_err(Failure::transient)?;
            outbox::insert(&mut *db, S::NAME, &self.outbox_key(), &encoded, outgoing.len()).await?;
        }
        if !self.acknowledged.is_empty() {
            outbox::delete(&mut *db, S::NAME, self.acknowledged).await?;
        }
        let parked = waiting.len();
        Ok(Committed {
            outgoing,
            effects: outcome.effects,
            finished: outcome.finished,
            duplicates: outcome.duplicates,
            refused: self.intake.refused.clone(),
            parked,
            all_applied: matches!(ready, Cow::Borrowed(_)),
            applied: match ready {
                Cow::Borrowed(_) => Vec::new(),
                Cow::Owned(ready) => ready,
            },
            followed: self.intake.followed.clone(),
            times: None,
        })
    }

    /// Names the outbox row of this batch.
    pub(crate) fn outbox_key(&self) -> outbox::Key {
        outbox::Key {
            topic: self.partition.source.topic.clone(),
            partition: self.partition.source.partition,
            epoch: self.partition.epoch,
            next_offset: self.next_offset,
        }
    }

    async fn parked(&self, db: &mut Session<'_>) -> Result<HashSet<OrderId>, sqlx::Error> {
        let mut orders: Vec<Uuid> =
            self.intake.events.iter().map(|event| event.order_id().0).collect();
        orders.sort_unstable();
        orders.dedup();
        dead_letters::parked_among(db, S::NAME, &orders).await
    }

    async fn replaying(&self, db: &mut Session<'_>) -> Result<HashSet<i64>, sqlx::Error> {
        let events = self.intake.events.iter().filter_map(|event| event.replay_of);
        let refused = self.intake.refused.iter().filter_map(|refused| refused.replay_of);
        let letters: Vec<i64> = events.chain(refused).collect();
        if letters.is_empty() {
            return Ok(HashSet::new());
        }
        dead_letters::replaying_among(db, S::NAME, &letters).await
    }

    async fn set_aside(
        &self,
        db: &mut Session<'_>,
        refused: &Refused,
        outgoing: &mut Vec<OutgoingRecord>,
    ) -> Result<(), sqlx::Error> {
        if let Some(letter) = refused.replay_of {
            return dead_letters::reopened(db, S::NAME, letter, refused.code, &refused.detail)
                .await;
        }
        let record = self.batch.record(refused.record);
        let letter = refused.letter(self.partition, &record);
        let id = dead_letters::insert(&mut *db, S::NAME, &letter).await?;
        if refused.code == dead_letters::PARKED {
            return Ok(());
        }
        if let Some(order) = refused.order_id {
            dead_letters::park(db, S::NAME, order, id).await?;
        }
        outgoing.push(dead_letter_copy::of(S::NAME, self.prefix, &letter));
        Ok(())
    }
}

/// Whether the database takes all of `events`; nothing is kept.
pub(crate) async fn probe<S: Stage>(
    stage: &S,
    db: &mut Session<'_>,
    events: &[Received],
) -> Result<bool, Failure> {
    let fault = |fault| Failure::Fault { fault, seen: records(events) };
    let prepared = stage.prepare(&mut *db, events).await.map_err(fault)?;
    db.begin().await?;
    let applied = stage.apply(&mut *db, events, &prepared).await;
    db.rollback().await?;
    match applied {
        Ok(_) => Ok(true),
        Err(Fault::Unattributed(_)) => Ok(false),
        Err(other) => Err(fault(other)),
    }
}

fn records(events: &[Received]) -> Vec<usize> {
    events.iter().map(|event| event.record).collect()
}

/// Whoever is told of a batch relies on it, so it must be on disk first. A batch that nobody is told of may still be lost
/// with the database's last moments: its progress goes with it, and it is read again.
async fn commit(db: &mut Session<'_>, decided: &Committed) -> Result<(), sqlx::Error> {
    if decided.outgoing.is_empty() { db.commit_forgettable().await } else { db.commit().await }
}

/// Opens a connection for a lane.
pub(crate) async fn connect(
    options: &sqlx::postgres::PgConnectOptions,
) -> Result<PgConnection, sqlx::Error> {
    PgConnection::connect_with(options).await
}
