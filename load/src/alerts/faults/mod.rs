//! Real faults, by family: each breaks something as it breaks in real life, holds it until its alerts arrive, and mends it.
//!
//! - `orders`: what the business notices
//! - `stages`: processes, partitions, effects, records
//! - `meta`: those that watch
//! - `pairs`: what one of two that watch notices of the other
//! - `batch`: jobs that push
//! - `database`: Postgres
//! - `kafka`: the broker
//! - `temporal`: supervision
//! - `slo`: budgets of errors

use std::time::Duration;

pub(super) mod batch;
pub(super) mod database;
pub(super) mod kafka;
pub(super) mod meta;
pub(super) mod orders;
pub(super) mod slo;
pub(super) mod pairs;
pub(super) mod stages;
pub(super) mod temporal;

/// Beyond any `for` and window of most alerts in faster time, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(120);
