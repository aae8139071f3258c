//! The wire contract: topics, event types, ids, the CloudEvents codec, JSON Schemas and SQL migrations.
//!
//! Everything that leaves a process is defined here once. This crate does no I/O: it neither opens a
//! connection nor reads a clock other than through [`Timestamp::now`].

pub mod ids;
pub mod time;
pub mod values;
pub mod topic;
pub mod orders;
pub mod inventory;
pub mod payments;
pub mod shipments;
pub mod saga;
pub mod event;
pub mod codec;
pub mod components;
pub mod documents;
pub mod database;

pub use codec::{DecodeError, Decoded, Envelope, RawRecord};
pub use event::{Event, EventType};
pub use ids::{EventId, OrderId};
pub use time::Timestamp;
pub use topic::{Topic, TopicPrefix};
pub use values::{Currency, CustomerId, ShortText, Sku};
