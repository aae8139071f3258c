//! `order-consumer lag-exporter`: the lag of every consumer group of the cluster, seen from outside, so that a group whose
//! members are all dead is seen too.
//!
//! Promises: nothing is exported that is not known; lag is never negative; scrapes never wait for a broker; requests,
//! series and memory are bounded. It speaks Kafka's protocol itself (`wire`), because librdkafka's safe bindings cannot
//! ask for the offsets of other groups.

pub(crate) mod arithmetic;
mod batches;
mod bench;
mod bounds;
mod export;
mod filter;
mod groups;
mod history;
mod observe;
mod picture;
mod progress;
mod refresh;
mod staged;
#[cfg(test)]
mod tests;
mod times;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use producers::kafka::KafkaArgs;
use producers::postgres::connect_options;
use telemetry::{AdminArgs, Metrics, Readiness, Secret, Shutdown, admin};

use crate::broker::cluster::Cluster;
use crate::broker::security::Security;
use export::Exported;
use filter::Filter;
use history::History;
use observe::Observations;
use progress::Progress;
use refresh::Observer;
use times::Times;

/// Export the lag of every consumer group of the cluster, from outside the consumers
///
/// Looks at the cluster now and then and serves what it saw on /metrics, by default on port 9105. With DATABASE_URL (or
/// DATABASE_URL_FILE) set, the positions of this pipeline's stages come from Postgres, where the truth about them is.
///
/// Its connections take these of the librdkafka properties: security.protocol, ssl.ca.location, ssl.certificate.location,
/// ssl.key.location, ssl.key.password, SASL PLAIN. It does not start with others that it does not support.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  order-consumer lag-exporter
  order-consumer lag-exporter --groups 'orders\\..*' --topics-except '.*-changelog'")]
pub struct LagExporterArgs {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    admin: AdminArgs,
    #[command(flatten)]
    filter: Filter,

    /// Time between two looks at the cluster.
    #[arg(long, env = "LAG_INTERVAL_MS", default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(100..=3_600_000))]
    interval_ms: u64,

    /// What was seen is not shown any more after this time without a newer look.
    #[arg(long, env = "LAG_STALE_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    stale_ms: u64,

    /// A partition where records wait and the position does not move for this long is stuck.
    #[arg(long, env = "LAG_STUCK_MS", default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    stuck_ms: u64,

    /// How far growth and time to drain look back.
    #[arg(long, env = "LAG_TREND_MS", default_value_t = 60_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    trend_ms: u64,

    /// Most pairs of group and partition: whole groups beyond, by name, are left out and counted.
    #[arg(long, env = "LAG_POSITIONS", default_value_t = 200_000)]
    most_positions: usize,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    Bench(bench::BenchArgs),
}

/// Runs until told to stop.
pub async fn run(args: LagExporterArgs, kafka: &KafkaArgs) -> anyhow::Result<bool> {
    if let Some(Command::Bench(bench)) = &args.command {
        return bench::run(bench, &args, kafka).await;
    }
    let shutdown = Shutdown::on_signals(Duration::from_secs(5))?;
    let mut metrics = Metrics::new("lag-exporter", env!("CARGO_PKG_VERSION"));
    let exported = Exported::new(Duration::from_millis(args.stale_ms));
    metrics.registry().register_collector(Box::new(exported.clone()));
    let progress = database()?;
    let mut observations = Observations::register(metrics.registry(), exported, progress.is_some());
    let mut observer = observer(&args, kafka, progress)?;
    let readiness = Readiness::default();
    readiness.set("kafka", Err("not looked at yet".to_owned()));
    let address = args.admin.admin_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9105)));
    let bound =
        admin::serve(address, Arc::new(metrics), readiness.clone(), shutdown.clone()).await?;
    tracing::info!(admin = %bound, "watching every consumer group of the cluster");
    let mut ticks = tokio::time::interval(Duration::from_millis(args.interval_ms));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.wait() => break,
            _ = ticks.tick() => {}
        }
        // Given up in the middle it leaves connections behind that end with the process.
        tokio::select! {
            () = shutdown.wait() => break,
            refreshed = observer.refresh(observe::now_ms()) => observations.take(refreshed, &readiness),
        }
    }
    tracing::info!("stopped");
    Ok(true)
}

fn database() -> anyhow::Result<Option<Progress>> {
    match Secret::from_environment("DATABASE_URL")? {
        None => Ok(None),
        Some(_) => Ok(Some(Progress::new(connect_options("order-consumer-lag-exporter")?))),
    }
}

fn observer(
    args: &LagExporterArgs,
    kafka: &KafkaArgs,
    progress: Option<Progress>,
) -> anyhow::Result<Observer> {
    let config = kafka.client_config("order-consumer-lag-exporter")?;
    let security = Security::from_config(&config)?;
    let seconds = |ms: u64| ms as f64 / 1000.0;
    Ok(Observer {
        cluster: Cluster::new(&kafka.kafka_brokers, security),
        progress,
        prefix: kafka.topic_prefix.clone(),
        filter: args.filter.clone(),
        most_positions: args.most_positions,
        times: Times::default(),
        history: History::new(seconds(args.trend_ms), seconds(args.stuck_ms)),
        started: Instant::now(),
    })
}
