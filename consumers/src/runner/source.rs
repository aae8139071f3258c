//! The only code that reads Kafka for a stage. A thread of its own, because librdkafka calls back on whichever thread
//! polls, and polling must go on while a batch waits for its database.
//!
//! Reading starts where Postgres says, never where Kafka's committed offset says. A gap between the two ends of a
//! partition's log and the stage's progress is data loss: said loudly, counted, and the stage stops.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use producers::kafka::KafkaArgs;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use schemas::Topic;
use serde::Deserialize;
use sqlx::PgConnection;
use sqlx::postgres::PgConnectOptions;
use telemetry::crash_point::crash_point;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::Signals;
use super::batch::Chunk;
use super::metrics::StageMetrics;
use super::progress::{Owned, Partition};
use super::queue::Queue;
use super::transaction;
use crate::config::RunnerConfig;
use crate::store::progress::{self, Claim, Unclaimed};

/// Records taken from the client per round before lanes see them.
const ROUND: usize = 512;
/// How long the reader waits for room before it pauses partitions and polls on, to stay a member of its group.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);
/// How long lanes may finish what they have in hand when partitions go elsewhere.
const SETTLE_PATIENCE: Duration = Duration::from_secs(3);
/// How often the offsets in Kafka, which are only for tools, follow those in Postgres.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// Statistics of the client library: ends of logs.
const STATISTICS_EVERY_MS: &str = "1000";
const BROKER_PATIENCE: Duration = Duration::from_secs(5);

/// Reads the topics of one stage.
pub(crate) struct Source {
    pub(crate) stage: &'static str,
    pub(crate) topics: Vec<Topic>,
    pub(crate) kafka: KafkaArgs,
    pub(crate) config: RunnerConfig,
    pub(crate) database: PgConnectOptions,
    pub(crate) owner: String,
    pub(crate) queue: Arc<Queue>,
    pub(crate) owned: Owned,
    pub(crate) metrics: StageMetrics,
    pub(crate) signals: Arc<Signals>,
    pub(crate) runtime: Handle,
}

/// Why a consumer was given up.
enum End {
    Shutdown,
    /// Join the group anew, with new claims.
    StartOver,
}

impl Source {
    /// Reads until shutdown, or until the stage must stop.
    pub(crate) fn run(&self) {
        loop {
            match self.consume() {
                Ok(End::Shutdown) => break,
                Ok(End::StartOver) => {
                    tracing::info!(stage = self.stage, "joining the consumer group anew");
                }
                Err(error) => {
                    self.signals.stop_stage(format!("{error:#}"));
                    break;
                }
            }
        }
        self.owned.replace(Vec::new());
    }

    /// The life of one consumer.
    fn consume(&self) -> anyhow::Result<End> {
        let consumer = self.subscribe()?;
        let mut reader = Reader { source: self, consumer: &consumer, partitions: HashMap::new(), revoked: CancellationToken::new(), paused: Vec::new(), waiting: None };
        let end = reader.read();
        reader.give_up_partitions();
        // From here on the library answers rebalances itself, or closing would wait for us.
        consumer.context().closing();
        drop(consumer);
        end
    }

    fn subscribe(&self) -> anyhow::Result<BaseConsumer<Callbacks>> {
        let mut config = self.kafka.client_config(&format!("order-consumer-{}", self.stage))?;
        config
            .set("group.id", self.kafka.topic_prefix.group(self.stage))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Postgres says where to start; an offset that the log does not have is never silently replaced.
            .set("auto.offset.reset", "error")
            // Same number, same member: partition n of every topic meets in one process.
            .set("partition.assignment.strategy", "range")
            .set("session.timeout.ms", self.config.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (self.config.session_timeout_ms / 5).max(200).to_string())
            .set("max.poll.interval.ms", self.config.session_timeout_ms.max(60_000).to_string())
            .set("isolation.level", "read_committed")
            .set("check.crcs", "true")
            // The default of one second stalls a fast reader whenever its queue was full.
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.message.max.bytes", "1048576")
            .set("statistics.interval.ms", STATISTICS_EVERY_MS);
        let consumer = BaseConsumer::from_config_and_context(&config, Callbacks::default())
            .context("creating the Kafka consumer; check the Kafka settings")?;
        let names: Vec<String> = self.topics.iter().map(|topic| self.kafka.topic_prefix.topic(*topic)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        consumer.subscribe(&names).context("subscribing to the topics of the stage")?;
        Ok(consumer)
    }
}

/// A consumer and what it owns.
struct Reader<'a> {
    source: &'a Source,
    consumer: &'a BaseConsumer<Callbacks>,
    partitions: HashMap<(Topic, i32), Reading>,
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
    /// Last time something was read or the log had nothing new.
    alive: Instant,
}

