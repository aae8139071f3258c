//! An order's trace through Temporal: it comes with the signal, waits in the workflow, and goes on with each activity, in
//! the header that Temporal's own SDKs use.
//!
//! Nothing is decided by it and nothing but headers changes, which replay does not look at: histories with and without
//! trace replay alike. The SDK's own plugin is experimental and wants its client; signals here are plain requests.

use std::cell::RefCell;
use std::collections::HashMap;

use telemetry::TraceContext;
use temporalio_common::protos::temporal::api::common::v1::{Header, Payload};
use temporalio_sdk::workflow_interceptors::{
    CancellableWorkflowOutboundFuture, ContinueAsNewInput, ContinueAsNewResult, HandleSignalInput,
    HandleSignalResult, InitializeWorkflowInput, InitializeWorkflowOutput, ScheduleActivityInput,
    ScheduleActivityResult, SyncWorkflowInterceptorContext, WorkflowInterceptor,
    WorkflowInterceptorConstructor, WorkflowInterceptorContext, WorkflowInterceptorFuture,
    WorkflowNext,
};
use temporalio_workflow::WorkflowContextView;

/// What Temporal's SDKs call the header.
const HEADER: &str = "_tracer-data";

/// The header of a signal that goes on from `trace`.
pub(crate) fn header(trace: &TraceContext) -> Header {
    let data = format!(r#"{{"traceparent":"{}"}}"#, trace.as_str()).into_bytes();
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    let payload = Payload { metadata, data, ..Default::default() };
    Header { fields: [(HEADER.to_owned(), payload)].into() }
}

/// Where an activity with these headers goes on from.
pub(crate) fn of_headers(headers: &HashMap<String, Payload>) -> Option<TraceContext> {
    let fields: HashMap<String, serde_json::Value> =
        serde_json::from_slice(&headers.get(HEADER)?.data).ok()?;
    TraceContext::parse(fields.get("traceparent")?.as_str()?.as_bytes())
}

/// Makes workflows pass their trace on.
pub fn passing_it_on() -> WorkflowInterceptorConstructor {
    WorkflowInterceptorConstructor::new(|_: &WorkflowContextView| PassOn::default())
}

/// Of one workflow in memory; replay brings it to the same state.
#[derive(Default)]
struct PassOn {
    /// As it came with the latest signal, or from the run before.
    heard: RefCell<Option<Payload>>,
}

impl PassOn {
    fn hear(&self, headers: &HashMap<String, Payload>) {
        if let Some(payload) = headers.get(HEADER) {
            *self.heard.borrow_mut() = Some(payload.clone());
        }
    }

    fn pass_on(&self, headers: &mut HashMap<String, Payload>) {
        let heard = self.heard.borrow().clone();
        headers.extend(heard.map(|payload| (HEADER.to_owned(), payload)));
    }
}

impl WorkflowInterceptor for PassOn {
    fn initialize_workflow(
        &self,
        _: WorkflowContextView,
        input: InitializeWorkflowInput,
        next: WorkflowNext<'_, InitializeWorkflowInput, InitializeWorkflowOutput>,
    ) -> InitializeWorkflowOutput {
        self.hear(input.headers());
        next.run(input)
    }

    fn handle_signal<'a>(
        &'a self,
        _: WorkflowInterceptorContext,
        input: HandleSignalInput,
        next: WorkflowNext<
            'a,
            HandleSignalInput,
            WorkflowInterceptorFuture<'a, HandleSignalResult>,
        >,
    ) -> WorkflowInterceptorFuture<'a, HandleSignalResult> {
        self.hear(input.headers());
        next.run(input)
    }

    fn schedule_activity(
        &self,
        _: WorkflowInterceptorContext,
        mut input: ScheduleActivityInput,
        next: WorkflowNext<
            'static,
            ScheduleActivityInput,
            CancellableWorkflowOutboundFuture<ScheduleActivityResult>,
        >,
    ) -> CancellableWorkflowOutboundFuture<ScheduleActivityResult> {
        self.pass_on(input.headers_mut());
        next.run(input)
    }

    fn continue_as_new(
        &self,
        _: SyncWorkflowInterceptorContext,
        mut input: ContinueAsNewInput,
        next: WorkflowNext<'static, ContinueAsNewInput, ContinueAsNewResult>,
    ) -> ContinueAsNewResult {
        self.pass_on(input.headers_mut());
        next.run(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_brings_back_what_was_put_in_and_nonsense_brings_nothing() {
        let trace = TraceContext::fresh();

        let mut fields = header(&trace).fields;

        assert_eq!(of_headers(&fields), Some(trace));
        for data in ["", "{}", r#"{"traceparent":1}"#, r#"{"traceparent":"00-1-2-3"}"#] {
            fields.get_mut(HEADER).unwrap().data = data.into();
            assert_eq!(of_headers(&fields), None, "{data}");
        }
        assert_eq!(of_headers(&HashMap::new()), None);
    }
}
