//! A lane: one connection, one batch at a time. Takes a batch through its transaction and its effects to the topic.
//!
//! Effects of a batch leave after its commit and before the effects of the next batch of the same partition; while
//! they are on their way the next batch is already being written. A batch that cannot be written is tried again until
//! it can, or until its partition is taken away: nothing is skipped, and lag shows it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use schemas::TopicPrefix;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use telemetry::TraceContext;
use telemetry::crash_point::crash_point;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Signals;
use super::backoff::Backoff;
use super::batch::Batch;
use super::effects::{self, Outgoing};
use super::intake::{Intake, sentence};
use super::metrics::StageMetrics;
use super::progress::Partition;
use super::queue::{Assignment, Limits, Queue, Work};
use super::tell::Teller;
use super::traces::{Sending, StageTraces, trace_of};
use super::transaction::{self, Attempt, Committed, Failure};
use super::window::RejectWindow;
use crate::config::RunnerConfig;
use crate::stage::{Fault, Rejection, Stage};
use crate::store::session::Session;
use crate::store::{dead_letters, outbox, progress};

/// How long a lane waits for work before it tidies up behind acknowledged effects.
const IDLE: Duration = Duration::from_millis(200);

/// How often the number of waiting dead letters is read.
const COUNT_WAITING_EVERY: Duration = Duration::from_secs(5);

/// What lanes of a stage share.
pub(crate) struct Shared<S> {
    pub(crate) stage: S,
    pub(crate) config: RunnerConfig,
    pub(crate) prefix: TopicPrefix,
    pub(crate) database: PgConnectOptions,
    pub(crate) teller: Teller,
    pub(crate) queue: Arc<Queue>,
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
    waiting_counted: Option<Instant>,
}

