//! What every request gets, whoever answers it: a trace, a count, a duration.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use telemetry::{TraceContext, Tracer};

use crate::metrics::{Endpoint, HttpMetrics};
use crate::spans;
use crate::trace::{self, TRACEPARENT};

/// Observes one route.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    pub(super) metrics: Arc<HttpMetrics>,
    pub(super) tracer: Tracer,
    pub(super) endpoint: Endpoint,
}

/// Gives the request its trace and its answer the same, and records how it went.
pub(super) async fn observe(
    State(observer): State<Observer>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = trace::of_caller(request.headers());
    let trace = observer.tracer.enter(caller.as_ref());
    request.extensions_mut().insert(trace);
    let recorded = observer.tracer.records(&trace).then(|| Recorded {
        caller,
        path: request.uri().path().to_owned(),
        began: SystemTime::now(),
    });
    let mut running = Running {
        observer,
        method: request.method().clone(),
        trace,
        recorded,
        started: Instant::now(),
        // "Client closed request", as nginx counts it: what remains when nobody waits for the answer any more.
        status: StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT),
    };
    let mut response = next.run(request).await;
    running.status = response.status();
    response.headers_mut().insert(TRACEPARENT, trace::header(&trace));
    response
}

/// Records the request when it ends, also when its client left and the handler was dropped.
struct Running {
    observer: Observer,
    method: Method,
    trace: TraceContext,
    recorded: Option<Recorded>,
    started: Instant,
    status: StatusCode,
}

/// What only a span needs.
struct Recorded {
    caller: Option<TraceContext>,
    path: String,
    began: SystemTime,
}

impl Drop for Running {
    fn drop(&mut self) {
        let Observer { metrics, tracer, endpoint } = &self.observer;
        let duration = self.started.elapsed();
        metrics.answered(&self.method, *endpoint, self.status, duration, Some(&self.trace));
        tracing::debug!(
            method = %self.method,
            endpoint = endpoint.template(),
            status = self.status.as_u16(),
            duration_seconds = duration.as_secs_f64(),
            trace_id = self.trace.trace_id(),
            "request"
        );
        if let Some(Recorded { caller, path, began }) = self.recorded.take() {
            let (trace, status) = (self.trace, self.status);
            let (method, endpoint) = (&self.method, *endpoint);
            spans::Request { caller, trace, method, endpoint, path, status, began }.record(tracer);
        }
    }
}
