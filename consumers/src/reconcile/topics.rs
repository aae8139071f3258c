//! Reads the topics, from a given offset of each partition to another, outside of any consumer group.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use producers::kafka::KafkaArgs;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use schemas::codec::decode;
use schemas::{OrderId, RawRecord, Topic, TopicPrefix};

use super::ledger::{Ledger, Place};
use crate::indicator::Indicator;

/// An offset of each partition.
pub(super) type Offsets = BTreeMap<(Topic, i32), i64>;

/// How long the broker may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long to wait before a question is asked again.
const ASK_EVERY: Duration = Duration::from_millis(200);
/// How long reading may stand still, with records still to come, before it is given up.
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// How many records between two words about them.
const SAY_EVERY: u64 = 1 << 16;

/// The topics of one pipeline. Blocks: lives on a thread of its own.
pub(super) struct Topics {
    consumer: BaseConsumer,
    prefix: TopicPrefix,
    partitions: Vec<(Topic, i32)>,
}

/// Where each partition starts and ends now.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    pub(super) starts: Offsets,
    pub(super) ends: Offsets,
}

impl Topics {
    /// Connects and finds out about partitions.
    pub(super) fn connect(kafka: &KafkaArgs) -> anyhow::Result<Self> {
        let prefix = kafka.topic_prefix.clone();
        let consumer: BaseConsumer = kafka
            .client_config("order-reconcile")?
            // Never joined and never committed to; librdkafka assigns nothing without a name.
            .set("group.id", prefix.group("reconcile"))
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            // Reading is bound by decoding; more in memory would not make it faster.
            .set("queued.max.messages.kbytes", "8192")
            .set("queued.min.messages", "10000")
            .set("fetch.max.bytes", "8388608")
            // Whatever a stage can read, and a batch that expands to many times its size with it.
            .set("receive.message.max.bytes", "536870912")
            .set("fetch.queue.backoff.ms", "10")
            .create()
            .context("setting up a Kafka consumer")?;
        let mut partitions = Vec::new();
        for topic in Topic::ALL {
            let name = prefix.topic(topic);
            let metadata = consumer
                .fetch_metadata(Some(&name), ANSWER_TIMEOUT)
                .with_context(|| format!("asking {} about topic {name}", kafka.kafka_brokers))?;
            let found = metadata.topics().first().filter(|topic| topic.error().is_none());
            let Some(found) = found else {
                bail!("topic {name} does not exist on {}", kafka.kafka_brokers)
            };
            partitions.extend(found.partitions().iter().map(|partition| (topic, partition.id())));
        }
        Ok(Self { consumer, prefix, partitions })
    }

    /// Where each partition starts and ends now.
    pub(super) fn bounds(&self) -> anyhow::Result<Bounds> {
        let mut bounds = Bounds::default();
        for &(topic, partition) in &self.partitions {
            let name = self.prefix.topic(topic);
            let (start, end) =
                patiently(|| self.consumer.fetch_watermarks(&name, partition, ANSWER_TIMEOUT))
                    .with_context(|| format!("asking where {name}/{partition} ends"))?;
            bounds.starts.insert((topic, partition), start);
            bounds.ends.insert((topic, partition), end);
        }
        Ok(bounds)
    }

    /// First offsets at or after `time_ms`, and the ends of partitions that hold nothing as young.
    pub(super) fn offsets_at(&self, time_ms: i64, ends: &Offsets) -> anyhow::Result<Offsets> {
        let mut wanted = TopicPartitionList::with_capacity(self.partitions.len());
        for &(topic, partition) in &self.partitions {
            wanted.add_partition_offset(
                &self.prefix.topic(topic),
                partition,
                Offset::Offset(time_ms),
            )?;
        }
        let found = self
            .consumer
            .offsets_for_times(wanted, ANSWER_TIMEOUT)
            .context("looking for offsets by time")?;
        let mut offsets = ends.clone();
        for element in found.elements() {
            let role = self.prefix.role_of(element.topic());
            if let (Some(topic), Offset::Offset(offset)) = (role, element.offset()) {
                offsets.insert((topic, element.partition()), offset);
            }
        }
        Ok(offsets)
    }

    /// Reads every record before `ends` into `ledger`. Returns the offset behind the last record of each partition:
    /// markers of transactions take offsets too, and are neither delivered nor waited for.
    pub(super) fn read(
        &self,
        starts: &Offsets,
        ends: &Offsets,
        ledger: &mut Ledger,
        indicator: &Indicator,
    ) -> anyhow::Result<Offsets> {
        let mut read: u64 = 0;
        let mut behind_last = Offsets::new();
        self.scan(starts, ends, |topic, message| {
            record(ledger, topic, message);
            behind_last.insert((topic, message.partition()), message.offset() + 1);
            read += 1;
            if read.is_multiple_of(SAY_EVERY) {
                indicator.progress(&format!("reading the topics: {read} records"));
            }
        })?;
        Ok(behind_last)
    }

