//! A lane: one connection, one batch at a time. Takes a batch through its transaction (`writing`) and its effects to the
//! topic (`telling`), and notes what became of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use schemas::TopicPrefix;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use telemetry::TraceContext;
use tokio_util::sync::CancellationToken;

use super::Signals;
use super::backoff::Backoff;
use super::batch::Batch;
use super::intake::sentence;
use super::metrics::StageMetrics;
use super::progress::{Owned, Partition};
use super::queue::{Limits, Queue, Work};
use super::rewound::rewound;
use super::tell::Teller;
use super::traces::{StageTraces, trace_of};
use super::transaction::{self, Committed};
use super::window::RejectWindow;
use crate::config::RunnerConfig;
use crate::stage::Stage;
use crate::store::session::Session;
use crate::store::{dead_letters, outbox};

mod telling;
mod writing;

use telling::Emission;

/// How long a lane waits for work before it tidies up behind acknowledged effects.
const IDLE: Duration = Duration::from_millis(200);

/// How often a lane looks at what nobody tells it.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(5);

/// What lanes of a stage share.
pub(crate) struct Shared<S> {
    pub(crate) stage: S,
    pub(crate) config: RunnerConfig,
    pub(crate) prefix: TopicPrefix,
    pub(crate) database: PgConnectOptions,
    pub(crate) teller: Teller,
    pub(crate) queue: Arc<Queue>,
    pub(crate) owned: Owned,
    pub(crate) metrics: StageMetrics,
    pub(crate) traces: StageTraces,
    pub(crate) window: RejectWindow,
    pub(crate) signals: Arc<Signals>,
}

/// One lane.
pub(crate) struct Lane<S> {
    shared: Arc<Shared<S>>,
    number: usize,
    connection: Option<PgConnection>,
    revoked: CancellationToken,
    /// Effects on their way, at most one batch per partition.
    emissions: HashMap<outbox::Key, Emission>,
    /// Outbox rows whose effects are all acknowledged.
    acknowledged: Vec<outbox::Key>,
    looked_around: Option<Instant>,
}

/// Why a batch was left unfinished.
enum Stop {
    /// The partition went elsewhere; its new owner repeats the batch.
    Revoked,
    /// Another owner was there first.
    Fenced,
    /// The stage must not go on.
    Fatal(String),
}

impl<S: Stage> Lane<S> {
    pub(crate) fn new(shared: Arc<Shared<S>>, number: usize) -> Self {
        Self {
            shared,
            number,
            connection: None,
            revoked: CancellationToken::new(),
            emissions: HashMap::new(),
            acknowledged: Vec::new(),
            looked_around: None,
        }
    }

    /// Works until the queue is closed, then finishes what is on its way.
    pub(crate) async fn run(mut self) {
        let limits = Limits {
            records: (self.shared.config.batch_records as usize).min(S::MOST_RECORDS),
            bytes: self.shared.config.batch_bytes as usize,
        };
        loop {
            self.look_around().await;
            let work = self.shared.queue.next(self.number, limits, IDLE).await;
            let done = match work {
                Work::Assigned(assignment) => self.take_over(assignment).await,
                Work::Batch(partition, batch) => self.process(&partition, batch).await,
                Work::Settle(settled) => {
                    self.finish_emissions().await;
                    self.tidy().await;
                    settled.send(()).ok();
                    Ok(())
                }
                Work::Idle => {
                    self.tidy().await;
                    Ok(())
                }
                Work::Closed => break,
            };
            match done {
                Ok(()) | Err(Stop::Revoked) => {}
                Err(Stop::Fenced) => {
                    self.shared.metrics.stepped_down();
                    // Once the partitions are given back there is nothing left to step down from.
                    if !self.revoked.is_cancelled() {
                        self.shared.signals.rejoin();
                    }
                }
                Err(Stop::Fatal(why)) => self.shared.signals.stop_stage(why),
            }
        }
        self.finish_emissions().await;
        self.tidy().await;
    }

