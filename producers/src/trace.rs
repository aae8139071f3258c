//! Trace context in the headers of HTTP.

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use telemetry::TraceContext;

/// Header of requests, answers and events.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The caller's trace, if it sent one that is valid.
pub fn of_caller(headers: &HeaderMap) -> Option<TraceContext> {
    TraceContext::parse(headers.get(TRACEPARENT)?.as_bytes())
}

/// The header of an answer.
pub fn header(trace: &TraceContext) -> HeaderValue {
    HeaderValue::from_str(trace.as_str())
        .expect("hexadecimal digits and dashes are a header's value")
}
