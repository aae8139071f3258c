//! Everything that puts orders into the pipeline: the HTTP API, `publish`, `generate`.
//!
//! One write per request, the topic `orders`. Postgres is only read, and only for answers about orders.

pub mod kafka;
pub mod postgres;
pub mod publisher;
pub mod order;
pub mod request;
pub mod idempotency;
pub mod trace;
pub mod events;
pub mod projection;
pub mod lookup;
pub mod waiters;
pub mod metrics;
pub mod spans;
pub mod intake;
pub mod api;
pub mod server;
pub mod serve;
pub mod publish;
pub mod generate;
