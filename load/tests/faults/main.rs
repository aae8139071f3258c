//! The promises while servers and processes break, on servers of each test's own. Takes minutes: `make faults`.
//!
//! - `frozen`: processes that sleep through their session, and wake up
//! - `servers`: brokers and databases killed under load
//! - `restored`: a database that went back in time
//! - `members`: stages joining and leaving under load
//! - `upgraded`: one build after another, while orders come in
//! - `lost`: records that are gone before they were read
//! - `lag`: what is told about it meanwhile
//! - `nemesis`: all of it at random, from a seed

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "../it/world.rs"]
#[expect(dead_code, reason = "the short tests use all of it")]
mod world;
#[path = "../it/page.rs"]
#[expect(dead_code, reason = "the short tests use all of it")]
mod page;
#[path = "../it/lag/watched.rs"]
#[expect(dead_code, reason = "the short tests use all of it")]
mod watched;
mod servers_of_its_own;
mod frozen;
mod servers;
mod restored;
mod members;
mod upgraded;
mod lost;
mod lag;
mod nemesis;
