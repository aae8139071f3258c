//! Which log a topic's name stands for. A topic that was deleted and made anew has another id, and that is the only sign of
//! it once the new log is as long as the old one was: offsets mean other records, and look as if nothing had happened.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use producers::kafka::KafkaArgs;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::cluster::Cluster;
use super::security::Security;

/// Ids by the topics' names.
pub(crate) type Ids = BTreeMap<String, Uuid>;

/// Whether a topic that had the id `read` is another one `now`. Where either is not known nothing is said.
pub(crate) fn is_another(read: Option<Uuid>, now: Option<Uuid>) -> bool {
    read.zip(now).is_some_and(|(read, now)| read != now)
}

/// Asks the brokers for ids.
pub(crate) struct TopicIds {
    /// `None`: the client's settings are among those that connections of this kind do not support.
    cluster: Option<Mutex<Cluster>>,
}

impl TopicIds {
    /// Connects as `kafka` says, in the name of `client_id`. Where that is not supported ids are not known, which is said
    /// in the log, and nothing else.
    pub(crate) fn new(kafka: &KafkaArgs, client_id: &str) -> anyhow::Result<Self> {
        let cluster = match Security::from_config(&kafka.client_config(client_id)?) {
            Ok(security) => Some(Mutex::new(Cluster::new(&kafka.kafka_brokers, security))),
            Err(error) => {
                tracing::warn!(
                    client_id,
                    why = format!("{error:#}"),
                    "ids of topics are not known: a topic that is made anew is noticed only while it is shorter than it was"
                );
                None
            }
        };
        Ok(Self { cluster })
    }

    /// The ids of those of `topics` that exist; empty where ids are not known. An error after `patience`.
    pub(crate) async fn of(&self, topics: &[&str], patience: Duration) -> anyhow::Result<Ids> {
        let Some(cluster) = &self.cluster else { return Ok(Ids::new()) };
        let asking = async { cluster.lock().await.ids(topics).await };
        let asked = tokio::time::timeout(patience, asking).await;
        asked.context("no answer in time").flatten().context("asking for the ids of topics")
    }
}
