//! How orders end, and what signals may do on the way.

use temporalio_client::grpc::WorkflowService;
use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads, WorkflowExecution};
use temporalio_common::protos::temporal::api::workflowservice::v1::SignalWorkflowExecutionRequest;
use workflows::order_workflow::{SIGNAL, workflow_id};
use workflows::{Deadlines, FactKind, Status, Told};

use crate::bench::{Bench, PATIENT, because, eventually, fact, stop};

#[tokio::test]
async fn an_order_that_ships_closes_without_a_request() {
    let bench = Bench::new(PATIENT);
    let worker = bench.worker();

    for kind in [FactKind::OrderPlaced, FactKind::StockReserved, FactKind::PaymentCaptured] {
        assert_eq!(bench.tell(&[fact(kind)]).await, Told::Applied);
    }
    bench.tell(&[fact(FactKind::ShipmentArranged)]).await;

    bench.closes(Status::Shipped).await;
    assert!(bench.published().is_empty());
    // Late, and for the second time: the order has ended, and no second workflow comes of it.
    let late = fact(FactKind::StockReserved);
    assert_eq!(bench.tell(std::slice::from_ref(&late)).await, Told::Closed);
    assert_eq!(bench.tell(&[late]).await, Told::Closed);
    eventually("visibility follows", async || {
        let listed = bench.supervisor.open_and_closed().await.unwrap();
        match listed.as_slice() {
            [only] if only.order == bench.order && only.closed.is_some() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    stop(worker).await;
}

#[tokio::test]
async fn an_overdue_order_is_cancelled_released_and_refunded_once_each() {
    let bench = Bench::new(Deadlines { payment_ms: 1000, ..PATIENT });
    let worker = bench.worker();

    bench.tell(&[fact(FactKind::OrderPlaced), fact(FactKind::StockReserved)]).await;
    bench.publishes(&["saga.order-cancelled.v1"]).await;
    bench.tell(&[fact(FactKind::PaymentCaptured)]).await;
    bench.tell(&[because(FactKind::ShipmentFailed, "cancelled")]).await;
    let all =
        ["saga.order-cancelled.v1", "saga.stock-release-requested.v1", "saga.refund-requested.v1"];
    bench.publishes(&all).await;
    bench.tell(&[because(FactKind::StockReleased, "cancelled")]).await;
    bench.tell(&[fact(FactKind::PaymentRefunded)]).await;

    bench.closes(Status::Cancelled).await;
    assert_eq!(bench.published_types(), all);
    stop(worker).await;
}

#[tokio::test]
async fn what_postgres_knows_is_taken_in_before_anything_is_asked_for() {
    let bench = Bench::new(Deadlines { reservation_ms: 1000, ..PATIENT });
    let worker = bench.worker();
    bench.know(&[fact(FactKind::StockReserved), fact(FactKind::ShipmentArranged)]);

    bench.tell(&[fact(FactKind::OrderPlaced)]).await;

    bench.closes(Status::Shipped).await;
    assert!(bench.published().is_empty());
    stop(worker).await;
}

#[tokio::test]
async fn late_supervision_looks_first() {
    let bench = Bench::with(PATIENT, |options| options.partial = true);
    let worker = bench.worker();
    bench.know(&[because(FactKind::StockRejected, "unknown_sku")]);

    bench.tell(&[]).await;

    bench.closes(Status::Rejected).await;
    stop(worker).await;
}

#[tokio::test]
async fn repeats_and_what_cannot_be_read_change_nothing() {
    let bench = Bench::new(PATIENT);
    let (placed, reserved) = (fact(FactKind::OrderPlaced), fact(FactKind::StockReserved));

    // Before any worker is there, later facts first.
    bench.tell(std::slice::from_ref(&reserved)).await;
    bench.tell(&[placed.clone(), reserved.clone()]).await;
    bench.tell(&[placed.clone(), reserved.clone()]).await;
    bench.tell(&[reserved.clone(), placed.clone()]).await;
    let told = signals(&bench.history().await);
    assert_eq!(told, 2, "the server was to drop the repeats");
    for data in ["not json", "{\"kind\":7}", "[{\"id\":\"x\",\"kind\":\"order_eaten\"}]"] {
        signal(&bench, data).await;
    }

    let worker = bench.worker();
    let report = eventually("all signals are in", async || {
        let report = bench.report().await;
        if report.undecodable == 3 { Ok(report) } else { Err(format!("{report:?}")) }
    })
    .await;
    assert_eq!((report.status, report.events), (Status::Reserved, 2));

    // It was not wedged by them.
    bench.tell(&[because(FactKind::StockRejected, "unknown_sku")]).await;
    bench.closes(Status::Rejected).await;
    stop(worker).await;
}

#[tokio::test]
async fn a_long_history_hands_over_with_all_that_was_heard() {
    let bench = Bench::with(PATIENT, |options| options.history_limit = 12);
    let worker = bench.worker();
    let told = [FactKind::OrderPlaced, FactKind::CancelRequested, FactKind::StockReserved];
    let told = told.map(fact);

    for fact in &told {
        bench.tell(std::slice::from_ref(fact)).await;
        eventually("it is heard", async || match bench.report().await.events {
            0 => Err("nothing".to_owned()),
            _ => Ok(()),
        })
        .await;
    }
    for _ in 0..4 {
        bench.tell(&[fact(FactKind::PaymentCaptured)]).await;
        bench.report().await;
    }

    let history = eventually("it hands over", async || {
        let history = bench.history().await;
        let started =
            &history["events"][0]["attributes"]["WorkflowExecutionStartedEventAttributes"];
        match started["continued_execution_run_id"].as_str() {
            Some(run) if !run.is_empty() => Ok(history),
            _ => Err(format!("{started}")),
        }
    })
    .await;
    assert!(history["events"].as_array().unwrap().len() < 12);
    let report = bench.report().await;
    assert_eq!((report.status, report.events), (Status::Paid, 7));
    // Known from the run before: still no news.
    bench.tell(&told[..2]).await;
    assert_eq!(bench.report().await.events, 7);
    bench.tell(&[fact(FactKind::ShipmentArranged)]).await;
    bench.closes(Status::Shipped).await;
    stop(worker).await;
}

fn signals(history: &serde_json::Value) -> usize {
    let events = history["events"].as_array().unwrap().iter();
    events
        .filter(|event| !event["attributes"]["WorkflowExecutionSignaledEventAttributes"].is_null())
        .count()
}

async fn signal(bench: &Bench, data: &str) {
    let payload = Payload {
        metadata: [("encoding".to_owned(), b"json/plain".to_vec())].into(),
        data: data.as_bytes().to_vec(),
        ..Default::default()
    };
    let request = SignalWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_execution: Some(WorkflowExecution {
            workflow_id: workflow_id(bench.order),
            run_id: String::new(),
        }),
        signal_name: SIGNAL.to_owned(),
        input: Some(Payloads { payloads: vec![payload] }),
        ..Default::default()
    };
    let mut client = bench.client().await;
    client.signal_workflow_execution(tonic::Request::new(request)).await.unwrap();
}
