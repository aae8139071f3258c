//! Topics as bytes: reads everything a topic holds, and writes records that no honest client would write.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemas::{Envelope, Event, EventId, Timestamp, Topic};

use crate::eventually::eventually;
use crate::pipeline::Pipeline;

const BROKER_PATIENCE: Duration = Duration::from_secs(20);

/// A record as it lies in a topic, or is to be put there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where it lies; when written, the partition follows from the key.
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The topics of a pipeline.
pub struct Records<'a> {
    pipeline: &'a Pipeline,
    producer: FutureProducer,
}

impl Record {
    /// `event` as an honest client writes it that says where and when it happened: `source`, `time`.
    pub fn of(event: &Event, source: &str, time: Timestamp) -> Self {
        let envelope = Envelope {
            id: EventId::opening(event.order_id(), event.event_type().as_str()),
            event_type: event.event_type(),
            source: source.to_owned(),
            time,
            traceparent: None,
        };
        let headers = envelope.headers().into_iter();
        Self {
            key: Some(event.order_id().to_string().into_bytes()),
            value: Some(event.to_json()),
            headers: headers
                .map(|(name, value)| (name.to_owned(), Some(value.into_bytes())))
                .collect(),
            ..Self::default()
        }
    }

    /// The value of the header `name`.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().rev().find(|(known, _)| known == name)?;
        found.1.as_deref()
    }

    /// The same with the header `name` set to `value`.
    pub fn with_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), Some(value.as_ref().to_vec())));
        self
    }

    /// The same without the header `name`.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self
    }
}

impl<'a> Records<'a> {
    pub fn of(pipeline: &'a Pipeline) -> anyhow::Result<Self> {
        let producer = client(pipeline)
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", "5")
            // A whole megabyte, which is one of the things to be tried.
            .set("message.max.bytes", "1048588")
            .set("message.timeout.ms", "20000")
            .create()
            .context("create a Kafka producer")?;
        Ok(Self { pipeline, producer })
    }

    /// Writes `records` as they are, each where its key belongs, and waits until the broker has them. Their places in
    /// the topic are returned.
    pub async fn write(&self, topic: Topic, records: &[Record]) -> anyhow::Result<Vec<(i32, i64)>> {
        let name = self.pipeline.prefix().topic(topic);
        let mut pending = Vec::with_capacity(records.len());
        for record in records {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in &record.headers {
                headers = headers.insert(Header { key, value: value.as_deref() });
            }
            let mut out: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(&name).headers(headers);
            out.key = record.key.as_deref();
            out.payload = record.value.as_deref();
            out.timestamp = record.timestamp_ms;
            pending.push(
                self.producer
                    .send_result(out)
                    .map_err(|(error, _)| error)
                    .context("hand over a record")?,
            );
        }
        let mut places = Vec::with_capacity(pending.len());
        for delivery in pending {
            let delivered = delivery.await.context("the producer was dropped")?;
            let delivered = delivered.map_err(|(error, _)| error).context("write a record")?;
            places.push((delivered.partition, delivered.offset));
        }
        Ok(places)
    }

    /// Everything `topic` holds now, partition by partition.
    pub async fn read(&self, topic: Topic) -> anyhow::Result<Vec<Record>> {
        let name = self.pipeline.prefix().topic(topic);
        let config = client(self.pipeline);
        let read = tokio::task::spawn_blocking(move || read_all(&config, &name));
        read.await.context("the thread that reads the topic ended early")?
    }

