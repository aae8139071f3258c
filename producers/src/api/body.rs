//! Reads a request's body within a size and a time, whatever its length header claims.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::time::{Instant, timeout_at};

use super::problem::Problem;

/// How much of a body that is too large is read and thrown away. A client that is still sending when the connection
/// closes would see a reset instead of its answer.
const THROWN_AWAY: usize = 8 * 1024 * 1024;

/// The whole body, at most `limit` bytes, arrived before `deadline`.
pub(super) async fn read(
    mut body: Body,
    limit: usize,
    deadline: Instant,
) -> Result<Bytes, Problem> {
    let arrived = timeout_at(deadline, Limited::new(&mut body, limit).collect());
    match arrived.await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => {
            // Either way the answer is the same.
            drop(timeout_at(deadline, throw_away(body)).await);
            Err(Problem::BodyTooLarge(limit))
        }
        Ok(Err(_)) => Err(Problem::UnreadableBody),
        Err(_) => Err(Problem::RequestTimeout),
    }
}

async fn throw_away(mut body: Body) {
    let mut left = THROWN_AWAY;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(less) => left = less,
            None => return,
        }
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
