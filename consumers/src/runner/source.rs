//! The only code that reads Kafka for a stage. A thread of its own, because librdkafka calls back on whichever thread
//! polls, and polling must go on while a batch waits for its database.
//!
//! Reading starts where Postgres says, never where Kafka's committed offset says. A gap between the two ends of a
//! partition's log and the stage's progress is data loss: said loudly, counted, and the stage stops.

use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use producers::kafka::KafkaArgs;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use schemas::Topic;
use sqlx::postgres::PgConnectOptions;
use tokio::runtime::Handle;
use uuid::Uuid;

use super::Signals;
use super::callbacks::Callbacks;
use super::ends;
use super::metrics::StageMetrics;
use super::progress::{Owned, Partition};
use super::queue::Queue;
use super::reader::Reader;
use crate::broker::topic_ids::{Ids, TopicIds, is_another};
use crate::config::RunnerConfig;
use crate::stage::SourcePartition;

/// As much as a process can hold for a moment.
const LARGEST_EXPANDED: &str = "536870912";
/// How long a broker may take to say where a log starts and ends.
pub(crate) const BROKER_PATIENCE: Duration = Duration::from_secs(5);

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
    pub(crate) ids: TopicIds,
    /// The topics' ids when partitions were claimed last.
    pub(crate) claimed: Mutex<Ids>,
}

/// Why a consumer was given up.
pub(crate) enum End {
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
        // Of an earlier consumer: compared with, they would call for another one before this one has joined its group.
        self.claim_ids(Ids::new());
        let end = thread::scope(|scope| {
            // Dropped when reading ends, however it does.
            let (_reading, stop) = mpsc::channel();
            scope.spawn({
                let consumer = &consumer;
                move || ends::follow(self, consumer, &stop)
            });
            let mut reader = Reader::new(self, &consumer);
            let end = reader.read();
            reader.give_up_partitions();
            end
        });
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
            // Large responses are held whole while they are read: a third of this process' memory, for no speed.
            .set("fetch.max.bytes", "2097152")
            // Also the most that a compressed batch may expand to. At the default of 100 MB one batch of a few kilobytes
            // would stop the partition for ever; nothing is taken that does not come.
            .set("receive.message.max.bytes", LARGEST_EXPANDED);
        let consumer = BaseConsumer::from_config_and_context(&config, Callbacks::default())
            .context("creating the Kafka consumer; check the Kafka settings")?;
        let names: Vec<String> =
            self.topics.iter().map(|topic| self.kafka.topic_prefix.topic(*topic)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        consumer.subscribe(&names).context("subscribing to the topics of the stage")?;
        Ok(consumer)
    }
}

impl Source {
    /// The ids of the stage's topics now; an error after `patience`.
    pub(crate) fn ask_ids(&self, patience: Duration) -> anyhow::Result<Ids> {
        let names: Vec<String> =
            self.topics.iter().map(|topic| self.kafka.topic_prefix.topic(*topic)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.runtime.block_on(self.ids.of(&names, patience))
    }

    /// Takes note of what the topics' ids are while partitions are claimed.
    pub(crate) fn claim_ids(&self, ids: Ids) {
        *self.claimed() = ids;
    }

    /// Whether a topic is another one than when its partitions were claimed.
    pub(crate) fn is_made_anew(&self, patience: Duration) -> anyhow::Result<bool> {
        let ids = self.ask_ids(patience)?;
        let claimed = self.claimed();
        Ok(ids.iter().any(|(topic, id)| is_another(claimed.get(topic).copied(), Some(*id))))
    }

    fn claimed(&self) -> MutexGuard<'_, Ids> {
        self.claimed.lock().expect("no code panics while it holds this lock")
    }

    /// The log must be the one whose offsets the stage remembers. `read`: its topic's id when the stage first read it, `now`:
    /// what it is; either may not be known.
    pub(crate) fn check_identity(
        &self,
        topic: &str,
        partition: i32,
        read: Option<Uuid>,
        now: Option<Uuid>,
    ) -> anyhow::Result<()> {
        match (read, now) {
            (Some(read), Some(now)) if read != now => bail!(
                "{topic} [{partition}] is not the log that this stage has read: the topic was made anew (its id was {read} \
                 and is {now}), so offsets mean other records. To start from what is there: \
                 order-consumer progress accept-loss --stage {} --topic {topic} --partition {partition}",
                self.stage,
            ),
            _ => Ok(()),
        }
    }

    /// The log must have everything from `next` on, or end there.
    pub(crate) fn check_range(
        &self,
        topic: &str,
        partition: i32,
        next: i64,
        low: i64,
        high: i64,
    ) -> anyhow::Result<()> {
        if next < low {
            self.metrics.lost.inc_by(low.abs_diff(next));
            bail!(
                "{} records of {topic} [{partition}] are lost: the broker deleted offsets {next} to {} before this stage \
                 read them. The stage does not skip them in silence; restore them, or accept the loss with: \
                 order-consumer progress accept-loss --stage {} --topic {topic} --partition {partition}",
                low - next,
                low - 1,
                self.stage,
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

    /// Offsets may have gaps where transactions ended or a topic was compacted; only what retention cut off is lost.
    pub(crate) fn check_gap(
        &self,
        consumer: &BaseConsumer<Callbacks>,
        partition: &Partition,
        expected: i64,
    ) -> anyhow::Result<()> {
        let SourcePartition { topic, partition } = &*partition.source;
        let (low, high) = consumer
            .fetch_watermarks(topic, *partition, BROKER_PATIENCE)
            .context("asking whether a gap in the log is a loss")?;
        self.check_range(topic, *partition, expected, low, high)
    }
}