    /// Deletes what each partition of `topic` holds, as retention would.
    pub async fn delete_all(&self, topic: Topic) -> anyhow::Result<()> {
        let name = self.pipeline.prefix().topic(topic);
        let admin: AdminClient<DefaultClientContext> =
            client(self.pipeline).create().context("create a Kafka admin client")?;
        let metadata = admin
            .inner()
            .fetch_metadata(Some(&name), BROKER_PATIENCE)
            .context("ask for partitions")?;
        let partitions =
            metadata.topics().first().map(|topic| topic.partitions().len()).unwrap_or(0);
        let mut offsets = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions)? {
            offsets.add_partition_offset(&name, partition, Offset::End)?;
        }
        let options = AdminOptions::new().operation_timeout(Some(BROKER_PATIENCE));
        admin
            .delete_records(&offsets, &options)
            .await
            .with_context(|| format!("delete the records of {name}"))?;
        Ok(())
    }

    /// Makes `group`, which must have no members, stand at `offset` in each partition of `topic`, as an operator's tool would.
    pub async fn move_group(
        &self,
        group: &str,
        topic: Topic,
        offset: Offset,
    ) -> anyhow::Result<()> {
        let name = self.pipeline.prefix().topic(topic);
        let mut config = client(self.pipeline);
        config.set("group.id", group).set("enable.auto.commit", "false");
        let moved = tokio::task::spawn_blocking(move || move_group(&config, &name, offset));
        moved.await.context("the thread that moves the group ended early")?
    }

    /// Makes `topic` refuse batches of more than `bytes`, as whoever made it may have decided.
    pub async fn limit(&self, topic: Topic, bytes: u32) -> anyhow::Result<()> {
        self.alter(topic, "max.message.bytes", &bytes.to_string()).await
    }

    /// Makes records of `topic` as old as their writers say, once the brokers have heard of it.
    pub async fn believe_writers(&self, topic: Topic) -> anyhow::Result<()> {
        self.alter(topic, "message.timestamp.type", "CreateTime").await
    }

    async fn alter(&self, topic: Topic, setting: &str, value: &str) -> anyhow::Result<()> {
        let name = self.pipeline.prefix().topic(topic);
        let admin: AdminClient<DefaultClientContext> =
            client(self.pipeline).create().context("create a Kafka admin client")?;
        let options = AdminOptions::new().operation_timeout(Some(BROKER_PATIENCE));
        let change = AlterConfig::new(ResourceSpecifier::Topic(&name));
        let results = admin
            .alter_configs([&change.set(setting, value)], &options)
            .await
            .with_context(|| format!("set {setting} of {name}"))?;
        for result in results {
            result.map_err(|(_, error)| anyhow::anyhow!("set {setting} of {name}: {error}"))?;
        }
        Ok(())
    }

    /// Offsets that the partitions of `topic` have given out, all together.
    pub async fn offsets(&self, topic: Topic) -> anyhow::Result<i64> {
        let name = self.pipeline.prefix().topic(topic);
        let config = client(self.pipeline);
        let counted = tokio::task::spawn_blocking(move || sum_of_ends(&config, &name));
        counted.await.context("the thread that asks for offsets ended early")?
    }

    /// Deletes `topic` and makes it anew, with as many partitions; ends when brokers show the new one, which is empty.
    pub async fn make_anew(&self, topic: Topic) -> anyhow::Result<()> {
        let name = self.pipeline.prefix().topic(topic);
        let config = client(self.pipeline);
        let counted = tokio::task::spawn_blocking(move || {
            let client: BaseConsumer = config.create().context("create a Kafka client")?;
            anyhow::Ok(partitions_of(&client, &name)?.len().to_string())
        });
        let partitions =
            counted.await.context("the thread that counts partitions ended early")??;
        self.delete_topic(topic).await?;
        eventually(BROKER_PATIENCE, "the topic exists anew", async || {
            self.pipeline.tool(&["topics", "--partitions", &partitions]).await?;
            let left = self.read(topic).await?;
            ensure!(left.is_empty(), "it has {} records", left.len());
            Ok(())
        })
        .await
    }

    /// Removes `topic` itself.
    async fn delete_topic(&self, topic: Topic) -> anyhow::Result<()> {
        let name = self.pipeline.prefix().topic(topic);
        let admin: AdminClient<DefaultClientContext> =
            client(self.pipeline).create().context("create a Kafka admin client")?;
        let options = AdminOptions::new().operation_timeout(Some(BROKER_PATIENCE));
        let results = admin
            .delete_topics(&[&name], &options)
            .await
            .with_context(|| format!("delete {name}"))?;
        for result in results {
            result.map_err(|(topic, error)| anyhow::anyhow!("delete {topic}: {error}"))?;
        }
        Ok(())
    }
}

fn client(pipeline: &Pipeline) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", pipeline.brokers())
        .set("client.id", "order-load")
        .set("allow.auto.create.topics", "false")
        .set("reconnect.backoff.max.ms", "1000");
    config
}

fn read_all(config: &ClientConfig, topic: &str) -> anyhow::Result<Vec<Record>> {
    let mut config = config.clone();
    // Never joined; the library assigns nothing without a name.
    config
        .set("group.id", "order-load")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error");
    let consumer: BaseConsumer = config.create().context("create a Kafka consumer")?;
    let mut records = Vec::new();
    for partition in partitions_of(&consumer, topic)? {
        let (start, end) = consumer.fetch_watermarks(topic, partition, BROKER_PATIENCE)?;
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(topic, partition, Offset::Offset(start))?;
        consumer.assign(&assignment).context("choose a partition")?;
        let deadline = Instant::now() + BROKER_PATIENCE;
        let mut next = start;
        while next < end {
            if let Some(message) = consumer.poll(Duration::from_millis(100)) {
                let message = message.context("read a record")?;
                next = message.offset() + 1;
                records.push(owned(&message));
            }
            if Instant::now() > deadline {
                bail!("{topic} [{partition}] was read up to {next} of {end} only");
            }
        }
    }
    Ok(records)
}

fn sum_of_ends(config: &ClientConfig, topic: &str) -> anyhow::Result<i64> {
    let consumer: BaseConsumer = config.create().context("create a Kafka consumer")?;
    let mut sum = 0;
    for partition in partitions_of(&consumer, topic)? {
        sum += consumer.fetch_watermarks(topic, partition, BROKER_PATIENCE)?.1;
    }
    Ok(sum)
}

/// Of a topic that is not there the library shows one without partitions, and an error beside it.
fn partitions_of(client: &BaseConsumer, topic: &str) -> anyhow::Result<Vec<i32>> {
    let metadata =
        client.fetch_metadata(Some(topic), BROKER_PATIENCE).context("ask for partitions")?;
    let found = metadata.topics().first().with_context(|| format!("{topic} does not exist"))?;
    if let Some(error) = found.error() {
        bail!("{topic}: {}", RDKafkaErrorCode::from(error));
    }
    Ok(found.partitions().iter().map(|partition| partition.id()).collect())
}

fn move_group(config: &ClientConfig, topic: &str, offset: Offset) -> anyhow::Result<()> {
    let consumer: BaseConsumer = config.create().context("create a Kafka consumer")?;
    let mut offsets = TopicPartitionList::new();
    for partition in partitions_of(&consumer, topic)? {
        let (start, end) = consumer.fetch_watermarks(topic, partition, BROKER_PATIENCE)?;
        let place = match offset {
            Offset::Beginning => start,
            Offset::End => end,
            other => bail!("{other:?} is neither the beginning nor the end"),
        };
        offsets.add_partition_offset(topic, partition, Offset::Offset(place))?;
    }
    consumer.commit(&offsets, CommitMode::Sync).with_context(|| format!("move a group of {topic}"))
}

fn owned(message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| {
        let headers =
            headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)));
        headers.collect()
    });
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}
