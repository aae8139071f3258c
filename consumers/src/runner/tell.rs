//! Gets the effects of a batch out, however often that takes: ids stay the same, so telling twice is harmless.
//!
//! A copy of a dead letter that its topic does not take goes without its bytes, which are in its row. Nothing else is ever
//! changed or left out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use producers::publisher::{PublishError, Publisher};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::dead_letter_copy::{bytes, without_bytes};
use super::effects::{Outgoing, OutgoingRecord};
use super::metrics::StageMetrics;
use crate::stage::Outlet;

/// Records that are not known to be out, by their number.
type Failed = Vec<(usize, PublishError)>;

/// Tells what a stage decided.
#[derive(Clone)]
pub(crate) struct Teller {
    pub(crate) stage: &'static str,
    pub(crate) publisher: Publisher,
    pub(crate) outlet: Option<Arc<dyn Outlet>>,
    pub(crate) metrics: StageMetrics,
}

/// Below what any topic takes that was made on purpose.
const SMALL_BYTES: usize = 16 << 10;

/// In which a larger copy beside it has lost its bytes.
const PATIENT_ATTEMPTS: u32 = 4;

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
        let mut shortened: HashMap<usize, OutgoingRecord> = HashMap::new();
        let mut attempts = 0_u32;
        loop {
            if revoked.is_cancelled() {
                return false;
            }
            let Err(failed) = publish(&self.publisher, &records, &shortened).await else { break };
            attempts = attempts.saturating_add(1);
            if shorten(&records, &failed, attempts, &mut shortened) {
                tracing::warn!(
                    stage = self.stage,
                    error = %failed[0].1,
                    "the topic of dead letters does not take a copy; it goes without its bytes, which are in dead_letters"
                );
                continue;
            }
            if !self.pause(&failed[0].1, revoked, &mut backoff).await {
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

/// Takes the bytes out of the largest copy that was refused; `false` when there is none left to be taken. One at a time: what
/// was sent together is refused together, the small ones too. The company may also be that of another batch, so a small one
/// keeps its bytes for some attempts.
fn shorten(
    records: &[OutgoingRecord],
    failed: &Failed,
    attempts: u32,
    shortened: &mut HashMap<usize, OutgoingRecord>,
) -> bool {
    let refused = failed.iter().filter(|(_, error)| is_unfit(error)).map(|(number, _)| *number);
    let whole = refused.filter(|number| {
        let in_bad_company =
            bytes(&records[*number]) <= SMALL_BYTES && attempts <= PATIENT_ATTEMPTS;
        !shortened.contains_key(number) && !in_bad_company
    });
    let largest = whole
        .filter_map(|number| Some((number, without_bytes(&records[number])?)))
        .max_by_key(|(number, _)| bytes(&records[*number]));
    let Some((number, short)) = largest else { return false };
    shortened.insert(number, short);
    true
}

fn is_unfit(error: &PublishError) -> bool {
    matches!(error, PublishError::Unfit(_))
}

async fn publish(
    publisher: &Publisher,
    records: &[OutgoingRecord],
    shortened: &HashMap<usize, OutgoingRecord>,
) -> Result<(), Failed> {
    let mut batch = publisher.batch();
    // Number of the batch's first record.
    let mut start = 0;
    for (number, record) in records.iter().enumerate() {
        let record = shortened.get(&number).unwrap_or(record);
        loop {
            match record.with_record(|record| batch.add(record)) {
                Ok(()) => break,
                Err(PublishError::Overloaded) => {
                    // Room comes with acknowledgements; waiting for ours keeps the order.
                    let full = std::mem::replace(&mut batch, publisher.batch());
                    if full.is_empty() {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    full.acknowledged().await.map_err(|failed| numbered(failed, start))?;
                    start = number;
                }
                Err(error) => {
                    batch.acknowledged().await.ok();
                    return Err(vec![(number, error)]);
                }
            }
        }
    }
    batch.acknowledged().await.map_err(|failed| numbered(failed, start))
}

fn numbered(failed: Failed, start: usize) -> Failed {
    failed.into_iter().map(|(number, error)| (start + number, error)).collect()
}

#[cfg(test)]
mod tests {
    use schemas::TopicPrefix;

    use super::*;
    use crate::runner::dead_letter_copy;
    use crate::store::dead_letters::DeadLetter;

    fn copy(length: usize) -> OutgoingRecord {
        let value = vec![b'x'; length];
        let prefix: TopicPrefix = "t.".parse().unwrap();
        let letter = DeadLetter {
            topic: "t.orders",
            partition: 0,
            offset: 1,
            timestamp_ms: 2,
            order_id: None,
            event_id: None,
            code: "null_key",
            detail: "",
            key: None,
            value: Some(&value),
            header_names: Vec::new(),
            header_values: Vec::new(),
        };
        dead_letter_copy::of("order", &prefix, &letter)
    }

    /// What was refused together, as often as `attempts` says; answers the numbers of what goes without its bytes.
    fn refused(records: &[OutgoingRecord], attempts: u32) -> Vec<usize> {
        let unfit = |number| (number, PublishError::Unfit("too large".to_owned()));
        let failed: Failed = (0..records.len()).map(unfit).collect();
        let mut shortened = HashMap::new();
        for attempt in 1..=attempts {
            shorten(records, &failed, attempt, &mut shortened);
        }
        let mut numbers: Vec<_> = shortened.into_keys().collect();
        numbers.sort_unstable();
        numbers
    }

    #[test]
    fn the_largest_copy_goes_without_its_bytes_first_and_one_at_a_time() {
        let records = [copy(20_000), copy(900_000), copy(100)];

        assert_eq!(refused(&records, 1), [1]);
        assert_eq!(refused(&records, 2), [0, 1]);
    }

    #[test]
    fn a_small_copy_keeps_its_bytes_until_the_large_ones_had_time_to_lose_theirs() {
        let records = [copy(100)];

        assert_eq!(refused(&records, PATIENT_ATTEMPTS), [0_usize; 0]);
        assert_eq!(refused(&records, PATIENT_ATTEMPTS + 1), [0]);
    }

    #[test]
    fn what_failed_for_another_reason_keeps_its_bytes() {
        let records = [copy(900_000)];
        let failed = vec![(0, PublishError::Overloaded)];
        let mut shortened = HashMap::new();

        assert!(!shorten(&records, &failed, 9, &mut shortened));
        assert!(shortened.is_empty());
    }
}
