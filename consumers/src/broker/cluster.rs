//! The brokers of the cluster: one connection to each, opened when it is needed, given up after an error.
//!
//! A broker that failed is left alone until the next refresh, so that a dead one costs a refresh one timeout and no more.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::security::Security;
use super::wire::{Call, Connection, error_of};

/// The brokers, and how to reach them.
pub(crate) struct Cluster {
    bootstrap: Vec<String>,
    security: Arc<Security>,
    brokers: BTreeMap<i32, Broker>,
    requests: u64,
}

pub(crate) struct Broker {
    pub(crate) id: i32,
    address: String,
    security: Arc<Security>,
    connection: Option<Connection>,
    failed: bool,
    requests: u64,
    /// Sentences about what went wrong since they were taken last.
    pub(crate) failures: Vec<String>,
}

/// A partition and who leads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) partition: i32,
    /// `None` while nobody leads it.
    pub(crate) broker: Option<i32>,
}

#[derive(Clone, Debug)]
pub(crate) struct TopicInfo {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    pub(crate) partitions: Vec<Leader>,
}

impl Cluster {
    pub(crate) fn new(bootstrap: &str, security: Security) -> Self {
        let bootstrap =
            bootstrap
                .split(',')
                .map(|broker| broker.trim().rsplit("://").next().unwrap_or_default())
                .filter(|broker| !broker.is_empty())
                .map(|broker| {
                    if broker.contains(':') { broker.to_owned() } else { format!("{broker}:9092") }
                });
        Self {
            bootstrap: bootstrap.collect(),
            security: Arc::new(security),
            brokers: BTreeMap::new(),
            requests: 0,
        }
    }

    /// Requests made since this was asked last.
    pub(crate) fn take_requests(&mut self) -> u64 {
        let brokers = self.brokers.values_mut().map(|broker| std::mem::take(&mut broker.requests));
        brokers.sum::<u64>() + std::mem::take(&mut self.requests)
    }

    /// What went wrong since this was asked last.
    pub(crate) fn take_failures(&mut self) -> Vec<String> {
        self.brokers.values_mut().flat_map(|broker| std::mem::take(&mut broker.failures)).collect()
    }

    pub(crate) fn broker_count(&self) -> usize {
        self.brokers.len()
    }

    /// Asks which brokers and topics there are; brokers that failed get another chance from here on.
    pub(crate) async fn topics(&mut self) -> anyhow::Result<Vec<TopicInfo>> {
        for broker in self.brokers.values_mut() {
            broker.failed = false;
        }
        let answer = self.metadata(&MetadataRequest::default().with_topics(None)).await?;
        self.know(&answer);
        let topics = answer.topics.into_iter().filter(|topic| topic.error_code == 0);
        Ok(topics
            .filter_map(|topic| {
                let mut partitions: Vec<Leader> = topic
                    .partitions
                    .iter()
                    .map(|partition| Leader {
                        partition: partition.partition_index,
                        broker: Some(partition.leader_id.0).filter(|id| *id >= 0),
                    })
                    .collect();
                partitions.sort_by_key(|leader| leader.partition);
                Some(TopicInfo {
                    name: topic.name?.0.as_str().into(),
                    id: topic.topic_id,
                    internal: topic.is_internal,
                    partitions,
                })
            })
            .collect())
    }

    /// Asks for the ids of `topics` alone; those that do not exist have none. Needs no other question first, and may be given
    /// up at any time.
    pub(crate) async fn ids(&mut self, topics: &[&str]) -> anyhow::Result<BTreeMap<String, Uuid>> {
        for broker in self.brokers.values_mut() {
            broker.failed = false;
        }
        // A frozen broker holds a question until the asker gives up; the next one begins with another.
        if self.brokers.values().all(|broker| broker.connection.is_none()) {
            let first = self.bootstrap.len().min(1);
            self.bootstrap.rotate_left(first);
        }
        let named = topics.iter().map(|topic| {
            let name = TopicName(StrBytes::from_string((*topic).to_owned()));
            MetadataRequestTopic::default().with_name(Some(name))
        });
        let request = MetadataRequest::default()
            .with_topics(Some(named.collect()))
            .with_allow_auto_topic_creation(false);
        let answer = self.metadata(&request).await;
        // Whoever asks hears of what failed by the answer.
        self.take_failures();
        let answer = answer?;
        self.know(&answer);
        // One connection stays, for the next question.
        if self.brokers.values().all(|broker| broker.connection.is_none())
            && let Some(broker) = self.brokers.values_mut().next()
        {
            broker.reach().await;
        }
        let known = answer.topics.into_iter().filter(|topic| topic.error_code == 0);
        Ok(known
            .filter_map(|topic| Some((topic.name?.0.as_str().to_owned(), topic.topic_id)))
            .collect())
    }

