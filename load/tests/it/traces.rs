//! An order can be followed: its spans arrive at a collector over the wire, in one trace, with parents that exist. And a
//! collector that is away is nobody's trouble.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use load::eventually::eventually;
use load::pipeline::{Producer, STOP_PATIENCE, Setup};
use load::process::Process;
use load::records::Records;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use producers::request::OrderRequest;
use schemas::{OrderId, Topic};
use sqlx::{Connection, PgConnection};
use stack::{Down, Stack, StackOptions};
use tokio::task::spawn_blocking;

use crate::collector::{Collector, HASTY, Span, orphans};
use crate::world::{SETUP, World, plain_orders, run, stop};

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// A trace that its caller does not record.
const UNSAMPLED: &str = "5bf92f3577b34da6a3ce929d0e0e4736";
/// As many as `producers::spans::FOLLOWED`.
const FOLLOWED: usize = 128;
/// From a deadline of seconds to what follows from it, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_order_is_one_trace_from_its_request_through_every_stage() {
    let (collector, endpoint) = Collector::over_http().await;
    let settings = [
        (ENDPOINT, endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=orders"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let world = World::supervised("traces", SETUP, &settings).await;
    let stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    // One after the other, so that each is a batch of its own.
    let order = shipped(&producer, &format!("00-{TRACE}-{CALLER}-01")).await;
    shipped(&producer, &format!("00-{UNSAMPLED}-{CALLER}-00")).await;
    // Four events of each order.
    all_told(&world, "workflow", 8).await;
    // Nobody waited for the pause of five seconds: what is left goes out at the end.
    stop(stages).await;
    stop(producer.process).await;

    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace != UNSAMPLED), "{spans:#?}");
    assert!(collector.headers().iter().all(|headers| headers["x-tenant"] == "orders"));
    let orphans = orphans(&spans, TRACE);
    let [request] = orphans[..] else {
        panic!("only the caller's parent is unknown: {orphans:#?}")
    };
    expect_the_request(request);
    let mut sender =
        only(&spans, |span| span.parent == request.id && span.kind == SpanKind::Producer);
    expect_the_sending(sender, &order);
    for (stage, topic) in
        [("inventory", "inventory"), ("payment", "payments"), ("shipping", "shipments")]
    {
        let process = only(&spans, |span| span.parent == sender.id && span.stage() == stage);
        expect_the_processing(process, sender, &order);
        expect_the_parts(&spans, process);
        // The projection and the supervision read the same event.
        for reader in ["order", "workflow"] {
            only(&spans, |span| span.parent == sender.id && span.stage() == reader);
        }
        sender = only(&spans, |span| {
            span.parent == process.id
                && span.name.starts_with("send ")
                && span.name.ends_with(topic)
        });
        assert_eq!((sender.kind, sender.service.as_str()), (SpanKind::Producer, "order-consumer"));
    }
    for reader in ["order", "workflow"] {
        only(&spans, |span| span.parent == sender.id && span.stage() == reader);
    }
}

#[tokio::test]
async fn what_supervision_asks_for_is_in_the_orders_trace_over_grpc() {
    let (collector, endpoint) = Collector::over_grpc().await;
    let settings = [
        (ENDPOINT, endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        HASTY,
        ("DEADLINE_PAYMENT_SECONDS", "2"),
    ];
    let world = World::supervised("traced-saga", SETUP, &settings).await;
    // Nobody takes the money, so the order is overdue.
    let _stages = world.stages(&["inventory", "shipping", "order", "workflow"]).await;
    let _worker = world.pipeline.start_worker("worker", |spec| spec).await.unwrap();
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();

    post(&producer, &format!("00-{TRACE}-{CALLER}-01")).await;

    let of_saga = |span: &Span| span.stage() == "shipping" && span.name.ends_with("saga");
    // Each process sends its spans in its own time, so the last of them is not the last to come.
    let whole = |spans: &[Span]| {
        let verdict = spans.iter().find(|span| of_saga(span));
        let activity = verdict.and_then(|of| parent(spans, of)).and_then(|of| parent(spans, of));
        activity.is_some_and(|of| parent(spans, of).is_some())
            && spans.iter().any(|span| span.name == "RunActivity:look")
    };
    let spans = collector.until("shipping hears of it", whole).await;
    let verdict = only(&spans, of_saga);
    let asked = only(&spans, |span| span.id == verdict.parent);
    assert_eq!((asked.kind, asked.service.as_str()), (SpanKind::Producer, "order-worker"));
    assert_eq!(asked.attribute("cloudevents.event_type"), "saga.order-cancelled.v1");
    let activity = only(&spans, |span| span.id == asked.parent);
    assert_eq!(activity.name, "RunActivity:publish");
    assert!(activity.attribute("temporalWorkflowID").starts_with("order-"), "{activity:?}");
    let signal = only(&spans, |span| span.id == activity.parent);
    assert_eq!(signal.stage(), "workflow", "{signal:?}");
    assert!([verdict, asked, activity, signal].iter().all(|span| span.trace == TRACE));
    let looks = spans.iter().filter(|span| span.name == "RunActivity:look");
    assert!(looks.clone().count() > 0 && looks.into_iter().all(|span| span.trace == TRACE));
    let records = Records::of(&world.pipeline).unwrap().read(Topic::Saga).await.unwrap();
    let header = String::from_utf8(records[0].header("traceparent").unwrap().to_vec()).unwrap();
    assert_eq!(header, format!("00-{TRACE}-{}-01", asked.id));
}

fn parent<'a>(spans: &'a [Span], of: &Span) -> Option<&'a Span> {
    spans.iter().find(|span| span.id == of.parent)
}