    async fn process(&mut self, partition: &Arc<Partition>, batch: Batch) -> Result<(), Stop> {
        let Some(next_offset) = batch.next_offset() else { return Ok(()) };
        let (begun, began) = (Instant::now(), SystemTime::now());
        self.shared.metrics.in_flight.inc_by(count(batch.len()));
        let written = self.write(partition, &batch, next_offset).await;
        self.shared.metrics.in_flight.dec_by(count(batch.len()));
        let committed = written?;
        partition.committed(next_offset);
        self.shared.metrics.committed(&committed, begun.elapsed().as_secs_f64());
        let sending = self.shared.traces.committed(partition, batch.len(), &committed, began);
        self.report(partition, &batch, &committed);
        drop(batch);
        if committed.outgoing.is_empty() {
            return Ok(());
        }
        let key = outbox::Key {
            topic: partition.source.topic.clone(),
            partition: partition.number(),
            epoch: partition.epoch,
            next_offset,
        };
        self.emit(partition, key, committed.outgoing, sending).await
    }

    /// Now and then one lane looks at what the stage is not told of. Trouble with the connection is the next batch's
    /// to report.
    async fn look_around(&mut self) {
        let due = self.looked_around.is_none_or(|at| at.elapsed() >= LOOK_AROUND_EVERY);
        if self.number != 0 || !due {
            return;
        }
        self.looked_around = Some(Instant::now());
        if self.look().await.is_err() {
            self.connection = None;
        }
    }

    /// Keeps the gauges of what waits for a person true, also for what happened before this process started, and
    /// reads again from where the database stands, should it have gone back.
    async fn look(&mut self) -> Result<(), sqlx::Error> {
        let shared = self.shared.clone();
        let mut db = self.session().await?;
        let (letters, orders) = dead_letters::waiting(&mut db, S::NAME).await?;
        shared.metrics.waiting(letters, orders);
        let partitions = rewound(&mut db, S::NAME, &shared.owned.all()).await?;
        if partitions > 0 && !self.revoked.is_cancelled() {
            tracing::warn!(
                stage = S::NAME,
                partitions,
                "the database has forgotten what was committed there; reading again from where it stands"
            );
            shared.signals.rejoin();
        }
        Ok(())
    }

    /// Waits before the next attempt; ends early when the partitions are taken away.
    async fn pause(
        &mut self,
        backoff: &mut Backoff,
        error: &anyhow::Error,
        events: usize,
    ) -> Result<(), Stop> {
        self.connection = None;
        self.shared.metrics.retried(events);
        let wait = backoff.next_wait();
        tracing::warn!(
            stage = S::NAME,
            error = sentence(error.as_ref()),
            wait_ms = wait.as_millis() as u64,
            "a batch could not be written; trying again"
        );
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            () = self.revoked.cancelled() => Err(Stop::Revoked),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(Duration::from_millis(self.shared.config.retry_max_ms.into()))
    }

    async fn session(&mut self) -> Result<Session<'_>, sqlx::Error> {
        if self.connection.is_none() {
            let connecting = transaction::connect(&self.shared.database);
            let connected = tokio::time::timeout(Duration::from_secs(5), connecting).await;
            self.connection = Some(connected.map_err(|_| sqlx::Error::PoolTimedOut)??);
        }
        let connection = self.connection.as_mut().expect("set above");
        Ok(Session::new(connection, &self.shared.metrics.operations))
    }

    fn report(&self, partition: &Partition, batch: &Batch, committed: &Committed) {
        for refused in &committed.refused {
            let record = batch.record(refused.record);
            let order_id = refused.order_id.map(|order| order.to_string());
            let trace = trace_of(record.headers());
            tracing::warn!(
                stage = S::NAME,
                topic = partition.source.topic,
                partition = partition.number(),
                offset = record.offset(),
                code = refused.code,
                detail = refused.detail,
                order_id,
                trace_id = trace.as_ref().map(TraceContext::trace_id),
                "a record of {} was set aside as a dead letter",
                order_id.as_deref().map_or("no order".to_owned(), |order| format!("order {order}"))
            );
        }
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
