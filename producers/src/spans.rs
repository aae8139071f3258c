//! Spans as OpenTelemetry's conventions want them for HTTP, messaging and databases (semantic conventions 1.38): what a
//! request was, what it asked Postgres, and what became of an event on its way to a topic.

mod select;

use std::borrow::Cow;
use std::time::SystemTime;

use axum::http::{Method, StatusCode};
use schemas::{EventId, EventType, OrderId};
use telemetry::traces::{KeyValue, Parent, Span, SpanKind};
use telemetry::{TraceContext, Tracer};

pub(crate) use self::select::Select;

use crate::metrics::Endpoint;

/// Events of one request, or of one batch of a stage, that have a span of their own: as many as a span may have links by
/// OpenTelemetry's default. Beyond that a trace is a list nobody reads, and writing it down would cost what the batch saved.
pub const FOLLOWED: usize = 128;

/// A request that was answered.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) caller: Option<TraceContext>,
    pub(crate) trace: TraceContext,
    pub(crate) method: &'a Method,
    pub(crate) endpoint: Endpoint,
    pub(crate) path: String,
    pub(crate) status: StatusCode,
    pub(crate) began: SystemTime,
}

impl Request<'_> {
    pub(crate) fn record(self, tracer: &Tracer) {
        let method = match *self.method {
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::PATCH => {
                self.method.as_str()
            }
            Method::DELETE | Method::OPTIONS | Method::TRACE | Method::CONNECT => {
                self.method.as_str()
            }
            // A closed set: anybody can make a method up.
            _ => "_OTHER",
        };
        let route = self.endpoint.route();
        let name = match (route, method) {
            (Some(route), "_OTHER") => format!("HTTP {route}"),
            (Some(route), method) => format!("{method} {route}"),
            (None, "_OTHER") => "HTTP".to_owned(),
            (None, method) => method.to_owned(),
        };
        let parent = self.caller.map_or(Parent::None, Parent::Elsewhere);
        let times = (self.began, SystemTime::now());
        let mut span = Span::new(self.trace, parent, name, SpanKind::Server, times);
        span.attributes = vec![
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("http.response.status_code", i64::from(self.status.as_u16())),
            KeyValue::new("url.path", self.path),
            KeyValue::new("url.scheme", "http"),
        ];
        span.attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
        if self.status.is_server_error() || self.status.as_u16() == 499 {
            let status = self.status.as_u16().to_string();
            span.attributes.push(KeyValue::new("error.type", status));
            span.error = Some(Cow::Borrowed("")); // the status says it
        }
        tracer.record(span);
    }
}

/// An event on its way to a topic.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// What it says.
    pub event_type: EventType,
    /// The order, which is its key.
    pub order_id: OrderId,
    /// Its own place, which its readers go on from.
    pub place: TraceContext,
}

impl Event {
    /// Tells that it was handed over to `topic` at `began`; `error` is why it is not known to be written.
    pub fn sent(
        &self,
        tracer: &Tracer,
        topic: &str,
        parent: Parent,
        began: SystemTime,
        error: Option<&'static str>,
    ) {
        if !tracer.records(&self.place) {
            return;
        }
        let (name, times) = (format!("send {topic}"), (began, SystemTime::now()));
        let mut span = Span::new(self.place, parent, name, SpanKind::Producer, times);
        span.attributes = messaging("send", topic);
        span.attributes.extend(self.attributes());
        if let Some(error) = error {
            span.attributes.push(KeyValue::new("error.type", error));
            span.error = Some(Cow::Borrowed("the broker did not acknowledge the event"));
        }
        tracer.record(span);
    }

    /// What names it.
    pub fn attributes(&self) -> [KeyValue; 3] {
        [
            KeyValue::new("messaging.message.id", self.id.to_string()),
            KeyValue::new("messaging.kafka.message.key", self.order_id.to_string()),
            KeyValue::new("cloudevents.event_type", self.event_type.as_str()),
        ]
    }
}

/// What is done to messages of `topic`: `send` or `process`.
pub fn messaging(operation: &'static str, topic: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", "kafka"),
        KeyValue::new("messaging.operation.type", operation),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.destination.name", topic.to_owned()),
    ]
}

/// What is done in a database of Postgres.
pub fn postgres(database: &str, operation: &'static str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("db.system.name", "postgresql"),
        KeyValue::new("db.namespace", database.to_owned()),
        KeyValue::new("db.operation.name", operation),
    ]
}
