//! A consumer at work: what it owns, what it reads, how it answers the group, and how it waits when lanes are full.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};
use schemas::Topic;
use sqlx::PgConnection;
use telemetry::crash_point::crash_point;
use tokio_util::sync::CancellationToken;

use super::batch::Chunk;
use super::callbacks::{Callbacks, Change};
use super::progress::Partition;
use super::source::{BROKER_PATIENCE, End, Source};
use super::transaction;
use crate::store::progress::{self, Claim, Claimed, Unclaimed};
use crate::store::session::Session;

/// Records taken from the client per round before lanes see them.
const ROUND: usize = 512;
/// How long the reader waits for room before it pauses partitions and polls on, to stay a member of its group.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);
/// How long lanes may finish what they have in hand when partitions go elsewhere.
const SETTLE_PATIENCE: Duration = Duration::from_secs(3);
/// How often the offsets in Kafka, which are only for tools, follow those in Postgres.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// A consumer and what it owns.
pub(crate) struct Reader<'a> {
    source: &'a Source,
    consumer: &'a BaseConsumer<Callbacks>,
    partitions: HashMap<(Topic, i32), Reading>,
    /// Whatever this consumer was ever given.
    known: HashSet<(Topic, i32)>,
    revoked: CancellationToken,
    paused: Vec<Arc<Partition>>,
    /// An assignment that could not be claimed yet.
    waiting: Option<TopicPartitionList>,
}

