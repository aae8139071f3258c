//! What this component counts.
//!
//! Every label comes from a closed set: no path, id or error text ever becomes one. A series exists from the first
//! request that needs it, and is then reached without a look-up.

use std::sync::OnceLock;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use telemetry::TraceContext;

/// A route of the API; its name is the template, never the path that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the templates say it")]
pub enum Endpoint {
    Orders,
    Batch,
    Order,
    Events,
    Cancel,
    OpenApi,
    Live,
    Ready,
    Other,
}

/// Who sends `{method, endpoint, status}`: 4 × 9 × 19 series at the very most, about 30 in practice.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    method: &'static str,
    endpoint: &'static str,
    status: u16,
}

/// The trace of an exemplar.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TraceLabel {
    trace_id: String,
}

type Durations = HistogramWithExemplars<TraceLabel>;

/// The metrics of the HTTP API.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: Family<Labels, Counter>,
    durations: Family<Labels, Durations, fn() -> Durations>,
    resolved: Vec<OnceLock<Series>>,
}

/// The metrics of taking orders in.
#[derive(Clone, Debug)]
pub struct IntakeMetrics {
    orders_created: Counter,
}

#[derive(Debug)]
struct Series {
    requests: Counter,
    durations: Durations,
}

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "other"];

/// Every status this API answers. 499 is an answer nobody waited for; 0 would be a mistake in this list.
const STATUSES: [u16; 19] =
    [200, 202, 400, 404, 405, 408, 409, 411, 413, 415, 417, 422, 429, 431, 499, 500, 503, 504, 0];

/// Around what is promised: an acknowledged write in milliseconds, the deadline at ten seconds, a long poll of thirty.
const BUCKETS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

impl Endpoint {
    const COUNT: usize = 9;

    /// The route template.
    pub const fn template(self) -> &'static str {
        match self {
            Self::Orders => "/orders",
            Self::Batch => "/orders/batch",
            Self::Order => "/orders/{id}",
            Self::Events => "/orders/{id}/events",
            Self::Cancel => "/orders/{id}/cancel",
            Self::OpenApi => "/openapi.json",
            Self::Live => "/livez",
            Self::Ready => "/readyz",
            Self::Other => "other",
        }
    }

    /// The template as a span names it: only of what is a route.
    pub(crate) fn route(self) -> Option<&'static str> {
        (self != Self::Other).then(|| self.template())
    }
}

impl HttpMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        let requests = Family::default();
        let durations = Family::new_with_constructor(
            (|| HistogramWithExemplars::new(BUCKETS.into_iter())) as fn() -> Durations,
        );
        registry.register("http_requests", "HTTP requests answered", requests.clone());
        registry.register(
            "http_request_duration_seconds",
            "Time from a request's headers to its answer",
            durations.clone(),
        );
        let series = METHODS.len() * Endpoint::COUNT * STATUSES.len();
        let metrics =
            Self { requests, durations, resolved: (0..series).map(|_| OnceLock::new()).collect() };
        // Rates and error ratios of the main road exist before its first request.
        metrics.series(&Method::POST, Endpoint::Orders, StatusCode::ACCEPTED);
        metrics.series(&Method::POST, Endpoint::Orders, StatusCode::SERVICE_UNAVAILABLE);
        metrics
    }

    /// A request was answered.
    pub fn answered(
        &self,
        method: &Method,
        endpoint: Endpoint,
        status: StatusCode,
        duration: Duration,
        trace: Option<&TraceContext>,
    ) {
        let series = self.series(method, endpoint, status);
        series.requests.inc();
        // An exemplar leads to a trace: one that nobody records leads nowhere.
        let exemplar = trace
            .filter(|trace| trace.is_sampled())
            .map(|trace| TraceLabel { trace_id: trace.trace_id().to_owned() });
        series.durations.observe(duration.as_secs_f64(), exemplar, None);
    }

    fn series(&self, method: &Method, endpoint: Endpoint, status: StatusCode) -> &Series {
        let method = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            _ => 3,
        };
        let code = status.as_u16();
        let status = STATUSES.iter().position(|&known| known == code).unwrap_or(STATUSES.len() - 1);
        let index = (endpoint as usize * METHODS.len() + method) * STATUSES.len() + status;
        self.resolved[index].get_or_init(|| {
            let labels = Labels {
                method: METHODS[method],
                endpoint: endpoint.template(),
                status: STATUSES[status],
            };
            Series {
                requests: self.requests.get_or_create_owned(&labels),
                durations: self.durations.get_or_create_owned(&labels),
            }
        })
    }
}

