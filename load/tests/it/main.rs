//! The pipeline's promises, on real servers with the real programs. `make test` brings the servers up; without them
//! every test fails and says so.
//!
//! - `families`: the names, types and labels of metrics
//! - `bounded`: what makes no series
//! - `scraped`: what a real Prometheus makes of a run
//! - `lag`: what is told about it, and whether it is true
//! - `life`: what happens to orders when nothing goes wrong
//! - `repeats`: facts told again
//! - `crashes`: processes killed at every step
//! - `lost_commits`: commits of which nobody hears
//! - `offsets`: where reading begins
//! - `poison`: records that can never be applied
//! - `strange`: what clients other than ours may write
//! - `copies`: the topic of dead letters as somebody else made it
//! - `replay`: dead letters corrected, replayed, given up
//! - `stock`: promising only what is there
//! - `outside`: gateways and carriers that lose their answers
//! - `saga`: orders that hang or get into trouble, and who looks after them
//! - `traces`: an order followed through all of it, by `collector`

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod world;
mod page;
mod families;
mod bounded;
mod truth;
mod scraped;
mod lag;
mod ledger;
mod events;
mod life;
mod repeats;
mod crashes;
mod lost_commits;
mod offsets;
mod poison;
mod wire;
mod strange;
mod copies;
mod replay;
mod stock;
mod outside;
mod saga;
mod collector;
mod traces;
