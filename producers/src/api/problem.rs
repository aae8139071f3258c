//! Everything a request can be answered with instead of what it asked for: RFC 9457, with a stable code.
//!
//! Details never hold a payload, a query or an address; what an operator needs is in the log.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::idempotency::InvalidKey;
use crate::intake::Refusal;
use crate::request::{RequestError, Violation};
use crate::waiters::TooMany;

/// Media type of [`ProblemDetails`].
pub const MEDIA_TYPE: &str = "application/problem+json";

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The body is not JSON.
    #[error("{0}")]
    MalformedJson(String),
    /// The body ended early or broke the protocol.
    #[error("the body could not be read to its end")]
    UnreadableBody,
    /// JSON that breaks rules.
    #[error("the order breaks {} rule(s); see errors", .0.len())]
    InvalidOrder(Vec<Violation>),
    /// Another body under a known key.
    #[error(
        "this idempotency key belongs to an order with other content; use a new key for a new order"
    )]
    IdempotencyKeyReused,
    /// A key outside the rule.
    #[error("{0}")]
    InvalidIdempotencyKey(#[from] InvalidKey),
    /// A path segment that is no order id.
    #[error("an order id is a UUID in its hyphenated form")]
    InvalidOrderId,
    /// A query parameter outside its rule.
    #[error("{0}")]
    InvalidQuery(&'static str),
    /// A batch without any order.
    #[error("the batch has no line")]
    EmptyBatch,
    /// A batch with too many orders.
    #[error("a batch has at most {0} lines")]
    TooManyLines(usize),
    /// A body of another type.
    #[error("the content type must be {0}")]
    UnsupportedMediaType(&'static str),
    /// A body beyond its limit.
    #[error("the body has more than {0} bytes")]
    BodyTooLarge(usize),
    /// The client took too long to send its request.
    #[error("the request did not arrive in time")]
    RequestTimeout,
    /// No such order, as far as the projection knows.
    #[error(
        "the projection knows no order of this id (it follows within seconds of an order's acceptance)"
    )]
    OrderNotFound,
    /// The order has ended otherwise.
    #[error("the order is final and can no longer be cancelled")]
    OrderFinal,
    /// No such route.
    #[error("there is nothing at this path")]
    NotFound,
    /// The route exists for other methods.
    #[error("this path does not take this method; see the header Allow")]
    MethodNotAllowed,
    /// The broker did not answer: the order may exist.
    #[error(
        "whether the order was written is unknown; send it again with the same Idempotency-Key"
    )]
    OutcomeUnknown,
    /// Too much at once.
    #[error("too many requests are in flight; nothing was written")]
    Overloaded,
    /// Postgres does not answer.
    #[error("orders cannot be read at the moment; placing orders does not depend on this")]
    ProjectionUnavailable,
    /// A defect of this program.
    #[error("an unexpected error; it has been logged")]
    Internal,
}

/// A problem, as the client reads it (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDetails {
    /// Names the kind of problem; `urn:order-pipeline:problem:` with the code behind it.
    #[serde(rename = "type")]
    #[schema(format = "uri")]
    pub kind: String,
    /// The kind, for people.
    pub title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The kind, for programs. Codes are never renamed.
    pub code: Code,
    /// Every rule that the order breaks, for `invalid_order`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<Violation>>,
}

/// Kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each is explained at its problem")]
pub enum Code {
    MalformedJson,
    UnreadableBody,
    InvalidOrder,
    IdempotencyKeyReused,
    InvalidIdempotencyKey,
    InvalidOrderId,
    InvalidQuery,
    EmptyBatch,
    TooManyLines,
    UnsupportedMediaType,
    BodyTooLarge,
    RequestTimeout,
    OrderNotFound,
    OrderFinal,
    NotFound,
    MethodNotAllowed,
    OutcomeUnknown,
    Overloaded,
    ProjectionUnavailable,
    Internal,
}

