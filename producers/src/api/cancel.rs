//! `POST /orders/{id}/cancel`: asks the pipeline to cancel an order, once per order.
//!
//! Whether it still can be is decided downstream, where shipping and cancelling meet; here only what is already
//! known to be final is refused.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemas::OrderId;
use serde::Serialize;
use telemetry::TraceContext;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::Api;
use super::asking::Asking;
use super::problem::{Problem, ProblemDetails};
use super::read::order_id;
use crate::projection::{OrderView, Status};
use crate::waiters::Until;

/// The projection may be this far behind an order that was just placed.
const PROJECTION_DELAY: Duration = Duration::from_secs(1);

/// A cancellation that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CancelAccepted {
    /// The order.
    order_id: Uuid,
    /// How far the order was when it was asked.
    status: Status,
}

/// Cancel an order.
///
/// Accepted as long as the order is not final; follow it with `GET /orders/{id}`. An order that is cancelled already
/// is accepted again.
#[utoipa::path(
    post,
    path = "/orders/{id}/cancel",
    tag = "orders",
    operation_id = "cancelOrder",
    params(
        ("id" = Uuid, Path, description = "The order"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context")
    ),
    responses(
        (status = 202, description = "The wish is recorded", body = CancelAccepted,
            headers(("Location" = String, description = "Where the order can be read"))),
        (status = 400, description = "Not an order id", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "No such order", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 409, description = "The order is shipped, rejected or declined", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "Overload, no database, or unknown outcome: retry", body = ProblemDetails, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    Extension(trace): Extension<TraceContext>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let deadline = Instant::now() + api.limits.deadline;
    let order_id = order_id(path)?;
    let view = find(&api.reads(trace)?, order_id).await?.ok_or(Problem::OrderNotFound)?;
    match view.status {
        Status::Cancelled => return Ok(accepted(order_id, view.status)),
        status if status.is_final() => return Err(Problem::OrderFinal),
        _ => {}
    }
    let _permit = api.permit_write()?;
    match timeout_at(deadline, api.intake.cancel(order_id, trace)).await {
        Ok(outcome) => outcome?,
        Err(_) => return Err(Problem::OutcomeUnknown),
    }
    Ok(accepted(order_id, view.status))
}

async fn find(reads: &Asking<'_>, order_id: OrderId) -> Result<Option<OrderView>, Problem> {
    if let Some(view) = reads.order(order_id).await? {
        return Ok(Some(view));
    }
    Ok(reads.wait(order_id, Until::Known, Instant::now() + PROJECTION_DELAY).await?)
}

fn accepted(order_id: OrderId, status: Status) -> Response {
    let location = [(header::LOCATION, format!("/orders/{order_id}"))];
    let body = Json(CancelAccepted { order_id: order_id.0, status });
    (StatusCode::ACCEPTED, location, body).into_response()
}
