//! `/livez` and `/readyz`, the same as on the admin port, for load balancers that only see this one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;

use super::Api;

/// Whether the process lives.
#[utoipa::path(get, path = "/livez", tag = "health", operation_id = "live",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")))]
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Whether it should get requests.
#[utoipa::path(get, path = "/readyz", tag = "health", operation_id = "ready",
    responses(
        (status = 200, description = "Every check is well", body = String, content_type = "text/plain"),
        (status = 503, description = "At least one is not", body = String, content_type = "text/plain"),
    ))]
pub(super) async fn ready(State(api): State<Arc<Api>>) -> (StatusCode, String) {
    let (ready, report) = api.readiness.report();
    (if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, report)
}
