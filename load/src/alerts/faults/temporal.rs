//! Supervision: a worker that is gone, one that hardly gets to work, workflows that fail, and workflows that take long.

use std::time::Duration;

use anyhow::Context;
use futures::FutureExt;
use schemas::OrderId;
use sqlx::Connection;
use temporalio_client::Client;
use temporalio_client::grpc::WorkflowService;
use temporalio_common::protos::temporal::api::failure::v1::failure::FailureInfo;
use temporalio_common::protos::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use temporalio_common::protos::temporal::api::workflowservice::v1::RespondActivityTaskFailedByIdRequest;
use workflows::order_workflow::workflow_id;
use workflows::{Deadlines, Fact, FactKind, Settings, Supervisor, SupervisorOptions};

use super::PATIENCE;
use crate::alerts::fault::{Fault, alert};
use crate::alerts::proof::Proof;
use crate::eventually::eventually;
use crate::pipeline::READY_PATIENCE;
use crate::process::Signal;
use crate::scene::{Scene, shorter};

/// An hour, and the window and `for` behind it.
const LONG_PATIENCE: Duration = Duration::from_secs(300);

/// Long beside the pause between two: a worker that gets a twentieth of its time.
const ASLEEP: Duration = Duration::from_millis(1_900);
const AWAKE: Duration = Duration::from_millis(100);

/// Workflows given up at a time.
const GIVEN_UP: usize = 5;

pub(in crate::alerts) const FAULTS: &[Fault] = &[
    Fault {
        what: "the worker is killed",
        proves: &[alert("WorkerGone", &[("task_queue", "orders")])],
        follows: &[
            ("TargetDown", "its process is gone, with both of its pages of metrics"),
            ("WorkflowTasksWaiting", "tasks that waited for it are counted when it is back"),
        ],
        temporal: true,
        deafens: false,
        strike: |scene, proof| killed(scene, proof).boxed_local(),
    },
    Fault {
        what: "the worker gets a twentieth of its time",
        proves: &[alert("WorkflowTasksWaiting", &[("task_queue", "orders")])],
        follows: &[
            ("TargetDown", "it also answers Prometheus only now and then"),
            ("WorkerGone", "it also answers Prometheus only now and then"),
        ],
        temporal: true,
        deafens: false,
        strike: |scene, proof| starved(scene, proof).boxed_local(),
    },
    Fault {
        what: "activities are given up by hand",
        proves: &[alert("HighWorkflowFailureRate", &[("workflow_type", "OrderWorkflow")])],
        follows: &[
            ("ConsumerLagHigh", "a table is locked meanwhile, so that activities hang"),
            ("ConsumerLagGrowing", "a table is locked meanwhile, so that activities hang"),
            ("SlowDatabaseOperations", "a table is locked meanwhile, so that activities hang"),
        ],
        temporal: true,
        deafens: false,
        strike: |scene, proof| given_up(scene, proof).boxed_local(),
    },
    Fault {
        what: "orders wait for their shipment for an hour",
        proves: &[alert("LongRunningWorkflow", &[("workflow_type", "OrderWorkflow")])],
        follows: &[
            ("ConsumerLagHigh", "the stage is frozen"),
            ("ConsumerLagGrowing", "the stage is frozen"),
            ("ConsumerGone", "a frozen process does not answer"),
            ("ConsumerStuck", "the stage is frozen"),
            ("TargetDown", "a frozen process does not answer"),
            ("OutboxStuck", "its last batch is told, and not noted as told"),
            ("ThroughputDrop", "the stage is frozen"),
            ("SlowOrderProcessing", "orders that waited for it are final late"),
        ],
        temporal: true,
        deafens: false,
        strike: |scene, proof| long(scene, proof).boxed_local(),
    },
];

