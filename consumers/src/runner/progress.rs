//! Partitions this process owns right now, and how far each is: shared by lanes, reader and metrics.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use schemas::{Timestamp, Topic};

use crate::stage::SourcePartition;
use crate::store::progress::Claim;

/// A partition under one claim. Two claims on the same partition are two of these.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) source: Arc<SourcePartition>,
    pub(crate) role: Topic,
    pub(crate) epoch: i64,
    start: i64,
    next_offset: AtomicI64,
    end_offset: AtomicI64,
    /// Broker's time of the oldest record in hand that is not committed; zero when there is none.
    oldest_ms: AtomicI64,
    /// The same for the oldest that no lane has taken yet.
    waiting_ms: AtomicI64,
    progress_micros: AtomicI64,
}

/// No offset is known.
const UNKNOWN: i64 = -1;

impl Partition {
    pub(crate) fn new(claim: Claim, role: Topic, end_offset: i64) -> Self {
        Self {
            source: Arc::new(SourcePartition { topic: claim.topic, partition: claim.partition }),
            role,
            epoch: claim.epoch,
            start: claim.next_offset,
            next_offset: AtomicI64::new(claim.next_offset),
            end_offset: AtomicI64::new(end_offset),
            oldest_ms: AtomicI64::new(0),
            waiting_ms: AtomicI64::new(0),
            progress_micros: AtomicI64::new(Timestamp::now().as_micros()),
        }
    }

    pub(crate) fn number(&self) -> i32 {
        self.source.partition
    }

    /// The claim, as far as it has been moved.
    pub(crate) fn claim(&self) -> Claim {
        Claim {
            topic: self.source.topic.clone(),
            partition: self.source.partition,
            next_offset: self.next_offset(),
            epoch: self.epoch,
        }
    }

    /// Where reading starts.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// First offset not committed.
    pub(crate) fn next_offset(&self) -> i64 {
        self.next_offset.load(Ordering::Acquire)
    }

    /// End of the log, as last heard.
    pub(crate) fn end_offset(&self) -> Option<i64> {
        Some(self.end_offset.load(Ordering::Relaxed)).filter(|offset| *offset != UNKNOWN)
    }

    pub(crate) fn heard_of_end(&self, end_offset: i64) {
        self.end_offset.fetch_max(end_offset, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, next_offset: i64) {
        self.next_offset.store(next_offset, Ordering::Release);
        self.end_offset.fetch_max(next_offset, Ordering::Relaxed);
        self.oldest_ms.store(self.waiting_ms.load(Ordering::Relaxed), Ordering::Relaxed);
        self.progress_micros.store(Timestamp::now().as_micros(), Ordering::Relaxed);
    }

    /// Records came in behind whatever waits already.
    pub(crate) fn waiting_since(&self, first_ms: i64) {
        for cell in [&self.waiting_ms, &self.oldest_ms] {
            // Only the first to wait counts; zero means that nothing does.
            cell.compare_exchange(0, first_ms, Ordering::Relaxed, Ordering::Relaxed).ok();
        }
    }

    /// A lane took records; `first_ms` is what waits now.
    pub(crate) fn next_waiting_since(&self, first_ms: Option<i64>) {
        self.waiting_ms.store(first_ms.unwrap_or(0), Ordering::Relaxed);
    }

    /// Records behind, once the end of the log is known.
    pub(crate) fn lag(&self) -> Option<i64> {
        self.end_offset().map(|end| (end - self.next_offset()).max(0))
    }

    /// Seconds behind: age of the oldest record not committed. `None` while it is not in hand.
    pub(crate) fn lag_seconds(&self, now: Timestamp) -> Option<f64> {
        match (self.lag()?, self.oldest_ms.load(Ordering::Relaxed)) {
            (0, _) => Some(0.0),
            (_, 0) => None,
            (_, oldest) => Some(((now.as_micros() / 1000 - oldest).max(0)) as f64 / 1000.0),
        }
    }

    /// When it last moved, or was claimed.
    pub(crate) fn last_progress_seconds(&self) -> f64 {
        self.progress_micros.load(Ordering::Relaxed) as f64 / 1e6
    }
}

impl PartialEq for Partition {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Partition {}

impl Hash for Partition {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}

/// The partitions a stage owns in this process; empty between a revoke and the next assignment, so that a series of a
/// partition that went elsewhere is gone with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owned {
    partitions: Arc<Mutex<Vec<Arc<Partition>>>>,
}

impl Owned {
    pub(crate) fn replace(&self, partitions: Vec<Arc<Partition>>) {
        *self.partitions.lock().expect("no code panics while it holds this lock") = partitions;
    }

    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.partitions.lock().expect("no code panics while it holds this lock").clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(next_offset: i64, end_offset: i64) -> Partition {
        let claim = Claim { topic: "orders".to_owned(), partition: 0, next_offset, epoch: 1 };
        Partition::new(claim, Topic::Orders, end_offset)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros((1_700_000_000 + seconds) * 1_000_000).unwrap()
    }

    #[test]
    fn a_drained_partition_is_not_behind() {
        let partition = partition(7, 7);

        assert_eq!(partition.lag(), Some(0));
        assert_eq!(partition.lag_seconds(at(0)), Some(0.0));
    }

    #[test]
    fn seconds_behind_are_unknown_until_the_record_is_in_hand() {
        let partition = partition(7, 9);
        assert_eq!(partition.lag(), Some(2));
        assert_eq!(partition.lag_seconds(at(0)), None);

        partition.waiting_since(at(0).as_micros() / 1000);

        assert_eq!(partition.lag_seconds(at(5)), Some(5.0));
    }

    #[test]
    fn seconds_behind_follow_the_oldest_record_that_is_not_committed() {
        let partition = partition(0, 3);
        let ms = |seconds| at(seconds).as_micros() / 1000;
        partition.waiting_since(ms(0));
        partition.next_waiting_since(Some(ms(10))); // a lane took the first record
        assert_eq!(partition.lag_seconds(at(20)), Some(20.0), "taken is not committed");

        partition.committed(1);

        assert_eq!(partition.lag_seconds(at(20)), Some(10.0));
        partition.next_waiting_since(None);
        partition.committed(3);
        assert_eq!(partition.lag_seconds(at(30)), Some(0.0));
    }

    #[test]
    fn lag_is_never_negative() {
        let partition = partition(10, 4);

        assert_eq!(partition.lag(), Some(0));
    }
}
