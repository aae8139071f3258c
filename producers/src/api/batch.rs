//! `POST /orders/batch`: many orders, one answer per line, in their order.
//!
//! Each line stands for itself: a bad one stops none of the others. What the whole batch cannot be answered with is
//! a 202 for a line that the broker does not have.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use telemetry::TraceContext;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::{Code, Problem, ProblemDetails};
use super::{Api, body};
use crate::intake::{Outcome, Refusal, Submission};
use crate::request::{Violation, parse_line};

const NDJSON: &str = "application/x-ndjson";

/// Orders, one JSON object per line, as text.
#[derive(ToSchema)]
#[schema(value_type = String, pattern = "\\S")]
#[expect(dead_code, reason = "it only describes the body")]
pub(super) struct OrderLines(String);

/// What became of a line.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LineResult {
    /// Its number, from 1; blank lines count but get no result.
    line: usize,
    /// What `POST /orders` would have answered.
    status: u16,
    /// The order, for 202.
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<Uuid>,
    /// The kind of problem, otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Code>,
    /// What happened, otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// Every rule that the order breaks, for `invalid_order`.
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<Violation>>,
}

/// Place many orders.
///
/// One order per line, as in `POST /orders`, each with an optional `idempotency_key`. The answer has one line per
/// order, in their order: `{"line":1,"status":202,"order_id":…}` or `{"line":2,"status":422,"code":…,"detail":…}`.
/// Lines with status 503 are to be sent again, with the same key.
#[utoipa::path(
    post,
    path = "/orders/batch",
    tag = "orders",
    operation_id = "placeOrders",
    params(("traceparent" = Option<String>, Header, description = "W3C Trace Context; the orders are followed under it")),
    request_body(content = OrderLines, content_type = "application/x-ndjson",
        description = "At most 1000 lines and 4 MiB, each line an order of at most 64 KiB"),
    responses(
        (status = 200, description = "One result per order", body = String, content_type = "application/x-ndjson"),
        (status = 400, description = "No line at all, or not readable", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 408, description = "The request arrived too slowly", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 413, description = "Too many lines or bytes", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 415, description = "The content type is not application/x-ndjson", body = ProblemDetails, content_type = "application/problem+json"),
        (status = 503, description = "Overload: nothing was written", body = ProblemDetails, content_type = "application/problem+json",
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
    body::require_type(&headers, NDJSON)?;
    // Before the body is read: what waits in memory is what is bounded here.
    let _permit = api.permit_batch()?;
    let body = body::read(body, api.limits.batch_bytes, deadline).await?;
    let (mut results, submissions, lines) = read_lines(&api, &body)?;
    let count = submissions.len();
    let placed = timeout_at(deadline, api.intake.place(submissions, trace)).await;
    let outcomes = placed.unwrap_or_else(|_| vec![Err(Refusal::Unknown); count]);
    if results.is_empty() && outcomes.iter().all(|outcome| *outcome == Err(Refusal::Overloaded)) {
        return Err(Problem::Overloaded);
    }
    results
        .extend(lines.into_iter().zip(outcomes).map(|(line, outcome)| placed_line(line, outcome)));
    results.sort_unstable_by_key(|result| result.line);
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, NDJSON)], write_lines(&results)).into_response())
}

/// Results of the lines that are no orders, the orders of the others, and their line numbers.
type Lines = (Vec<LineResult>, Vec<Submission>, Vec<usize>);

fn read_lines(api: &Api, body: &Bytes) -> Result<Lines, Problem> {
    let (mut results, mut submissions, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for (index, text) in body.split(|&byte| byte == b'\n').enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        if results.len() + lines.len() == api.limits.batch_lines {
            return Err(Problem::TooManyLines(api.limits.batch_lines));
        }
        match read_line(text, api.limits.order_bytes) {
            Ok(submission) => {
                submissions.push(submission);
                lines.push(index + 1);
            }
            Err(problem) => results.push(problem_line(index + 1, problem)),
        }
    }
    if results.is_empty() && lines.is_empty() {
        return Err(Problem::EmptyBatch);
    }
    Ok((results, submissions, lines))
}

fn read_line(text: &[u8], limit: usize) -> Result<Submission, Problem> {
    if text.len() > limit {
        return Err(Problem::BodyTooLarge(limit));
    }
    let line = parse_line(text)?;
    Ok(Submission { order: line.order, key: line.key.transpose()? })
}

fn placed_line(line: usize, outcome: Outcome) -> LineResult {
    match outcome {
        Ok(order_id) => LineResult {
            line,
            status: StatusCode::ACCEPTED.as_u16(),
            order_id: Some(order_id.0),
            code: None,
            detail: None,
            errors: None,
        },
        Err(refusal) => problem_line(line, refusal.into()),
    }
}

fn problem_line(line: usize, problem: Problem) -> LineResult {
    let details = problem.details();
    LineResult {
        line,
        status: details.status,
        order_id: None,
        code: Some(details.code),
        detail: Some(details.detail),
        errors: details.errors,
    }
}

fn write_lines(results: &[LineResult]) -> Vec<u8> {
    let mut text = Vec::with_capacity(results.len() * 80);
    for result in results {
        serde_json::to_writer(&mut text, result).expect("numbers and strings always serialise");
        text.push(b'\n');
    }
    text
}