impl Problem {
    /// Its kind.
    pub const fn code(&self) -> Code {
        match self {
            Self::MalformedJson(_) => Code::MalformedJson,
            Self::UnreadableBody => Code::UnreadableBody,
            Self::InvalidOrder(_) => Code::InvalidOrder,
            Self::IdempotencyKeyReused => Code::IdempotencyKeyReused,
            Self::InvalidIdempotencyKey(_) => Code::InvalidIdempotencyKey,
            Self::InvalidOrderId => Code::InvalidOrderId,
            Self::InvalidQuery(_) => Code::InvalidQuery,
            Self::EmptyBatch => Code::EmptyBatch,
            Self::TooManyLines(_) => Code::TooManyLines,
            Self::UnsupportedMediaType(_) => Code::UnsupportedMediaType,
            Self::BodyTooLarge(_) => Code::BodyTooLarge,
            Self::RequestTimeout => Code::RequestTimeout,
            Self::OrderNotFound => Code::OrderNotFound,
            Self::OrderFinal => Code::OrderFinal,
            Self::NotFound => Code::NotFound,
            Self::MethodNotAllowed => Code::MethodNotAllowed,
            Self::OutcomeUnknown => Code::OutcomeUnknown,
            Self::Overloaded => Code::Overloaded,
            Self::ProjectionUnavailable => Code::ProjectionUnavailable,
            Self::Internal => Code::Internal,
        }
    }

    /// What the client reads.
    pub fn details(self) -> ProblemDetails {
        let code = self.code();
        let detail = self.to_string();
        let errors = match self {
            Self::InvalidOrder(errors) => Some(errors),
            _ => None,
        };
        ProblemDetails {
            kind: format!("urn:order-pipeline:problem:{}", code.name()),
            title: code.title(),
            status: code.status().as_u16(),
            detail,
            code,
            errors,
        }
    }
}

impl Code {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::UnreadableBody => "unreadable_body",
            Self::InvalidOrder => "invalid_order",
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::InvalidIdempotencyKey => "invalid_idempotency_key",
            Self::InvalidOrderId => "invalid_order_id",
            Self::InvalidQuery => "invalid_query",
            Self::EmptyBatch => "empty_batch",
            Self::TooManyLines => "too_many_lines",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::BodyTooLarge => "body_too_large",
            Self::RequestTimeout => "request_timeout",
            Self::OrderNotFound => "order_not_found",
            Self::OrderFinal => "order_final",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Overloaded => "overloaded",
            Self::ProjectionUnavailable => "projection_unavailable",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MalformedJson
            | Self::UnreadableBody
            | Self::InvalidIdempotencyKey
            | Self::InvalidOrderId
            | Self::InvalidQuery
            | Self::EmptyBatch => StatusCode::BAD_REQUEST,
            Self::InvalidOrder | Self::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyTooLarge | Self::TooManyLines => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::OrderNotFound | Self::NotFound => StatusCode::NOT_FOUND,
            Self::OrderFinal => StatusCode::CONFLICT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::OutcomeUnknown | Self::Overloaded | Self::ProjectionUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::MalformedJson => "Not JSON",
            Self::UnreadableBody => "Body not readable",
            Self::InvalidOrder => "Not a valid order",
            Self::IdempotencyKeyReused => "Idempotency key used for another order",
            Self::InvalidIdempotencyKey => "Not an idempotency key",
            Self::InvalidOrderId => "Not an order id",
            Self::InvalidQuery => "Not a valid query",
            Self::EmptyBatch => "Empty batch",
            Self::TooManyLines => "Batch too long",
            Self::UnsupportedMediaType => "Content type not supported",
            Self::BodyTooLarge => "Body too large",
            Self::RequestTimeout => "Request too slow",
            Self::OrderNotFound => "Order not found",
            Self::OrderFinal => "Order already final",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::OutcomeUnknown => "Outcome unknown",
            Self::Overloaded => "Overloaded",
            Self::ProjectionUnavailable => "Orders not readable",
            Self::Internal => "Internal error",
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let details = self.details();
        let status = details.code.status();
        let mut response = (status, Json(details)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::PAYLOAD_TOO_LARGE) {
            // The rest of the body is still on its way and will not be read.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Malformed(_) => Self::MalformedJson(error.to_string()),
            RequestError::Invalid(violations) => Self::InvalidOrder(violations),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::KeyReused => Self::IdempotencyKeyReused,
            Refusal::Overloaded => Self::Overloaded,
            Refusal::Unknown => Self::OutcomeUnknown,
        }
    }
}

impl From<TooMany> for Problem {
    fn from(_: TooMany) -> Self {
        Self::Overloaded
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => {
                tracing::error!(%error, "a row of the projection cannot be read");
                Self::Internal
            }
            error => {
                tracing::warn!(%error, "the projection does not answer");
                Self::ProjectionUnavailable
            }
        }
    }
}
