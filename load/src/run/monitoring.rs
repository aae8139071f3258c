//! A run in Prometheus: when it began and what came of it, pushed under its name, and the alerts that fired meanwhile.
//!
//! Promises that nothing of a run stays at the Pushgateway: once Prometheus has scraped the figures, they are removed.
//! What Prometheus has read stays as long as everything else there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::{Client, Method, Url};
use schemas::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::observed::{Observed, Quantiles};
use crate::eventually::eventually;

const JOB: &str = "order_load";
/// A server that does not answer in this time must not hold a run up.
const PATIENCE: Duration = Duration::from_secs(10);
/// Some scrapes at the intervals that people use.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(150);
/// Fine enough to see an alert that fired for one evaluation.
const STEP_SECONDS: u32 = 5;

/// Where a run is seen by others.
#[derive(Debug)]
pub(crate) struct Monitoring {
    http: Client,
    prometheus: Url,
    gateway: Option<Url>,
}

/// An alert that fired during a run, and not yet when it began.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Fired {
    pub(crate) name: String,
    pub(crate) severity: String,
}

impl Monitoring {
    /// `gateway` is where figures are pushed to, if they are.
    pub(crate) fn new(prometheus: &str, gateway: Option<&str>) -> anyhow::Result<Self> {
        let url = |text: &str| -> anyhow::Result<Url> {
            let url: Url = text.parse().with_context(|| format!("read the URL {text}"))?;
            ensure!(!url.cannot_be_a_base(), "{text} is no URL of a server");
            Ok(url)
        };
        Ok(Self {
            http: Client::builder().timeout(PATIENCE).build().context("build an HTTP client")?,
            prometheus: url(prometheus)?,
            gateway: gateway.map(url).transpose()?,
        })
    }

    /// Tells that a run begins.
    pub(crate) async fn begun(&self, run: &str, at: Timestamp) -> anyhow::Result<()> {
        let mut text = String::new();
        gauge(
            &mut text,
            "load_run_started_timestamp_seconds",
            "When the run began",
            &[("", seconds(at))],
        );
        self.tell(Method::POST, run, text).await
    }

    /// Tells what came of it, waits until Prometheus knows, and tidies up.
    pub(crate) async fn ended(
        &self,
        run: &str,
        at: Timestamp,
        seen: &Observed,
        pass: bool,
    ) -> anyhow::Result<()> {
        if self.gateway.is_none() {
            return Ok(());
        }
        self.tell(Method::POST, run, figures(at, seen, pass)).await?;
        let query = format!("load_run_passed{{run=\"{run}\"}}");
        let scraped = eventually(SCRAPE_PATIENCE, "Prometheus has scraped the run", async || {
            let answer = self.ask("query", &[("query", query.clone())]).await?;
            ensure!(!answer.is_empty(), "it does not know {query} yet");
            Ok(())
        });
        let scraped = scraped.await;
        self.tell(Method::DELETE, run, String::new()).await?;
        scraped
    }

    /// The alerts that began to fire between `from` and `to`, but for those that are no complaint.
    pub(crate) async fn fired(&self, from: Timestamp, to: Timestamp) -> anyhow::Result<Vec<Fired>> {
        const FIRING: &str = r#"ALERTS{alertstate="firing",severity!~"none|info"}"#;
        let asked = [
            ("query", FIRING.to_owned()),
            ("start", seconds(from).to_string()),
            ("end", seconds(to).to_string()),
            ("step", STEP_SECONDS.to_string()),
        ];
        let series = self.ask("query_range", &asked).await.context("ask Prometheus for alerts")?;
        Ok(began(&series, seconds(from) + f64::from(STEP_SECONDS)))
    }

    async fn tell(&self, method: Method, run: &str, text: String) -> anyhow::Result<()> {
        let Some(gateway) = &self.gateway else { return Ok(()) };
        let mut url = gateway.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["metrics", "job", JOB, "run", run]);
        }
        let answer = self.http.request(method, url).body(text).send().await;
        let answer = answer.context("push the run's figures")?;
        let status = answer.status();
        let said = answer.text().await.unwrap_or_default();
        ensure!(status.is_success(), "the Pushgateway answered {status}: {said}");
        Ok(())
    }

    async fn ask(&self, what: &str, asked: &[(&str, String)]) -> anyhow::Result<Vec<Value>> {
        let mut url = self.prometheus.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["api", "v1", what]);
        }
        url.query_pairs_mut().extend_pairs(asked);
        let answer = self.http.get(url).send().await.context("ask Prometheus")?;
        let status = answer.status();
        let answer: Value = answer.json().await.context("read Prometheus' answer")?;
        let result = answer["data"]["result"].as_array();
        result.cloned().with_context(|| format!("Prometheus answered {status}: {answer}"))
    }
}

/// Alerts of which no series was there before `from`, in seconds since 1970.
fn began(series: &[Value], from: f64) -> Vec<Fired> {
    let mut first: BTreeMap<Fired, f64> = BTreeMap::new();
    for one in series {
        let label = |name: &str| one["metric"][name].as_str().unwrap_or_default().to_owned();
        let fired = Fired { name: label("alertname"), severity: label("severity") };
        let at = one["values"][0][0].as_f64().unwrap_or(0.0);
        let first = first.entry(fired).or_insert(at);
        *first = first.min(at);
    }
    first.into_iter().filter(|(_, at)| *at >= from).map(|(fired, _)| fired).collect()
}