/// A partition being read.
struct Reading {
    partition: Arc<Partition>,
    /// The next offset to come.
    expected: i64,
    /// Whether the library's position is of this claim: it forgets that of an earlier one only some time after we did.
    positioned: bool,
    /// Last time something was read or the log had nothing new.
    alive: Instant,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Source, consumer: &'a BaseConsumer<Callbacks>) -> Self {
        Self {
            source,
            consumer,
            partitions: HashMap::new(),
            known: HashSet::new(),
            revoked: CancellationToken::new(),
            paused: Vec::new(),
            waiting: None,
        }
    }

    /// Reads until shutdown, or until the consumer must start over.
    pub(crate) fn read(&mut self) -> anyhow::Result<End> {
        let mut last_commit = Instant::now();
        loop {
            if self.source.signals.shutting_down() {
                return Ok(End::Shutdown);
            }
            if self.source.signals.take_rejoin() {
                return Ok(End::StartOver);
            }
            self.rebalance()?;
            if !self.round()? {
                return Ok(End::StartOver);
            }
            self.make_room();
            if last_commit.elapsed() >= COMMIT_EVERY {
                last_commit = Instant::now();
                self.note_the_idle();
                self.commit();
                if self.is_stuck() {
                    return Ok(End::StartOver);
                }
            }
        }
    }

    /// Polls until nothing is there or the round is full, then hands over what came. `false`: start over.
    fn round(&mut self) -> anyhow::Result<bool> {
        let mut chunks: HashMap<(Topic, i32), Chunk> = HashMap::new();
        let mut last: Option<(String, Topic)> = None;
        let mut idle = false;
        let mut now = Instant::now();
        for number in 0..ROUND {
            let patience = if number == 0 { Duration::from_millis(50) } else { Duration::ZERO };
            let message = match self.consumer.poll(patience) {
                None => {
                    idle = number == 0;
                    break;
                }
                Some(Ok(message)) => {
                    // Only the first record of a round is waited for, and asking for the time is a cost per record.
                    if number == 0 {
                        now = Instant::now();
                    }
                    message
                }
                Some(Err(error)) => {
                    if !self.survives(&error)? {
                        return Ok(false);
                    }
                    continue;
                }
            };
            let topic = match &last {
                Some((name, topic)) if name == message.topic() => *topic,
                _ => {
                    let Some(topic) = self.source.kafka.topic_prefix.role_of(message.topic())
                    else {
                        continue;
                    };
                    last = Some((message.topic().to_owned(), topic));
                    topic
                }
            };
            let key = (topic, message.partition());
            let Some(reading) = self.partitions.get_mut(&key) else { continue };
            if message.offset() < reading.expected {
                continue; // a fetch that overlapped; handled already
            }
            if message.offset() > reading.expected {
                self.source.check_gap(self.consumer, &reading.partition, reading.expected)?;
            }
            reading.expected = message.offset() + 1;
            reading.positioned = true;
            reading.alive = now;
            chunks.entry(key).or_default().push(&message);
        }
        for (key, chunk) in chunks {
            if let Some(reading) = self.partitions.get(&key)
                && !chunk.is_empty()
            {
                // In this order: lag is not told before its age can be.
                self.source.queue.push(&reading.partition, chunk);
                reading.partition.read_up_to(reading.expected);
            }
        }
        if idle {
            self.pass_undelivered()?;
        }
        Ok(true)
    }

    /// Markers of transactions, and the records of those that were aborted, take offsets and are never delivered. Progress
    /// passes them as the library does, or a log that ends with them would look like lag for ever.
    fn pass_undelivered(&mut self) -> anyhow::Result<()> {
        let behind = |reading: &Reading| {
            !reading.positioned || reading.partition.end_offset() > reading.expected
        };
        if !self.partitions.values().any(behind) {
            return Ok(());
        }
        let positions = self.consumer.position().context("asking how far the library is")?;
        for element in positions.elements() {
            let Some(role) = self.source.kafka.topic_prefix.role_of(element.topic()) else {
                continue;
            };
            let Some(reading) = self.partitions.get_mut(&(role, element.partition())) else {
                continue;
            };
            match element.offset() {
                Offset::Offset(position) if reading.positioned && position > reading.expected => {
                    reading.expected = position;
                    reading.alive = Instant::now();
                    reading.partition.read_up_to(position);
                    self.source.queue.push(&reading.partition, Chunk::passing(position));
                }
                Offset::Invalid => reading.positioned = true,
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether the consumer goes on after `error`.
    fn survives(&self, error: &KafkaError) -> anyhow::Result<bool> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                for reading in self.partitions.values() {
                    self.source.check_gap(self.consumer, &reading.partition, reading.expected)?;
                }
                bail!(
                    "the broker has no record at an offset this stage is at, although its log should; was the topic made anew?"
                )
            }
            Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {
                tracing::warn!(stage = self.source.stage, %error, "a topic does not exist (yet); create it with: order-consumer topics");
                Ok(true)
            }
            Some(RDKafkaErrorCode::PollExceeded) => Ok(true),
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => {
                tracing::warn!(stage = self.source.stage, %error, "the consumer cannot go on");
                Ok(false)
            }
            _ => {
                tracing::warn!(stage = self.source.stage, %error, "reading from Kafka");
                Ok(true)
            }
        }
    }

    /// Answers what the group decided. Done here and not inside the callback, so that polling goes on while the
    /// database keeps us waiting.
    fn rebalance(&mut self) -> anyhow::Result<()> {
        for change in self.consumer.context().take_changes() {
            match change {
                Change::Assigned(list) => self.waiting = Some(list),
                Change::Revoked => {
                    self.waiting = None;
                    self.give_up_partitions();
                    self.consumer.unassign().context("giving partitions back")?;
                }
            }
        }
        let Some(list) = self.waiting.take() else { return Ok(()) };
        match self.claim(&list) {
            Ok(claims) => self.take_over(claims),
            Err(ClaimError::Later(error)) => {
                tracing::warn!(
                    stage = self.source.stage,
                    error = format!("{error:#}"),
                    "partitions cannot be claimed yet; trying again"
                );
                self.waiting = Some(list);
                Ok(())
            }
            Err(ClaimError::Never(error)) => Err(error),
        }
    }

    /// Makes the partitions ours in Postgres, and checks that the log still has what we need.
    fn claim(&self, list: &TopicPartitionList) -> Result<Vec<(Claim, Topic, i64)>, ClaimError> {
        let ids = self.source.ask_ids(BROKER_PATIENCE).map_err(ClaimError::Later)?;
        let mut unclaimed = Vec::new();
        let mut ends = HashMap::new();
        for element in list.elements() {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            let (low, high) = self
                .consumer
                .fetch_watermarks(&topic, partition, BROKER_PATIENCE)
                .with_context(|| {
                    format!("asking where the log of {topic} [{partition}] starts and ends")
                })
                .map_err(ClaimError::Later)?;
            ends.insert((topic.clone(), partition), (low, high));
            let topic_id = ids.get(&topic).copied();
            unclaimed.push(Unclaimed { topic, partition, start: low, topic_id });
        }
        if unclaimed.is_empty() {
            return Ok(Vec::new());
        }
        let claims = self
            .source
            .runtime
            .block_on(async {
                let work = async {
                    let mut db: PgConnection = transaction::connect(&self.source.database).await?;
                    let mut db = Session::new(&mut db, &self.source.metrics.operations);
                    progress::claim(&mut db, self.source.stage, &self.source.owner, &unclaimed)
                        .await
                };
                tokio::time::timeout(BROKER_PATIENCE, work)
                    .await
                    .map_err(anyhow::Error::from)?
                    .map_err(anyhow::Error::from)
            })
            .context("claiming partitions in Postgres")
            .map_err(ClaimError::Later)?;
        crash_point(self.source.stage, "after_claim");
        let claimed = claims
            .into_iter()
            .map(|Claimed { claim, topic_id }| {
                let (low, high) = ends[&(claim.topic.clone(), claim.partition)];
                let now = ids.get(&claim.topic).copied();
                self.source
                    .check_identity(&claim.topic, claim.partition, topic_id, now)
                    .and_then(|()| {
                        self.source.check_range(
                            &claim.topic,
                            claim.partition,
                            claim.next_offset,
                            low,
                            high,
                        )
                    })
                    .map_err(ClaimError::Never)?;
                let role = self.source.kafka.topic_prefix.role_of(&claim.topic);
                let role = role
                    .with_context(|| format!("{} is not a topic of this pipeline", claim.topic));
                Ok((claim, role.map_err(ClaimError::Never)?, high))
            })
            .collect();
        self.source.claim_ids(ids);
        claimed
    }

    fn take_over(&mut self, claims: Vec<(Claim, Topic, i64)>) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::with_capacity(claims.len());
        self.partitions.clear();
        self.paused.clear();
        self.revoked = CancellationToken::new();
        for (claim, role, end) in claims {
            let partition = Arc::new(Partition::new(claim, role, end));
            let source = &partition.source;
            // Offsets are part of the one assignment: a seek after it would race with the first fetch.
            list.add_partition_offset(
                &source.topic,
                source.partition,
                Offset::Offset(partition.start()),
            )
            .context("naming the offset to start from")?;
            let reading = Reading {
                expected: partition.start(),
                positioned: self.known.insert((role, partition.number())),
                alive: Instant::now(),
                partition,
            };
            self.partitions.insert((role, reading.partition.number()), reading);
        }
        let all: Vec<Arc<Partition>> =
            self.partitions.values().map(|reading| reading.partition.clone()).collect();
        tracing::info!(
            stage = self.source.stage,
            partitions = all.len(),
            owner = self.source.owner,
            "partitions assigned"
        );
        self.source.metrics.rebalances.inc();
        self.source.owned.replace(all.clone());
        self.source.queue.assign(&all, &self.revoked);
        self.source.signals.assigned(!all.is_empty());
        self.consumer.assign(&list).context("taking the assignment")
    }

    /// Lets lanes finish what they have in hand, then takes everything away from them. What they do not finish is
    /// repeated by the next owner.
    pub(crate) fn give_up_partitions(&mut self) {
        if self.partitions.is_empty() {
            return;
        }
        let settled = self.source.queue.settle(SETTLE_PATIENCE);
        self.commit();
        self.revoked.cancel();
        self.source.queue.clear();
        self.source.owned.replace(Vec::new());
        self.partitions.clear();
        self.paused.clear();
        tracing::info!(stage = self.source.stage, settled, "partitions given back");
    }

    /// Backpressure. Short waits just hold the reader; a long one pauses the partitions that are backed up, so that the
    /// group sees us alive and other partitions go on.
    fn make_room(&mut self) {
        let queue = &self.source.queue;
        if !self.paused.is_empty() && queue.has_plenty_of_room() {
            self.set_paused(false);
        }
        if queue.wait_for_room(ROOM_PATIENCE) {
            return;
        }
        self.paused.extend(queue.backed_up());
        self.paused.sort_by_key(|partition| (partition.role, partition.number()));
        self.paused.dedup();
        self.set_paused(true);
    }

    fn set_paused(&mut self, pause: bool) {
        let mut list = TopicPartitionList::new();
        for partition in &self.paused {
            list.add_partition(&partition.source.topic, partition.source.partition);
        }
        let done = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = done {
            tracing::warn!(stage = self.source.stage, %error, pause, "pausing or resuming partitions");
        }
        if !pause {
            self.paused.clear();
        }
    }

    /// Where there is nothing more to read, reading nothing is no sign of being stuck.
    fn note_the_idle(&mut self) {
        for reading in self.partitions.values_mut() {
            if reading.partition.end_offset() <= reading.expected {
                reading.alive = Instant::now();
            }
        }
    }

    /// A consumer that stopped while the log moves on: seen in the wild after reconnects, and it looks like no traffic.
    fn is_stuck(&self) -> bool {
        let patience = self.source.config.watchdog();
        let backed_up = self.source.queue.backed_up();
        let stuck = self.partitions.values().find(|reading| {
            let behind = reading.partition.end_offset() > reading.expected;
            behind
                && reading.alive.elapsed() > patience
                && !backed_up.contains(&reading.partition)
                && !self.paused.contains(&reading.partition)
        });
        if let Some(reading) = stuck {
            tracing::error!(
                stage = self.source.stage,
                topic = reading.partition.source.topic,
                partition = reading.partition.number(),
                offset = reading.expected,
                "nothing is read although the log has more; starting the consumer over"
            );
        }
        stuck.is_some()
    }

    /// Kafka's committed offsets follow Postgres, for tools that show lag. Nothing of ours reads them.
    fn commit(&self) {
        let mut list = TopicPartitionList::new();
        for reading in self.partitions.values() {
            let source = &reading.partition.source;
            let next = reading.partition.next_offset();
            list.add_partition_offset(&source.topic, source.partition, Offset::Offset(next)).ok();
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(stage = self.source.stage, %error, "committing offsets for tools");
        }
    }
}

enum ClaimError {
    /// A dependency is not there right now.
    Later(anyhow::Error),
    /// Going on would lose data.
    Never(anyhow::Error),
}
