//! Every supervised order, by visibility. Visibility follows the workflows by a moment: what it says is a hint for an
//! auditor to check, not the last word.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use schemas::OrderId;
use temporalio_client::grpc::WorkflowService;
use temporalio_common::protos::temporal::api::enums::v1::WorkflowExecutionStatus;
use temporalio_common::protos::temporal::api::workflow::v1::WorkflowExecutionInfo;
use temporalio_common::protos::temporal::api::workflowservice::v1::ListWorkflowExecutionsRequest;

use super::{SignalError, Supervisor, classify};
use crate::order_workflow::{TYPE, order_of};

/// One order's workflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Supervised {
    /// The order.
    pub order: OrderId,
    /// How the workflow closed; `None` while it is open.
    pub closed: Option<Closing>,
    /// When its latest run began.
    pub started_at: SystemTime,
}

/// How a workflow closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "Temporal's own words")]
pub enum Closing {
    Completed,
    Failed,
    Canceled,
    Terminated,
    TimedOut,
}

/// As many as the server gives at once.
const PAGE: i32 = 1000;

impl Supervisor {
    /// Every order that has a workflow on this task queue, one line per order.
    pub async fn open_and_closed(&self) -> Result<Vec<Supervised>, SignalError> {
        let mut found = Vec::new();
        let mut next_page_token = Vec::new();
        loop {
            let request = ListWorkflowExecutionsRequest {
                namespace: self.shared.settings.namespace().to_owned(),
                page_size: PAGE,
                next_page_token,
                query: format!(
                    "WorkflowType = '{TYPE}' and TaskQueue = '{}' and ExecutionStatus != 'ContinuedAsNew'",
                    self.shared.options.task_queue
                ),
            };
            let page = self.within_limit(Box::pin(async {
                let mut client = self.client().await?;
                let listed = client.list_workflow_executions(tonic::Request::new(request)).await;
                listed.map_err(|refusal| classify(&refusal))
            }));
            let page = page.await?.into_inner();
            found.extend(page.executions.iter().filter_map(supervised));
            next_page_token = page.next_page_token;
            if next_page_token.is_empty() {
                return Ok(found);
            }
        }
    }
}

/// `None` for a workflow of another's making, whose id is not an order's.
fn supervised(info: &WorkflowExecutionInfo) -> Option<Supervised> {
    let order = order_of(&info.execution.as_ref()?.workflow_id)?;
    let started = info.start_time.as_ref()?;
    let seconds = Duration::from_secs(u64::try_from(started.seconds).ok()?);
    let started_at =
        UNIX_EPOCH + seconds + Duration::from_nanos(u64::try_from(started.nanos).ok()?);
    Some(Supervised { order, closed: closing(info.status()), started_at })
}

fn closing(status: WorkflowExecutionStatus) -> Option<Closing> {
    match status {
        WorkflowExecutionStatus::Completed => Some(Closing::Completed),
        WorkflowExecutionStatus::Failed => Some(Closing::Failed),
        WorkflowExecutionStatus::Canceled => Some(Closing::Canceled),
        WorkflowExecutionStatus::Terminated => Some(Closing::Terminated),
        WorkflowExecutionStatus::TimedOut => Some(Closing::TimedOut),
        _ => None,
    }
}
