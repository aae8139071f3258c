//! A client of the API that costs little itself: connections that are kept, one request at a time on each, requests
//! that lie ready as bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use producers::generate::{Generator, Mix};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Above the API's own deadline.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bodies made beforehand; what makes an order unique is its id, which the API gives it.
const BODIES: usize = 20_000;
const BATCHES: usize = 64;
pub(super) const LINES: usize = 500;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Single,
    /// The same, each with an Idempotency-Key of its own.
    Keyed,
    Batch,
}

/// Requests that lie ready.
pub(super) struct Requests {
    kind: Kind,
    /// Head up to where a key goes, and the rest.
    parts: Vec<(Vec<u8>, Vec<u8>)>,
    next: AtomicU64,
    run: String,
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    /// In microseconds, one per request.
    pub(super) latencies: Vec<u32>,
}

impl Requests {
    pub(super) fn new(kind: Kind) -> anyhow::Result<Self> {
        let mut orders = Generator::new(Mix::default());
        let mut body = |lines: usize| {
            let mut body = Vec::with_capacity(lines * 200);
            for order in orders.by_ref().take(lines) {
                serde_json::to_writer(&mut body, &order)?;
                body.push(b'\n');
            }
            anyhow::Ok(body)
        };
        let (path, content_type, count, lines) = match kind {
            Kind::Single | Kind::Keyed => ("/orders", "application/json", BODIES, 1),
            Kind::Batch => ("/orders/batch", "application/x-ndjson", BATCHES, LINES),
        };
        let parts = (0..count).map(|_| {
            let body = body(lines)?;
            let head = format!(
                "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n",
                body.len()
            );
            Ok((head.into_bytes(), [b"\r\n", &body[..]].concat()))
        });
        let parts = parts.collect::<anyhow::Result<_>>()?;
        Ok(Self {
            kind,
            parts,
            next: AtomicU64::new(0),
            run: uuid::Uuid::new_v4().simple().to_string(),
        })
    }

    fn compose(&self, request: &mut Vec<u8>) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (head, rest) = &self.parts[number as usize % self.parts.len()];
        request.clear();
        request.extend_from_slice(head);
        if self.kind == Kind::Keyed {
            request.extend_from_slice(
                format!("idempotency-key: {}-{number}\r\n", self.run).as_bytes(),
            );
        }
        request.extend_from_slice(rest);
    }
}

/// Sends on `connections` until `duration` is over; each sends its next request when the last one is answered.
pub(super) async fn send(
    api: SocketAddr,
    requests: &Arc<Requests>,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Answers> {
    let until = Instant::now() + duration;
    let sending = (0..connections).map(|_| tokio::spawn(one(api, requests.clone(), until)));
    let mut all = Answers::default();
    for answers in futures::future::join_all(sending).await {
        let answers = answers.context("a connection's task ended early")??;
        all.accepted += answers.accepted;
        all.refused += answers.refused;
        all.latencies.extend(answers.latencies);
    }
    all.latencies.sort_unstable();
    Ok(all)
}

async fn one(api: SocketAddr, requests: Arc<Requests>, until: Instant) -> anyhow::Result<Answers> {
    let mut stream = TcpStream::connect(api).await.context("connect to the API")?;
    stream.set_nodelay(true)?;
    let (mut request, mut answer) = (Vec::new(), Vec::new());
    let mut answers = Answers::default();
    while Instant::now() < until {
        requests.compose(&mut request);
        let begun = Instant::now();
        let exchanged = timeout(PATIENCE, async {
            stream.write_all(&request).await.context("send a request")?;
            receive(&mut stream, &mut answer).await
        });
        let body = exchanged.await.context("the API did not answer")??;
        answers.latencies.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        let (accepted, asked) = match requests.kind {
            Kind::Batch => (count(&answer[body..], br#""status":202"#), LINES as u64),
            Kind::Single | Kind::Keyed => (u64::from(answer.starts_with(b"HTTP/1.1 202 ")), 1),
        };
        answers.accepted += accepted;
        answers.refused += asked - accepted;
    }
    Ok(answers)
}

/// Reads one answer and returns where its body starts.
async fn receive(stream: &mut TcpStream, answer: &mut Vec<u8>) -> anyhow::Result<usize> {
    answer.clear();
    let mut body = None;
    loop {
        if body.is_none() {
            body = find(answer, b"\r\n\r\n").map(|at| at + 4);
        }
        if let Some(start) = body
            && answer.len() >= start + content_length(&answer[..start])?
        {
            return Ok(start);
        }
        if stream.read_buf(answer).await.context("read an answer")? == 0 {
            bail!("the API closed a connection in the middle of an answer");
        }
    }
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    let head = std::str::from_utf8(head).context("read the head of an answer")?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    length.with_context(|| format!("an answer without a length: {head}"))
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn count(bytes: &[u8], wanted: &[u8]) -> u64 {
    bytes.split(|byte| *byte == b'\n').filter(|line| find(line, wanted).is_some()).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_and_lengths_are_found() {
        let body = br#"{"line":1,"status":202,"order_id":"x"}
{"line":2,"status":422}
{"line":3,"status":202}
"#;

        assert_eq!(count(body, br#""status":202"#), 2);
        assert_eq!(
            content_length(b"HTTP/1.1 202 Accepted\r\nContent-Length: 17\r\n\r\n").unwrap(),
            17
        );
        assert!(content_length(b"HTTP/1.1 202 Accepted\r\n\r\n").is_err());
    }
}
