//! `POST /orders`: one order, answered after the broker has it.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemas::OrderId;
use serde::Serialize;
use telemetry::TraceContext;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::{Problem, ProblemDetails};
use super::{Api, body};
use crate::idempotency::{IdempotencyKey, InvalidKey};
use crate::intake::{Refusal, Submission};
use crate::projection::Status;
use crate::request::{OrderRequest, parse_order};

/// The header that makes repeats of a request one order.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// An order that was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Accepted {
    /// The order.
    order_id: Uuid,
    /// Always `placed`.
    status: Status,
}

/// Place an order.
///
/// Answered after Kafka acknowledged the order. Sent again with the same Idempotency-Key and the same order it is
/// the same order, however often. After 503 or no answer at all, send it again with the same key.
#[utoipa::path(
    post,
    path = "/orders",
    tag = "orders",
    operation_id = "placeOrder",
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "1 to 255 visible ASCII characters, bare or in double quotes",
            pattern = "^[!#-~][!-~]{0,253}$"),
        ("traceparent" = Option<String>, Header, description = "W3C Trace Context; the order is followed under it")
    ),
    request_body(content = OrderRequest, content_type = "application/json"),
    responses(
        (status = 202, description = "The order is accepted", body = Accepted, headers(
            ("Location" = String, description = "Where the order can be read"),
            ("traceparent" = String, description = "The trace of the order")),
            links(
                ("order" = (operation_id = "getOrder", parameters(("id" = "$response.body#/order_id")))),
                ("events" = (operation_id = "getOrderEvents", parameters(("id" = "$response.body#/order_id")))),
                ("cancel" = (operation_id = "cancelOrder", parameters(("id" = "$response.body#/order_id"))))
            )),
        (status = 400, description = "Not JSON, or not an idempotency key", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 408, description = "The request arrived too slowly", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not application/json", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 422, description = "The order breaks rules, or the key belongs to another order", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "Overload, or unknown outcome: retry with the same key", body = ProblemDetails, content_type = "application/problem+json",
            headers(("Retry-After" = u32, description = "Seconds"))),
    )
)]
pub(super) async fn place(
    State(api): State<Arc<Api>>,
    Extension(trace): Extension<TraceContext>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let deadline = Instant::now() + api.limits.deadline;
    body::require_type(&headers, "application/json")?;
    let key = idempotency_key(&headers)?;
    let body = body::read(body, api.limits.order_bytes, deadline).await?;
    let order = parse_order(&body)?;
    let _permit = api.permit_write()?;
    let placed = api.intake.place(vec![Submission { order, key }], trace);
    match timeout_at(deadline, placed).await {
        Ok(mut outcomes) => Ok(accepted(outcomes.pop().unwrap_or(Err(Refusal::Unknown))?)),
        Err(_) => Err(Problem::OutcomeUnknown),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, InvalidKey> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => IdempotencyKey::from_header(value.as_bytes()).map(Some),
        // Two keys are none: which one counts would be anybody's guess.
        (Some(_), Some(_)) => Err(InvalidKey),
    }
}

fn accepted(order_id: OrderId) -> Response {
    let mut text = String::with_capacity(80);
    write!(text, "/orders/{order_id}").expect("writing to a string never fails");
    let location = HeaderValue::from_str(&text).expect("a path of ASCII letters and digits");
    text.clear();
    write!(text, r#"{{"order_id":"{order_id}","status":"placed"}}"#)
        .expect("writing to a string never fails");
    let json = HeaderValue::from_static("application/json");
    let headers = [(header::CONTENT_TYPE, json), (header::LOCATION, location)];
    (StatusCode::ACCEPTED, headers, text).into_response()
}
