//! `prometheus/` and `grafana/` on real servers.
//!
//! - `chain`: the stack's servers find each other, and an alert gets out
//! - `kubernetes`: what `deploy/` runs has every stage and these rules
//! - `rules`: every rule reads what is declared, every alert can be acted on and is tested
//! - `dashboards`: every panel can be understood, every query asked, every alert seen
//! - `delivery`: what people and machines are sent, word for word
//! - `variants`: federation, remote write, TLS
//!
//! The rules' own unit tests are run by `scripts/rules`.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod board;
mod chain;
mod dashboards;
mod delivery;
mod http;
mod kubernetes;
mod process;
mod rules;
mod sink;
mod variants;
