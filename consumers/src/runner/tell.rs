//! Gets the effects of a batch out, however often that takes: ids stay the same, so telling twice is harmless.

use std::sync::Arc;
use std::time::Duration;

use producers::publisher::{PublishError, Publisher};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::effects::{Outgoing, OutgoingRecord};
use super::metrics::StageMetrics;
use crate::stage::Outlet;

/// Tells what a stage decided.
#[derive(Clone)]
pub(crate) struct Teller {
    pub(crate) stage: &'static str,
    pub(crate) publisher: Publisher,
    pub(crate) outlet: Option<Arc<dyn Outlet>>,
    pub(crate) metrics: StageMetrics,
}

impl Teller {
    /// Tells everything until it is acknowledged; `false` when the partition was taken away first. Records are told
    /// again together after a failure: an id that was heard is dropped, and their order holds.
    pub(crate) async fn tell(
        &self,
        outgoing: Outgoing,
        revoked: &CancellationToken,
        mut backoff: Backoff,
    ) -> bool {
        let Outgoing { records, mut messages } = outgoing;
        if revoked.is_cancelled() {
            return false;
        }
        while let Err(error) = publish(&self.publisher, &records).await {
            if !self.pause(&error, revoked, &mut backoff).await {
                return false;
            }
        }
        while !messages.is_empty() {
            let Some(outlet) = &self.outlet else {
                unreachable!("a stage without an outlet has no messages")
            };
            let told = tokio::select! {
                told = outlet.tell(messages) => told,
                () = revoked.cancelled() => return false,
            };
            self.metrics.told(&told);
            let Some((rest, error)) = told.untold else { return true };
            messages = rest;
            if !self.pause(&format!("{error:#}"), revoked, &mut backoff).await {
                return false;
            }
        }
        true
    }

    /// Waits before the next attempt. `false`: the partition was taken away.
    async fn pause(
        &self,
        error: &(impl std::fmt::Display + ?Sized),
        revoked: &CancellationToken,
        backoff: &mut Backoff,
    ) -> bool {
        let wait = backoff.next_wait();
        tracing::warn!(
            stage = self.stage,
            %error,
            wait_ms = wait.as_millis() as u64,
            "effects were not acknowledged; telling them again"
        );
        tokio::select! {
            () = tokio::time::sleep(wait) => true,
            () = revoked.cancelled() => false,
        }
    }
}

async fn publish(publisher: &Publisher, records: &[OutgoingRecord]) -> Result<(), PublishError> {
    let mut batch = publisher.batch();
    for record in records {
        loop {
            match record.with_record(|record| batch.add(record)) {
                Ok(()) => break,
                Err(PublishError::Overloaded) => {
                    // Room comes with acknowledgements; waiting for ours keeps the order.
                    let full = std::mem::replace(&mut batch, publisher.batch());
                    if full.is_empty() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    full.acknowledged().await.map_err(first)?;
                }
                Err(error) => {
                    batch.acknowledged().await.ok();
                    return Err(error);
                }
            }
        }
    }
    batch.acknowledged().await.map_err(first)
}

fn first(mut failed: Vec<(usize, PublishError)>) -> PublishError {
    failed.swap_remove(0).1
}
