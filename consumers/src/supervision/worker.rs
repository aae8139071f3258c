//! `order-consumer worker`: supervises orders. Runs their workflows and activities, and looks for orders that are overdue.
//!
//! Any number may run. What a killed one had in hand, another takes over from Temporal's history.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use producers::kafka::KafkaArgs;
use producers::publisher::{Publisher, PublisherSettings};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use telemetry::{AdminArgs, Metrics, Readiness, Shutdown, Tracer, admin};
use workflows::worker::{self, WorkerArgs};
use workflows::{ActivityMetrics, Settings};

use super::options::{SignalArgs, Supervise, SweepArgs};
use super::sweep::{Sweep, SweepMetrics};
use super::world::{self, Pipeline};
use crate::store::operations::OperationTimes;

/// Connections for reading what stages decided, and for the sweep: activities wait for each other, not for Postgres.
const CONNECTIONS: u32 = 4;

/// How often a Temporal that does not answer is asked again.
const CONNECT_EVERY: Duration = Duration::from_secs(2);

/// Name of the readiness check.
const CHECK: &str = "temporal";

/// How to supervise.
#[derive(Args, Clone, Debug)]
pub struct SuperviseArgs {
    #[command(flatten)]
    pub admin: AdminArgs,
    #[command(flatten)]
    pub signals: SignalArgs,
    #[command(flatten)]
    pub sweep: SweepArgs,
    #[command(flatten)]
    pub worker: WorkerArgs,
}

/// Works until told to stop. A Temporal that is down when it starts is waited for.
pub async fn run(
    args: &SuperviseArgs,
    kafka: KafkaArgs,
    database: PgConnectOptions,
    tracer: Tracer,
) -> anyhow::Result<()> {
    // Activities have their grace, then the worker takes its leave of the server.
    let shutdown = Shutdown::on_signals(Duration::from_secs(args.worker.worker_grace_seconds + 5))?;
    let mut metrics = Metrics::new("order-worker", env!("CARGO_PKG_VERSION"));
    let activities = ActivityMetrics::register(metrics.registry());
    let sweeps = SweepMetrics::register(metrics.registry());
    let operations = OperationTimes::of_supervision(metrics.registry());
    let readiness = Readiness::default();
    readiness.set(CHECK, Err("connecting".to_owned()));
    let publishing = PublisherSettings {
        delivery_timeout: world::DELIVERY_TIMEOUT,
        ..PublisherSettings::default()
    };
    let publisher = Publisher::connect(&kafka, &publishing, "order-worker")?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect_lazy_with(database.options([("statement_timeout", "5s")]));
    let address = args.admin.admin_listen.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 9103)));
    let bound =
        admin::serve(address, Arc::new(metrics), readiness.clone(), shutdown.clone()).await?;
    tracing::info!(admin = %bound, supervise = ?args.signals.supervision.supervise, "supervising");
    let sweeping = (args.signals.supervision.supervise == Supervise::Exceptions)
        .then(|| {
            let sweep = Sweep {
                grace: args.sweep.grace(),
                database: pool.clone(),
                supervisor: args.signals.supervisor()?,
                metrics: sweeps,
                operations: operations.clone(),
            };
            anyhow::Ok(tokio::spawn(sweep.run(shutdown.clone())))
        })
        .transpose()?;
    let pipeline = Pipeline {
        publisher,
        prefix: kafka.topic_prefix,
        reads: pool,
        operations,
        tracer: tracer.clone(),
    };
    let settings = Settings::load()?;
    if reachable(&settings, &readiness, &shutdown).await {
        let task_queue = args.signals.supervision.task_queue.clone();
        let worker_args = WorkerArgs { task_queue, tracer, ..args.worker.clone() };
        worker::run(settings, worker_args, Arc::new(pipeline), activities, shutdown)
            .await
            .context("the worker stopped")?;
    }
    if let Some(sweeping) = sweeping {
        sweeping.await.context("the sweep ended early")?;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Waits until Temporal answers; `false` when it is time to stop.
async fn reachable(settings: &Settings, readiness: &Readiness, shutdown: &Shutdown) -> bool {
    loop {
        let connected = tokio::select! {
            connected = settings.connect() => connected,
            () = shutdown.wait() => return false,
        };
        let Err(error) = connected else {
            readiness.set(CHECK, Ok(()));
            return true;
        };
        let error = format!("{error:#}");
        tracing::warn!(error, "waiting for Temporal");
        readiness.set(CHECK, Err(error));
        tokio::select! {
            () = tokio::time::sleep(CONNECT_EVERY) => {}
            () = shutdown.wait() => return false,
        }
    }
}
