//! Reads a request's body within a size and a time, whatever its length header claims.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};

use super::problem::Problem;

/// The whole body, at most `limit` bytes, arrived before `deadline`.
pub(super) async fn read(body: Body, limit: usize, deadline: Instant) -> Result<Bytes, Problem> {
    let arrived = timeout_at(deadline, Limited::new(body, limit).collect());
    match arrived.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            Err(Problem::BodyTooLarge(limit))
        }
        Ok(Err(_)) => Err(Problem::UnreadableBody),
        Err(_) => Err(Problem::RequestTimeout),
    }
}

/// Refuses a content type other than `wanted`. Parameters such as `charset=utf-8` do not change a type.
pub(super) fn require_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), Problem> {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let media_type = value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    if media_type.eq_ignore_ascii_case(wanted.as_bytes()) {
        Ok(())
    } else {
        Err(Problem::UnsupportedMediaType(wanted))
    }
}
