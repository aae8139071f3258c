//! What lies between the thread that reads Kafka and the lanes that write Postgres: bounded, and empty after a revoke.
//!
//! A partition always belongs to the lane of its number, so that all events of an order, whatever their topic, meet in
//! one lane and never wait for each other's rows.

use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Chunk};
use super::progress::Partition;

/// The queue of one stage.
pub(crate) struct Queue {
    lanes: Vec<LaneQueue>,
    total: Mutex<Total>,
    drained: Condvar,
    max_bytes: usize,
}

#[derive(Default)]
struct Total {
    bytes: usize,
}

struct LaneQueue {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Default)]
struct Inner {
    partitions: HashMap<Arc<Partition>, VecDeque<Chunk>>,
    assigned: Option<Assignment>,
    settle: Option<Sender<()>>,
    closed: bool,
}

/// Partitions a lane has just been given.
pub(crate) struct Assignment {
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// Cancelled when they are taken away.
    pub(crate) revoked: CancellationToken,
}

/// What a lane does next.
pub(crate) enum Work {
    Assigned(Assignment),
    Batch(Arc<Partition>, Batch),
    /// Partitions are about to go: leave nothing on its way, then answer.
    Settle(Sender<()>),
    /// Nothing came for the given time.
    Idle,
    Closed,
}

impl Queue {
    pub(crate) fn new(lanes: usize, max_bytes: usize) -> Self {
        let lane = || LaneQueue { inner: Mutex::default(), changed: Notify::new() };
        Self {
            lanes: (0..lanes).map(|_| lane()).collect(),
            total: Mutex::default(),
            drained: Condvar::new(),
            max_bytes,
        }
    }

    pub(crate) fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// Hands partitions to their lanes.
    pub(crate) fn assign(&self, partitions: &[Arc<Partition>], revoked: &CancellationToken) {
        for (number, lane) in self.lanes.iter().enumerate() {
            let mine = partitions.iter().filter(|p| self.lane_of(p) == number).cloned().collect();
            let mut inner = lock(&lane.inner);
            inner.partitions.clear();
            inner.assigned = Some(Assignment { partitions: mine, revoked: revoked.clone() });
            lane.changed.notify_one();
        }
    }

    /// Forgets everything that no lane has taken.
    pub(crate) fn clear(&self) {
        for lane in &self.lanes {
            let mut inner = lock(&lane.inner);
            inner.partitions.clear();
            inner.assigned = None;
            lane.changed.notify_one();
        }
        lock(&self.total).bytes = 0;
        self.drained.notify_all();
    }

    /// Drops what no lane has taken, and waits until every lane has finished what it has in hand, or `patience` ends.
    /// Blocks its thread.
    pub(crate) fn settle(&self, patience: Duration) -> bool {
        self.clear();
        let (sender, receiver) = channel();
        for lane in &self.lanes {
            lock(&lane.inner).settle = Some(sender.clone());
            lane.changed.notify_one();
        }
        drop(sender);
        let deadline = Instant::now() + patience;
        self.lanes.iter().all(|_| {
            receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
        })
    }

    /// No more work: lanes finish what they have in hand.
    pub(crate) fn close(&self) {
        self.clear();
        for lane in &self.lanes {
            lock(&lane.inner).closed = true;
            lane.changed.notify_one();
        }
    }

    /// Adds records of a partition.
    pub(crate) fn push(&self, partition: &Arc<Partition>, chunk: Chunk) {
        lock(&self.total).bytes += chunk.bytes();
        let lane = &self.lanes[self.lane_of(partition)];
        let mut inner = lock(&lane.inner);
        if let Some(first) = chunk.first_timestamp_ms() {
            partition.waiting_since(first);
        }
        inner.partitions.entry(partition.clone()).or_default().push_back(chunk);
        drop(inner);
        lane.changed.notify_one();
    }

    /// Waits until there is room again; `false` when `patience` ends first. Blocks its thread.
    pub(crate) fn wait_for_room(&self, patience: Duration) -> bool {
        let total = lock(&self.total);
        let (total, _) = self
            .drained
            .wait_timeout_while(total, patience, |total| total.bytes >= self.max_bytes)
            .expect("no code panics while it holds this lock");
        total.bytes < self.max_bytes
    }

    /// Whether less than half of the room is used.
    pub(crate) fn has_plenty_of_room(&self) -> bool {
        lock(&self.total).bytes < self.max_bytes / 2
    }

