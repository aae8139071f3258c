//! Effects of a lane's batches on their way: told after the commit, noted as told with the next one.
//!
//! Effects of a batch leave before those of the next batch of the same partition; while they are on their way the next
//! batch is already being written.

use std::sync::Arc;

use telemetry::crash_point::crash_point;
use tokio::task::JoinHandle;

use super::{Lane, Stop};
use crate::runner::effects::{self, Outgoing};
use crate::runner::progress::Partition;
use crate::runner::queue::Assignment;
use crate::runner::traces::Sending;
use crate::stage::Stage;
use crate::store::outbox;

/// Effects of one batch.
pub(super) struct Emission {
    partition: Arc<Partition>,
    /// `true` when everything is acknowledged; `false` when the partition was taken away first.
    task: JoinHandle<bool>,
}

impl<S: Stage> Lane<S> {
    /// Takes over partitions: what their former owner decided and did not tell is told first.
    pub(super) async fn take_over(&mut self, assignment: Assignment) -> Result<(), Stop> {
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

    /// Tells the effects of a batch, once those of the partition's batch before are acknowledged.
    pub(super) async fn emit(
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

    pub(super) async fn finish_emissions(&mut self) {
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
    pub(super) async fn tidy(&mut self) {
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
}
