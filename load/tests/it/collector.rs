//! A collector that speaks OTLP with the official types, over HTTP and over gRPC, and keeps what it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use load::eventually::eventually;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message;
use tokio::net::TcpListener;

/// From a span's end to the collector: the processor's pause, and a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the programs are told, so that a test need not wait for five seconds.
pub(crate) const HASTY: (&str, &str) = ("OTEL_BSP_SCHEDULE_DELAY", "200");

/// Keeps spans; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    headers: Vec<HeaderMap>,
}

/// A span as it came, ids in hexadecimal digits.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) service: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) nanoseconds: u64,
    pub(crate) attributes: BTreeMap<String, String>,
    /// Trace and span of each.
    pub(crate) links: Vec<(String, String)>,
    pub(crate) failed: bool,
}

impl Collector {
    /// Listens for OTLP over HTTP. The URL is what `OTEL_EXPORTER_OTLP_ENDPOINT` wants.
    pub(crate) async fn over_http() -> (Self, String) {
        let this = Self::default();
        let (listener, address) = listen().await;
        let routes = Router::new().route("/v1/traces", post(take)).with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (this, format!("http://{address}"))
    }

    /// Listens for OTLP over gRPC.
    pub(crate) async fn over_grpc() -> (Self, String) {
        let this = Self::default();
        let (listener, address) = listen().await;
        let collector = this.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(converse(stream, collector.clone()));
            }
        });
        (this, format!("http://{address}"))
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap().spans.clone()
    }

    /// Headers of the exports.
    pub(crate) fn headers(&self) -> Vec<HeaderMap> {
        self.0.lock().unwrap().headers.clone()
    }

    /// Waits for spans that satisfy `enough`, and returns all there are.
    pub(crate) async fn until(&self, what: &str, enough: impl Fn(&[Span]) -> bool) -> Vec<Span> {
        eventually(PATIENCE, what, async || {
            let spans = self.spans();
            anyhow::ensure!(enough(&spans), "{}", outline(&spans));
            Ok(spans)
        })
        .await
        .unwrap()
    }

    fn keep(&self, headers: HeaderMap, request: ExportTraceServiceRequest) {
        let mut received = self.0.lock().unwrap();
        received.headers.push(headers);
        for of_resource in request.resource_spans {
            let resource = of_resource.resource.unwrap_or_default();
            let service = texts(&resource.attributes).remove("service.name").unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                received.spans.push(Span {
                    service: service.clone(),
                    kind: span.kind(),
                    nanoseconds: span.end_time_unix_nano - span.start_time_unix_nano,
                    trace: hex(&span.trace_id),
                    id: hex(&span.span_id),
                    parent: hex(&span.parent_span_id),
                    attributes: texts(&span.attributes),
                    links: span
                        .links
                        .iter()
                        .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
                        .collect(),
                    failed: span.status.is_some_and(|status| status.code() == StatusCode::Error),
                    name: span.name,
                });
            }
        }
    }
}

impl Span {
    pub(crate) fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// The stage that processed, without the topic prefix.
    pub(crate) fn stage(&self) -> &str {
        self.attribute("messaging.consumer.group.name").rsplit('.').next().unwrap_or_default()
    }
}

/// Spans of `trace` whose parent is not among `spans`.
pub(crate) fn orphans<'a>(spans: &'a [Span], trace: &str) -> Vec<&'a Span> {
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    spans.iter().filter(|span| span.trace == trace && !ids.contains(&*span.parent)).collect()
}

fn outline(spans: &[Span]) -> String {
    let lines = spans.iter().map(|span| {
        let Span { service, name, trace, id, parent, .. } = span;
        format!("{service} {}: {name} {trace} {id} <- {parent}", span.stage())
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) {
    collector.keep(headers, ExportTraceServiceRequest::decode(body).unwrap());
}

/// As little of gRPC as a unary call needs: a length before the message, a status behind the answer.
async fn converse(stream: tokio::net::TcpStream, collector: Collector) {
    const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut answer))) = connection.accept().await {
        let collector = collector.clone();
        tokio::spawn(async move {
            assert_eq!(request.uri().path(), PATH);
            let (head, mut body) = request.into_parts();
            let mut message = Vec::new();
            while let Some(part) = body.data().await {
                let part = part.unwrap();
                body.flow_control().release_capacity(part.len()).unwrap();
                message.extend_from_slice(&part);
            }
            collector.keep(head.headers, ExportTraceServiceRequest::decode(&message[5..]).unwrap());
            let response = axum::http::Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let mut send = answer.send_response(response, false).unwrap();
            send.send_data(Bytes::from_static(&[0; 5]), false).unwrap();
            let status = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
            send.send_trailers(status.into_iter().collect()).unwrap();
        });
    }
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes
        .iter()
        .filter_map(|attribute| {
            let value = attribute.value.as_ref()?.value.as_ref()?;
            Some((attribute.key.clone(), text(value)))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
