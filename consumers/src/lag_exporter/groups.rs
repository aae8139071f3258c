//! The consumer groups of the cluster: who there is, in which state, with how many members, and what each has committed.
//!
//! A broker lists the groups it coordinates, so nobody has to be asked for coordinators, and each of the questions takes
//! many groups at once: requests grow with brokers and with groups by the hundred.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest,
    OffsetFetchRequest, offset_fetch_request::OffsetFetchRequestGroup,
};
use kafka_protocol::protocol::StrBytes;

use super::filter::Filter;
use crate::broker::cluster::{Broker, Cluster};
use crate::broker::wire::error_of;

/// Groups per request: answers of a few megabytes at most, and a slow one is noticed soon.
const GROUPS_PER_REQUEST: usize = 100;

/// What is committed, by topic and partition.
pub(super) type Offsets = BTreeMap<(Arc<str>, i32), i64>;

#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) name: Arc<str>,
    /// A closed set: classic, consumer, streams, share.
    pub(super) kind: &'static str,
    /// A closed set: Kafka's names of states.
    pub(super) state: &'static str,
    /// `None`: not known.
    pub(super) members: Option<usize>,
    /// A partition without a committed offset is not there.
    pub(super) committed: Offsets,
}

/// Reads every group that `filter` lets through, and what each has committed in topics that it lets through.
/// Also the number of groups that were left out because their names make no label.
pub(super) async fn read(cluster: &mut Cluster, filter: &Filter) -> (Vec<Group>, usize) {
    let read = cluster.on_all(async |broker| {
        let (mut groups, left_out) = list(broker, filter).await;
        describe(broker, &mut groups).await;
        offsets(broker, &mut groups, filter).await;
        (groups, left_out)
    });
    let mut all: BTreeMap<Arc<str>, Group> = BTreeMap::new();
    let mut left_out = 0;
    for (groups, unnamed) in read.await {
        left_out += unnamed;
        // While a coordinator moves, two brokers may list a group; the one that knows offsets knows it.
        for group in groups.into_values() {
            let kept = all.entry(Arc::clone(&group.name)).or_insert_with(|| group.clone());
            if kept.committed.len() < group.committed.len() {
                *kept = group;
            }
        }
    }
    (all.into_values().collect(), left_out)
}

async fn list(broker: &mut Broker, filter: &Filter) -> (BTreeMap<Arc<str>, Group>, usize) {
    let mut groups = BTreeMap::new();
    let mut left_out = 0;
    let Some(answer) = broker.call(&ListGroupsRequest::default()).await else {
        return (groups, left_out);
    };
    if let Some(error) = error_of(answer.error_code) {
        broker.note(format!("broker {} did not list its groups: {error}", broker.id));
        return (groups, left_out);
    }
    for listed in answer.groups {
        let name = listed.group_id.0.as_str();
        if !filter.group(name) {
            continue;
        }
        if !is_label(name) {
            left_out += 1;
            continue;
        }
        let name: Arc<str> = name.into();
        let kind = kind_of(&listed.group_type);
        let group = Group {
            name: Arc::clone(&name),
            kind,
            state: state_of(&listed.group_state),
            members: None,
            committed: Offsets::new(),
        };
        groups.insert(name, group);
    }
    (groups, left_out)
}

async fn describe(broker: &mut Broker, groups: &mut BTreeMap<Arc<str>, Group>) {
    let of_kind = |groups: &BTreeMap<Arc<str>, Group>, kind: &str| -> Vec<GroupId> {
        groups.values().filter(|group| group.kind == kind).map(|group| id(&group.name)).collect()
    };
    for chunk in of_kind(groups, "classic").chunks(GROUPS_PER_REQUEST) {
        let request = DescribeGroupsRequest::default().with_groups(chunk.to_vec());
        let Some(answer) = broker.call(&request).await else { return };
        for described in answer.groups {
            let known = groups.get_mut(described.group_id.0.as_str());
            match (known, error_of(described.error_code)) {
                (Some(group), None) => {
                    group.members = Some(described.members.len());
                    group.state = state_of(&described.group_state);
                }
                _ => note(broker, "was not described", &described.group_id, described.error_code),
            }
        }
    }
    let modern = of_kind(groups, "consumer");
    if modern.is_empty() || !broker.speaks::<ConsumerGroupDescribeRequest>().await {
        return;
    }
    for chunk in modern.chunks(GROUPS_PER_REQUEST) {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(chunk.to_vec());
        let Some(answer) = broker.call(&request).await else { return };
        for described in answer.groups {
            let known = groups.get_mut(described.group_id.0.as_str());
            match (known, error_of(described.error_code)) {
                (Some(group), None) => {
                    group.members = Some(described.members.len());
                    group.state = state_of(&described.group_state);
                }
                _ => note(broker, "was not described", &described.group_id, described.error_code),
            }
        }
    }
}