#[tokio::test]
async fn a_batch_links_to_the_orders_in_it_and_each_goes_on_in_its_own_trace() {
    const ORDERS: usize = 400;
    let (collector, endpoint) = Collector::over_http().await;
    // One partition, so that they meet in one batch.
    let mut world = World::new("traced-batch", Setup { partitions: 1, ..SETUP }).await;
    world.pipeline.set(&[(ENDPOINT, &endpoint), HASTY]);
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    producer.client.place_all(plain_orders(ORDERS, 61), &run(0), |_| ()).await.unwrap();

    let inventory = world.stages(&["inventory"]).await;
    all_told(&world, "inventory", ORDERS).await;
    stop(inventory).await;
    stop(producer.process).await;

    let spans = collector.spans();
    let batches: Vec<&Span> = spans
        .iter()
        .filter(|span| span.attributes.contains_key("messaging.batch.message_count"))
        .filter(|span| span.kind == SpanKind::Consumer)
        .collect();
    let count =
        |batch: &Span| batch.attribute("messaging.batch.message_count").parse::<usize>().unwrap();
    assert!(batches.iter().any(|batch| count(batch) > FOLLOWED), "{batches:#?}");
    for batch in batches {
        assert_eq!(batch.links.len(), count(batch).min(FOLLOWED));
        assert_eq!(batch.parent, "", "it belongs to all of them, so to none");
        expect_the_parts(&spans, batch);
        for (trace, sender) in &batch.links {
            let process =
                only(&spans, |span| span.parent == *sender && span.kind == SpanKind::Consumer);
            assert_eq!(process.trace, *trace);
            assert_eq!(process.links, [(batch.trace.clone(), batch.id.clone())]);
            let sent = only(&spans, |span| span.parent == process.id);
            assert_eq!((sent.trace.as_str(), sent.kind), (trace.as_str(), SpanKind::Producer));
        }
    }
    // Those that are not followed here still carry a place that exists.
    let records = Records::of(&world.pipeline).unwrap().read(Topic::Inventory).await.unwrap();
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let carried = records.iter().map(|record| {
        String::from_utf8(record.header("traceparent").unwrap()[36..52].to_vec()).unwrap()
    });
    let unknown: Vec<String> = carried.filter(|id| !ids.contains(id.as_str())).collect();
    assert_eq!((records.len(), unknown), (ORDERS, vec![]));
}

