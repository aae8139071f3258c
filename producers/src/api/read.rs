//! Questions about orders, answered from the projection.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use schemas::OrderId;
use serde::{Deserialize, Serialize};
use telemetry::TraceContext;
use tokio::time::Instant;
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::{Problem, ProblemDetails};
use super::{Api, parse_duration};
use crate::projection::{EventView, OrderView, Page, Status};
use crate::waiters::Until;

const DEFAULT_PAGE: u16 = 50;
const LARGEST_PAGE: u16 = 200;

/// A page of orders.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderPage {
    /// The orders.
    orders: Vec<OrderView>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

/// The timeline of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Timeline {
    /// The order.
    order_id: Uuid,
    /// What happened, oldest first.
    events: Vec<EventView>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OrderQuery {
    wait: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    status: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Read an order.
///
/// With `wait` the answer comes when the order is final, or when the time is over, with whatever is known then.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    tag = "orders",
    operation_id = "getOrder",
    params(
        ("id" = Uuid, Path, description = "The order"),
        ("wait" = Option<String>, Query, description = "Longest wait for the final status, at most 30s: `5s`, `500ms`, `5`",
            pattern = "^(([0-9]|[12][0-9]|30)s?|([0-9]{1,4}|[12][0-9]{4}|30000)ms)$")
    ),
    responses(
        (status = 200, description = "The order", body = OrderView),
        (status = 400, description = "Not an order id, or not a wait", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "No such order", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The database does not answer, or too many wait", body = ProblemDetails, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub(super) async fn order(
    State(api): State<Arc<Api>>,
    Extension(trace): Extension<TraceContext>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<OrderQuery>, QueryRejection>,
) -> Result<Json<OrderView>, Problem> {
    let order_id = order_id(path)?;
    let wait = match query.map_err(|_| NOT_A_WAIT)?.0.wait {
        None => None,
        Some(text) => {
            let wait = parse_duration(&text).filter(|wait| *wait <= api.limits.wait);
            Some(wait.ok_or(NOT_A_WAIT)?)
        }
    };
    let reads = api.reads(trace)?;
    let deadline = Instant::now() + wait.unwrap_or_default();
    let now = reads.order(order_id).await?;
    if wait.is_none() || now.as_ref().is_some_and(|view| view.is_final) {
        return now.map(Json).ok_or(Problem::OrderNotFound);
    }
    let ended = tokio::select! {
        ended = reads.wait(order_id, Until::Final, deadline) => ended?,
        // Whoever waits hears what is known, and the process can leave.
        () = api.shutdown.wait() => None,
    };
    let view = match ended {
        Some(view) => Some(view),
        None => reads.order(order_id).await?,
    };
    view.map(Json).ok_or(Problem::OrderNotFound)
}

/// Read an order's timeline.
#[utoipa::path(
    get,
    path = "/orders/{id}/events",
    tag = "orders",
    operation_id = "getOrderEvents",
    params(("id" = Uuid, Path, description = "The order")),
    responses(
        (status = 200, description = "The timeline, oldest first", body = Timeline),
        (status = 400, description = "Not an order id", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 404, description = "No such order", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The database does not answer", body = ProblemDetails, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub(super) async fn events(
    State(api): State<Arc<Api>>,
    Extension(trace): Extension<TraceContext>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Timeline>, Problem> {
    let order_id = order_id(path)?;
    let reads = api.reads(trace)?;
    let events = reads.events(order_id).await?;
    if events.is_empty() && reads.order(order_id).await?.is_none() {
        return Err(Problem::OrderNotFound);
    }
    Ok(Json(Timeline { order_id: order_id.0, events }))
}

/// List orders.
///
/// Largest id first, which for orders without an idempotency key is newest first. Pass `next_cursor` as `cursor`
/// for the next page.
#[utoipa::path(
    get,
    path = "/orders",
    tag = "orders",
    operation_id = "listOrders",
    params(
        ("status" = Option<Status>, Query, description = "Only orders of this status"),
        ("limit" = Option<u16>, Query, description = "Orders per page, 50 by default", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before; opaque", pattern = "^[0-9a-f]{32}$")
    ),
    responses(
        (status = 200, description = "A page of orders", body = OrderPage),
        (status = 400, description = "A parameter outside its rule", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "The database does not answer", body = ProblemDetails, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(trace): Extension<TraceContext>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<OrderPage>, Problem> {
    let page = page(query.map_err(|_| Problem::InvalidQuery("the query cannot be read"))?.0)?;
    let orders = api.reads(trace)?.orders(page).await?;
    let full = orders.len() == usize::from(page.limit);
    let next_cursor = orders.last().filter(|_| full).map(|last| last.order_id.simple().to_string());
    Ok(Json(OrderPage { orders, next_cursor }))
}

const NOT_A_WAIT: Problem =
    Problem::InvalidQuery("wait is a duration of at most 30s: 5s, 500ms or 5");

fn page(query: ListQuery) -> Result<Page, Problem> {
    let status = match query.status.as_deref() {
        None => None,
        Some(name) => Some(Status::from_name(name).ok_or(Problem::InvalidQuery(
            "status is one of placed, reserved, paid, shipped, rejected, declined, cancelled",
        ))?),
    };
    let limit = match query.limit.as_deref() {
        None => DEFAULT_PAGE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=LARGEST_PAGE).contains(limit) && !text.starts_with('+'))
            .ok_or(Problem::InvalidQuery("limit is a number from 1 to 200"))?,
    };
    let after = match query.cursor.as_deref() {
        None => None,
        Some(text) => Some(
            cursor(text).ok_or(Problem::InvalidQuery("the cursor is not one of this list's"))?,
        ),
    };
    Ok(Page { status, after, limit })
}

fn cursor(text: &str) -> Option<OrderId> {
    let plain =
        text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if plain { text.parse().ok() } else { None }
}

/// The order a path names. Only the hyphenated form: one order, one URL.
pub(super) fn order_id(path: Result<Path<String>, PathRejection>) -> Result<OrderId, Problem> {
    let Path(text) = path.map_err(|_| Problem::InvalidOrderId)?;
    if text.len() == uuid::fmt::Hyphenated::LENGTH
        && let Ok(order_id) = text.parse()
    {
        return Ok(order_id);
    }
    Err(Problem::InvalidOrderId)
}
