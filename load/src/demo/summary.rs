//! What the demo shows at its end: the auditor's tables, numbers, places to look at, and the verdict as the last line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Write as _, stdout};
use std::time::Duration;

use anyhow::Context;
use consumers::stages::CATALOGUE;
use schemas::Timestamp;
use stack::Stack;

use super::look_at;
use crate::eventually::eventually;
use crate::orders::Client;
use crate::pipeline::{Latency, Tables};
use crate::process::Process;

/// Lag follows the broker's statistics, which come every second.
const LAG_PATIENCE: Duration = Duration::from_secs(15);

/// What was done and measured.
pub(super) struct Summary {
    begun: Timestamp,
    placed: usize,
    cancelled: usize,
    accepting: Duration,
    urls: String,
    statuses: BTreeMap<String, i64>,
    latency: Option<Latency>,
    stages: Vec<StageLine>,
}

struct StageLine {
    name: &'static str,
    applied: f64,
    lag: f64,
}

impl Summary {
    pub(super) fn new(
        begun: Timestamp,
        placed: usize,
        cancelled: usize,
        accepting: Duration,
        client: &Client,
        programs: &[Process],
    ) -> Self {
        let mut urls = look_at(&client.url("/orders"), "the orders");
        urls += &look_at(&client.url("/orders?status=declined"), "those that were declined");
        urls += &look_at(&client.url("/openapi.json"), "the API");
        for program in programs {
            let metrics = format!("http://{}/metrics", program.admin());
            urls += &look_at(&metrics, &format!("metrics of order-{}", program.name()));
        }
        Self {
            begun,
            placed,
            cancelled,
            accepting,
            urls,
            statuses: BTreeMap::new(),
            latency: None,
            stages: Vec::new(),
        }
    }

    /// Where to look at workflows, series and alerts.
    pub(super) fn look_at_servers(&mut self, stack: &Stack) -> anyhow::Result<()> {
        let pages = [
            ("TEMPORAL_UI_URL", "", "their workflows, in Temporal"),
            ("PROMETHEUS_URL", "/graph", "the metrics, in Prometheus"),
            ("PROMETHEUS_URL", "/alerts", "the alerts"),
            ("ALERTMANAGER_URL", "", "who hears of them"),
        ];
        let env = stack.env()?;
        for (name, path, what) in pages {
            if let Some((_, url)) = env.iter().find(|(known, _)| *known == name) {
                self.urls += &look_at(&format!("{url}{path}"), what);
            }
        }
        Ok(())
    }

    /// Asks the database and the metrics.
    pub(super) async fn measure(
        &mut self,
        tables: &mut Tables,
        consumer: &Process,
    ) -> anyhow::Result<()> {
        self.statuses = tables.orders_by_status().await?;
        self.latency = tables.latency(self.begun.as_micros()).await?;
        for stage in CATALOGUE {
            let name = stage.name;
            let what = format!("the lag of {name} is 0");
            let lag = eventually(LAG_PATIENCE, &what, async || {
                let group = format!("orders.{name}");
                let lag = consumer
                    .metric("kafka_consumergroup_lag", &[("consumergroup", &group)])
                    .await?;
                anyhow::ensure!(lag == Some(0.0), "it is {lag:?}");
                Ok(0.0)
            });
            let lag = lag.await?;
            let labels = [("stage", name), ("outcome", "applied")];
            let applied = consumer.metric("stage_events_total", &labels).await?.unwrap_or(0.0);
            self.stages.push(StageLine { name, applied, lag });
        }
        Ok(())
    }

    /// Everything on standard output, `verdict` last.
    pub(super) fn print(&self, report: &str, verdict: &str) -> anyhow::Result<()> {
        let mut text = format!("{}\n\n", report.trim_end());
        // Writing to a string never fails.
        self.write(&mut text).context("write the summary")?;
        text.push_str(verdict);
        text.push('\n');
        let mut out = stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write the summary")
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{:<20}{:>10}", "status", "orders")?;
        for (status, orders) in self.statuses.iter().filter(|(_, orders)| **orders != 0) {
            writeln!(text, "{status:<20}{orders:>10}")?;
        }
        writeln!(text, "\n{:<20}{:>10}{:>10}", "stage", "events", "lag")?;
        for StageLine { name, applied, lag } in &self.stages {
            writeln!(text, "{name:<20}{applied:>10}{lag:>10}")?;
        }
        let seconds = self.accepting.as_secs_f64();
        let rate = self.placed as f64 / seconds.max(0.001);
        writeln!(
            text,
            "\naccepted            {} orders in {seconds:.1} s, {rate:.0}/s; {} to be cancelled",
            self.placed, self.cancelled
        )?;
        if let Some(Latency { p50_seconds, p95_seconds, span_seconds }) = self.latency {
            let rate = self.placed as f64 / span_seconds.max(0.001);
            writeln!(
                text,
                "accepted to final   p50 {p50_seconds:.3} s, p95 {p95_seconds:.3} s; {rate:.0}/s in all"
            )?;
        }
        writeln!(text, "\n{}", self.urls)
    }
}