#[tokio::test]
async fn what_a_request_asks_the_database_is_a_part_of_it() {
    let (collector, endpoint) = Collector::over_http().await;
    let mut world = World::new("traced-reads", SETUP).await;
    world.pipeline.set(&[(ENDPOINT, &endpoint), HASTY]);
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let order = OrderId::fresh();
    let (one, events) = (format!("/orders/{order}"), format!("/orders/{order}/events"));
    let wait = format!("{one}?wait=100ms");
    // Each in a trace of its own; nobody placed the order, so its row is looked for twice where that may help.
    let questions: [(&str, u16, &[&str]); 4] = [
        ("/orders?limit=1", 200, &["SELECT orders"]),
        (&one, 404, &["SELECT orders"]),
        (&wait, 404, &["SELECT orders", "SELECT orders"]),
        (&events, 404, &["SELECT order_events", "SELECT orders"]),
    ];
    for (number, (path, status, _)) in (1..).zip(questions) {
        assert_eq!(get(&producer, path, number).await, status, "{path}");
    }
    let mut db = PgConnection::connect_with(world.pipeline.database()).await.unwrap();
    let hide = "alter table orders rename to elsewhere";
    sqlx::raw_sql(hide).execute(&mut db).await.unwrap();
    assert_eq!(get(&producer, &one, 9).await, 503);
    stop(producer.process).await;

    let spans = collector.spans();
    let asked = |number: u32| {
        let trace = trace_of(number);
        let request =
            only(&spans, |span| span.trace == trace && span.kind == SpanKind::Server).clone();
        let parts: Vec<Span> = spans.iter().filter(|s| s.parent == request.id).cloned().collect();
        (request, parts)
    };
    for (number, (path, _, expected)) in (1..).zip(questions) {
        let (request, parts) = asked(number);
        let mut summaries: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        summaries.sort_unstable();
        assert_eq!(summaries, expected, "{path}");
        for part in &parts {
            expect_the_question(&request, part, &order.to_string());
            assert!(!part.failed, "{part:?}");
        }
    }
    let (request, parts) = asked(9);
    let [refused] = &parts[..] else { panic!("{parts:#?}") };
    expect_the_question(&request, refused, &order.to_string());
    assert!(refused.failed && request.failed, "{refused:?} {request:?}");
    // No such table, as Postgres says it.
    for name in ["db.response.status_code", "error.type"] {
        assert_eq!(refused.attribute(name), "42P01", "{name}");
    }
}

#[tokio::test]
async fn a_key_is_looked_for_as_a_part_of_its_request() {
    let (collector, endpoint) = Collector::over_http().await;
    let mut world = World::new("traced-keys", SETUP).await;
    world.pipeline.set(&[(ENDPOINT, &endpoint), HASTY]);
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let order: OrderRequest = plain_orders(1, 60).next().unwrap();
    let place = async |number: u32| {
        let request = http.post(producer.client.url("/orders"));
        let request = request.header("idempotency-key", format!("key-{number}"));
        let trace = format!("00-{}-{CALLER}-01", trace_of(number));
        let answer = request.header("traceparent", trace).json(&order).send().await;
        let accepted: serde_json::Value =
            answer.unwrap().error_for_status().unwrap().json().await.unwrap();
        accepted["order_id"].as_str().unwrap().to_owned()
    };

    let known = place(1).await;
    let mut db = PgConnection::connect_with(world.pipeline.database()).await.unwrap();
    let hide = "alter table orders rename to elsewhere";
    sqlx::raw_sql(hide).execute(&mut db).await.unwrap();
    // Taken all the same: the key makes the id, and stages take an id once.
    let unknown = place(2).await;
    stop(producer.process).await;

    let spans = collector.spans();
    let questions = [(1, known), (2, unknown)].map(|(number, order)| {
        let trace = trace_of(number);
        let request = only(&spans, |span| span.trace == trace && span.kind == SpanKind::Server);
        let question =
            only(&spans, |span| span.parent == request.id && span.kind == SpanKind::Client);
        assert_eq!(question.name, "SELECT orders");
        expect_the_question(request, question, &order);
        question
    });
    assert!(!questions[0].failed, "{:?}", questions[0]);
    assert!(questions[1].failed, "{:?}", questions[1]);
    assert_eq!(questions[1].attribute("error.type"), "unavailable");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_its_spans_and_one_line() {
    // One refuses, and one takes what comes and never answers.
    let [nobody] = load::pipeline::free_addresses().unwrap();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = format!("http://{nobody}");
    let unheard = format!("http://{}", silent.local_addr().unwrap());
    let world = World::new("untraced", SETUP).await;
    let to = |endpoint: &str| {
        let endpoint = endpoint.to_owned();
        move |spec: load::process::Spec| spec.with(ENDPOINT, endpoint).with(HASTY.0, HASTY.1)
    };
    let stages = world
        .pipeline
        .start_stages("all", &[], |spec| to(&unheard)(crate::world::hasty(spec)))
        .await
        .unwrap();
    let producer = world.pipeline.start_producer(to(&refused)).await.unwrap();

    producer.client.place_all(plain_orders(50, 62), &run(0), |_| ()).await.unwrap();
    world.expect_reconciled(50).await;
    // More than one attempt, and still one complaint.
    producer.client.place_all(plain_orders(50, 63), &run(0), |_| ()).await.unwrap();
    world.expect_reconciled(100).await;

    for mut process in [producer.process, stages] {
        let begun = Instant::now();
        process.stop(STOP_PATIENCE).await.unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8), "{} took {took:?} to end", process.name());
        let complaints = process.log().matches("spans do not reach").count();
        assert_eq!(complaints, 1, "{}", process.log());
    }
}

