//! Everything that puts orders into the pipeline: the HTTP API, `publish`, `generate`.
//!
//! One write per request, the topic `orders`. Postgres is only read, and only for answers about orders.

pub mod kafka;
pub mod postgres;
pub mod publisher;
