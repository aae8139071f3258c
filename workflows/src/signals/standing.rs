//! How one order's workflow stands: an open one is asked, a closed one has left its result.

use schemas::OrderId;
use temporalio_client::errors::{
    WorkflowGetResultError, WorkflowInteractionError, WorkflowQueryError,
};
use temporalio_client::{WorkflowDescribeOptions, WorkflowGetResultOptions, WorkflowQueryOptions};
use temporalio_common::protos::temporal::api::enums::v1::WorkflowExecutionStatus;

use super::{SignalError, Supervisor, classify};
use crate::facts::Status;
use crate::order_workflow::{OrderWorkflow, Report, workflow_id};

/// How an order's workflow stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none, or its retention has passed.
    Unknown,
    /// Following the order.
    Open(Report),
    /// The order ended like this.
    Closed(Status),
    /// Ended by somebody else than itself: terminated, cancelled, failed.
    Broken,
}

impl Supervisor {
    /// How the order's workflow stands. An open one is asked through a worker, so one has to be running.
    pub async fn status(&self, order: OrderId) -> Result<Standing, SignalError> {
        self.within_limit(Box::pin(async {
            let client = self.client().await?;
            let handle = client.get_workflow_handle::<OrderWorkflow>(workflow_id(order));
            let described = match handle.describe(WorkflowDescribeOptions::default()).await {
                Ok(described) => described,
                Err(WorkflowInteractionError::NotFound(_)) => return Ok(Standing::Unknown),
                Err(WorkflowInteractionError::Rpc(refusal)) => return Err(classify(&refusal)),
                Err(error) => return Err(SignalError::Transient(error.to_string())),
            };
            let info = described.raw().workflow_execution_info.as_ref();
            match info.map(|info| info.status()) {
                Some(WorkflowExecutionStatus::Completed) => {
                    match handle.get_result(WorkflowGetResultOptions::default()).await {
                        Ok(outcome) => Ok(Standing::Closed(outcome.status)),
                        Err(WorkflowGetResultError::NotFound(_)) => Ok(Standing::Unknown),
                        Err(error) => Err(SignalError::Transient(error.to_string())),
                    }
                }
                Some(WorkflowExecutionStatus::Running) => {
                    let asked =
                        handle.query(OrderWorkflow::status, (), WorkflowQueryOptions::default());
                    match asked.await {
                        Ok(report) => Ok(Standing::Open(report)),
                        Err(WorkflowQueryError::Rpc(refusal)) => Err(classify(&refusal)),
                        Err(error) => Err(SignalError::Transient(error.to_string())),
                    }
                }
                _ => Ok(Standing::Broken),
            }
        }))
        .await
    }
}
