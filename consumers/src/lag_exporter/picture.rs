//! One picture of the cluster, as of one refresh: what is exported. What is not known is not in it.

use std::sync::Arc;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Picture {
    pub(super) taken_at_ms: i64,
    pub(super) brokers: usize,
    pub(super) topics: Vec<Topic>,
    pub(super) groups: Vec<GroupPicture>,
    pub(super) stages: Vec<StagePosition>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) partitions: Vec<Log>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Log {
    pub(super) partition: i32,
    pub(super) start: i64,
    pub(super) end: i64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct GroupPicture {
    pub(super) name: Arc<str>,
    /// `None` when only `stage_progress` knows of it.
    pub(super) status: Option<GroupStatus>,
    pub(super) topics: Vec<Reading>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct GroupStatus {
    pub(super) kind: &'static str,
    pub(super) state: &'static str,
    pub(super) members: Option<usize>,
}

/// A group's way through one topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) topic: Arc<str>,
    pub(super) partitions: Vec<Behind>,
    /// Partitions where the group has a position and nobody says where the log ends.
    pub(super) unknown: usize,
    /// Records per second.
    pub(super) growth: Option<f64>,
    pub(super) drain_seconds: Option<f64>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Behind {
    pub(super) partition: i32,
    pub(super) committed: Option<i64>,
    pub(super) lag: i64,
    pub(super) seconds: Option<f64>,
    pub(super) lost: i64,
    pub(super) margin: i64,
    pub(super) stuck: bool,
}

/// Where `stage_progress` says a stage is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct StagePosition {
    pub(super) stage: Arc<str>,
    pub(super) topic: Arc<str>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Records by which it is ahead of what is committed in Kafka; `None` when nothing is.
    pub(super) ahead: Option<i64>,
}

impl Reading {
    /// A sum that leaves something out would be a smaller number, not a smaller lag.
    pub(super) fn lag_sum(&self) -> Option<i64> {
        (self.unknown == 0).then(|| self.partitions.iter().map(|behind| behind.lag).sum())
    }

    pub(super) fn lag_max(&self) -> Option<i64> {
        self.partitions.iter().map(|behind| behind.lag).max()
    }

    /// Of the partitions whose seconds are known.
    pub(super) fn seconds_max(&self) -> Option<f64> {
        self.partitions.iter().filter_map(|behind| behind.seconds).reduce(f64::max)
    }

    pub(super) fn seconds_sum(&self) -> Option<f64> {
        self.lag_sum()?;
        self.partitions.iter().map(|behind| behind.seconds).sum()
    }

    pub(super) fn lost(&self) -> Option<i64> {
        (self.unknown == 0).then(|| self.partitions.iter().map(|behind| behind.lost).sum())
    }

    /// The partition that retention reaches first; only those that wait for something can lose something.
    pub(super) fn margin(&self) -> Option<i64> {
        let waiting = self.partitions.iter().filter(|behind| behind.lag > 0);
        waiting.map(|behind| behind.margin).min()
    }

    pub(super) fn stuck(&self) -> usize {
        self.partitions.iter().filter(|behind| behind.stuck).count()
    }

    pub(super) fn committed_sum(&self) -> Option<i64> {
        self.lag_sum()?;
        self.partitions.iter().filter_map(|behind| behind.committed).reduce(|a, b| a + b)
    }
}
