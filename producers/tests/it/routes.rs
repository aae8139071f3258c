use std::time::Duration;

use crate::harness::{Answer, App, GOOD};

#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_and_methods_are_problems_too() {
    let app = App::start().await;

    app.get("/").await.assert_problem(404, "not_found");
    app.get("/orders/x/y/z").await.assert_problem(404, "not_found");
    app.get("/metrics").await.assert_problem(404, "not_found");
    let deleted = Answer::of(app.http.delete(app.url("/orders"))).await;

    deleted.assert_problem(405, "method_not_allowed");
    assert_eq!(deleted.header("allow"), "POST,GET,HEAD");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_database_orders_are_taken_and_reads_say_why_not() {
    let app = App::start().await;
    let placed = Answer::of(app.order(GOOD)).await;
    let order = format!("/orders/{}", placed.order_id());

    for path in
        [order.clone(), format!("{order}/events"), format!("{order}?wait=1s"), "/orders".into()]
    {
        app.get(&path).await.assert_problem(503, "projection_unavailable");
    }
    let cancel = Answer::of(app.post(&format!("{order}/cancel"), "", b"")).await;
    cancel.assert_problem(503, "projection_unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_make_no_sense_are_refused_before_the_database() {
    let app = App::start().await;
    let id = "01890a5d-ac96-774b-bcce-b302099a8057";

    for path in
        ["abc", "{01890a5d-ac96-774b-bcce-b302099a8057}", "01890a5dac96774bbcceb302099a8057", "%ff"]
    {
        app.get(&format!("/orders/{path}")).await.assert_problem(400, "invalid_order_id");
        app.get(&format!("/orders/{path}/events")).await.assert_problem(400, "invalid_order_id");
    }
    for wait in ["31s", "-1", "1m", "", "5s&wait=5s", "%00"] {
        app.get(&format!("/orders/{id}?wait={wait}")).await.assert_problem(400, "invalid_query");
    }
    for query in [
        "status=new",
        "status=",
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=%2B5",
        "cursor=x",
        "limit=1&limit=2",
    ] {
        app.get(&format!("/orders?{query}")).await.assert_problem(400, "invalid_query");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_a_trace_and_a_closed_set_of_labels() {
    let app = App::start().await;
    for n in 0..200 {
        let answer = app.get(&format!("/no-such-path-{n}?{n}")).await;
        assert_eq!(answer.header("traceparent").len(), 55);
    }

    let other = r#"http_requests_total{method="GET",endpoint="other",status="404"}"#;
    assert_eq!(app.metric(other), 200.0);
    let durations =
        r#"http_request_duration_seconds_count{method="GET",endpoint="other",status="404"}"#;
    assert_eq!(app.metric(durations), 200.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_the_document_are_served_here_too() {
    let app = App::start().await;
    app.readiness.set("kafka", Ok(()));

    assert_eq!(app.get("/livez").await.body, "ok\n");
    assert_eq!(app.get("/readyz").await.body, "[+] kafka ok\n");
    app.readiness.set("kafka", Err("no answer".to_owned()));
    assert_eq!(app.get("/readyz").await.status, 503);
    assert_eq!(app.get("/livez").await.status, 200);
    let document = app.get("/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert_eq!(document["paths"].as_object().unwrap().len(), 8);
    let text = document.to_string();
    assert!(!text.contains("null"), "absent members are absent, never null");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_answers_what_is_in_hand_and_takes_nothing_new() {
    let app = App::start().await;
    assert_eq!(app.place(GOOD, "warm").await.status, 202);
    app.kafka.cluster.broker_round_trip_time(1, Duration::from_millis(800)).unwrap();

    let placing = app.place(GOOD, "last");
    let stopping = async {
        app.on_their_way(1).await;
        app.shutdown.begin();
        crate::harness::eventually("the port is closed", async || {
            tokio::net::TcpStream::connect(&app.address).await.is_err().then_some(())
        })
        .await;
    };
    let (answer, ()) = tokio::join!(placing, stopping);

    assert_eq!(answer.status, 202, "{answer:?}");
    assert_eq!(app.kafka.records(), 2);
    tokio::time::timeout(Duration::from_secs(5), app.served).await.unwrap().unwrap();
}