async fn killed(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    // Nobody misses a worker that was never seen.
    let pollers =
        format!("task_queue:temporal_num_pollers:sum{{task_queue=\"{}\"}}", scene.task_queue());
    eventually(PATIENCE, "Prometheus knows the worker", async || {
        let pollers = scene.prometheus.value(&pollers).await?.context("nobody polls")?;
        anyhow::ensure!(pollers > 0.0, "{pollers} poll");
        Ok(())
    })
    .await?;
    proof.begins();
    let mut worker = scene.worker().await?;
    worker.kill().await?;
    let arrived = proof.arrives(PATIENCE).await;
    worker.start_again(|_| ())?;
    worker.ready(READY_PATIENCE).await?;
    arrived
}

async fn starved(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut worker = scene.worker().await?;
    proof
        .arrives_during(PATIENCE, async || {
            worker.signal(Signal::STOP)?;
            // The fault's own lengths; nothing is expected to have happened by then.
            tokio::time::sleep(ASLEEP).await;
            worker.signal(Signal::CONT)?;
            tokio::time::sleep(AWAKE).await;
            Ok(())
        })
        .await
}

/// Each turn: activities that hang at a locked table, and an operator who has had enough of them.
async fn given_up(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let settings = Settings::from_toml(&scene.temporal_profile()?)?;
    let client = settings.connect().await?;
    let options = SupervisorOptions {
        // They look before anything else.
        partial: true,
        task_queue: scene.task_queue(),
        ..SupervisorOptions::new(Deadlines { reservation_ms: 3_600_000, ..Deadlines::default() })
    };
    let namespace = settings.namespace().to_owned();
    let supervisor = Supervisor::new(settings, options)?;
    let mut db = scene.database().await?;
    proof
        .arrives_during(PATIENCE, async || {
            let mut lock = db.begin().await.context("begin")?;
            sqlx::query("lock table reservations in access exclusive mode")
                .execute(&mut *lock)
                .await
                .context("lock a table")?;
            for _ in 0..GIVEN_UP {
                let order = OrderId::fresh();
                let placed = Fact { id: order.0, kind: FactKind::OrderPlaced, reason: None };
                supervisor.tell(order, &[placed]).await.context("start a workflow")?;
                give_up(&client, &namespace, order).await?;
            }
            lock.rollback().await.context("let go of the table")
        })
        .await
}

async fn give_up(client: &Client, namespace: &str, order: OrderId) -> anyhow::Result<()> {
    let why = ApplicationFailureInfo { non_retryable: true, ..Default::default() };
    let failure = Failure {
        message: "given up by hand".to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(why)),
        ..Default::default()
    };
    // An activity that has not begun cannot be given up.
    eventually(PATIENCE, "an activity is given up", async || {
        let request = RespondActivityTaskFailedByIdRequest {
            namespace: namespace.to_owned(),
            workflow_id: workflow_id(order),
            activity_id: "1".to_owned(),
            failure: Some(failure.clone()),
            ..Default::default()
        };
        let mut client = client.clone();
        let answer = client.respond_activity_task_failed_by_id(tonic::Request::new(request));
        answer.await.map(drop).map_err(|refusal| anyhow::anyhow!("{}", refusal.message()))
    })
    .await
}

/// The last orders before the pause are the ones that take so long; more would hide them.
async fn long(scene: &Scene, proof: &Proof<'_>) -> anyhow::Result<()> {
    let mut shipping = scene.stage("shipping").await?;
    shipping.signal(Signal::STOP)?;
    let lag = "stage:kafka_consumergroup_lag:sum{stage=\"shipping\"}";
    eventually(PATIENCE, "some orders wait for their shipment", async || {
        let lag = scene.prometheus.value(lag).await?.context("lag is not known")?;
        anyhow::ensure!(lag >= 20.0, "{lag} do");
        Ok(())
    })
    .await?;
    scene.orders.set_rate(0);
    // What is to be proven is that it takes this long; there is no other condition to wait for.
    tokio::time::sleep(shorter(3600) + shorter(120)).await;
    shipping.signal(Signal::CONT)?;
    let arrived = proof.arrives(LONG_PATIENCE).await;
    scene.orders.set_rate(scene.usual_rate());
    arrived
}