#[tokio::test]
async fn prometheus_leads_from_a_latency_to_the_orders_trace() {
    let directory = tempfile::tempdir().unwrap();
    let options = StackOptions {
        only: vec!["prometheus".to_owned()],
        ..StackOptions::for_tests(directory.path())
    };
    let prometheus = spawn_blocking(move || Stack::up(&options)).await.unwrap().unwrap();
    let env = prometheus.env().unwrap();
    let url = env.into_iter().find(|(name, _)| *name == "PROMETHEUS_URL").unwrap().1;
    let world = World::new("exemplars", SETUP).await;
    let stages = world.stages(&[]).await;
    let producer = world.pipeline.start_producer(|spec| spec).await.unwrap();
    let scraped = |process: &Process| vec![process.admin().to_string()];
    prometheus.set_targets("order_processing_api", &scraped(&producer.process)).unwrap();
    prometheus.set_targets("consumers", &scraped(&stages)).unwrap();

    shipped(&producer, &format!("00-{TRACE}-{CALLER}-01")).await;

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for series in [
        r#"http_request_duration_seconds_bucket{endpoint="/orders",status="202"}"#,
        r#"stage_processing_seconds_bucket{stage="payment"}"#,
        r#"stage_event_age_seconds_bucket{stage="shipping"}"#,
        "order_processing_seconds_bucket",
        r#"order_processing_duration_seconds_bucket{status="shipped"}"#,
    ] {
        eventually(PATIENCE, "Prometheus knows the trace", async || {
            let query = [("query", series), ("start", "0"), ("end", "99999999999")];
            let asked = format!("{url}/api/v1/query_exemplars");
            let asked = reqwest::Url::parse_with_params(&asked, query)?;
            let answer = http.get(asked).send().await?.text().await?;
            anyhow::ensure!(answer.contains(TRACE), "{series}: {answer}");
            Ok(())
        })
        .await
        .unwrap();
    }
    stop(stages).await;
    stop(producer.process).await;
    spawn_blocking(move || prometheus.down(Down::RemoveEverything)).await.unwrap().unwrap();
}

fn expect_the_request(request: &Span) {
    assert_eq!(request.parent, CALLER);
    assert_eq!((request.name.as_str(), request.kind), ("POST /orders", SpanKind::Server));
    assert_eq!(request.service, "order-producer");
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/orders"),
        ("http.response.status_code", "202"),
        ("url.path", "/orders"),
        ("url.scheme", "http"),
    ] {
        assert_eq!(request.attribute(name), value, "{name}");
    }
}

fn expect_the_sending(sent: &Span, order: &str) {
    assert!(sent.name.starts_with("send ") && sent.name.ends_with(".orders"), "{sent:?}");
    for (name, value) in [
        ("messaging.system", "kafka"),
        ("messaging.operation.type", "send"),
        ("messaging.operation.name", "send"),
        ("messaging.kafka.message.key", order),
        ("cloudevents.event_type", "orders.order-placed.v1"),
    ] {
        assert_eq!(sent.attribute(name), value, "{name}");
    }
    assert!(sent.attribute("messaging.destination.name").ends_with(".orders"), "{sent:?}");
    assert!(sent.nanoseconds > 0, "it ends with the acknowledgement");
}

fn expect_the_processing(process: &Span, sender: &Span, order: &str) {
    assert_eq!((process.kind, process.trace.as_str()), (SpanKind::Consumer, TRACE));
    assert_eq!(process.links, [(sender.trace.clone(), sender.id.clone())]);
    assert!(!process.failed, "{process:?}");
    for (name, value) in [
        ("messaging.system", "kafka"),
        ("messaging.operation.type", "process"),
        ("messaging.operation.name", "process"),
        ("messaging.kafka.message.key", order),
        ("messaging.message.id", sender.attribute("messaging.message.id")),
        ("messaging.destination.name", sender.attribute("messaging.destination.name")),
    ] {
        assert_eq!(process.attribute(name), value, "{name}");
    }
    for name in ["messaging.destination.partition.id", "messaging.kafka.offset"] {
        process.attribute(name).parse::<u64>().unwrap();
    }
}

