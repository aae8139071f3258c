//! Questions to Prometheus.

use std::time::Duration;

use anyhow::Context;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Value;

use super::receiver::Labels;

/// A server that does not answer in this time is asked again by whoever waits.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(super) struct Prometheus {
    http: Client,
    base: Url,
}

/// An alert that is pending or fires.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Active {
    pub(super) labels: Labels,
    pub(super) state: String,
}

impl Active {
    pub(super) fn name(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }
}

impl Prometheus {
    pub(super) fn at(base: &str) -> anyhow::Result<Self> {
        let http = Client::builder().timeout(PATIENCE).no_proxy().build();
        Ok(Self {
            http: http.context("build an HTTP client")?,
            base: base.parse().context("read the URL of Prometheus")?,
        })
    }

    /// Every alert that is pending or fires.
    pub(super) async fn alerts(&self) -> anyhow::Result<Vec<Active>> {
        let mut answer = self.ask("alerts", &[]).await?;
        serde_json::from_value(answer["alerts"].take()).context("read Prometheus' alerts")
    }

    /// The value of `expression`, where it has exactly one; `None` where it has none.
    pub(super) async fn value(&self, expression: &str) -> anyhow::Result<Option<f64>> {
        let answer = self.ask("query", &[("query", expression)]).await?;
        let series = answer["result"].as_array().context("read Prometheus' answer")?;
        anyhow::ensure!(series.len() <= 1, "{expression} has {} series", series.len());
        let value = series.first().and_then(|one| one["value"][1].as_str()?.parse().ok());
        Ok(value)
    }

    async fn ask(&self, what: &str, asked: &[(&str, &str)]) -> anyhow::Result<Value> {
        let mut url = self.base.clone();
        url.set_path(&format!("/api/v1/{what}"));
        url.query_pairs_mut().extend_pairs(asked);
        let answer = self.http.get(url).send().await.context("ask Prometheus")?;
        let status = answer.status();
        let mut answer: Value = answer.json().await.context("read Prometheus' answer")?;
        anyhow::ensure!(status.is_success(), "Prometheus answered {status}: {answer}");
        Ok(answer["data"].take())
    }
}
