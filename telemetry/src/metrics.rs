//! The registry of a process and its text form.
//!
//! A component owns a struct of families and registers it once; nothing here is global.

mod plain;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// Content type of [`Metrics::encode`].
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// A registry that holds the build info of `process`.
    pub fn new(process: &'static str, version: &'static str) -> Self {
        let mut registry = Registry::default();
        let info = Info::new(vec![("process", process), ("version", version)]);
        registry.register("order_pipeline_build", "What is running; always 1", info);
        Self { registry }
    }

    /// Where components register their families before the process starts to serve.
    pub fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The OpenMetrics text of everything registered.
    pub fn encode(&self) -> String {
        let mut text = String::with_capacity(16 * 1024);
        encode(&mut text, &self.registry).expect("writing to a string never fails");
        text
    }

    /// Everything registered in the format that a reader who sends `accept` wants, with its content type: OpenMetrics,
    /// or the older text for those that know no other.
    pub fn encode_for(&self, accept: &str) -> (&'static str, String) {
        let text = self.encode();
        match plain::is_wanted(accept) {
            true => (plain::CONTENT_TYPE, plain::plain(&text)),
            false => (CONTENT_TYPE, text),
        }
    }
}
