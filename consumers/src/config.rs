//! Settings of the stages and of the runner that carries them.

use std::time::Duration;

use clap::Args;

use crate::carrier::CarrierArgs;
use crate::payment_gateway::GatewayArgs;
use crate::supervision::options::SignalArgs;

/// Settings that stages read when they are built.
#[derive(Args, Clone, Debug)]
pub struct StageConfig {
    #[command(flatten)]
    pub gateway: GatewayArgs,
    #[command(flatten)]
    pub carrier: CarrierArgs,
    #[command(flatten)]
    pub signals: SignalArgs,
}

/// Limits of the runner, each with its reason.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub struct RunnerConfig {
    /// Database connections per stage, each writing one batch at a time. More than there are cores only adds waiting.
    #[arg(long, env = "LANES", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub lanes: u16,

    /// Most records in one batch: fewer cost Postgres more per row, more gain nothing and latency grows.
    #[arg(long, env = "BATCH_RECORDS", default_value_t = 8192, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub batch_records: u32,

    /// Most bytes in one batch, so that few large orders weigh as much as many small ones.
    #[arg(long, env = "BATCH_BYTES", default_value_t = 8 << 20, value_parser = clap::value_parser!(u32).range(1024..))]
    pub batch_bytes: u32,

    /// Most bytes read ahead per stage: with what the client library holds, the bound on memory.
    #[arg(long, env = "BUFFER_BYTES", default_value_t = 12 << 20, value_parser = clap::value_parser!(u32).range(1024..))]
    pub buffer_bytes: u32,

    /// A member that says nothing for this long loses its partitions.
    #[arg(long, env = "SESSION_TIMEOUT_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1000..=300_000))]
    pub session_timeout_ms: u32,

    /// Longest wait between two attempts at a batch while a dependency is down.
    #[arg(long, env = "RETRY_MAX_MS", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=600_000))]
    pub retry_max_ms: u32,

    /// Most time one transaction may take before its connection is thrown away.
    #[arg(long, env = "TRANSACTION_TIMEOUT_MS", default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(100..=600_000))]
    pub transaction_timeout_ms: u32,

    /// A partition whose log grows while nothing is read from it for this long makes the consumer start over.
    #[arg(long, env = "WATCHDOG_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(1000..))]
    pub watchdog_ms: u32,

    /// When more than half of this many records in a row are rejected the stage stops: it is probably our bug.
    #[arg(long, env = "REJECT_WINDOW", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..))]
    pub reject_window: u32,

    /// Longest shutdown: what is not finished then is repeated by the next owner.
    #[arg(long, env = "DRAIN_MS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(100..=600_000))]
    pub drain_ms: u32,
}

impl RunnerConfig {
    pub(crate) fn transaction_timeout(&self) -> Duration {
        Duration::from_millis(self.transaction_timeout_ms.into())
    }

    pub(crate) fn watchdog(&self) -> Duration {
        Duration::from_millis(self.watchdog_ms.into())
    }

    /// Longest time a shutdown may take.
    pub fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms.into())
    }
}
