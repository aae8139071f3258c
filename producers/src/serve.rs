//! `order-producer serve`: puts the API together, runs it, and takes it down in order.
//!
//! Down means: stop accepting, finish what is in hand, see every record acknowledged, leave. In this order, or an
//! answer would be promised for a record that dies with the process.

mod options;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use axum::http::{Method, StatusCode};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use telemetry::{Metrics, Readiness, Shutdown, Tracer};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

pub use self::options::{Mistakes, ServeArgs, duration};

use crate::api::{self, Api, Reads};
use crate::events::OrdersTopic;
use crate::idempotency::Memory;
use crate::intake::Intake;
use crate::kafka::KafkaArgs;
use crate::lookup::Lookup;
use crate::metrics::{Endpoint, HttpMetrics, IntakeMetrics};
use crate::publisher::Publisher;
use crate::waiters::Waiters;
use crate::{postgres, projection, server};

const NAME: &str = "order-producer";
/// From the signal to the end of the process, whatever happens.
const GRACE: Duration = Duration::from_secs(10);
/// Of which connections get this, and the publisher the rest.
const DRAIN: Duration = Duration::from_secs(6);
const FLUSH: Duration = Duration::from_secs(3);
/// How often the dependencies are looked at, and how long they may take to answer.
const CHECK_PERIOD: Duration = Duration::from_secs(2);
const CHECK_PATIENCE: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT.
pub async fn run(args: ServeArgs, kafka: KafkaArgs, tracer: Tracer) -> anyhow::Result<()> {
    let database = args.check(&kafka)?;
    let publisher = Publisher::connect(&kafka, &args.publisher(), NAME).map_err(Mistakes::one)?;
    options::raise_open_files();

    let shutdown = Shutdown::on_signals(GRACE)?;
    let readiness = Readiness::default();
    let mut metrics = Metrics::new(NAME, env!("CARGO_PKG_VERSION"));
    let http_metrics = Arc::new(HttpMetrics::register(metrics.registry()));
    let intake_metrics = IntakeMetrics::register(metrics.registry());

    let reads = database.map(|options| reads(&args, options));
    let topic = OrdersTopic::new(&kafka.topic_prefix);
    let checks = Checks {
        publisher: publisher.clone(),
        topic: topic.name().to_owned(),
        pool: reads.as_ref().map(|reads| reads.pool.clone()),
        database_answers: AtomicBool::new(true),
        readiness: readiness.clone(),
    };
    let memory = Memory::new(args.idempotency_orders, args.idempotency_age);
    let lookup = reads.as_ref().map(|reads| Lookup::start(reads.pool.clone()));
    let intake =
        Intake::new(publisher.clone(), topic, memory, lookup, intake_metrics).traced(tracer);
    let api = Api::new(intake.clone(), reads, args.limits(), readiness.clone(), shutdown.clone());
    let routes = api::router(Arc::new(api), http_metrics.clone());

    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("binding {} for the API", args.listen))?;
    let admin = args.admin_listen();
    // Operators see the process until it is gone, also while it drains.
    let admin =
        telemetry::admin::serve(admin, Arc::new(metrics), readiness.clone(), Shutdown::new())
            .await?;
    let listen = listener.local_addr().context("reading the bound address")?;
    checks.once().await;
    tracing::info!(%listen, %admin, topic = checks.topic, "serving");

    let fatal = tokio::spawn(checks.watch(shutdown.clone()));
    let refused = || {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        http_metrics.answered(&Method::CONNECT, Endpoint::Other, status, Duration::ZERO, None);
    };
    let stopping = shutdown.clone();
    let unready = tokio::spawn(async move {
        stopping.wait().await;
        readiness.set("serving", Err("shutting down".to_owned()));
    });
    server::serve(listener, routes, args.connections(), DRAIN, shutdown, refused).await;
    unready.await.context("announcing the shutdown")?;
    finish(intake, publisher).await?;
    match fatal.await.context("watching the dependencies")? {
        None => Ok(()),
        Some(error) => bail!("the Kafka producer has died and must be replaced: {error}"),
    }
}

fn reads(args: &ServeArgs, options: PgConnectOptions) -> Reads {
    let pool = postgres::read_pool(options, args.database_connections);
    let waiters = Waiters::start(pool.clone(), args.max_waiters);
    Reads { pool, waiters }
}

/// Waits until no record is without an outcome.
async fn finish(intake: Intake, publisher: Publisher) -> anyhow::Result<()> {
    let begun = Instant::now();
    let drained = timeout(FLUSH, intake.drained()).await.is_ok();
    let left = FLUSH.saturating_sub(begun.elapsed());
    let flushing = publisher.clone();
    let flushed = spawn_blocking(move || flushing.flush(left)).await.context("flushing")?;
    if drained && flushed {
        tracing::info!("drained: every order has an outcome");
        Ok(())
    } else {
        let records = publisher.in_flight();
        // Their clients got 503 or nothing, and send them again under the same key.
        bail!("{records} records were not acknowledged in time; their outcome is unknown")
    }
}

/// Looks after what this process depends on.
struct Checks {
    publisher: Publisher,
    topic: String,
    pool: Option<PgPool>,
    database_answers: AtomicBool,
    readiness: Readiness,
}

impl Checks {
    /// Answers with the error that ended the producer, if one did; then shutdown has begun.
    async fn watch(self, shutdown: Shutdown) -> Option<String> {
        loop {
            tokio::select! {
                () = sleep(CHECK_PERIOD) => self.once().await,
                () = shutdown.wait() => return None,
            }
            if let Some(error) = self.publisher.fatal_error() {
                tracing::error!(error, "the Kafka producer has died");
                shutdown.begin();
                return Some(error);
            }
        }
    }

    async fn once(&self) {
        let (publisher, topic) = (self.publisher.clone(), self.topic.clone());
        let kafka = spawn_blocking(move || publisher.ping(&topic, CHECK_PATIENCE)).await;
        let kafka = match kafka {
            Ok(answer) => answer.map_err(|error| format!("{error:#}")),
            Err(error) => Err(error.to_string()),
        };
        self.readiness.set("kafka", kafka);
        if let Some(pool) = &self.pool {
            // Orders are taken without Postgres: it being away must not take this process out of service.
            let answered =
                matches!(timeout(CHECK_PATIENCE, projection::ping(pool)).await, Ok(Ok(())));
            if self.database_answers.swap(answered, Ordering::Relaxed) != answered {
                tracing::warn!(answered, "Postgres: whether orders can be read has changed");
            }
        }
    }
}
