//! The only code that writes to Kafka.
//!
//! A record counts as written when every in-sync replica has it (`acks=all`) and not before. Whatever else a delivery
//! report says leaves the record's fate unknown: the caller tells the same fact again under the same id, never a new one.
//! Records of one [`Batch`] that share a key keep their order.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::util::Timeout;
use tokio::sync::Notify;

use crate::kafka::KafkaArgs;

/// How a publisher batches and when it gives up.
#[derive(Clone, Debug)]
pub struct PublisherSettings {
    /// How long a record waits for company. Under load batches grow by themselves while a request is out, so this
    /// only costs latency when there is little to do.
    pub linger: Duration,
    /// After this a record that the broker did not acknowledge is reported as unknown. Below the HTTP deadline, so
    /// that a client hears 503 rather than nothing.
    pub delivery_timeout: Duration,
    /// Records that may wait in memory. Beyond it callers are told that they are too fast.
    pub queue_records: u32,
    /// The same in KiB: the bound on memory.
    pub queue_kib: u32,
}

impl Default for PublisherSettings {
    fn default() -> Self {
        Self {
            linger: Duration::from_millis(2),
            delivery_timeout: Duration::from_secs(8),
            queue_records: 100_000,
            queue_kib: 64 * 1024,
        }
    }
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Name of the topic on the broker.
    pub topic: &'a str,
    /// The key; it decides the partition. Without one, chance does.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: Option<&'a [u8]>,
    /// Names and values of the headers; `None` is a header without a value.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Why a record is not known to be written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PublishError {
    /// The queue is full; the record was not taken.
    #[error("the publisher's queue is full")]
    Overloaded,
    /// The record breaks the limits of its topic (its size, its form); it was not written, and never will be.
    #[error("the topic does not take such a record: {0}")]
    Unfit(String),
    /// The broker refuses whatever is sent there (no such topic, not allowed); the record was not written.
    #[error("the broker's rules refuse the record: {0}")]
    Refused(String),
    /// It may or may not have been written.
    #[error("the broker did not acknowledge the record: {0}")]
    Unknown(String),
}

/// Writes records. Clones share one client.
#[derive(Clone)]
pub struct Publisher {
    producer: Arc<ThreadedProducer<Reports>>,
}

/// Records whose acknowledgement is awaited together.
pub struct Batch {
    producer: Arc<ThreadedProducer<Reports>>,
    state: Arc<Acknowledgements>,
    records: usize,
}

struct Acknowledgements {
    /// Reports still to come, plus one until the batch is complete.
    outstanding: AtomicUsize,
    failed: Mutex<Vec<(usize, PublishError)>>,
    complete: Notify,
}

struct Delivery {
    batch: Arc<Acknowledgements>,
    index: usize,
}

#[derive(Clone)]
struct Reports;

impl Publisher {
    /// Starts a client. Brokers need not be up: records wait for them until the delivery timeout.
    pub fn connect(
        kafka: &KafkaArgs,
        settings: &PublisherSettings,
        client_id: &str,
    ) -> anyhow::Result<Self> {
        let mut config = kafka.client_config(client_id)?;
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            // Java and Go clients put the same key on the same partition.
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            // Fractions of a millisecond count.
            .set("linger.ms", (settings.linger.as_secs_f64() * 1000.0).to_string())
            .set("delivery.timeout.ms", settings.delivery_timeout.as_millis().to_string())
            // Topics have limits of their own, and that of dead letters is the largest.
            .set("message.max.bytes", "2097152")
            .set("queue.buffering.max.messages", settings.queue_records.to_string())
            .set("queue.buffering.max.kbytes", settings.queue_kib.to_string());
        let producer = ThreadedProducer::from_config_and_context(&config, Reports)
            .context("creating the Kafka producer; check the Kafka settings")?;
        Ok(Self { producer: Arc::new(producer) })
    }

