//! The topics of the pipeline. One writer per topic, many readers.

use std::fmt;
use std::str::FromStr;

/// Partitions of a topic unless its operator says otherwise. Never changed in place: keys would move.
pub const DEFAULT_PARTITIONS: i32 = 8;

/// A topic by its role. Its name on the broker is the role's name behind a [`TopicPrefix`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Written by order-producer: orders placed, cancellations requested.
    Orders,
    /// Written by the inventory stage.
    Inventory,
    /// Written by the payment stage.
    Payments,
    /// Written by the shipping stage.
    Shipments,
    /// Written by the Temporal worker: compensation and deadlines.
    Saga,
    /// Written by any stage: records that can never be applied, as they came.
    DeadLetters,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 6] = [
        Self::Orders,
        Self::Inventory,
        Self::Payments,
        Self::Shipments,
        Self::Saga,
        Self::DeadLetters,
    ];

    /// Name without a prefix.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Inventory => "inventory",
            Self::Payments => "payments",
            Self::Shipments => "shipments",
            Self::Saga => "saga",
            Self::DeadLetters => "dead-letters",
        }
    }
}

/// Put in front of every topic and consumer group, so that several pipelines share a broker. Empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TopicPrefix(String);

/// A prefix that Kafka would not take as part of a topic name.
#[derive(Debug, thiserror::Error)]
#[error("a topic prefix has at most 100 characters of a-z A-Z 0-9 . _ -")]
pub struct InvalidPrefix;

impl TopicPrefix {
    /// Name of `topic` on the broker.
    pub fn topic(&self, topic: Topic) -> String {
        format!("{}{}", self.0, topic.name())
    }

    /// Name of the consumer group of `stage`.
    pub fn group(&self, stage: &str) -> String {
        format!("{}orders.{stage}", self.0)
    }

    /// The role of the broker's topic `name`, if it is one of this pipeline's.
    pub fn role_of(&self, name: &str) -> Option<Topic> {
        let rest = name.strip_prefix(&self.0)?;
        Topic::ALL.into_iter().find(|topic| topic.name() == rest)
    }
}

impl FromStr for TopicPrefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.len() <= 100 && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPrefix)
        }
    }
}

impl fmt::Display for TopicPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
