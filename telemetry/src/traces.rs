//! Traces: spans are measured by whoever does the work, and leave over OTLP when a collector is named in the environment.
//!
//! A span is written down once, after the fact, under an id that was given out before: a batch tells its effects' ids in the
//! transaction and learns only at the commit whether it happened. The SDK's own tracer draws the id when a span starts and
//! cannot do that, so spans are handed to its batch processor as data; sampling, batching, export and resources are the SDK's.
//!
//! Promises: without an endpoint nothing is kept and nothing is sent; with one, no caller ever waits. What does not fit into
//! the processor's queue is dropped and counted. Knows nothing of Kafka, SQL or orders.

mod context;
mod export;
mod settings;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{Link, SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};

pub use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind;

pub use self::context::TraceContext;
pub use self::export::traced;
pub use self::settings::HELP;

use self::settings::Sampling;

/// Decides what is recorded, and takes what was. Clones share everything.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Option<Arc<Recorder>>);

#[derive(Debug)]
struct Recorder {
    sampling: Sampling,
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    recorded: AtomicU64,
}

/// A piece of work, done.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its own place, as it was told to others.
    pub context: TraceContext,
    /// What it is part of.
    pub parent: Parent,
    /// From a small set: no ids.
    pub name: Cow<'static, str>,
    /// Its part in a call.
    pub kind: SpanKind,
    /// When it began.
    pub start: SystemTime,
    /// When it was done.
    pub end: SystemTime,
    /// As OpenTelemetry's conventions name them.
    pub attributes: Vec<KeyValue>,
    /// What else it follows from.
    pub links: Vec<TraceContext>,
    /// What went wrong, in words; `None` when nothing did.
    pub error: Option<Cow<'static, str>>,
}

/// What a span is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// It opens its trace.
    None,
    /// A span of this process.
    Here(TraceContext),
    /// A span of whoever called or wrote.
    Elsewhere(TraceContext),
}

impl Tracer {
    /// Records nothing; decisions of others are passed on.
    pub fn off() -> Self {
        Self::default()
    }

    /// Whether anything can be recorded.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The place of work that begins here: part of the trace of `caller`, or of a new one. Its flag says whether it is
    /// recorded, by the configured sampler; when nothing is, `caller` goes on as it came.
    pub fn enter(&self, caller: Option<&TraceContext>) -> TraceContext {
        let Some(recorder) = &self.0 else {
            return caller.copied().unwrap_or_else(TraceContext::fresh);
        };
        match caller {
            Some(caller) if recorder.sampling.follows(caller) => caller.child().sampled(true),
            Some(caller) => caller.sampled(false),
            None => {
                let fresh = TraceContext::fresh();
                fresh.sampled(recorder.sampling.opens(trace_id(&fresh)))
            }
        }
    }

    /// Whether work asked for by a `traceparent` of this text can be recorded: a glance for those who read many.
    pub fn may_follow(&self, traceparent: &str) -> bool {
        self.0.as_ref().is_some_and(|recorder| recorder.sampling.may_follow(traceparent))
    }

    /// Whether a span at this place is kept.
    pub fn records(&self, place: &TraceContext) -> bool {
        self.0.is_some() && place.is_sampled()
    }

    /// The place of a part of `whole`; the same place when nothing is kept there.
    pub fn part_of(&self, whole: &TraceContext) -> TraceContext {
        if self.records(whole) { whole.child() } else { *whole }
    }

    /// Keeps `span`, if it is to be recorded. Never waits.
    pub fn record(&self, span: Span) {
        if let Some(recorder) = self.0.as_ref().filter(|_| span.context.is_sampled()) {
            recorder.recorded.fetch_add(1, Ordering::Relaxed);
            recorder.processor.on_end(span.into_data(&recorder.scope));
        }
    }
}

impl Span {
    /// A span without attributes, links or error.
    pub fn new(
        context: TraceContext,
        parent: Parent,
        name: impl Into<Cow<'static, str>>,
        kind: SpanKind,
        (start, end): (SystemTime, SystemTime),
    ) -> Self {
        let (attributes, links) = (Vec::new(), Vec::new());
        Self {
            context,
            parent,
            name: name.into(),
            kind,
            start,
            end,
            attributes,
            links,
            error: None,
        }
    }

    fn into_data(self, scope: &InstrumentationScope) -> SpanData {
        let (parent_span_id, parent_span_is_remote) = match &self.parent {
            Parent::None => (SpanId::INVALID, false),
            Parent::Here(parent) => (span_id(parent), false),
            Parent::Elsewhere(parent) => (span_id(parent), true),
        };
        let mut links = SpanLinks::default();
        links.links = self.links.iter().map(|to| Link::with_context(wire(to, true))).collect();
        SpanData {
            span_context: wire(&self.context, false),
            parent_span_id,
            parent_span_is_remote,
            span_kind: self.kind,
            name: self.name,
            start_time: self.start,
            // The clock may have been set back meanwhile.
            end_time: self.end.max(self.start),
            attributes: self.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links,
            status: self.error.map_or(Status::Unset, |description| Status::Error { description }),
            instrumentation_scope: scope.clone(),
        }
    }
}

fn wire(place: &TraceContext, remote: bool) -> SpanContext {
    let flags = TraceFlags::new(place.flags());
    SpanContext::new(trace_id(place), span_id(place), flags, remote, TraceState::NONE)
}

fn trace_id(place: &TraceContext) -> TraceId {
    TraceId::from_hex(place.trace_id()).expect("a trace id is 32 hexadecimal digits")
}

fn span_id(place: &TraceContext) -> SpanId {
    SpanId::from_hex(place.span_id()).expect("a span id is 16 hexadecimal digits")
}
