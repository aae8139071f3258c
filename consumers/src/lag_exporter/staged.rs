//! Topics, records and groups made up on a real cluster, for the bench and the tests.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, OffsetCommitRequest,
    OffsetCommitResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{FutureProducer, FutureRecord};

use crate::broker::security::Security;
use crate::broker::wire::{Connection, call, error_of};

call!(FindCoordinatorRequest, FindCoordinator, 4..=4, FindCoordinatorResponse);
call!(OffsetCommitRequest, OffsetCommit, 8..=8, OffsetCommitResponse);

const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster to put things on.
pub(super) struct Staged {
    pub(super) config: ClientConfig,
    pub(super) admin: AdminClient<DefaultClientContext>,
    producer: FutureProducer,
    security: Security,
}

impl Staged {
    pub(super) fn on(config: &ClientConfig) -> anyhow::Result<Self> {
        Ok(Self {
            config: config.clone(),
            admin: config.create().context("creating a Kafka admin client")?,
            producer: config.create().context("creating a Kafka producer")?,
            security: Security::from_config(config)?,
        })
    }

    pub(super) async fn create(&self, topic: &str, partitions: i32) -> anyhow::Result<()> {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        for result in self.admin.create_topics(&[new], &options()).await? {
            result.map_err(|(topic, error)| anyhow::anyhow!("creating {topic}: {error}"))?;
        }
        Ok(())
    }

    pub(super) async fn delete(&self, topic: &str) -> anyhow::Result<()> {
        for result in self.admin.delete_topics(&[topic], &options()).await? {
            result.map_err(|(topic, error)| anyhow::anyhow!("deleting {topic}: {error}"))?;
        }
        Ok(())
    }

    pub(super) async fn delete_groups(&self, groups: &[String]) -> anyhow::Result<()> {
        let names: Vec<&str> = groups.iter().map(String::as_str).collect();
        for result in self.admin.delete_groups(&names, &options()).await? {
            result.map_err(|(group, error)| anyhow::anyhow!("deleting {group}: {error}"))?;
        }
        Ok(())
    }

    /// Writes a record to a partition for each of `times_ms`, in order.
    pub(super) async fn write(
        &self,
        topic: &str,
        partition: i32,
        times_ms: impl IntoIterator<Item = i64>,
    ) -> anyhow::Result<()> {
        let mut pending = Vec::new();
        for time in times_ms {
            let record: FutureRecord<'_, (), str> =
                FutureRecord::to(topic).partition(partition).timestamp(time).payload("staged");
            let sent = self.producer.send_result(record);
            pending.push(sent.map_err(|(error, _)| error).context("handing over a record")?);
        }
        for delivery in pending {
            let delivered = delivery.await.context("the producer was dropped")?;
            delivered.map_err(|(error, _)| error).context("writing a record")?;
        }
        Ok(())
    }

    /// Commits offsets for groups without ever being a member of one. One broker only.
    pub(super) async fn commit(
        &self,
        groups: &[String],
        topic: &str,
        offset: impl Fn(usize, i32) -> i64,
        partitions: i32,
    ) -> anyhow::Result<()> {
        let servers = self.config.get("bootstrap.servers").context("no broker is named")?;
        let address = servers.split(',').next().unwrap_or(servers);
        let mut connection = Connection::open(address, &self.security).await?;
        for (number, group) in groups.iter().enumerate() {
            let partitions = (0..partitions).map(|partition| {
                OffsetCommitRequestPartition::default()
                    .with_partition_index(partition)
                    .with_committed_leader_epoch(-1)
                    .with_committed_offset(offset(number, partition))
            });
            let topic = OffsetCommitRequestTopic::default()
                .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
                .with_partitions(partitions.collect());
            let request = OffsetCommitRequest::default()
                .with_group_id(GroupId(StrBytes::from_string(group.clone())))
                .with_generation_id_or_member_epoch(-1)
                .with_topics(vec![topic]);
            committed(&mut connection, group, &request).await?;
        }
        Ok(())
    }
}

/// Kafka makes the topic of commits when a coordinator is asked for first, and its partitions take a while to be ready.
async fn committed(
    connection: &mut Connection,
    group: &str,
    request: &OffsetCommitRequest,
) -> anyhow::Result<()> {
    let find = FindCoordinatorRequest::default()
        .with_key_type(0)
        .with_coordinator_keys(vec![StrBytes::from_string(group.to_owned())]);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = connection.call(&find).await?;
        let answer = connection.call(request).await?;
        let finding = found.coordinators.iter().map(|found| found.error_code);
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let codes = finding.chain(partitions.map(|partition| partition.error_code));
        let Some(code) = codes.into_iter().find(|code| *code != 0) else { return Ok(()) };
        let may_pass = ResponseError::try_from_code(code).is_some_and(|error| error.is_retriable());
        ensure!(
            may_pass && Instant::now() < deadline,
            "committing for {group}: {}",
            error_of(code).unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(PATIENCE))
}