/// What a batch consists of.
fn expect_the_parts(spans: &[Span], batch: &Span) {
    only(spans, |span| span.parent == batch.id && span.name == "prepare");
    let transaction =
        only(spans, |span| span.parent == batch.id && span.name.starts_with("transaction "));
    assert_eq!(transaction.kind, SpanKind::Client);
    assert_eq!(transaction.attribute("db.system.name"), "postgresql");
    assert_eq!(transaction.attribute("db.operation.name"), "transaction");
    assert!(transaction.attribute("db.namespace").starts_with("pipeline_"), "{transaction:?}");
    assert!(transaction.nanoseconds > 0 && transaction.nanoseconds <= batch.nanoseconds);
}

/// What a request asked Postgres, without a word of whom.
fn expect_the_question(request: &Span, question: &Span, order: &str) {
    assert_eq!((question.kind, question.trace.as_str()), (SpanKind::Client, &*request.trace));
    assert_eq!(question.parent, request.id);
    assert!(question.nanoseconds > 0 && question.nanoseconds <= request.nanoseconds);
    let table = question.name.strip_prefix("SELECT ").unwrap();
    for (name, value) in [
        ("db.system.name", "postgresql"),
        ("db.operation.name", "SELECT"),
        ("db.collection.name", table),
        ("db.query.summary", question.name.as_str()),
    ] {
        assert_eq!(question.attribute(name), value, "{name}");
    }
    assert!(question.attribute("db.namespace").starts_with("pipeline_"), "{question:?}");
    assert!(question.attributes.values().all(|value| !value.contains(order)), "{question:?}");
}

#[track_caller]
fn only(spans: &[Span], wanted: impl Fn(&Span) -> bool) -> &Span {
    let found: Vec<&Span> = spans.iter().filter(|span| wanted(span)).collect();
    let [only] = found[..] else {
        panic!("{} such spans, not one: {found:#?}\n{spans:#?}", found.len())
    };
    only
}

/// Asks as a caller who traces, in trace `number`. The status of the answer.
async fn get(producer: &Producer, path: &str, number: u32) -> u16 {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.get(producer.client.url(path));
    let request = request.header("traceparent", format!("00-{}-{CALLER}-01", trace_of(number)));
    request.send().await.unwrap().status().as_u16()
}

fn trace_of(number: u32) -> String {
    format!("{number:032x}")
}

/// Places an order as a caller who traces.
async fn post(producer: &Producer, traceparent: &str) -> String {
    let order: OrderRequest = plain_orders(1, 60).next().unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = http.post(producer.client.url("/orders")).header("traceparent", traceparent);
    let answer = request.json(&order).send().await.unwrap().error_for_status().unwrap();
    let answered = answer.headers()["traceparent"].to_str().unwrap();
    assert_eq!(answered[3..35], traceparent[3..35], "the answer is of the same trace");
    let body: serde_json::Value = answer.json().await.unwrap();
    body["order_id"].as_str().unwrap().to_owned()
}

/// The same, to the order's end.
async fn shipped(producer: &Producer, traceparent: &str) -> String {
    let order_id = post(producer, traceparent).await;
    let view = producer.client.json(&format!("/orders/{order_id}?wait=30s")).await.unwrap();
    assert_eq!(view["status"], "shipped", "{view}");
    order_id
}

/// Waits until `stage` has read so many records and everything decided is out.
async fn all_told(world: &World, stage: &str, records: usize) {
    let read =
        format!("select sum(next_offset)::bigint from stage_progress where stage = '{stage}'");
    let mut tables = world.pipeline.tables().await.unwrap();
    eventually(PATIENCE, "everything is told", async || {
        let left = tables.number("select count(*) from outbox").await?;
        let read = tables.number(&read).await?;
        anyhow::ensure!(left == 0, "{left} rows in the outbox");
        anyhow::ensure!(read == records as i64, "{stage} has read {read} records of {records}");
        Ok(())
    })
    .await
    .unwrap();
}
