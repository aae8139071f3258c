//! The client library's calls back to us, noted down for the reader. They come on the thread that polls, in the middle of
//! a poll, so nothing here waits or decides.

use std::sync::Mutex;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

/// What the group did with our partitions.
pub(crate) enum Change {
    Assigned(TopicPartitionList),
    Revoked,
}

/// The library's calls back to us, noted down for the reader.
#[derive(Default)]
pub(crate) struct Callbacks {
    changes: Mutex<Vec<Change>>,
    closing: Mutex<bool>,
}

impl Callbacks {
    pub(crate) fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut *self.changes.lock().expect("no code panics while it holds this lock"))
    }

    pub(crate) fn closing(&self) {
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
}

impl ConsumerContext for Callbacks {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        error: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
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