    /// An empty batch.
    pub fn batch(&self) -> Batch {
        let state = Acknowledgements {
            outstanding: AtomicUsize::new(1),
            failed: Mutex::default(),
            complete: Notify::new(),
        };
        Batch { producer: self.producer.clone(), state: Arc::new(state), records: 0 }
    }

    /// Records handed over whose report is still to come.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.producer.in_flight_count()).unwrap_or(0)
    }

    /// Waits until everything handed over is reported. `false` when `deadline` passes first. Blocks its thread.
    pub fn flush(&self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        while self.in_flight() > 0 {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero()
                || (self.producer.flush(left).is_err() && left < Duration::from_millis(50))
            {
                return self.in_flight() == 0;
            }
        }
        true
    }

    /// The error that ended this client, if one did: it will never write again and must be replaced.
    pub fn fatal_error(&self) -> Option<String> {
        self.producer.client().fatal_error().map(|(code, text)| format!("{code}: {text}"))
    }

    /// Whether the brokers answer. Blocks its thread up to `deadline`.
    pub fn ping(&self, topic: &str, deadline: Duration) -> anyhow::Result<()> {
        let metadata = self
            .producer
            .client()
            .fetch_metadata(Some(topic), Timeout::After(deadline))
            .context("asking the brokers for metadata")?;
        let known =
            metadata.topics().iter().any(|found| found.name() == topic && found.error().is_none());
        anyhow::ensure!(
            known,
            "the topic {topic} does not exist; create it with: order-consumer topics"
        );
        Ok(())
    }
}

impl Batch {
    /// Hands a record over. Never blocks. An error means that this record was not taken; those before it were.
    pub fn add(&mut self, record: &Record<'_>) -> Result<(), PublishError> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for &(key, value) in record.headers {
            headers = headers.insert(Header { key, value });
        }
        let index = self.records;
        let delivery = Box::new(Delivery { batch: self.state.clone(), index });
        self.state.outstanding.fetch_add(1, Ordering::Relaxed);
        let mut message: BaseRecord<'_, [u8], [u8], _> =
            BaseRecord::with_opaque_to(record.topic, delivery).headers(headers);
        message.key = record.key;
        message.payload = record.value;
        match self.producer.send(message) {
            Ok(()) => {
                self.records += 1;
                Ok(())
            }
            Err((error, _)) => {
                self.state.outstanding.fetch_sub(1, Ordering::Relaxed);
                Err(PublishError::at_hand_over(&error))
            }
        }
    }

    /// How many records were taken.
    pub fn len(&self) -> usize {
        self.records
    }

    /// Whether none was taken.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Waits for every report. The error lists the records, by their number in the batch, that are not known to be
    /// written. Dropping this future takes nothing back.
    pub async fn acknowledged(self) -> Result<(), Vec<(usize, PublishError)>> {
        let state = self.state;
        if state.outstanding.fetch_sub(1, Ordering::AcqRel) > 1 {
            state.complete.notified().await;
        }
        let failed = std::mem::take(
            &mut *state.failed.lock().expect("no code panics while it holds this lock"),
        );
        if failed.is_empty() { Ok(()) } else { Err(failed) }
    }
}

impl PublishError {
    fn at_hand_over(error: &KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Self::Overloaded,
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => Self::Unfit(error.to_string()),
            _ => Self::Refused(error.to_string()),
        }
    }

    fn in_report(error: &KafkaError) -> Self {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidRecord) => {
                Self::Unfit(error.to_string())
            }
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition,
            ) => Self::Refused(error.to_string()),
            _ => Self::Unknown(error.to_string()),
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        crate::kafka::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, reason, "Kafka producer");
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Delivery>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivery: Box<Delivery>) {
        let batch = &delivery.batch;
        if let Err((error, _)) = result {
            let failed = (delivery.index, PublishError::in_report(error));
            batch.failed.lock().expect("no code panics while it holds this lock").push(failed);
        }
        if batch.outstanding.fetch_sub(1, Ordering::AcqRel) == 1 {
            batch.complete.notify_one();
        }
    }
}