    /// Partitions with records that no lane has taken.
    pub(crate) fn backed_up(&self) -> Vec<Arc<Partition>> {
        self.lanes
            .iter()
            .flat_map(|lane| {
                let inner = lock(&lane.inner);
                let full = inner.partitions.iter().filter(|(_, chunks)| !chunks.is_empty());
                full.map(|(partition, _)| partition.clone()).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The next thing for lane `number`, waiting up to `patience`. A batch takes all that is there of one partition, up
    /// to the limits: small when there is little to do, large under load.
    pub(crate) async fn next(&self, number: usize, limits: Limits, patience: Duration) -> Work {
        let lane = &self.lanes[number];
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(work) = self.take(lane, limits) {
                return work;
            }
            if tokio::time::timeout_at(deadline, lane.changed.notified()).await.is_err() {
                return Work::Idle;
            }
        }
    }

    fn take(&self, lane: &LaneQueue, limits: Limits) -> Option<Work> {
        let mut inner = lock(&lane.inner);
        if let Some(assignment) = inner.assigned.take() {
            return Some(Work::Assigned(assignment));
        }
        if let Some(settle) = inner.settle.take() {
            return Some(Work::Settle(settle));
        }
        if inner.closed {
            return Some(Work::Closed);
        }
        // Oldest first: facts reach the projection about in the order in which they happened.
        let (partition, chunks) = inner
            .partitions
            .iter_mut()
            .filter(|(_, chunks)| !chunks.is_empty())
            .min_by_key(|(_, chunks)| chunks.front().and_then(Chunk::first_timestamp_ms))?;
        let partition = partition.clone();
        let mut batch = Batch::default();
        while let Some(chunk) = chunks.front() {
            let fits = batch.len() + chunk.len() <= limits.records
                && batch.bytes() + chunk.bytes() <= limits.bytes;
            if batch.len() > 0 && !fits {
                break;
            }
            batch.add(chunks.pop_front().expect("just seen"));
        }
        let waiting = chunks.iter().find_map(Chunk::first_timestamp_ms);
        partition.taken(batch.first_timestamp_ms(), waiting);
        drop(inner);
        let mut total = lock(&self.total);
        total.bytes = total.bytes.saturating_sub(batch.bytes());
        if total.bytes < self.max_bytes {
            self.drained.notify_all();
        }
        Some(Work::Batch(partition, batch))
    }

    fn lane_of(&self, partition: &Partition) -> usize {
        partition.number().unsigned_abs() as usize % self.lanes.len()
    }
}

/// Limits of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no code panics while it holds this lock")
}

#[cfg(test)]
mod tests {
    use schemas::Topic;

    use super::*;
    use crate::store::progress::Claim;

    const NOW: Duration = Duration::ZERO;
    const ALL: Limits = Limits { records: 1000, bytes: 1_000_000 };

    fn partition(number: i32) -> Arc<Partition> {
        let claim =
            Claim { topic: "orders".to_owned(), partition: number, next_offset: 0, epoch: 1 };
        Arc::new(Partition::new(claim, Topic::Orders, 0))
    }

    fn queue(lanes: usize, partitions: &[Arc<Partition>]) -> Queue {
        let queue = Queue::new(lanes, 10_000);
        queue.assign(partitions, &CancellationToken::new());
        queue
    }

    async fn batch(queue: &Queue, lane: usize, limits: Limits) -> (Arc<Partition>, Batch) {
        loop {
            match queue.next(lane, limits, NOW).await {
                Work::Assigned(_) => {}
                Work::Batch(partition, batch) => return (partition, batch),
                _ => panic!("there should be a batch"),
            }
        }
    }

    #[tokio::test]
    async fn a_batch_holds_one_partition_up_to_the_limit() {
        let (zero, two) = (partition(0), partition(2));
        let queue = queue(2, &[zero.clone(), two.clone()]);
        queue.push(&zero, Chunk::of(0..6, 10));
        queue.push(&zero, Chunk::of(6..9, 11));
        queue.push(&two, Chunk::of(0..1, 20));

        let (first, small) = batch(&queue, 0, Limits { records: 8, ..ALL }).await;
        let (_, rest) = batch(&queue, 0, ALL).await;
        let (last, other) = batch(&queue, 0, ALL).await;

        assert!(first == zero && small.len() == 6 && small.next_offset() == Some(6));
        assert_eq!(rest.next_offset(), Some(9));
        assert!(last == two && other.len() == 1);
    }

    #[tokio::test]
    async fn the_oldest_record_goes_first() {
        let (late, early) = (partition(0), partition(1));
        let queue = queue(1, &[late.clone(), early.clone()]);
        queue.push(&late, Chunk::of(0..1, 2_000));
        queue.push(&early, Chunk::of(0..1, 1_000));

        let (first, _) = batch(&queue, 0, ALL).await;

        assert!(first == early);
    }

    #[tokio::test]
    async fn room_is_used_up_by_what_waits_and_comes_back_when_it_is_taken_or_dropped() {
        let zero = partition(0);
        let queue = queue(1, std::slice::from_ref(&zero));
        assert!(queue.wait_for_room(NOW));

        queue.push(&zero, Chunk::of(0..1000, 1));
        assert!(!queue.wait_for_room(NOW), "a thousand records are more than ten thousand bytes");
        batch(&queue, 0, ALL).await;
        assert!(queue.wait_for_room(NOW));

        queue.push(&zero, Chunk::of(0..1000, 1));
        queue.clear();
        assert!(queue.has_plenty_of_room());
        assert!(matches!(queue.next(0, ALL, NOW).await, Work::Idle), "what was dropped is gone");
    }

    #[tokio::test]
    async fn settling_waits_for_every_lane() {
        let queue = Arc::new(queue(2, &[partition(0), partition(1)]));
        assert!(!queue.settle(NOW), "no lane has answered");

        let lanes: Vec<_> = (0..2)
            .map(|lane| {
                let queue = queue.clone();
                tokio::spawn(async move {
                    loop {
                        match queue.next(lane, ALL, Duration::from_secs(10)).await {
                            Work::Settle(settled) => drop(settled.send(())),
                            Work::Closed => return,
                            _ => {}
                        }
                    }
                })
            })
            .collect();
        let waiting = queue.clone();
        let settled = tokio::task::spawn_blocking(move || waiting.settle(Duration::from_secs(10)));

        assert!(settled.await.unwrap());
        queue.close();
        for lane in lanes {
            lane.await.unwrap();
        }
    }

    #[test]
    fn an_order_meets_one_lane_on_every_topic() {
        let queue = Queue::new(3, 1);
        let claim =
            |topic: &str| Claim { topic: topic.to_owned(), partition: 5, next_offset: 0, epoch: 1 };

        let lanes = [Topic::Orders, Topic::Payments]
            .map(|role| queue.lane_of(&Partition::new(claim(role.name()), role, 0)));

        assert_eq!(lanes[0], lanes[1]);
    }
}
