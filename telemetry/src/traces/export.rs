//! Gets spans to the collector: a thread of its own, a bounded queue, batches, a limit per attempt. A collector that is away
//! costs its spans and nothing else, and is complained about once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use opentelemetry::InstrumentationScope;
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor};

use super::settings::{Settings, Transport};
use super::{KeyValue, Recorder, Tracer};

/// For what is still in the queue at the end. A collector that is well needs milliseconds; one that is not must not keep a
/// process that has done its work.
const FLUSH: Duration = Duration::from_secs(1);

/// A collector that comes and goes is mentioned this often at most.
const QUIET: Duration = Duration::from_secs(60);

/// Does `work` as the service `name` with a tracer as the environment asks for, and sends what is left at its end. `name` is
/// what `OTEL_SERVICE_NAME` may replace. An error before `work` begins when the variables make no sense.
pub async fn traced<T>(
    (name, version): (&'static str, &'static str),
    work: impl AsyncFnOnce(Tracer) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(settings) = Settings::from_environment().context("reading the settings of traces")?
    else {
        return work(Tracer::off()).await;
    };
    let told = Arc::new(Told::new(settings.endpoint.clone()));
    let recorder = Arc::new(start(settings, told.clone(), name, version)?);
    let result = work(Tracer(Some(recorder.clone()))).await;
    // The processor waits for its thread, which may be in the middle of an attempt.
    let flushing = tokio::task::spawn_blocking(move || recorder.finish(&told));
    flushing.await.context("sending the last spans")?;
    result
}

fn start(
    settings: Settings,
    told: Arc<Told>,
    name: &'static str,
    version: &'static str,
) -> anyhow::Result<Recorder> {
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let exporter = match settings.transport {
        Transport::Http => builder.with_http().build(),
        Transport::Grpc { tls: false } => builder.with_tonic().build(),
        Transport::Grpc { tls: true } => {
            let system_roots = ClientTlsConfig::new().with_enabled_roots();
            builder.with_tonic().with_tls_config(system_roots).build()
        }
    };
    let exporter = exporter.context("setting the export of spans up")?;
    // Queue, batch and pause are the SDK's, with its variables: 2048 spans, 512 at a time, every five seconds at the latest.
    let mut processor = BatchSpanProcessor::builder(Exporter { exporter, told }).build();
    processor.set_resource(&resource(name, version));
    tracing::info!(endpoint = settings.endpoint, "spans go to {}", settings.endpoint);
    Ok(Recorder {
        sampling: settings.sampling,
        processor,
        scope: InstrumentationScope::builder(name).with_version(version).build(),
        recorded: AtomicU64::new(0),
    })
}

fn resource(name: &'static str, version: &'static str) -> Resource {
    let named = Resource::builder().with_attribute(KeyValue::new("service.version", version));
    let resource = named.build();
    let unnamed = resource
        .get(&"service.name".into())
        .is_none_or(|found| found.as_str().starts_with("unknown_service"));
    if !unnamed {
        return resource;
    }
    let attributes = resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty().with_attributes(attributes).with_service_name(name).build()
}

impl Recorder {
    fn finish(&self, told: &Told) {
        if let Err(error) = self.processor.shutdown_with_timeout(FLUSH) {
            told.failed(&error.to_string(), 0);
            return;
        }
        let recorded = self.recorded.load(Ordering::Relaxed);
        let dropped = recorded.saturating_sub(told.handed_over.load(Ordering::Relaxed));
        if dropped > 0 {
            tracing::warn!(
                dropped,
                recorded,
                "{dropped} of {recorded} spans found no room in the queue (OTEL_BSP_MAX_QUEUE_SIZE)"
            );
        }
    }
}

/// The exporter, and who is told how it goes.
#[derive(Debug)]
struct Exporter {
    exporter: opentelemetry_otlp::SpanExporter,
    told: Arc<Told>,
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        self.told.handed_over.fetch_add(spans, Ordering::Relaxed);
        let result = self.exporter.export(batch).await;
        match &result {
            Ok(()) => self.told.succeeded(),
            Err(error) => self.told.failed(&error.to_string(), spans),
        }
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// What the log has been told of the collector.
#[derive(Debug)]
struct Told {
    endpoint: String,
    handed_over: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Spans lost since it was said that they are.
    failing: Option<u64>,
    said: Option<Instant>,
}

impl Told {
    fn new(endpoint: String) -> Self {
        Self { endpoint, handed_over: AtomicU64::new(0), state: Mutex::default() }
    }

    fn failed(&self, error: &str, spans: u64) {
        let mut state = self.state.lock().expect("no code panics while it holds this lock");
        if let Some(lost) = &mut state.failing {
            *lost += spans;
            return;
        }
        if state.said.is_some_and(|said| said.elapsed() < QUIET) {
            return;
        }
        *state = State { failing: Some(spans), said: Some(Instant::now()) };
        tracing::warn!(
            endpoint = self.endpoint,
            error,
            "spans do not reach {}; work goes on, spans are lost until it takes them again",
            self.endpoint
        );
    }

    fn succeeded(&self) {
        let mut state = self.state.lock().expect("no code panics while it holds this lock");
        if let Some(lost) = state.failing.take() {
            tracing::info!(
                endpoint = self.endpoint,
                lost,
                "{} takes spans again; {lost} were lost",
                self.endpoint
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_while_a_collector_is_away_adds_up_and_its_next_absence_stays_unsaid_for_a_while()
     {
        let told = Told::new("http://collector".to_owned());
        let failing = || told.state.lock().unwrap().failing;

        told.failed("refused", 2);
        told.failed("refused", 3);
        assert_eq!(failing(), Some(5));
        told.succeeded();
        assert_eq!(failing(), None);
        told.failed("refused", 7);

        assert_eq!(failing(), None, "it was said a moment ago");
    }
}
