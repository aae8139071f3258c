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
        self.lanes.iter().all(|_| receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok())
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
            let fits = batch.len() + chunk.len() <= limits.records && batch.bytes() + chunk.bytes() <= limits.bytes;
            if batch.len() > 0 && !fits {
                break;
            }
            batch.add(chunks.pop_front().expect("just seen"));
        }
        partition.next_waiting_since(chunks.front().and_then(Chunk::first_timestamp_ms));
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
