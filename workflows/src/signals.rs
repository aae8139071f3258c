//! The client that tells workflows what happened. One call starts the workflow if there is none, and signals it; a
//! repeat of the call is recognised by the server, and by the workflow if the server forgot.

mod listing;
mod standing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use futures::future::TryFutureExt;
use schemas::OrderId;
use telemetry::TraceContext;
use temporalio_client::{Client, grpc::WorkflowService};
use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads, WorkflowType};
use temporalio_common::protos::temporal::api::enums::v1::{
    TaskQueueKind, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use temporalio_common::protos::temporal::api::sdk::v1::UserMetadata;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::SignalWithStartWorkflowExecutionRequest;
use tokio::sync::OnceCell;
use tonic::{Code, Status as Refusal};
use uuid::Uuid;

use crate::connection::Settings;
use crate::decide::Deadlines;
use crate::exporter::Exporter;
use crate::facts::Fact;
use crate::order_workflow::{self, Start, workflow_id};
use crate::trace;

pub use listing::{Closing, Supervised};
pub use standing::Standing;

/// How long an order's steps may take before supervision steps in.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Deadlines of orders")]
pub struct DeadlineArgs {
    /// Until stock is reserved or rejected, in seconds: minutes, because a stage that restarts catches up in less.
    #[arg(long, env = "DEADLINE_RESERVATION_SECONDS", default_value_t = 600, value_parser = seconds())]
    pub deadline_reservation_seconds: u64,

    /// Until a reserved order is paid or declined, in seconds: longer than a payment provider's usual outage.
    #[arg(long, env = "DEADLINE_PAYMENT_SECONDS", default_value_t = 900, value_parser = seconds())]
    pub deadline_payment_seconds: u64,

    /// Until a paid order has a shipment, in seconds: carriers take their time, and nothing is lost by waiting.
    #[arg(long, env = "DEADLINE_SHIPPING_SECONDS", default_value_t = 3600, value_parser = seconds())]
    pub deadline_shipping_seconds: u64,

    /// Until a cancellation, release or refund is confirmed, in seconds; then it is asked for again, in waits that double
    /// up to an hour. Two minutes: repeats are harmless, but a stage that is behind should not get more to do.
    #[arg(long, env = "DEADLINE_COMPENSATION_SECONDS", default_value_t = 120, value_parser = seconds())]
    pub deadline_compensation_seconds: u64,
}

/// A year: beyond it a number is a mistake of unit.
fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=31_536_000)
}

impl From<DeadlineArgs> for Deadlines {
    fn from(args: DeadlineArgs) -> Self {
        Self {
            reservation_ms: args.deadline_reservation_seconds * 1000,
            payment_ms: args.deadline_payment_seconds * 1000,
            shipping_ms: args.deadline_shipping_seconds * 1000,
            compensation_ms: args.deadline_compensation_seconds * 1000,
        }
    }
}

/// How a supervisor starts workflows.
#[derive(Clone, Debug)]
pub struct SupervisorOptions {
    /// For workflows started by this client; running ones keep theirs.
    pub deadlines: Deadlines,
    /// Only some events are told, so that a workflow looks before anything else.
    pub partial: bool,
    /// Where the worker polls.
    pub task_queue: String,
    /// For one call with all its retries. The client retries for up to 10 s by itself.
    pub call_limit: Duration,
    /// Events of a run's history before it hands over to a fresh one.
    pub history_limit: u32,
    /// Where the requests of this client are counted under the SDK's names; nowhere without one.
    pub metrics_address: Option<SocketAddr>,
}

impl SupervisorOptions {
    /// What production uses.
    pub fn new(deadlines: Deadlines) -> Self {
        Self {
            deadlines,
            partial: false,
            task_queue: order_workflow::TASK_QUEUE.to_owned(),
            call_limit: Duration::from_secs(15),
            history_limit: order_workflow::HISTORY_LIMIT,
            metrics_address: None,
        }
    }
}

/// What became of facts that were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The workflow has them, or will have them as soon as a worker looks.
    Applied,
    /// The workflow has closed: the order had ended before. A normal answer.
    Closed,
}

/// Facts that were not told.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// Tell them again later.
    #[error("temporal does not take signals now: {0}")]
    Transient(String),
    /// The server will never take this signal.
    #[error("temporal refuses the signal: {0}")]
    Refused(String),
}

/// Tells workflows what happened, and says how they stand. Clones share one connection, which is made by the first
/// call: a process that supervises starts without Temporal, and lags.
#[derive(Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    options: SupervisorOptions,
    client: OnceCell<Client>,
    /// Serves as long as anybody signals.
    _exporter: Option<Exporter>,
}

