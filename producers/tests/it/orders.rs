use std::collections::HashSet;
use std::time::Duration;

use producers::api::Limits;
use producers::publisher::PublisherSettings;
use schemas::{Event, EventId};

use crate::harness::{Answer, App, GOOD, OTHER, Setting};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn short_delivery(limits: Limits) -> Setting {
    let publisher = PublisherSettings {
        delivery_timeout: Duration::from_millis(1_000),
        ..PublisherSettings::default()
    };
    Setting { limits, publisher, ..Setting::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_order_is_on_the_topic_when_the_answer_comes() {
    let app = App::start().await;

    let answer = Answer::of(app.order(GOOD).header("traceparent", TRACE)).await;
    let records = app.kafka.records();

    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(answer.json()["status"], "placed");
    assert_eq!(answer.header("location"), format!("/orders/{}", answer.order_id()));
    assert_eq!(answer.header("traceparent"), TRACE);
    assert_eq!(records, 1);
    let event = app.kafka.events().remove(0);
    let Event::OrderPlaced(placed) = &event.event else { panic!("{event:?}") };
    assert_eq!(placed.order_id.to_string(), answer.order_id());
    assert_eq!(placed.total_cents, 3998);
    assert_eq!(event.envelope.id, EventId::opening(placed.order_id, "orders.order-placed.v1"));
    assert_eq!(event.envelope.source, "/order-producer");
    assert_eq!(event.envelope.time, placed.placed_at);
    assert_eq!(event.envelope.traceparent.as_deref(), Some(TRACE));
    assert_eq!(app.metric("orders_created_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_are_refused_and_nothing_is_produced() {
    let app = App::start().await;
    let json = "application/json";
    let item = r#"{"sku":"A","quantity":1,"unit_price_cents":1}"#;
    let with_items =
        |items: &str| GOOD.replace(&GOOD[GOOD.find('[').unwrap()..], &format!("[{items}]}}"));
    let price = |price: &str| GOOD.replace("1999", price).into_bytes();
    let deep = GOOD.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(500), "]".repeat(500)), 1);
    let cases: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        (json, b"".to_vec(), 400, "malformed_json"),
        (json, b"not json".to_vec(), 400, "malformed_json"),
        (json, GOOD.as_bytes()[..40].to_vec(), 400, "malformed_json"),
        (json, [b"\xef\xbb\xbf", GOOD.as_bytes()].concat(), 400, "malformed_json"),
        (json, GOOD.replace("C-1", "\u{0}").into_bytes(), 400, "malformed_json"),
        (json, [b"{\"customer_id\":\"\xff\xfe\"}".as_slice()].concat(), 400, "malformed_json"),
        (json, price("NaN"), 400, "malformed_json"),
        (json, price("1e999"), 400, "malformed_json"),
        (json, deep.into_bytes(), 400, "malformed_json"),
        (json, b"[]".to_vec(), 422, "invalid_order"),
        (json, b"null".to_vec(), 422, "invalid_order"),
        (json, b"{}".to_vec(), 422, "invalid_order"),
        (json, price("19.99"), 422, "invalid_order"),
        (json, price("-1"), 422, "invalid_order"),
        (json, price("9223372036854775808"), 422, "invalid_order"),
        (json, price("\"1999\""), 422, "invalid_order"),
        (json, GOOD.replace(":2,", ":0,").into_bytes(), 422, "invalid_order"),
        (json, GOOD.replace(":2,", ":4294967297,").into_bytes(), 422, "invalid_order"),
        (json, GOOD.replace("C-1", "\\u0000").into_bytes(), 422, "invalid_order"),
        (json, GOOD.replace("C-1", &"x".repeat(65)).into_bytes(), 422, "invalid_order"),
        (json, GOOD.replace("SKU-00042", "SKU\\r\\n42").into_bytes(), 422, "invalid_order"),
        (json, GOOD.replacen('{', r#"{"currency":"USD","#, 1).into_bytes(), 422, "invalid_order"),
        (json, GOOD.replacen('{', r#"{"total_cents":1,"#, 1).into_bytes(), 422, "invalid_order"),
        (json, with_items("").into_bytes(), 422, "invalid_order"),
        (json, with_items(&[item; 101].join(",")).into_bytes(), 422, "invalid_order"),
        (json, with_items(&vec![item; 100_000].join(",")).into_bytes(), 413, "body_too_large"),
        (json, vec![b' '; 64 * 1024 + 1], 413, "body_too_large"),
        ("text/plain", GOOD.into(), 415, "unsupported_media_type"),
        ("application/jsonp", GOOD.into(), 415, "unsupported_media_type"),
        ("application/x-ndjson", GOOD.into(), 415, "unsupported_media_type"),
        ("", GOOD.into(), 415, "unsupported_media_type"),
    ];

    for (content_type, body, status, code) in cases {
        let answer = Answer::of(app.post("/orders", content_type, &body)).await;
        println!("{} {}", answer.status, String::from_utf8_lossy(&body[..body.len().min(100)]));
        answer.assert_problem(status, code);
    }

    assert_eq!(app.kafka.records(), 0);
    assert_eq!(app.metric("orders_created_total"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_but_valid_orders_are_accepted() {
    let app = App::start().await;
    for body in [
        GOOD.replace("C-1", "\u{202e}\u{5d0}'; drop table orders; -- ${jndi:ldap://x}"),
        GOOD.replacen('{', r#"{"total_cents":3998,"extra":{"a":[1.5,null]},"#, 1),
        GOOD.replace("1999", "0"),
        GOOD.replace(":2,", ":10000,").replace("1999", "100000000"),
        format!("\r\n\t {GOOD}\n"),
    ] {
        let answer =
            Answer::of(app.post("/orders", "Application/JSON; charset=utf-8", body.as_bytes()))
                .await;
        assert_eq!(answer.status, 202, "{body}: {answer:?}");
    }
    assert_eq!(app.kafka.events().len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mistakes_of_an_order_are_named_by_their_place() {
    let app = App::start().await;

    let answer = Answer::of(app.order(&GOOD.replace(":2,", ":0,").replace("EUR", "eur"))).await;

    answer.assert_problem(422, "invalid_order");
    let errors = answer.json()["errors"].clone();
    assert_eq!(errors[0]["pointer"], "/currency");
    assert_eq!(errors[1]["pointer"], "/items/0/quantity");
    assert_eq!(errors[1]["message"], "must be an integer from 1 to 10000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_makes_repeats_one_order_and_refuses_another() {
    let app = App::start().await;

    let first = app.place(GOOD, "\"k-1\"").await;
    let spaced = GOOD.replace(',', " , ");
    let again = app.place(&spaced, "k-1").await;
    let other = app.place(OTHER, "k-1").await;
    let elsewhere = app.place(OTHER, "k-2").await;

    assert_eq!((first.status, again.status, elsewhere.status), (202, 202, 202));
    assert_eq!(first.order_id(), again.order_id());
    assert_ne!(first.order_id(), elsewhere.order_id());
    other.assert_problem(422, "idempotency_key_reused");
    assert_eq!(app.kafka.records(), 2);
    assert_eq!(app.metric("orders_created_total"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_outside_the_rule_are_refused() {
    let app = App::start().await;
    let long = "k".repeat(256);
    for key in ["", "\"\"", "\"open", "two words", &long, "k\u{fc}"] {
        let request = app.order(GOOD).header("idempotency-key", key.as_bytes());
        Answer::of(request).await.assert_problem(400, "invalid_idempotency_key");
    }
    let two = app.order(GOOD).header("idempotency-key", "a").header("idempotency-key", "b");
    Answer::of(two).await.assert_problem(400, "invalid_idempotency_key");
    assert_eq!(app.kafka.records(), 0);
    assert_eq!(app.place(GOOD, &long[1..]).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_requests_with_one_key_at_once_one_order_wins() {
    let app = App::start().await;

    let bodies: Vec<String> =
        (0..40).map(|n| GOOD.replace("C-1", &format!("C-{}", n % 4))).collect();
    let answers =
        futures::future::join_all(bodies.iter().map(|body| app.place(body, "race"))).await;

    let accepted: HashSet<String> =
        answers.iter().filter(|answer| answer.status == 202).map(Answer::order_id).collect();
    assert_eq!(accepted.len(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 202).count(), 10);
    assert_eq!(answers.iter().filter(|answer| answer.status == 422).count(), 30);
    let events = app.kafka.events();
    let contents: HashSet<String> = events
        .iter()
        .map(|event| match &event.event {
            Event::OrderPlaced(placed) => placed.customer_id.to_string(),
            other => panic!("{other:?}"),
        })
        .collect();
    let ids: HashSet<EventId> = events.iter().map(|event| event.envelope.id).collect();
    assert_eq!((contents.len(), ids.len()), (1, 1), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_the_broker_does_not_acknowledge_is_unknown_and_can_be_sent_again() {
    let app = App::with(short_delivery(Limits::default())).await;
    assert_eq!(app.place(GOOD, "before").await.status, 202);

    app.kafka.cluster.broker_down(1).unwrap();
    let unknown = app.place(GOOD, "k").await;
    let other = app.place(OTHER, "k").await;
    app.kafka.cluster.broker_up(1).unwrap();
    let again = crate::harness::eventually("the broker is back", async || {
        let answer = app.place(GOOD, "k").await;
        (answer.status == 202).then_some(answer)
    })
    .await;

    unknown.assert_problem(503, "outcome_unknown");
    other.assert_problem(422, "idempotency_key_reused");
    let events = app.kafka.events();
    let mine = events.iter().filter(|event| event.event.order_id().to_string() == again.order_id());
    let ids: HashSet<EventId> = mine.map(|event| event.envelope.id).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(app.metric("orders_created_total"), 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_limit_of_writes_orders_are_refused_before_they_are_written() {
    let limits = Limits { writes: 2, ..Limits::default() };
    let app = App::with(Setting { limits, ..Setting::default() }).await;
    assert_eq!(app.place(GOOD, "warm").await.status, 202);
    app.kafka.cluster.broker_round_trip_time(1, Duration::from_millis(1_500)).unwrap();

    let keys: Vec<String> = (0..10).map(|n| format!("k-{n}")).collect();
    let answers = futures::future::join_all(keys.iter().map(|key| app.place(GOOD, key))).await;

    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert_eq!(refused.len(), 8);
    refused.iter().for_each(|answer| answer.assert_problem(503, "overloaded"));
    app.kafka.cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    assert_eq!(app.kafka.records(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_undo_its_order() {
    let app = App::start().await;
    assert_eq!(app.place(GOOD, "warm").await.status, 202);
    app.kafka.cluster.broker_round_trip_time(1, Duration::from_millis(500)).unwrap();

    let gone = app.order(GOOD).timeout(Duration::from_millis(100)).send().await;

    assert!(gone.is_err());
    crate::harness::eventually("the order is counted", async || {
        (app.metric("orders_created_total") == 2.0).then_some(())
    })
    .await;
    let left = r#"http_requests_total{method="POST",endpoint="/orders",status="499"}"#;
    assert_eq!(app.metric(left), 1.0);
}
