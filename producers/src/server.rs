//! Accepts connections and speaks HTTP/1.1 on them, within limits that no client can talk it out of.
//!
//! A client that is slow to send its headers, or idle between requests, is closed; connections beyond the cap are told
//! so and closed at once, while those in use go on. Knows nothing of orders.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use telemetry::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// What a connection may cost.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    /// Connections at a time.
    pub connections: usize,
    /// From the first moment a connection waits for a request until its headers are there. Also closes idle ones.
    pub header_timeout: Duration,
    /// Bytes of request line and headers together.
    pub header_bytes: usize,
    /// Bytes read ahead of a handler that is slower than its client.
    pub buffer_bytes: usize,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            // Each costs a few KiB idle, and at most a body in use.
            connections: 4_096,
            // Slow networks need a second; whoever needs more holds a place others want.
            header_timeout: Duration::from_secs(5),
            // What browsers and proxies send fits four times.
            header_bytes: 16 * 1024,
            buffer_bytes: 128 * 1024,
        }
    }
}

/// Sent to a connection beyond the cap, before anything it sends is read.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
content-type: application/problem+json\r\n\
retry-after: 1\r\n\
connection: close\r\n\
content-length: 152\r\n\
\r\n\
{\"type\":\"urn:order-pipeline:problem:overloaded\",\"title\":\"Overloaded\",\"status\":503,\
\"detail\":\"too many connections; nothing was read\",\"code\":\"overloaded\"}";

/// Serves `routes` until shutdown begins, then lets connections finish what they are in the middle of, for `drain` at
/// the longest. `refused` is told of every connection beyond the cap.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: ConnectionLimits,
    drain: Duration,
    shutdown: Shutdown,
    refused: impl Fn(),
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.buffer_bytes);
    let service = TowerToHyperService::new(routes);
    let places = Arc::new(Semaphore::new(limits.connections));
    let open = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.wait() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                after_failed_accept(&error).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            refuse(&stream);
            refused();
            continue;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection went away before it was served");
            continue;
        }
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        let connection = open.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Clients that vanish, stall or speak something else: theirs to know.
                tracing::debug!(%error, "a connection ended early");
            }
            drop(place);
        });
    }
    drop(listener);
    let connections = open.count();
    if timeout(drain, open.shutdown()).await.is_err() {
        tracing::warn!(connections, "connections were still busy when the time to drain was over");
    }
}

fn refuse(stream: &TcpStream) {
    // As far as it goes without waiting; a fresh socket's buffer takes it.
    if let Err(error) = stream.try_write(FULL) {
        tracing::debug!(%error, "a refused connection could not be told");
    }
}

async fn after_failed_accept(error: &io::Error) {
    match error.kind() {
        io::ErrorKind::ConnectionAborted
        | io::ErrorKind::ConnectionRefused
        | io::ErrorKind::ConnectionReset => {}
        _ => {
            // Most likely out of file descriptors: trying again at once would spin.
            tracing::warn!(%error, "accepting a connection failed");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_connection_too_many_is_a_whole_one() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();

        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
    }
}
