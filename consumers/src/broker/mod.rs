//! Brokers asked in Kafka's own protocol, for what librdkafka's safe bindings cannot ask: offsets of other groups, and the ids
//! of topics.
//!
//! Promises: every answer is waited for with a limit in time and size, and connections are secured by the same properties
//! as those of librdkafka. Nothing here reads or writes a record of the pipeline.

pub(crate) mod cluster;
pub(crate) mod security;
pub(crate) mod topic_ids;
pub(crate) mod wire;
