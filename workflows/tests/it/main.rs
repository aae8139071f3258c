//! The workflow on a real Temporal server, each test with a task queue and an order of its own.
//!
//! `life`: how orders end, and what signals may do. `takeover`: a worker that is killed. `replay`: recorded histories
//! against today's code. `lost_reply`: a signal that arrived and whose answer did not.
//! `secured`: the connection through TLS.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod bench;
mod life;
mod lost_reply;
mod replay;
mod secured;
mod takeover;
