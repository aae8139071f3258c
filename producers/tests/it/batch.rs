use std::time::Duration;

use producers::api::Limits;
use producers::publisher::PublisherSettings;
use serde_json::Value;

use crate::harness::{Answer, App, GOOD, OTHER, Setting};

const NDJSON: &str = "application/x-ndjson";

async fn send(app: &App, body: &str) -> Answer {
    Answer::of(app.post("/orders/batch", NDJSON, body.as_bytes())).await
}

fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), NDJSON);
    answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn keyed(body: &str, key: &str) -> String {
    body.replacen('{', &format!(r#"{{"idempotency_key":"{key}","#), 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_gets_its_own_result_in_its_place() {
    let app = App::start().await;
    let body = [
        GOOD.to_owned(),
        "not json".to_owned(),
        String::new(),
        GOOD.replace("EUR", "eur"),
        keyed(GOOD, "k"),
        keyed(OTHER, "k"),
        keyed(GOOD, "k"),
        keyed(GOOD, "two words"),
        GOOD.replace("C-1", &"x".repeat(70_000)),
        "\r".to_owned(),
        format!("{GOOD}\r"),
    ]
    .join("\n");

    let answer = send(&app, &body).await;

    let results = lines(&answer);
    let summary: Vec<(u64, u64, &str)> = results
        .iter()
        .map(|result| {
            let code = result["code"].as_str().unwrap_or("");
            (result["line"].as_u64().unwrap(), result["status"].as_u64().unwrap(), code)
        })
        .collect();
    assert_eq!(
        summary,
        [
            (1, 202, ""),
            (2, 400, "malformed_json"),
            (4, 422, "invalid_order"),
            (5, 202, ""),
            (6, 422, "idempotency_key_reused"),
            (7, 202, ""),
            (8, 400, "invalid_idempotency_key"),
            (9, 413, "body_too_large"),
            (11, 202, ""),
        ]
    );
    assert_eq!(results[3]["order_id"], results[5]["order_id"]);
    assert_eq!(results[2]["errors"][0]["pointer"], "/currency");
    // A single request under the same key is the same order.
    assert_eq!(app.place(GOOD, "k").await.order_id(), results[3]["order_id"].as_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_orders_are_one_request() {
    let app = App::start().await;
    let body = format!("{GOOD}\n").repeat(1_000);

    let results = lines(&send(&app, &body).await);

    assert_eq!(results.len(), 1_000);
    assert!(results.iter().all(|result| result["status"] == 202));
    assert_eq!(app.kafka.records(), 1_000);
    assert_eq!(app.metric("orders_created_total"), 1_000.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_beyond_the_limits_are_refused_whole() {
    let app = App::start().await;

    send(&app, "").await.assert_problem(400, "empty_batch");
    send(&app, "\n\r\n \n").await.assert_problem(400, "empty_batch");
    send(&app, &format!("{GOOD}\n").repeat(1_001)).await.assert_problem(413, "too_many_lines");
    send(&app, &" ".repeat(4 * 1024 * 1024 + 1)).await.assert_problem(413, "body_too_large");
    Answer::of(app.post("/orders/batch", "application/json", GOOD.as_bytes()))
        .await
        .assert_problem(415, "unsupported_media_type");

    assert_eq!(app.kafka.records(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_the_broker_does_not_acknowledge_are_unknown() {
    let publisher = PublisherSettings {
        delivery_timeout: Duration::from_millis(1_000),
        ..PublisherSettings::default()
    };
    let app = App::with(Setting { publisher, ..Setting::default() }).await;
    assert_eq!(app.place(GOOD, "before").await.status, 202);

    app.kafka.cluster.broker_down(1).unwrap();
    let results = lines(&send(&app, &format!("{GOOD}\nnope\n{GOOD}\n")).await);

    let codes: Vec<_> = results.iter().map(|result| result["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["outcome_unknown", "malformed_json", "outcome_unknown"]);
    assert_eq!(results[0]["status"], 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_queue_is_full_a_batch_is_refused_whole_or_line_by_line() {
    let publisher = PublisherSettings { queue_records: 10, ..PublisherSettings::default() };
    let app = App::with(Setting { publisher, ..Setting::default() }).await;
    assert_eq!(app.place(GOOD, "warm").await.status, 202);
    app.kafka.cluster.broker_round_trip_time(1, Duration::from_millis(1_500)).unwrap();

    let (body, more) = (format!("{GOOD}\n").repeat(20), format!("{GOOD}\n").repeat(5));
    let first = async { send(&app, &body).await };
    let second = async {
        app.on_their_way(10).await;
        send(&app, &more).await
    };
    let (first, second) = tokio::join!(first, second);

    let results = lines(&first);
    let overloaded = results.iter().filter(|result| result["code"] == "overloaded").count();
    assert_eq!(overloaded, 10, "{results:?}");
    assert_eq!(results.iter().filter(|result| result["status"] == 202).count(), 10);
    second.assert_problem(503, "overloaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_in_memory_are_bounded() {
    let limits = Limits { batches: 1, ..Limits::default() };
    let app = App::with(Setting { limits, ..Setting::default() }).await;
    assert_eq!(app.place(GOOD, "warm").await.status, 202);
    app.kafka.cluster.broker_round_trip_time(1, Duration::from_millis(1_000)).unwrap();

    let first = async { send(&app, GOOD).await };
    let second = async {
        app.on_their_way(1).await;
        send(&app, GOOD).await
    };
    let (first, second) = tokio::join!(first, second);

    assert_eq!(first.status, 200);
    second.assert_problem(503, "overloaded");
}
