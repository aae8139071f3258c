//! The HTTP API: its routes, and what its handlers share.
//!
//! A handler turns a request into a call and the outcome into an answer, nothing else. Whatever goes wrong leaves as
//! `application/problem+json` with a code of a closed set.

mod asking;
mod batch;
mod body;
mod cancel;
mod document;
mod health;
mod observe;
mod place;
pub mod problem;
mod read;
mod wait;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{MethodRouter, get, post};
use sqlx::PgPool;
use telemetry::{Readiness, Shutdown, TraceContext, Tracer};
use tokio::sync::{Semaphore, SemaphorePermit};
use tower_http::catch_panic::CatchPanicLayer;

pub use self::document::document;
pub use self::wait::parse_duration;

use self::asking::Asking;
use self::observe::Observer;
use self::problem::Problem;
use crate::intake::Intake;
use crate::metrics::{Endpoint, HttpMetrics};
use crate::waiters::Waiters;

/// How much the API takes on.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a single order, and of a line of a batch.
    pub order_bytes: usize,
    /// Bytes of a batch.
    pub batch_bytes: usize,
    /// Lines of a batch.
    pub batch_lines: usize,
    /// Single orders and cancellations being written at a time.
    pub writes: usize,
    /// Batches in memory at a time.
    pub batches: usize,
    /// From headers to answer, except for the time a long poll asked for.
    pub deadline: Duration,
    /// Longest `?wait=`.
    pub wait: Duration,
}

/// What answers questions about orders; absent when no database is configured.
#[derive(Clone, Debug)]
pub struct Reads {
    /// The projection's database.
    pub pool: PgPool,
    /// Where long polls wait.
    pub waiters: Waiters,
}

/// What every handler can reach.
pub struct Api {
    /// Takes orders in.
    pub intake: Intake,
    /// Answers questions.
    pub reads: Option<Reads>,
    /// How much to take on.
    pub limits: Limits,
    /// What must be well.
    pub readiness: Readiness,
    /// Whether long polls should end.
    pub shutdown: Shutdown,
    writes: Semaphore,
    batches: Semaphore,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The largest valid order is below 20 KiB.
            order_bytes: 64 * 1024,
            batch_bytes: 4 * 1024 * 1024,
            batch_lines: 1_000,
            // At 1 ms per acknowledgement far more than the machine can do; at 8 s, in an outage, a bound on memory.
            writes: 2_048,
            // 64 × 4 MiB.
            batches: 64,
            // Above the delivery timeout, so that the broker's silence becomes an answer.
            deadline: Duration::from_secs(10),
            wait: Duration::from_secs(30),
        }
    }
}

impl Api {
    /// An API within `limits`.
    pub fn new(
        intake: Intake,
        reads: Option<Reads>,
        limits: Limits,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Self {
        let writes = Semaphore::new(limits.writes);
        let batches = Semaphore::new(limits.batches);
        Self { intake, reads, limits, readiness, shutdown, writes, batches }
    }

    /// For the questions of `request`.
    fn reads(&self, request: TraceContext) -> Result<Asking<'_>, Problem> {
        let reads = self.reads.as_ref().ok_or(Problem::ProjectionUnavailable)?;
        Ok(Asking { reads, tracer: self.intake.tracer(), request })
    }

    fn permit_write(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.writes.try_acquire().map_err(|_| Problem::Overloaded)
    }

    fn permit_batch(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.batches.try_acquire().map_err(|_| Problem::Overloaded)
    }
}

/// The routes. One line each: path, methods, the name metrics know it by.
pub fn router(api: Arc<Api>, metrics: Arc<HttpMetrics>) -> Router {
    let observed = |endpoint, route: MethodRouter<Arc<Api>>| {
        // Nobody wants to read a trace of a probe, and there is one every few seconds.
        let tracer = match endpoint {
            Endpoint::Live | Endpoint::Ready => Tracer::off(),
            _ => api.intake.tracer().clone(),
        };
        let observer = Observer { metrics: metrics.clone(), tracer, endpoint };
        route.layer(axum::middleware::from_fn_with_state(observer, observe::observe))
    };
    let observe = |endpoint, route: MethodRouter<Arc<Api>>| {
        observed(endpoint, route.fallback(method_not_allowed))
    };
    Router::new()
        .route("/orders", observe(Endpoint::Orders, post(place::place).get(read::list)))
        .route("/orders/batch", observe(Endpoint::Batch, post(batch::place)))
        .route("/orders/{id}", observe(Endpoint::Order, get(read::order)))
        .route("/orders/{id}/events", observe(Endpoint::Events, get(read::events)))
        .route("/orders/{id}/cancel", observe(Endpoint::Cancel, post(cancel::cancel)))
        .route("/openapi.json", observe(Endpoint::OpenApi, get(document::serve)))
        .route("/livez", observe(Endpoint::Live, get(health::live)))
        .route("/readyz", observe(Endpoint::Ready, get(health::ready)))
        .fallback_service(
            observed(Endpoint::Other, axum::routing::any(not_found)).with_state(api.clone()),
        )
        // Handlers bound their bodies themselves, with their own answer.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(api)
}

async fn not_found() -> Problem {
    Problem::NotFound
}

async fn method_not_allowed() -> Problem {
    Problem::MethodNotAllowed
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    // The panic hook has told what happened and where.
    axum::response::IntoResponse::into_response(Problem::Internal)
}
