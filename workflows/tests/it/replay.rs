//! Histories recorded from real runs still replay: a change that would confuse workflows that are open turns this red.
//! `RECORD=1` records them afresh. Replayed as a worker does it, which passes traces on, and with traces in the signals and
//! without: what is recorded of an order decides nothing.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use temporalio_client::WorkflowHistory;
use temporalio_sdk::workflow_replayer::{WorkflowReplayer, WorkflowReplayerOptions};
use workflows::{Deadlines, FactKind, OrderWorkflow, Status, trace};

use crate::bench::{Bench, PATIENT, because, fact, stop};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/histories")
}

async fn replay(history: &Value) -> Result<(), String> {
    let options = WorkflowReplayerOptions::new().register_workflow::<OrderWorkflow>().unwrap();
    let options = options.workflow_interceptor(trace::passing_it_on());
    let replayer = WorkflowReplayer::new(options.build()).unwrap();
    let history = WorkflowHistory::from_json(&serde_json::to_vec(history).unwrap()).unwrap();
    replayer.replay_workflow(history).await.map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn recorded_histories_replay() {
    if std::env::var_os("RECORD").is_some() {
        record().await;
    }
    let mut replayed = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let recorded: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let followed = followed(recorded.clone());
        assert_ne!(recorded, followed);

        for history in [&recorded, &followed] {
            replay(history).await.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }

        replayed += 1;
    }
    assert!(replayed >= 2, "only {replayed} histories in {}", folder().display());
}

#[tokio::test]
async fn a_history_of_other_decisions_does_not_replay() {
    let path = folder().join("overdue.json");
    let mut history: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let activities = history["events"].as_array_mut().unwrap().iter_mut();
    let types = activities.filter_map(|event| {
        let attributes = event.get_mut("attributes")?;
        attributes.get_mut("ActivityTaskScheduledEventAttributes")?.get_mut("activity_type")
    });
    types.for_each(|kind| kind["name"] = "another".into());

    let error = replay(&history).await.unwrap_err();

    assert!(error.contains("ondeterminis"), "{error}");
}

/// The same run of an order that somebody follows: its signals say where it is in its trace.
fn followed(mut history: Value) -> Value {
    // {"traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, and json/plain.
    let place = json!({
        "data": "eyJ0cmFjZXBhcmVudCI6IjAwLTRiZjkyZjM1NzdiMzRkYTZhM2NlOTI5ZDBlMGU0NzM2LTAwZjA2N2FhMGJhOTAyYjctMDEifQ==",
        "metadata": {"encoding": "anNvbi9wbGFpbg=="},
    });
    for event in history["events"].as_array_mut().unwrap() {
        if let Some(signal) =
            event["attributes"].get_mut("WorkflowExecutionSignaledEventAttributes")
        {
            signal["header"] = json!({"fields": {"_tracer-data": place}});
        }
    }
    history
}

async fn record() {
    let bench = Bench::new(PATIENT);
    let worker = bench.worker();
    for kind in [FactKind::OrderPlaced, FactKind::StockReserved, FactKind::PaymentCaptured] {
        bench.tell(&[fact(kind)]).await;
        bench.report().await;
    }
    bench.tell(&[fact(FactKind::ShipmentArranged)]).await;
    bench.closes(Status::Shipped).await;
    keep("shipped", bench.history().await);
    stop(worker).await;

    let bench = Bench::new(Deadlines { payment_ms: 1000, ..PATIENT });
    let worker = bench.worker();
    bench.tell(&[fact(FactKind::OrderPlaced), fact(FactKind::StockReserved)]).await;
    bench.publishes(&["saga.order-cancelled.v1"]).await;
    bench.tell(&[fact(FactKind::PaymentCaptured)]).await;
    bench.tell(&[because(FactKind::ShipmentFailed, "cancelled")]).await;
    bench.tell(&[because(FactKind::StockReleased, "cancelled")]).await;
    bench.tell(&[fact(FactKind::PaymentRefunded)]).await;
    bench.closes(Status::Cancelled).await;
    keep("overdue", bench.history().await);
    stop(worker).await;
}

fn keep(name: &str, mut history: Value) {
    forget_the_machine(&mut history);
    let text = serde_json::to_string_pretty(&history).unwrap() + "\n";
    let draft = tempfile::NamedTempFile::new_in(folder()).unwrap();
    fs::write(draft.path(), text).unwrap();
    draft.persist(folder().join(format!("{name}.json"))).unwrap();
}

/// Who recorded it, where, is nobody's business.
fn forget_the_machine(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                // A worker's own queue is named after its process and host, too.
                match (name.as_str(), value.as_str()) {
                    ("identity", _) => *value = "recorder".into(),
                    ("name", Some(queue)) if queue.contains('@') => *value = "recorder".into(),
                    _ => forget_the_machine(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(forget_the_machine),
        _ => {}
    }
}
