//! Questions to Prometheus.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use reqwest::{Client, Url};
use serde::Deserialize;
use serde_json::Value;

use crate::notification::Labels;

/// A server that does not answer in this time is asked again by whoever waits.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(crate) struct Prometheus {
    http: Client,
    base: Url,
}

/// An alert that is pending or fires.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Active {
    pub(crate) labels: Labels,
    pub(crate) state: String,
}

/// What an expression answers under one set of labels.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    /// Times in seconds since 1970, and values; one of an instant.
    pub(crate) values: Vec<(f64, f64)>,
}

impl Series {
    pub(crate) fn is_finite(&self) -> bool {
        self.values.iter().any(|(_, value)| value.is_finite())
    }

    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Seconds since 1970, as Prometheus counts them.
pub(crate) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl Active {
    pub(crate) fn name(&self) -> &str {
        self.labels.get("alertname").map_or("", String::as_str)
    }
}

impl Prometheus {
    pub(crate) fn at(base: &str) -> anyhow::Result<Self> {
        let http = Client::builder().timeout(PATIENCE).no_proxy().build();
        Ok(Self {
            http: http.context("build an HTTP client")?,
            base: base.parse().context("read the URL of Prometheus")?,
        })
    }

    /// Every alert that is pending or fires.
    pub(crate) async fn alerts(&self) -> anyhow::Result<Vec<Active>> {
        let mut answer = self.ask("alerts", &[]).await?;
        serde_json::from_value(answer["alerts"].take()).context("read Prometheus' alerts")
    }

    /// The value of `expression`, where it has exactly one; `None` where it has none.
    pub(crate) async fn value(&self, expression: &str) -> anyhow::Result<Option<f64>> {
        let answer = self.ask("query", &[("query", expression)]).await?;
        let series = answer["result"].as_array().context("read Prometheus' answer")?;
        anyhow::ensure!(series.len() <= 1, "{expression} has {} series", series.len());
        let value = series.first().and_then(|one| one["value"][1].as_str()?.parse().ok());
        Ok(value)
    }

    /// What `expression` answers at one moment.
    pub(crate) async fn instant(&self, expression: &str, at: f64) -> anyhow::Result<Vec<Series>> {
        let at = at.to_string();
        let answer = self.ask("query", &[("query", expression), ("time", &at)]).await?;
        series(&answer)
    }

    /// What `expression` answers from one moment to another, every `step` seconds.
    pub(crate) async fn range(
        &self,
        expression: &str,
        (from, to): (f64, f64),
        step: f64,
    ) -> anyhow::Result<Vec<Series>> {
        let [from, to, step] = [from, to, step].map(|number| number.to_string());
        let asked = [("query", expression), ("start", &from), ("end", &to), ("step", &step)];
        series(&self.ask("query_range", &asked).await?)
    }

    /// The series that `selector` matches between two moments.
    pub(crate) async fn matching(
        &self,
        selector: &str,
        (from, to): (f64, f64),
    ) -> anyhow::Result<Vec<Labels>> {
        let [from, to] = [from, to].map(|number| number.to_string());
        let asked = [("match[]", selector), ("start", &from), ("end", &to)];
        let answer = self.ask("series", &asked).await?;
        serde_json::from_value(answer).context("read Prometheus' series")
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

/// An instant's series have one `value`, a range's have `values`.
fn series(answer: &Value) -> anyhow::Result<Vec<Series>> {
    let pair = |pair: &Value| -> Option<(f64, f64)> {
        Some((pair[0].as_f64()?, pair[1].as_str()?.parse().ok()?))
    };
    let all = answer["result"].as_array().context("read Prometheus' answer")?;
    let one = |one: &Value| -> anyhow::Result<Series> {
        let labels = serde_json::from_value(one["metric"].clone());
        let values = match one["values"].as_array() {
            Some(values) => values.iter().map(pair).collect::<Option<Vec<_>>>(),
            None => pair(&one["value"]).map(|value| vec![value]),
        };
        Ok(Series {
            labels: labels.context("read the labels of a series")?,
            values: values.with_context(|| format!("read the values of {one}"))?,
        })
    };
    all.iter().map(one).collect()
}
