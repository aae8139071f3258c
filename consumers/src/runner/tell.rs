//! Gets the effects of a batch to Kafka, however often that takes: ids stay the same, so telling twice is harmless.

use std::time::Duration;

use producers::publisher::{PublishError, Publisher};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::effects::Outgoing;

/// Publishes `records` until all are acknowledged; `false` when the partition was taken away first. All of them are told
/// again after a failure: an id that was heard is dropped, and their order holds.
pub(crate) async fn tell(
    publisher: &Publisher,
    records: &[Outgoing],
    revoked: &CancellationToken,
    mut backoff: Backoff,
    stage: &'static str,
) -> bool {
    loop {
        if revoked.is_cancelled() {
            return false;
        }
        let Err(error) = tell_once(publisher, records).await else { return true };
        let wait = backoff.next_wait();
        tracing::warn!(stage, %error, wait_ms = wait.as_millis() as u64, "effects were not acknowledged; telling them again");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = revoked.cancelled() => return false,
        }
    }
}

async fn tell_once(publisher: &Publisher, records: &[Outgoing]) -> Result<(), PublishError> {
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
