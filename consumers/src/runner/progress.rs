//! Partitions this process owns right now, and how far each is: shared by lanes, reader and metrics.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

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
    /// End of the log, as its broker told it last.
    told_end: AtomicI64,
    /// When that was, in milliseconds after `born`; [`NEVER`] when what it told cannot be about our log.
    told_ms: AtomicU64,
    born: Instant,
    /// The log goes at least as far as we have read.
    read_end: AtomicI64,
    /// Broker's time of the first record that a lane has in hand and has not committed; zero when there is none.
    taken_ms: AtomicI64,
    /// The same of the first that no lane has taken yet.
    waiting_ms: AtomicI64,
    progress_micros: AtomicI64,
}

/// An end of the log that no broker has confirmed for longer than this is not known any more: a scrape's interval, and
/// several times what a broker that is well takes to be asked again.
const UNCONFIRMED_AFTER: Duration = Duration::from_secs(15);

const NEVER: u64 = u64::MAX;

impl Partition {
    /// As claimed just now, when its log ended at `end_offset`.
    pub(crate) fn new(claim: Claim, role: Topic, end_offset: i64) -> Self {
        Self {
            source: Arc::new(SourcePartition { topic: claim.topic, partition: claim.partition }),
            role,
            epoch: claim.epoch,
            start: claim.next_offset,
            next_offset: AtomicI64::new(claim.next_offset),
            told_end: AtomicI64::new(end_offset),
            told_ms: AtomicU64::new(0),
            born: Instant::now(),
            read_end: AtomicI64::new(claim.next_offset),
            taken_ms: AtomicI64::new(0),
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
    pub(crate) fn end_offset(&self) -> i64 {
        self.told_end.load(Ordering::Relaxed).max(self.read_end.load(Ordering::Relaxed))
    }

    /// Everything before `offset` is read, so the log goes that far.
    pub(crate) fn read_up_to(&self, offset: i64) {
        self.read_end.fetch_max(offset, Ordering::Relaxed);
    }

    /// A broker that was asked while progress was at `next_offset` says that the log ends at `end_offset`.
    pub(crate) fn told_end(&self, end_offset: i64, next_offset: i64, now: Instant) {
        if end_offset < next_offset {
            // Another log of the same name, or one that lost its tail: its end says nothing about what we have read.
            self.told_ms.store(NEVER, Ordering::Relaxed);
            return;
        }
        self.told_end.store(end_offset, Ordering::Relaxed);
        let after = now.saturating_duration_since(self.born).as_millis();
        self.told_ms.store(u64::try_from(after).unwrap_or(NEVER - 1), Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, next_offset: i64) {
        self.next_offset.store(next_offset, Ordering::Release);
        self.read_up_to(next_offset);
        self.taken_ms.store(0, Ordering::Release);
        self.progress_micros.store(Timestamp::now().as_micros(), Ordering::Relaxed);
    }

    /// Records came in behind whatever waits already. Under the lock of the partition's queue, as is [`Self::taken`].
    pub(crate) fn waiting_since(&self, first_ms: i64) {
        // Only the first to wait counts; zero means that nothing does.
        self.waiting_ms.compare_exchange(0, first_ms, Ordering::Relaxed, Ordering::Relaxed).ok();
    }

    /// A lane took records, the first of `first_ms`; `waiting_ms` is that of the first it left.
    pub(crate) fn taken(&self, first_ms: Option<i64>, waiting_ms: Option<i64>) {
        // In this order, so that whoever looks in between sees the older record.
        self.taken_ms.store(first_ms.unwrap_or(0), Ordering::Release);
        self.waiting_ms.store(waiting_ms.unwrap_or(0), Ordering::Release);
    }

    /// Records behind; unknown while no broker says where the log ends.
    pub(crate) fn lag(&self, now: Instant) -> Option<i64> {
        let told = Duration::from_millis(self.told_ms.load(Ordering::Relaxed));
        let age = now.saturating_duration_since(self.born).checked_sub(told).unwrap_or_default();
        let known = told != Duration::from_millis(NEVER) && age < UNCONFIRMED_AFTER;
        known.then(|| (self.end_offset() - self.next_offset()).max(0))
    }

    /// Seconds behind: age of the oldest record not committed. `None` while it is not in hand.
    pub(crate) fn lag_seconds(&self, now: Timestamp, clock: Instant) -> Option<f64> {
        // Read against the order in which they are written, so that a record is not missed on its way through.
        let waiting = self.waiting_ms.load(Ordering::Acquire);
        let taken = self.taken_ms.load(Ordering::Acquire);
        let oldest = [taken, waiting].into_iter().find(|ms| *ms != 0);
        match (self.lag(clock), oldest) {
            (Some(0), _) => Some(0.0),
            // However far the log goes: this record is not done with.
            (_, Some(oldest)) => Some((now.as_micros() / 1000 - oldest).max(0) as f64 / 1000.0),
            (_, None) => None,
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

    /// Seconds behind at `now`, while brokers answer.
    fn seconds_behind(partition: &Partition, now: Timestamp) -> Option<f64> {
        partition.lag_seconds(now, partition.born)
    }

    fn ms(seconds: i64) -> i64 {
        at(seconds).as_micros() / 1000
    }

    #[test]
    fn a_drained_partition_is_not_behind() {
        let partition = partition(7, 7);

        assert_eq!(partition.lag(partition.born), Some(0));
        assert_eq!(seconds_behind(&partition, at(0)), Some(0.0));
    }

    #[test]
    fn seconds_behind_are_unknown_until_the_record_is_in_hand() {
        let partition = partition(7, 9);
        assert_eq!(partition.lag(partition.born), Some(2));
        assert_eq!(seconds_behind(&partition, at(0)), None);

        partition.waiting_since(ms(0));

        assert_eq!(seconds_behind(&partition, at(5)), Some(5.0));
    }

    #[test]
    fn seconds_behind_follow_the_oldest_record_that_is_not_committed() {
        let partition = partition(0, 3);
        partition.waiting_since(ms(0));
        partition.taken(Some(ms(0)), Some(ms(10)));
        assert_eq!(seconds_behind(&partition, at(20)), Some(20.0), "taken is not committed");

        partition.committed(1);

        assert_eq!(seconds_behind(&partition, at(20)), Some(10.0));
        partition.taken(Some(ms(10)), None);
        partition.committed(3);
        assert_eq!(seconds_behind(&partition, at(30)), Some(0.0));
    }

    #[test]
    fn a_record_that_comes_while_a_batch_commits_is_not_forgotten() {
        let partition = partition(0, 1);
        partition.waiting_since(ms(0));
        partition.taken(Some(ms(0)), None);

        partition.waiting_since(ms(7));
        partition.told_end(2, 0, partition.born);
        partition.committed(1);

        assert_eq!(partition.lag(partition.born), Some(1));
        assert_eq!(seconds_behind(&partition, at(10)), Some(3.0));
    }

    #[test]
    fn after_an_hour_of_silence_nothing_is_behind_and_the_first_record_is_as_old_as_itself() {
        let partition = partition(0, 1);
        let clock = |second| partition.born + Duration::from_secs(second);
        partition.waiting_since(ms(0));
        partition.taken(Some(ms(0)), None);
        partition.committed(1);

        for (second, now) in (0..=3_600).zip(0..) {
            partition.told_end(1, 1, clock(second));
            assert_eq!(partition.lag_seconds(at(now), clock(second)), Some(0.0), "{second}");
        }
        partition.waiting_since(ms(3_600));
        partition.told_end(2, 1, clock(3_600));

        assert_eq!(partition.lag_seconds(at(3_602), clock(3_602)), Some(2.0));
    }

    #[test]
    fn an_end_that_nobody_confirms_any_more_is_not_known() {
        let partition = partition(7, 7);
        let later = partition.born + UNCONFIRMED_AFTER;

        assert_eq!(partition.lag(later), None);
        assert_eq!(partition.lag_seconds(at(0), later), None);
        partition.waiting_since(ms(0));
        assert_eq!(partition.lag_seconds(at(5), later), Some(5.0), "this record waits for sure");

        partition.told_end(9, 7, later);

        assert_eq!(partition.lag(later), Some(2));
    }

    #[test]
    fn a_log_that_ends_before_what_was_committed_is_another_one() {
        let partition = partition(10, 12);
        partition.told_end(12, 10, partition.born);

        partition.told_end(4, 10, partition.born);

        assert_eq!(partition.lag(partition.born), None);
        assert_eq!(seconds_behind(&partition, at(0)), None);
    }

    #[test]
    fn an_answer_that_progress_has_overtaken_makes_no_negative_lag() {
        let partition = partition(0, 0);
        partition.read_up_to(5);
        partition.committed(5);

        partition.told_end(3, 0, partition.born);

        assert_eq!(partition.lag(partition.born), Some(0));
    }
}