impl Reader<'_> {
    fn read(&mut self) -> anyhow::Result<End> {
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
                self.hear_statistics();
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
        for number in 0..ROUND {
            let patience = if number == 0 { Duration::from_millis(50) } else { Duration::ZERO };
            let message = match self.consumer.poll(patience) {
                None => break,
                Some(Ok(message)) => message,
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
                    let Some(topic) = self.source.kafka.topic_prefix.role_of(message.topic()) else { continue };
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
                check_gap(self.source, self.consumer, &reading.partition, reading.expected)?;
            }
            reading.expected = message.offset() + 1;
            reading.alive = Instant::now();
            chunks.entry(key).or_default().push(&message);
        }
        for (key, chunk) in chunks {
            if let Some(reading) = self.partitions.get(&key)
                && !chunk.is_empty()
            {
                reading.partition.heard_of_end(reading.expected);
                self.source.queue.push(&reading.partition, chunk);
            }
        }
        Ok(true)
    }

    /// Whether the consumer goes on after `error`.
    fn survives(&self, error: &KafkaError) -> anyhow::Result<bool> {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                for reading in self.partitions.values() {
                    check_gap(self.source, self.consumer, &reading.partition, reading.expected)?;
                }
                bail!("the broker has no record at an offset this stage is at, although its log should; was the topic made anew?")
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
                tracing::warn!(stage = self.source.stage, error = format!("{error:#}"), "partitions cannot be claimed yet; trying again");
                self.waiting = Some(list);
                Ok(())
            }
            Err(ClaimError::Never(error)) => Err(error),
        }
    }

    /// Makes the partitions ours in Postgres, and checks that the log still has what we need.
    fn claim(&self, list: &TopicPartitionList) -> Result<Vec<(Claim, Topic, i64)>, ClaimError> {
        let mut unclaimed = Vec::new();
        let mut ends = HashMap::new();
        for element in list.elements() {
            let (topic, partition) = (element.topic().to_owned(), element.partition());
            let (low, high) = self
                .consumer
                .fetch_watermarks(&topic, partition, BROKER_PATIENCE)
                .with_context(|| format!("asking where the log of {topic} [{partition}] starts and ends"))
                .map_err(ClaimError::Later)?;
            ends.insert((topic.clone(), partition), (low, high));
            unclaimed.push(Unclaimed { topic, partition, start: low });
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
                    progress::claim(&mut db, self.source.stage, &self.source.owner, &unclaimed).await
                };
                tokio::time::timeout(BROKER_PATIENCE, work).await.map_err(anyhow::Error::from)?.map_err(anyhow::Error::from)
            })
            .context("claiming partitions in Postgres")
            .map_err(ClaimError::Later)?;
        crash_point(self.source.stage, "after_claim");
        claims
            .into_iter()
            .map(|claim| {
                let (low, high) = ends[&(claim.topic.clone(), claim.partition)];
                self.source.check_range(&claim.topic, claim.partition, claim.next_offset, low, high).map_err(ClaimError::Never)?;
                let role = self.source.kafka.topic_prefix.role_of(&claim.topic);
                let role = role.with_context(|| format!("{} is not a topic of this pipeline", claim.topic));
                Ok((claim, role.map_err(ClaimError::Never)?, high))
            })
            .collect()
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
            list.add_partition_offset(&source.topic, source.partition, Offset::Offset(partition.start()))
                .context("naming the offset to start from")?;
            let reading = Reading { expected: partition.start(), alive: Instant::now(), partition };
            self.partitions.insert((role, reading.partition.number()), reading);
        }
        let all: Vec<Arc<Partition>> = self.partitions.values().map(|reading| reading.partition.clone()).collect();
        tracing::info!(stage = self.source.stage, partitions = all.len(), owner = self.source.owner, "partitions assigned");
        self.source.metrics.rebalances.inc();
        self.source.owned.replace(all.clone());
        self.source.queue.assign(&all, &self.revoked);
        self.source.signals.assigned(!all.is_empty());
        self.consumer.assign(&list).context("taking the assignment")
    }

    /// Lets lanes finish what they have in hand, then takes everything away from them. What they do not finish is
    /// repeated by the next owner.
    fn give_up_partitions(&mut self) {
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

    fn hear_statistics(&mut self) {
        let Some(statistics) = self.consumer.context().take_statistics() else { return };
        let prefix = &self.source.kafka.topic_prefix;
        for (topic, partitions) in statistics.topics {
            let Some(role) = prefix.role_of(&topic) else { continue };
            for (number, ends) in partitions.partitions {
                let Ok(number) = number.parse() else { continue };
                let Some(reading) = self.partitions.get_mut(&(role, number)) else { continue };
                // With read_committed the log ends, for us, before the first open transaction.
                let end = if ends.ls_offset >= 0 { ends.ls_offset } else { ends.hi_offset };
                reading.partition.heard_of_end(end);
                if end <= reading.expected {
                    reading.alive = Instant::now();
                }
            }
        }
    }

    /// A consumer that stopped while the log moves on: seen in the wild after reconnects, and it looks like no traffic.
    fn is_stuck(&self) -> bool {
        let patience = self.source.config.watchdog();
        let backed_up = self.source.queue.backed_up();
        let stuck = self.partitions.values().find(|reading| {
            let behind = reading.partition.end_offset().is_some_and(|end| end > reading.expected);
            behind && reading.alive.elapsed() > patience && !backed_up.contains(&reading.partition)
                && !self.paused.contains(&reading.partition)
        });
        if let Some(reading) = stuck {
            tracing::error!(
                stage = self.source.stage, topic = reading.partition.source.topic,
                partition = reading.partition.number(), offset = reading.expected,
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

impl Source {
    /// The log must have everything from `next` on, or end there.
    fn check_range(&self, topic: &str, partition: i32, next: i64, low: i64, high: i64) -> anyhow::Result<()> {
        if next < low {
            self.metrics.lost.inc_by(low.abs_diff(next));
            bail!(
                "{} records of {topic} [{partition}] are lost: the broker deleted offsets {next} to {} before this stage \
                 read them. The stage does not skip them in silence; restore them, or accept the loss with: \
                 order-consumer progress accept-loss --stage {} --topic {topic} --partition {partition}",
                low - next, low - 1, self.stage,
            );
        }
        if next > high {
            bail!(
                "{topic} [{partition}] ends at {high}, before offset {next} where this stage is: the topic was made anew or \
                 the broker lost its tail. To start from what is there: \
                 order-consumer progress accept-loss --stage {} --topic {topic} --partition {partition}",
                self.stage,
            );
        }
        Ok(())
    }
}

/// Offsets may have gaps where transactions ended or a topic was compacted; only what retention cut off is lost.
fn check_gap(
    source: &Source,
    consumer: &BaseConsumer<Callbacks>,
    partition: &Partition,
    expected: i64,
) -> anyhow::Result<()> {
    let place = &partition.source;
    match consumer.fetch_watermarks(&place.topic, place.partition, BROKER_PATIENCE) {
        Ok((low, high)) => source.check_range(&place.topic, place.partition, expected, low, high),
        Err(error) => Err(error).context("asking whether a gap in the log is a loss"),
    }
}

enum ClaimError {
    /// A dependency is not there right now.
    Later(anyhow::Error),
    /// Going on would lose data.
    Never(anyhow::Error),
}

/// What the group did with our partitions.
enum Change {
    Assigned(TopicPartitionList),
    Revoked,
}

/// The library's calls back to us, noted down for the reader.
#[derive(Default)]
struct Callbacks {
    changes: Mutex<Vec<Change>>,
    statistics: Mutex<Option<Statistics>>,
    closing: Mutex<bool>,
}

impl Callbacks {
    fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().expect("no code panics while it holds this lock"))
    }

    fn take_statistics(&self) -> Option<Statistics> {
        self.statistics.lock().expect("no code panics while it holds this lock").take()
    }

    fn closing(&self) {
        *self.closing.lock().expect("no code panics while it holds this lock") = true;
    }
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        producers::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka consumer");
    }

    /// Parses only the ends of logs; the full statistics are a hundred maps per call.
    fn stats_raw(&self, statistics: &[u8]) {
        if let Ok(statistics) = serde_json::from_slice(statistics) {
            *self.statistics.lock().expect("no code panics while it holds this lock") = Some(statistics);
        }
    }
}

impl ConsumerContext for Callbacks {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let assigned = matches!(error, RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS);
        if *self.closing.lock().expect("no code panics while it holds this lock") {
            if let Err(error) = consumer.unassign() {
                tracing::warn!(%error, "giving partitions back while closing");
            }
            return;
        }
        let change = if assigned { Change::Assigned(list.clone()) } else { Change::Revoked };
        self.changes.lock().expect("no code panics while it holds this lock").push(change);
    }
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    partitions: HashMap<String, LogEnds>,
}

#[derive(Deserialize)]
struct LogEnds {
    hi_offset: i64,
    ls_offset: i64,
}
