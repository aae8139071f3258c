//! A client of Temporal that does nothing but start and signal: what the stage is measured by.

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use stack::Stack;
use temporalio_client::Client;
use temporalio_client::grpc::WorkflowService;
use temporalio_common::protos::temporal::api::common::v1::{Payload, Payloads, WorkflowType};
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::SignalWithStartWorkflowExecutionRequest;
use uuid::Uuid;
use workflows::Settings;

/// A connection, and a task queue that nobody polls.
pub(super) struct Bare {
    client: Client,
    namespace: String,
    task_queue: String,
}

impl Bare {
    pub(super) async fn connect(stack: &Stack) -> anyhow::Result<Self> {
        let variables = stack.env()?;
        let address = variables.iter().find(|(name, _)| *name == "TEMPORAL_ADDRESS");
        let (_, address) = address.context("this stack has no Temporal")?;
        let settings = Settings::from_toml(&format!("[profile.default]\naddress = \"{address}\""))?;
        Ok(Self {
            client: settings.connect().await?,
            namespace: settings.namespace().to_owned(),
            task_queue: format!("bare-{}", Uuid::new_v4()),
        })
    }

    /// Starts so many workflows with a signal each, `calls` at a time.
    pub(super) async fn signal(&self, signals: u32, calls: usize) -> anyhow::Result<()> {
        let signals = (0..signals).map(|_| self.one());
        stream::iter(signals).buffer_unordered(calls).try_for_each(async |()| Ok(())).await
    }

    async fn one(&self) -> anyhow::Result<()> {
        let order_id = Uuid::new_v4();
        let request = SignalWithStartWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_id: format!("bare-{order_id}"),
            workflow_type: Some(WorkflowType { name: "Bare".to_owned() }),
            task_queue: Some(TaskQueue { name: self.task_queue.clone(), ..Default::default() }),
            input: Some(json_payload(&json!({ "order_id": order_id }))),
            request_id: Uuid::new_v4().to_string(),
            signal_name: "events".to_owned(),
            signal_input: Some(json_payload(&json!([{ "id": order_id, "kind": "placed" }]))),
            ..Default::default()
        };
        let mut client = self.client.clone();
        let told = client.signal_with_start_workflow_execution(tonic::Request::new(request));
        told.await.context("start and signal a workflow")?;
        Ok(())
    }
}

fn json_payload(value: &serde_json::Value) -> Payloads {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    let data = value.to_string().into_bytes();
    Payloads { payloads: vec![Payload { metadata, data, ..Default::default() }] }
}