impl IntakeMetrics {
    /// Registers the families.
    pub fn register(registry: &mut Registry) -> Self {
        let orders_created = Counter::default();
        registry.register(
            "orders_created",
            "Orders accepted: the broker holds them",
            orders_created.clone(),
        );
        Self { orders_created }
    }

    /// The broker acknowledged `orders`.
    pub fn created(&self, orders: u64) {
        self.orders_created.inc_by(orders);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Every series but sums and buckets, which follow their counts.
    fn page(registry: &Registry) -> BTreeMap<String, f64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples =
            samples.map(|line| line.split(" # ").next().unwrap().rsplit_once(' ').unwrap());
        samples
            .filter(|(series, _)| !series.contains("_bucket{") && !series.contains("_sum{"))
            .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
            .collect()
    }

    /// What `act` moves, and by how much; a series that is new began at zero.
    fn moved(registry: &Registry, act: impl FnOnce()) -> Vec<(String, f64)> {
        let before = page(registry);
        act();
        let by = |series: &str, value: f64| value - before.get(series).copied().unwrap_or(0.0);
        let after = page(registry).into_iter();
        let moved = after.map(|(series, value)| (by(&series, value), series));
        moved.filter(|(by, _)| *by != 0.0).map(|(by, series)| (series, by)).collect()
    }

    #[test]
    fn an_answer_moves_its_own_count_and_duration_and_nothing_else() {
        let mut registry = Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        let _created = IntakeMetrics::register(&mut registry);

        let moved = moved(&registry, || {
            for (method, status) in [(Method::POST, 202), (Method::POST, 202), (Method::PUT, 405)] {
                let status = StatusCode::from_u16(status).unwrap();
                metrics.answered(&method, Endpoint::Orders, status, Duration::ZERO, None);
            }
        });

        let posted = r#"{method="POST",endpoint="/orders",status="202"}"#;
        let put = r#"{method="other",endpoint="/orders",status="405"}"#;
        let expected = [
            (format!("http_request_duration_seconds_count{posted}"), 2.0),
            (format!("http_request_duration_seconds_count{put}"), 1.0),
            (format!("http_requests_total{posted}"), 2.0),
            (format!("http_requests_total{put}"), 1.0),
        ];
        assert_eq!(moved, expected);
    }

    #[test]
    fn orders_that_were_acknowledged_are_counted_and_nothing_else() {
        let mut registry = Registry::default();
        let _http = HttpMetrics::register(&mut registry);
        let metrics = IntakeMetrics::register(&mut registry);

        let moved = moved(&registry, || metrics.created(3));

        assert_eq!(moved, [("orders_created_total".to_owned(), 3.0)]);
    }

    #[test]
    fn a_trace_is_an_exemplar_and_no_label() {
        let mut registry = Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        let before = page(&registry).len();
        for _ in 0..100 {
            let trace = TraceContext::fresh();
            let (method, status) = (Method::POST, StatusCode::ACCEPTED);
            metrics.answered(&method, Endpoint::Orders, status, Duration::ZERO, Some(&trace));
        }

        assert_eq!(page(&registry).len(), before);
    }

    #[test]
    fn requests_of_any_method_path_and_status_make_a_bounded_number_of_series() {
        let mut registry = Registry::default();
        let metrics = HttpMetrics::register(&mut registry);
        for n in 0..10_000u32 {
            let method = Method::from_bytes(format!("M{n}").as_bytes()).unwrap();
            let status = StatusCode::from_u16(100 + (n % 900) as u16).unwrap();
            metrics.answered(&method, Endpoint::Other, status, Duration::ZERO, None);
        }

        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();

        let series = text.lines().filter(|line| line.starts_with("http_requests_total{")).count();
        assert!(series <= 2 + STATUSES.len(), "{series}");
        assert!(text.contains(r#"method="POST",endpoint="/orders",status="202"} 0"#), "{text}");
    }
}