struct Emission {
    partition: Arc<Partition>,
    /// `true` when everything is acknowledged; `false` when the partition was taken away first.
    task: JoinHandle<bool>,
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
            waiting_counted: None,
        }
    }

    /// Works until the queue is closed, then finishes what is on its way.
    pub(crate) async fn run(mut self) {
        let limits = Limits {
            records: (self.shared.config.batch_records as usize).min(S::MOST_RECORDS),
            bytes: self.shared.config.batch_bytes as usize,
        };
        loop {
            self.count_waiting().await;
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

    /// Takes over partitions: what their former owner decided and did not tell is told first.
    async fn take_over(&mut self, assignment: Assignment) -> Result<(), Stop> {
        self.abandon_emissions();
        self.revoked = assignment.revoked;
        for partition in &assignment.partitions {
            let claim = partition.claim();
            let mut backoff = self.backoff();
            let pending = loop {
                let read = match self.session().await {
                    Ok(mut db) => outbox::pending(&mut db, S::NAME, &claim).await,
                    Err(error) => Err(error),
                };
                match read {
                    Ok(pending) => break pending,
                    Err(error) => self.pause(&mut backoff, &error.into(), 0).await?,
                }
            };
            for row in pending {
                let outgoing = effects::decode(&row.effects).map_err(|error| {
                    Stop::Fatal(format!(
                        "an outbox row of {} cannot be read: {error:#}",
                        claim.topic
                    ))
                })?;
                tracing::info!(
                    stage = S::NAME,
                    topic = claim.topic,
                    partition = claim.partition,
                    effects = outgoing.len(),
                    "telling effects that a former owner decided"
                );
                self.emit(partition, row.key, outgoing, None).await?;
            }
        }
        Ok(())
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

    /// Tries until the batch is committed.
    async fn write(
        &mut self,
        partition: &Arc<Partition>,
        batch: &Batch,
        next_offset: i64,
    ) -> Result<Committed, Stop> {
        let mut intake = Intake::of(partition, S::INPUTS, batch);
        intake.followed = self.shared.traces.follow(batch, &mut intake.events);
        let mut backoff = self.backoff();
        let mut checked = 0;
        loop {
            // Before anything is committed: these rejections may be our own fault.
            if intake.refused.len() > checked || checked == 0 {
                checked = intake.refused.len().max(1);
                if self.shared.window.is_too_much(batch.len(), intake.refused.len()) {
                    return Err(Stop::Fatal(
                        "more than half of the records read last would be rejected; nothing was set aside. \
                         Look at the errors above, then start the stage again".to_owned(),
                    ));
                }
            }
            let failure = match self.attempt(partition, batch, &intake, next_offset).await {
                Ok(mut committed) => {
                    if committed.all_applied {
                        committed.applied = intake.events;
                    }
                    return Ok(committed);
                }
                Err(failure) => failure,
            };
            // Whatever went wrong, the connection may be in the middle of something.
            self.connection = None;
            match failure {
                Failure::Fenced => return Err(Stop::Fenced),
                Failure::Revoked => return Err(Stop::Revoked),
                Failure::Fault { fault: Fault::Rejected(rejections), seen } => {
                    intake.refuse(&rejections, &seen)
                }
                Failure::Fault { fault: Fault::Transient(error), .. } => {
                    self.pause(&mut backoff, &error, intake.events.len()).await?;
                    match self.landed(partition, next_offset, &mut backoff).await? {
                        Landed::No => {}
                        Landed::Yes => {
                            // The reply to the commit was lost, not the commit. What it decided is in the outbox.
                            return self
                                .recover(partition, next_offset, intake, &mut backoff)
                                .await;
                        }
                    }
                }
                Failure::Fault { fault: Fault::Unattributed(error), seen } => {
                    tracing::warn!(
                        stage = S::NAME,
                        topic = partition.source.topic,
                        partition = partition.number(),
                        error = sentence(error.as_ref()),
                        "the database refuses some record of a batch; looking for it"
                    );
                    let culprit =
                        self.find_culprit(partition, batch, &intake, &mut backoff).await?;
                    let rejection = Rejection {
                        event: culprit,
                        code: "database_refused",
                        detail: sentence(error.as_ref()),
                    };
                    let all: Vec<usize> = intake.events.iter().map(|event| event.record).collect();
                    debug_assert!(!seen.is_empty());
                    intake.refuse(&[rejection], &all);
                }
            }
        }
    }

    async fn attempt(
        &mut self,
        partition: &Partition,
        batch: &Batch,
        intake: &Intake,
        next_offset: i64,
    ) -> Result<Committed, Failure> {
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let shared = self.shared.clone();
        let attempt = Attempt {
            stage: &shared.stage,
            prefix: &shared.prefix,
            partition,
            batch,
            intake,
            next_offset,
            acknowledged: &acknowledged,
        };
        let timeout = shared.config.transaction_timeout();
        let revoked = self.revoked.clone();
        let result = match self.session().await {
            Ok(mut db) => attempt.run(&mut db, timeout, &revoked).await,
            Err(error) => Err(error.into()),
        };
        if result.is_err() {
            self.acknowledged = acknowledged;
        }
        result
    }

    /// The first event that the database refuses: the last one of the shortest refused prefix.
    async fn find_culprit(
        &mut self,
        partition: &Arc<Partition>,
        batch: &Batch,
        intake: &Intake,
        backoff: &mut Backoff,
    ) -> Result<usize, Stop> {
        let shared = self.shared.clone();
        let attempt = Attempt {
            stage: &shared.stage,
            prefix: &shared.prefix,
            partition,
            batch,
            intake,
            next_offset: 0,
            acknowledged: &[],
        };
        let (mut good, mut bad) = (0, intake.events.len());
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            let probed = match self.session().await {
                Ok(mut db) => attempt.probe(&mut db, middle).await,
                Err(error) => Err(error.into()),
            };
            match probed {
                Ok(true) => good = middle,
                Ok(false) => bad = middle,
                Err(failure) => {
                    self.connection = None;
                    let Failure::Fault { fault: Fault::Transient(error), .. } = failure else {
                        break;
                    };
                    self.pause(backoff, &error, 0).await?;
                }
            }
        }
        Ok(bad.saturating_sub(1))
    }

    /// After an attempt whose end is unknown: did it commit?
    async fn landed(
        &mut self,
        partition: &Partition,
        next_offset: i64,
        backoff: &mut Backoff,
    ) -> Result<Landed, Stop> {
        let claim = partition.claim();
        loop {
            let read = match self.session().await {
                Ok(mut db) => progress::read(&mut db, S::NAME, &claim).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(Some((at, epoch))) if epoch == claim.epoch && at == claim.next_offset => {
                    return Ok(Landed::No);
                }
                Ok(Some((at, epoch))) if epoch == claim.epoch && at == next_offset => {
                    return Ok(Landed::Yes);
                }
                Ok(_) => return Err(Stop::Fenced),
                Err(error) => {
                    self.connection = None;
                    self.pause(backoff, &error.into(), 0).await?;
                }
            }
        }
    }

    /// Picks up a batch that committed although nobody told us.
    async fn recover(
        &mut self,
        partition: &Arc<Partition>,
        next_offset: i64,
        intake: Intake,
        backoff: &mut Backoff,
    ) -> Result<Committed, Stop> {
        let claim = partition.claim();
        loop {
            let read = match self.session().await {
                Ok(mut db) => outbox::pending(&mut db, S::NAME, &claim).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(rows) => {
                    let row = rows.into_iter().find(|row| {
                        row.key.epoch == partition.epoch && row.key.next_offset == next_offset
                    });
                    let outgoing = row.map_or_else(
                        || Ok(Outgoing::default()),
                        |row| effects::decode(&row.effects),
                    );
                    let outgoing = outgoing.map_err(|error| {
                        Stop::Fatal(format!("an outbox row cannot be read: {error:#}"))
                    })?;
                    return Ok(Committed {
                        outgoing,
                        applied: intake.events,
                        refused: intake.refused,
                        followed: intake.followed,
                        ..Committed::default()
                    });
                }
                Err(error) => {
                    self.connection = None;
                    self.pause(backoff, &error.into(), 0).await?;
                }
            }
        }
    }

    /// Tells the effects of a batch, once those of the partition's batch before are acknowledged.
    async fn emit(
        &mut self,
        partition: &Arc<Partition>,
        key: outbox::Key,
        outgoing: Outgoing,
        sending: Option<Sending>,
    ) -> Result<(), Stop> {
        let pending = self.shared.metrics.pending();
        let before = self.emissions.iter().find(|(_, emission)| &emission.partition == partition);
        if let Some(before) = before.map(|(key, _)| key.clone()) {
            self.finish_emission(&before).await;
        }
        if self.revoked.is_cancelled() {
            return Err(Stop::Revoked);
        }
        let teller = self.shared.teller.clone();
        let revoked = self.revoked.clone();
        let backoff = self.backoff();
        let task = tokio::spawn(async move {
            let told = teller.tell(outgoing, &revoked, backoff).await;
            drop(pending);
            if told {
                crash_point(S::NAME, "after_emission");
                sending.into_iter().for_each(Sending::told);
            }
            told
        });
        self.emissions.insert(key, Emission { partition: partition.clone(), task });
        Ok(())
    }

    async fn finish_emission(&mut self, key: &outbox::Key) {
        let Some(emission) = self.emissions.remove(key) else { return };
        match emission.task.await {
            Ok(true) => self.acknowledged.push(key.clone()),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(stage = S::NAME, %error, "telling effects ended early; they stay in the outbox")
            }
        }
    }

    async fn finish_emissions(&mut self) {
        let keys: Vec<outbox::Key> = self.emissions.keys().cloned().collect();
        for key in keys {
            self.finish_emission(&key).await;
        }
    }

    /// The partitions went elsewhere: their outbox is the new owner's.
    fn abandon_emissions(&mut self) {
        self.emissions.clear();
        self.acknowledged.clear();
    }

    /// Forgets outbox rows that are out, when no batch came along to do it.
    async fn tidy(&mut self) {
        let finished: Vec<outbox::Key> = self
            .emissions
            .iter()
            .filter(|(_, emission)| emission.task.is_finished())
            .map(|(key, _)| key.clone())
            .collect();
        for key in finished {
            self.finish_emission(&key).await;
        }
        if self.acknowledged.is_empty() {
            return;
        }
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let deleted = match self.session().await {
            Ok(mut db) => outbox::delete(&mut db, S::NAME, &acknowledged).await,
            Err(error) => Err(error),
        };
        match deleted {
            Ok(()) => {
                crash_point(S::NAME, "after_tidy");
            }
            Err(error) => {
                tracing::debug!(stage = S::NAME, %error, "the outbox is tidied up later");
                self.connection = None;
                self.acknowledged = acknowledged;
            }
        }
    }

    /// Keeps the gauges of what waits for a person true, also for what happened before this process started.
    async fn count_waiting(&mut self) {
        let due = self.waiting_counted.is_none_or(|at| at.elapsed() >= COUNT_WAITING_EVERY);
        if self.number != 0 || !due {
            return;
        }
        self.waiting_counted = Some(Instant::now());
        let counted = match self.session().await {
            Ok(mut db) => dead_letters::waiting(&mut db, S::NAME).await,
            Err(error) => Err(error),
        };
        match counted {
            Ok((letters, orders)) => self.shared.metrics.waiting(letters, orders),
            // The next batch meets the same trouble and reports it.
            Err(_) => self.connection = None,
        }
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

enum Landed {
    Yes,
    No,
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
