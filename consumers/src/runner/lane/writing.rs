//! Writes a batch: tries until it is committed. A batch that cannot be written is tried again until it can, or until its
//! partition is taken away: nothing is skipped, and lag shows it.

use std::sync::Arc;

use super::{Lane, Stop};
use crate::runner::backoff::Backoff;
use crate::runner::batch::Batch;
use crate::runner::intake::{Intake, sentence};
use crate::runner::progress::Partition;
use crate::runner::transaction::{Attempt, Committed, Failure, probe};
use crate::stage::{Fault, Received, Rejection, Stage};
use crate::store::progress;

impl<S: Stage> Lane<S> {
    /// Tries until the batch is committed.
    pub(super) async fn write(
        &mut self,
        partition: &Arc<Partition>,
        batch: &Batch,
        next_offset: i64,
    ) -> Result<Committed, Stop> {
        let mut intake = Intake::of(partition, S::INPUTS, batch);
        intake.followed = self.shared.traces.follow(batch, &mut intake.events);
        let mut backoff = self.backoff();
        let mut checked = 0;
        // What an attempt decided whose commit was sent and not found.
        let mut in_doubt: Option<Box<Committed>> = None;
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
                Failure::Revoked => return Err(Stop::Revoked),
                Failure::Fenced => {
                    // A commit may come through after we looked for it: then it is what moved the partition.
                    let Some(decided) = in_doubt.take() else { return Err(Stop::Fenced) };
                    if self.landed(partition, next_offset, &mut backoff).await? {
                        return Ok(*decided);
                    }
                }
                Failure::InDoubt { error, mut decided } => {
                    if decided.all_applied {
                        decided.applied.clone_from(&intake.events);
                    }
                    if self.landed(partition, next_offset, &mut backoff).await? {
                        tracing::warn!(
                            stage = S::NAME,
                            topic = partition.source.topic,
                            partition = partition.number(),
                            error = sentence(error.as_ref()),
                            "the answer to a commit was lost, and the commit was not"
                        );
                        return Ok(*decided);
                    }
                    in_doubt = Some(decided);
                    self.pause(&mut backoff, &error, intake.events.len()).await?;
                }
                Failure::Fault { fault: Fault::Rejected(rejections), seen } => {
                    intake.refuse(&rejections, &seen)
                }
                Failure::Fault { fault: Fault::Transient(error), .. } => {
                    self.pause(&mut backoff, &error, intake.events.len()).await?;
                }
                Failure::Fault { fault: Fault::Unattributed(error), seen } => {
                    tracing::warn!(
                        stage = S::NAME,
                        topic = partition.source.topic,
                        partition = partition.number(),
                        error = sentence(error.as_ref()),
                        "the database refuses some record of a batch; looking for it"
                    );
                    let culprit = self.find_culprit(&intake.events, &mut backoff).await?;
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
        events: &[Received],
        backoff: &mut Backoff,
    ) -> Result<usize, Stop> {
        let shared = self.shared.clone();
        let (mut good, mut bad) = (0, events.len());
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            let probed = match self.session().await {
                Ok(mut db) => probe(&shared.stage, &mut db, &events[..middle]).await,
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

    /// Whether the partition was moved to the end of the batch, by us.
    async fn landed(
        &mut self,
        partition: &Partition,
        next_offset: i64,
        backoff: &mut Backoff,
    ) -> Result<bool, Stop> {
        let claim = partition.claim();
        loop {
            let read = match self.session().await {
                Ok(mut db) => progress::read(&mut db, S::NAME, &claim).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(Some((at, epoch))) if epoch == claim.epoch && at == claim.next_offset => {
                    return Ok(false);
                }
                Ok(Some((at, epoch))) if epoch == claim.epoch && at == next_offset => {
                    return Ok(true);
                }
                Ok(_) => return Err(Stop::Fenced),
                Err(error) => {
                    self.connection = None;
                    self.pause(backoff, &error.into(), 0).await?;
                }
            }
        }
    }
}
