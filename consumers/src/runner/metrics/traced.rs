//! Histograms with exemplars: an observation may name the trace it belongs to, never a label of a series.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use telemetry::TraceContext;

use super::{ORDER_SECONDS, PROCESSING_SECONDS};
use crate::stage::Received;

/// Names the trace of an observation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TraceLabel {
    trace_id: String,
}

pub(super) type Traced = HistogramWithExemplars<TraceLabel>;

pub(super) fn processing_seconds() -> Traced {
    HistogramWithExemplars::new(PROCESSING_SECONDS.into_iter())
}

pub(super) fn order_seconds() -> Traced {
    HistogramWithExemplars::new(ORDER_SECONDS.into_iter())
}

/// The trace that an event belongs to, if somebody records it: an exemplar that leads nowhere helps nobody.
pub(super) fn trace_label(received: &Received) -> Option<TraceLabel> {
    let text = received.traceparent.as_deref().filter(|text| TraceContext::may_be_sampled(text))?;
    let trace = TraceContext::parse(text.as_bytes())?;
    Some(TraceLabel { trace_id: trace.trace_id().to_owned() })
}
