//! Where the logs of partitions start and end.
//!
//! Ends are asked for after positions were read, so that a position is beyond the end only when the log was made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, ListOffsetsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::arithmetic::Bounds;
use crate::broker::cluster::{Broker, Cluster, TopicInfo};
use crate::broker::wire::error_of;

/// Partitions per request; each costs the broker a look into memory.
const PARTITIONS_PER_REQUEST: usize = 2_000;

/// What ListOffsets understands as a time.
const START: i64 = -2;
const END: i64 = -1;

/// A partition of a topic.
pub(super) type Place = (Arc<str>, i32);

/// Bounds of every partition that has a leader which answers.
pub(super) async fn read(cluster: &mut Cluster, topics: &[TopicInfo]) -> BTreeMap<Place, Bounds> {
    let mut led: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
    for topic in topics {
        for leader in &topic.partitions {
            if let Some(broker) = leader.broker {
                led.entry(broker).or_default().push((Arc::clone(&topic.name), leader.partition));
            }
        }
    }
    let read = cluster.at_once(led, async |broker, places| {
        let mut bounds = BTreeMap::new();
        for chunk in places.chunks(PARTITIONS_PER_REQUEST) {
            let Some(starts) = offsets(broker, chunk, START).await else { break };
            let Some(ends) = offsets(broker, chunk, END).await else { break };
            for (place, end) in ends {
                if let Some(start) = starts.get(&place) {
                    // Retention may have passed between the two questions.
                    bounds.insert(place, Bounds { start: (*start).min(end), end });
                }
            }
        }
        bounds
    });
    read.await.into_iter().flatten().collect()
}

async fn offsets(broker: &mut Broker, places: &[Place], at: i64) -> Option<BTreeMap<Place, i64>> {
    let mut topics: Vec<ListOffsetsTopic> = Vec::new();
    for (topic, partition) in places {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(*partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(at);
        match topics.last_mut().filter(|last| last.name.0.as_str() == &**topic) {
            Some(last) => last.partitions.push(partition),
            None => topics.push(
                ListOffsetsTopic::default()
                    .with_name(TopicName(StrBytes::from_string(topic.to_string())))
                    .with_partitions(vec![partition]),
            ),
        }
    }
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(topics);
    let answer = broker.call(&request).await?;
    let mut offsets = BTreeMap::new();
    for topic in answer.topics {
        let name: Arc<str> = topic.name.0.as_str().into();
        for partition in topic.partitions {
            match error_of(partition.error_code) {
                None if partition.offset >= 0 => {
                    offsets
                        .insert((Arc::clone(&name), partition.partition_index), partition.offset);
                }
                None => {}
                Some(error) => {
                    let number = partition.partition_index;
                    broker.note(format!("the bounds of {name} [{number}] are not known: {error}"));
                }
            }
        }
    }
    Some(offsets)
}
