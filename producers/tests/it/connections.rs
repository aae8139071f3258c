use std::time::{Duration, Instant};

use producers::api::Limits;
use producers::server::ConnectionLimits;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Answer, App, GOOD, Setting};

fn impatient() -> Setting {
    Setting {
        limits: Limits { deadline: Duration::from_millis(800), ..Limits::default() },
        connections: ConnectionLimits {
            header_timeout: Duration::from_millis(500),
            ..ConnectionLimits::default()
        },
        ..Setting::default()
    }
}

async fn connect(app: &App) -> TcpStream {
    TcpStream::connect(&app.address).await.unwrap()
}

/// Everything the server says until it closes.
async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut text)).await;
    // A reset is a way to close.
    drop(read.expect("the server closes the connection"));
    String::from_utf8_lossy(&text).into_owned()
}

async fn still_serves(app: &App) {
    assert_eq!(Answer::of(app.order(GOOD)).await.status, 202);
}

fn head(more: &str) -> String {
    format!("POST /orders HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{more}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dribbles_its_headers_is_closed_and_others_are_served() {
    let app = App::with(impatient()).await;
    let mut slow = connect(&app).await;
    let begun = Instant::now();

    slow.write_all(b"POST /orders HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let (mut answer, mut request) = slow.split();
    let dribble = async {
        let mut pace = tokio::time::interval(Duration::from_millis(50));
        loop {
            pace.tick().await;
            if request.write_all(b"x: y\r\n").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let closed = async {
        tokio::select! {
            () = dribble => {}
            _ = rest(&mut answer) => {}
        }
    };
    tokio::join!(closed, still_serves(&app));

    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_are_closed() {
    let app = App::with(impatient()).await;
    let mut streams = Vec::new();
    for _ in 0..200 {
        streams.push(connect(&app).await);
    }
    let begun = Instant::now();

    for stream in &mut streams {
        assert_eq!(rest(stream).await, "");
    }

    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    still_serves(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_does_not_come_is_408() {
    let app = App::with(impatient()).await;
    for length in ["content-length: 100\r\n", "transfer-encoding: chunked\r\n"] {
        let mut stream = connect(&app).await;
        stream.write_all(head(length).as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains("request_timeout"), "{answer}");
    }
    assert_eq!(app.kafka.records(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_without_end_are_413() {
    let app = App::start().await;
    let mut stream = connect(&app).await;
    stream.write_all(head("transfer-encoding: chunked\r\n").as_bytes()).await.unwrap();
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(4_096));
    // Until the server has had enough; what it says may be lost to the reset of a connection that is still sent to.
    for _ in 0..10_000 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }

    let answer = rest(&mut stream).await;

    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert_eq!(app.kafka.records(), 0);
    still_serves(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_break_the_protocol_are_refused_and_closed() {
    let app = App::start().await;
    let long = format!("x: {}\r\n", "y".repeat(100_000));
    let many = (0..200).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    // Read by its chunks, as RFC 9112 has it: an empty body, which is no order.
    let both = "content-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n";
    let cases = [
        ("HTTP/1.1 431 ", head(&long)),
        ("HTTP/1.1 431 ", head(&many)),
        ("HTTP/1.1 400 ", head("content-length: 5\r\ncontent-length: 6\r\n")),
        ("HTTP/1.1 400 ", head("content-length: -5\r\n")),
        ("HTTP/1.1 400 ", "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n".to_owned()),
        ("HTTP/1.1 400 ", format!("{}0\r\n\r\n", head(both))),
    ];
    for (expected, request) in cases {
        let mut stream = connect(&app).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with(expected), "{request:.120}: {answer}");
    }
    assert_eq!(app.kafka.records(), 0);
    still_serves(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_shorter_than_it_claims_is_never_an_order() {
    let app = App::start().await;
    let mut stream = connect(&app).await;
    let length = format!("content-length: {}\r\n", GOOD.len() + 1);
    stream.write_all(format!("{}{GOOD}", head(&length)).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();

    rest(&mut stream).await;

    assert_eq!(app.kafka.records(), 0);
    still_serves(&app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_sent_without_waiting_are_answered_in_order() {
    let app = App::start().await;
    let mut stream = connect(&app).await;
    let order = format!("{}{GOOD}", head(&format!("content-length: {}\r\n", GOOD.len())));
    let last = "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    stream.write_all(format!("{order}{order}{last}").as_bytes()).await.unwrap();
    let answers = rest(&mut stream).await;

    let statuses: Vec<&str> = answers
        .split("HTTP/1.1 ")
        .skip(1)
        .map(|answer| answer.split_once(' ').unwrap().0)
        .collect();
    assert_eq!(statuses, ["202", "202", "200"], "{answers}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_cap_are_told_so() {
    let connections = ConnectionLimits { connections: 2, ..ConnectionLimits::default() };
    let app = App::with(Setting { connections, ..Setting::default() }).await;
    let held = [connect(&app).await, connect(&app).await];

    let answer = crate::harness::eventually("a connection is refused", async || {
        let mut stream = connect(&app).await;
        let wait = Duration::from_millis(500);
        let mut text = vec![0; 512];
        let read = tokio::time::timeout(wait, stream.read(&mut text)).await.ok()?.ok()?;
        Some(String::from_utf8_lossy(&text[..read]).into_owned())
    })
    .await;
    drop(held);

    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\"code\":\"overloaded\""), "{answer}");
    crate::harness::eventually("places are free again", async || {
        let request = app.http.get(app.url("/livez")).send().await.ok()?;
        request.status().is_success().then_some(())
    })
    .await;
}