impl Supervisor {
    /// Does not connect yet. Fails when the address for metrics is taken.
    pub fn new(settings: Settings, options: SupervisorOptions) -> anyhow::Result<Self> {
        let exporter = options
            .metrics_address
            .map(|address| {
                let exporter = Exporter::start(address);
                exporter
                    .with_context(|| format!("serving metrics of Temporal's client on {address}"))
            })
            .transpose()?;
        let settings = match &exporter {
            Some(exporter) => settings.counted_by(exporter.client_meter()?),
            None => settings,
        };
        let client = OnceCell::new();
        Ok(Self { shared: Arc::new(Shared { settings, options, client, _exporter: exporter }) })
    }

    /// Tells the order's workflow these facts, in one signal, and starts it if there is none. Repeating a call changes
    /// nothing.
    pub async fn tell(&self, order: OrderId, facts: &[Fact]) -> Result<Told, SignalError> {
        self.tell_within(None, order, facts).await
    }

    /// The same as part of a trace, which the workflow goes on with.
    pub async fn tell_within(
        &self,
        trace: Option<&TraceContext>,
        order: OrderId,
        facts: &[Fact],
    ) -> Result<Told, SignalError> {
        let mut request = self.request(order, facts)?;
        request.header = trace.map(trace::header);
        let answer = self.within_limit(Box::pin(async {
            let mut client = self.client().await?;
            let told = client.signal_with_start_workflow_execution(tonic::Request::new(request));
            match told.await {
                Ok(_) => Ok(Told::Applied),
                Err(refusal) if refusal.code() == Code::AlreadyExists => Ok(Told::Closed),
                Err(refusal) => Err(classify(&refusal)),
            }
        }));
        answer.await
    }

    fn request(
        &self,
        order: OrderId,
        facts: &[Fact],
    ) -> Result<SignalWithStartWorkflowExecutionRequest, SignalError> {
        let SupervisorOptions { deadlines, partial, task_queue, history_limit, .. } =
            &self.shared.options;
        let mut start = Start::new(order, *deadlines, *partial);
        start.history_limit = *history_limit;
        Ok(SignalWithStartWorkflowExecutionRequest {
            namespace: self.shared.settings.namespace().to_owned(),
            workflow_id: workflow_id(order),
            workflow_type: Some(WorkflowType { name: order_workflow::TYPE.to_owned() }),
            task_queue: Some(TaskQueue {
                name: task_queue.clone(),
                kind: TaskQueueKind::Normal as i32,
                ..Default::default()
            }),
            input: Some(Payloads { payloads: vec![json(&start)?] }),
            identity: format!("order-supervisor@{}", std::process::id()),
            // The SDK's own call draws a random one, and every repeat would be another signal.
            request_id: request_id(order, facts).to_string(),
            workflow_id_reuse_policy: WorkflowIdReusePolicy::RejectDuplicate as i32,
            workflow_id_conflict_policy: WorkflowIdConflictPolicy::UseExisting as i32,
            signal_name: order_workflow::SIGNAL.to_owned(),
            signal_input: Some(Payloads { payloads: vec![json(&facts)?] }),
            user_metadata: Some(UserMetadata {
                summary: Some(json(&format!("Order {order}"))?),
                details: None,
            }),
            ..Default::default()
        })
    }

    async fn client(&self) -> Result<Client, SignalError> {
        let connect = || {
            let connecting = self.shared.settings.connect();
            connecting.map_err(|error| SignalError::Transient(format!("{error:#}")))
        };
        self.shared.client.get_or_try_init(connect).await.cloned()
    }

    /// A call without an answer may have happened or not: tell again.
    async fn within_limit<T>(
        &self,
        call: impl Future<Output = Result<T, SignalError>>,
    ) -> Result<T, SignalError> {
        let limit = self.shared.options.call_limit;
        let answered = tokio::time::timeout(limit, call).await;
        answered.unwrap_or_else(|_| {
            Err(SignalError::Transient(format!("no answer in {} s", limit.as_secs())))
        })
    }
}

/// The same for the same facts in any order; the server drops what repeats it while the workflow is open.
fn request_id(order: OrderId, facts: &[Fact]) -> Uuid {
    let mut ids: Vec<_> = facts.iter().map(|fact| fact.id).collect();
    ids.sort_unstable();
    let name: Vec<u8> = ids.iter().flat_map(|id| id.into_bytes()).collect();
    Uuid::new_v5(&order.0, &name)
}

fn json(value: &impl serde::Serialize) -> Result<Payload, SignalError> {
    let data =
        serde_json::to_vec(value).map_err(|error| SignalError::Refused(error.to_string()))?;
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    Ok(Payload { metadata, data, ..Default::default() })
}

/// Refused is only what no time and no administrator can change; when unsure, it is worth another try.
fn classify(refusal: &Refusal) -> SignalError {
    let said = format!("{:?}: {}", refusal.code(), refusal.message());
    match refusal.code() {
        Code::InvalidArgument => SignalError::Refused(said),
        _ => SignalError::Transient(said),
    }
}