    /// Does `work` on each broker that has some, at the same time. Work of a broker that is not known is not done.
    pub(crate) async fn at_once<W, T>(
        &mut self,
        mut work: BTreeMap<i32, W>,
        each: impl AsyncFn(&mut Broker, W) -> T,
    ) -> Vec<T> {
        let each = &each;
        let running = self.brokers.iter_mut().filter_map(|(id, broker)| {
            let work = work.remove(id)?;
            Some(async move { each(broker, work).await })
        });
        futures::future::join_all(running).await
    }

    /// The same for every broker.
    pub(crate) async fn on_all<T>(&mut self, each: impl AsyncFn(&mut Broker) -> T) -> Vec<T> {
        let all = self.brokers.keys().map(|id| (*id, ())).collect();
        self.at_once(all, async |broker, ()| each(broker).await).await
    }

    async fn metadata(&mut self, request: &MetadataRequest) -> anyhow::Result<MetadataResponse> {
        for broker in self.brokers.values_mut().filter(|broker| broker.connection.is_some()) {
            if let Some(answer) = broker.call(request).await {
                return sound(answer);
            }
        }
        let mut last = anyhow::anyhow!("no broker is named");
        for address in &self.bootstrap {
            self.requests += 1;
            let asked =
                async { Connection::open(address, &self.security).await?.call(request).await };
            match asked.await {
                Ok(answer) => return sound(answer),
                Err(error) => last = error,
            }
        }
        Err(last).context("asking for the topics of the cluster")
    }

    fn know(&mut self, answer: &MetadataResponse) {
        let mut known = std::mem::take(&mut self.brokers);
        for broker in &answer.brokers {
            let address = format!("{}:{}", broker.host.as_str(), broker.port);
            let kept = known.remove(&broker.node_id.0).filter(|kept| kept.address == address);
            let fresh = || Broker {
                id: broker.node_id.0,
                address,
                security: Arc::clone(&self.security),
                connection: None,
                failed: false,
                requests: 0,
                failures: Vec::new(),
            };
            self.brokers.insert(broker.node_id.0, kept.unwrap_or_else(fresh));
        }
    }
}

fn sound(answer: MetadataResponse) -> anyhow::Result<MetadataResponse> {
    if let Some(error) = error_of(answer.error_code) {
        bail!("asking for the topics of the cluster: {error}");
    }
    Ok(answer)
}

impl Broker {
    /// Asks this broker. `None`: it did not answer, and why is among its failures.
    pub(crate) async fn call<Q: Call>(&mut self, request: &Q) -> Option<Q::Answer> {
        if !self.reach().await {
            return None;
        }
        let mut connection = self.connection.take()?;
        self.requests += 1;
        match connection.call(request).await {
            Ok(answer) => {
                self.connection = Some(connection);
                Some(answer)
            }
            Err(error) => {
                self.fail(&error);
                None
            }
        }
    }

    /// Whether the broker can be reached and knows the request.
    pub(crate) async fn speaks<Q: Call>(&mut self) -> bool {
        self.reach().await && self.connection.as_ref().is_some_and(Connection::speaks::<Q>)
    }

    /// Takes note of something that went wrong on this broker's side.
    pub(crate) fn note(&mut self, what: String) {
        self.failures.push(what);
    }

    async fn reach(&mut self) -> bool {
        if self.failed {
            return false;
        }
        if self.connection.is_none() {
            self.requests += 1;
            match Connection::open(&self.address, &self.security).await {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => self.fail(&error),
            }
        }
        self.connection.is_some()
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.failed = true;
        self.connection = None;
        self.failures.push(format!("broker {} ({}): {error:#}", self.id, self.address));
    }
}