async fn offsets(broker: &mut Broker, groups: &mut BTreeMap<Arc<str>, Group>, filter: &Filter) {
    // Share groups keep other state than one offset per partition.
    let names = groups.values().filter(|group| group.kind != "share");
    let names: Vec<GroupId> = names.map(|group| id(&group.name)).collect();
    let mut topics: BTreeMap<String, Arc<str>> = BTreeMap::new();
    for chunk in names.chunks(GROUPS_PER_REQUEST) {
        let wanted = chunk.iter().map(|name| {
            OffsetFetchRequestGroup::default().with_group_id(name.clone()).with_topics(None)
        });
        let request = OffsetFetchRequest::default().with_groups(wanted.collect());
        let Some(answer) = broker.call(&request).await else { return };
        for fetched in answer.groups {
            if fetched.error_code != 0 {
                note(broker, "keeps its offsets", &fetched.group_id, fetched.error_code);
                continue;
            }
            let Some(group) = groups.get_mut(fetched.group_id.0.as_str()) else { continue };
            for topic in fetched.topics {
                let name = topic.name.0.as_str();
                if !filter.topic(name) {
                    continue;
                }
                let name = topics.entry(name.to_owned()).or_insert_with(|| name.into());
                for partition in topic.partitions {
                    // -1 stands for: nothing committed.
                    if partition.error_code == 0 && partition.committed_offset >= 0 {
                        let place = (Arc::clone(name), partition.partition_index);
                        group.committed.insert(place, partition.committed_offset);
                    }
                }
            }
        }
    }
}

fn id(name: &str) -> GroupId {
    GroupId(StrBytes::from_string(name.to_owned()))
}

/// The group may have ended since it was listed, which is no error.
fn note(broker: &mut Broker, what: &str, group: &GroupId, code: i16) {
    let ended = code == ResponseError::GroupIdNotFound.code();
    if let Some(error) = error_of(code).filter(|_| !ended) {
        broker.note(format!("group {} {what}: {error}", group.0.escape_debug()));
    }
}

/// Kafka takes any text of up to 32 kB as a group's name; not every one is fit for a label.
fn is_label(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.chars().any(char::is_control)
}

fn kind_of(listed: &str) -> &'static str {
    // A broker that names no types has classic groups only.
    ["consumer", "share", "streams"]
        .into_iter()
        .find(|kind| kind.eq_ignore_ascii_case(listed))
        .unwrap_or("classic")
}

fn state_of(named: &str) -> &'static str {
    [
        "Assigning",
        "CompletingRebalance",
        "Dead",
        "Empty",
        "NotReady",
        "PreparingRebalance",
        "Reconciling",
        "Stable",
    ]
    .into_iter()
    .find(|state| state.eq_ignore_ascii_case(named))
    .unwrap_or("Unknown")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_broker_says_kinds_and_states_are_closed_sets() {
        assert_eq!(kind_of("Consumer"), "consumer");
        assert_eq!(kind_of(""), "classic");
        assert_eq!(state_of("STABLE"), "Stable");
        assert_eq!(state_of("order-4711"), "Unknown");
    }

    #[test]
    fn names_that_make_no_label_are_known() {
        assert!(is_label("orders.payment \"quoted\" λ"));
        assert!(!is_label("line\nbreak"));
        assert!(!is_label(""));
        assert!(!is_label(&"x".repeat(256)));
    }
}