/// In the text format that a Pushgateway takes.
fn figures(at: Timestamp, seen: &Observed, pass: bool) -> String {
    let labelled = |label: &str, values: &[(&str, f64)]| {
        let values = values.iter().map(|(of, value)| (format!("{{{label}=\"{of}\"}}"), *value));
        values.collect::<Vec<_>>()
    };
    let mut text = String::new();
    gauge(
        &mut text,
        "load_run_ended_timestamp_seconds",
        "When the run ended",
        &[("", seconds(at))],
    );
    gauge(
        &mut text,
        "load_run_passed",
        "Whether the run kept its budget",
        &[("", f64::from(u8::from(pass)))],
    );
    gauge(
        &mut text,
        "load_run_drain_seconds",
        "From the last answer to the last order final",
        &[("", seen.drain.seconds)],
    );
    let requests = [("offered", seen.offered as f64), ("sent", seen.sent as f64)];
    gauge(
        &mut text,
        "load_run_requests",
        "Requests that were asked for, and those that were sent",
        &labelled("kind", &requests),
    );
    let orders = [
        ("accepted", seen.accepted),
        ("rejected", seen.rejected_orders()),
        ("unknown", seen.unknown_orders()),
        ("completed", seen.completed_orders()),
        ("late", seen.late),
        ("lost", seen.lost()),
        ("duplicated", seen.duplicated()),
    ];
    let orders = orders.map(|(outcome, count)| (outcome, count as f64));
    gauge(
        &mut text,
        "load_run_orders",
        "What became of the run's orders, seen from outside",
        &labelled("outcome", &orders),
    );
    let mut times = Vec::new();
    for (measure, quantiles) in seen.latencies() {
        let Some(Quantiles { p50, p95, p99, max }) = quantiles else { continue };
        for (quantile, value) in [("0.5", p50), ("0.95", p95), ("0.99", p99), ("1", max)] {
            times.push((format!("{{measure=\"{measure}\",quantile=\"{quantile}\"}}"), value));
        }
    }
    gauge(&mut text, "load_run_latency_seconds", "What clients and orders waited", &times);
    let lag: Vec<_> = seen.lag.iter().map(|(stage, lag)| (stage.as_str(), lag.seconds)).collect();
    gauge(
        &mut text,
        "load_run_peak_lag_seconds",
        "How far behind stages got",
        &labelled("stage", &lag),
    );
    text
}

fn gauge(text: &mut String, name: &str, help: &str, values: &[(impl AsRef<str>, f64)]) {
    // Writing to a string never fails.
    writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge").ok();
    for (labels, value) in values {
        writeln!(text, "{name}{} {value}", labels.as_ref()).ok();
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::run::observed::Lag;

    #[test]
    fn an_alert_that_fired_before_is_not_the_runs() {
        let series = |name: &str, at: u32| {
            json!({
                "metric": { "alertname": name, "severity": "warning" },
                "values": [[at, "1"], [at + 5, "1"]],
            })
        };

        let fired = began(&[series("Old", 100), series("Old", 200), series("New", 130)], 105.0);

        let expected = Fired { name: "New".to_owned(), severity: "warning".to_owned() };
        assert_eq!(fired, [expected]);
    }

    #[test]
    fn figures_are_gauges_with_the_labels_that_the_board_reads() {
        let seen = Observed {
            accepted: 7,
            to_final: Some(Quantiles { p50: 0.1, p95: 0.2, p99: 0.3, max: 0.4 }),
            lag: [("payment".to_owned(), Lag { records: 3.0, seconds: 0.5 })].into(),
            ..Observed::default()
        };

        let text = figures(Timestamp::parse("2026-01-01T00:00:00Z").unwrap(), &seen, true);

        for line in [
            "load_run_ended_timestamp_seconds 1767225600",
            "load_run_passed 1",
            "load_run_orders{outcome=\"accepted\"} 7",
            "load_run_latency_seconds{measure=\"accepted to final\",quantile=\"0.99\"} 0.3",
            "load_run_peak_lag_seconds{stage=\"payment\"} 0.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn what_is_pushed_stands_in_the_contract() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../prometheus/families.txt");
        let contract = std::fs::read_to_string(path).unwrap();
        let seen = Observed {
            to_final: Some(Quantiles { p50: 0.1, p95: 0.2, p99: 0.3, max: 0.4 }),
            lag: [("payment".to_owned(), Lag { records: 3.0, seconds: 0.5 })].into(),
            ..Observed::default()
        };

        let text = figures(Timestamp::now(), &seen, true);

        let mut families = 0;
        for sample in text.lines().filter(|line| !line.starts_with('#')) {
            families += 1;
            let (name, rest) = sample.split_at(sample.find(['{', ' ']).unwrap());
            let own = rest.strip_prefix('{').map_or("", |rest| rest.split('}').next().unwrap());
            let own = own.split(',').filter_map(|label| label.split_once("=\""));
            let labels: Vec<_> =
                ["job", "run"].into_iter().chain(own.map(|(label, _)| label)).collect();
            let line = format!("{name} | gauge | {} | order-load run | ", labels.join(", "));
            assert!(contract.contains(&line), "no line begins with {line}");
        }
        assert!(families > 10, "{text}");
    }
}
