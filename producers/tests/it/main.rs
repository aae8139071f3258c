//! The producer from outside: the router on a real socket, Kafka as librdkafka's mock brokers, Postgres where a test
//! is about reading.
//!
//! - `orders`: `POST /orders`, what it refuses, keys, what it says when Kafka does not
//! - `batch`: `POST /orders/batch`
//! - `connections`: clients that are slow, greedy or broken
//! - `routes`: everything around the handlers: 404, 405, traces, metrics, health, the document, the end
//! - `reads`: questions about orders, against a real Postgres
//! - `command`: the program: settings, `publish`, `generate`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a step that fails is a test that fails"
)]

mod harness;
mod orders;
mod batch;
mod connections;
mod routes;
mod reads;
mod command;
