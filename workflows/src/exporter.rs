//! The SDK's own metrics on their own address, named as Prometheus wants them: `_total`, units, seconds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use temporalio_common::telemetry::metrics::{CoreMeter, TemporalMeter};
use temporalio_common::telemetry::{
    HistogramBucketOverrides, PrometheusExporterOptions, TelemetryOptions,
    start_prometheus_metric_exporter, telemetry_init,
};

/// Serves until it is dropped.
pub(crate) struct Exporter {
    meter: Arc<dyn CoreMeter>,
    address: SocketAddr,
    task: tokio::task::AbortHandle,
}

impl Exporter {
    pub(crate) fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let options = PrometheusExporterOptions::builder()
            .socket_addr(address)
            .counters_total_suffix(true)
            .unit_suffix(true)
            .use_seconds_for_durations(true)
            .histogram_bucket_overrides(HistogramBucketOverrides { overrides: buckets() })
            .build();
        let server = start_prometheus_metric_exporter(options)?;
        Ok(Self { meter: server.meter, address: server.bound_addr, task: server.abort_handle })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn telemetry(&self) -> TelemetryOptions {
        TelemetryOptions::builder().metrics(self.meter.clone()).build()
    }

    /// Requests are counted by the connection, which the SDK's runtime does not reach.
    pub(crate) fn client_meter(&self) -> anyhow::Result<Option<TemporalMeter>> {
        let telemetry = telemetry_init(self.telemetry()).context("setting the SDK's meter up")?;
        Ok(telemetry.get_temporal_metric_meter())
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// In seconds. The defaults stop at one second for tasks, which is where trouble begins, and start at 100 ms for whole
/// workflows, whose deadlines are minutes to an hour.
fn buckets() -> HashMap<String, Vec<f64>> {
    let task =
        vec![0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
    let whole =
        vec![0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 86400.0];
    let by_task = [
        "workflow_task_schedule_to_start_latency",
        "workflow_task_execution_latency",
        "workflow_task_replay_latency",
        "activity_schedule_to_start_latency",
        "activity_execution_latency",
        "activity_succeed_endtoend_latency",
        "request_latency",
    ];
    let by_task = by_task.map(|name| (name.to_owned(), task.clone()));
    by_task.into_iter().chain([("workflow_endtoend_latency".to_owned(), whole)]).collect()
}