    /// Marks the orders of every record from `starts` to `ends`.
    pub(super) fn read_late(
        &self,
        starts: &Offsets,
        ends: &Offsets,
        ledger: &mut Ledger,
    ) -> anyhow::Result<()> {
        self.scan(starts, ends, |topic, message| {
            let order =
                message.key().and_then(OrderId::from_key).filter(|_| topic != Topic::DeadLetters);
            if let Some(order) = order {
                ledger.late(order);
            }
        })
    }

    fn scan(
        &self,
        starts: &Offsets,
        ends: &Offsets,
        mut each: impl FnMut(Topic, &BorrowedMessage<'_>),
    ) -> anyhow::Result<()> {
        let mut open: Offsets = ends.clone();
        open.retain(|place, end| starts.get(place).is_some_and(|start| start < end));
        let mut assignment = TopicPartitionList::with_capacity(open.len());
        for place in open.keys() {
            let (topic, partition) = *place;
            assignment.add_partition_offset(
                &self.prefix.topic(topic),
                partition,
                Offset::Offset(starts[place]),
            )?;
        }
        self.consumer.assign(&assignment).context("choosing the partitions to read")?;
        let mut last_record = Instant::now();
        while !open.is_empty() {
            match self.consumer.poll(Duration::from_millis(200)) {
                Some(message) => {
                    let message = match message {
                        Ok(message) => message,
                        Err(error) if is_passing(&error) => continue,
                        Err(error) => return Err(error).context("reading a topic"),
                    };
                    let topic = self
                        .prefix
                        .role_of(message.topic())
                        .context("a record of a topic nobody asked for")?;
                    let place = (topic, message.partition());
                    let Some(end) = open.get(&place).copied() else { continue };
                    last_record = Instant::now();
                    if message.offset() < end {
                        each(topic, &message);
                    }
                    if message.offset() + 1 >= end {
                        open.remove(&place);
                    }
                }
                // Markers of transactions take offsets and are never delivered, so the position decides too.
                None => self.close_passed(&mut open)?,
            }
            if last_record.elapsed() > STALL_TIMEOUT {
                bail!(
                    "nothing was read for {STALL_TIMEOUT:?}, with {} partitions not at their end",
                    open.len()
                );
            }
        }
        self.consumer.unassign().context("letting go of the partitions")
    }

    fn close_passed(&self, open: &mut Offsets) -> anyhow::Result<()> {
        let positions = self.consumer.position().context("asking for the position")?;
        for element in positions.elements() {
            let role = self.prefix.role_of(element.topic());
            let (Some(topic), Offset::Offset(position)) = (role, element.offset()) else {
                continue;
            };
            let place = (topic, element.partition());
            if open.get(&place).is_some_and(|end| position >= *end) {
                open.remove(&place);
            }
        }
        Ok(())
    }
}

/// A topic that was just created, or a broker that comes back, has no leader for a moment.
fn patiently<T>(mut ask: impl FnMut() -> KafkaResult<T>) -> KafkaResult<T> {
    let asked = Instant::now();
    loop {
        match ask() {
            Err(_) if asked.elapsed() < ANSWER_TIMEOUT => std::thread::sleep(ASK_EVERY),
            answer => return answer,
        }
    }
}

/// The library goes on by itself after these, and when it does not, nothing is read for too long.
fn is_passing(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::Resolve
        )
    )
}

fn record(ledger: &mut Ledger, topic: Topic, message: &BorrowedMessage<'_>) {
    if topic == Topic::DeadLetters {
        ledger.dead_letter_records += 1;
        return;
    }
    let mut headers: Vec<(&[u8], Option<&[u8]>)> = Vec::with_capacity(8);
    if let Some(found) = message.headers() {
        for number in 0..found.count() {
            // rdkafka 0.39 panics on a header name that is not UTF-8. No header of this pipeline has such a name.
            if let Ok(Some(header)) = catch_unwind(AssertUnwindSafe(|| found.try_get(number))) {
                headers.push((header.key.as_bytes(), header.value));
            }
        }
    }
    let raw =
        RawRecord { key: message.key(), value: message.payload(), headers: headers.into_iter() };
    match decode(topic, raw) {
        Ok(decoded) => ledger.event(&decoded),
        Err(_) => {
            ledger.unreadable(Place {
                topic,
                partition: message.partition(),
                offset: message.offset(),
            });
        }
    }
}
