//! What can be seen of a pipeline from outside at one moment: its metrics and its tables.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use consumers::stages::CATALOGUE;
use schemas::TopicPrefix;
use serde::Serialize;

use super::observed::Lag;
use crate::process::sum_of;

/// Longer than a scrape takes on busy cores.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where the programs answer `/metrics`.
#[derive(Clone, Debug)]
pub(crate) struct Eyes {
    http: reqwest::Client,
    producer: SocketAddr,
    consumer: SocketAddr,
    prefix: TopicPrefix,
}

/// The metrics at a moment.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Metrics {
    pub(crate) created: Option<f64>,
    pub(crate) finished: Option<f64>,
    /// Events applied since the process began, by stage.
    pub(crate) applied: BTreeMap<String, f64>,
    pub(crate) lag: BTreeMap<String, Lag>,
}

impl Eyes {
    pub(crate) fn new(
        producer: SocketAddr,
        consumer: SocketAddr,
        prefix: TopicPrefix,
    ) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(PATIENCE).no_proxy().build();
        Ok(Self { http: http.context("build an HTTP client")?, producer, consumer, prefix })
    }

    /// What does not answer is absent: a process that is down must not end the run that is about to show it.
    pub(crate) async fn look(&self) -> Metrics {
        let (producer, consumer) = tokio::join!(self.page(self.producer), self.page(self.consumer));
        let producer = producer.unwrap_or_default();
        let consumer = consumer.unwrap_or_default();
        let mut metrics = Metrics {
            created: sum_of(&producer, "orders_created_total", &[]),
            finished: sum_of(&consumer, "order_processing_duration_seconds_count", &[]),
            ..Metrics::default()
        };
        for stage in CATALOGUE.iter().map(|stage| stage.name) {
            let applied = [("stage", stage), ("outcome", "applied")];
            if let Some(applied) = sum_of(&consumer, "stage_events_total", &applied) {
                metrics.applied.insert(stage.to_owned(), applied);
            }
            let group = self.prefix.group(stage);
            let of_group = [("consumergroup", group.as_str())];
            if let Some(records) = sum_of(&consumer, "kafka_consumergroup_lag", &of_group) {
                let seconds = highest_of(&consumer, "kafka_consumergroup_lag_seconds", &group);
                metrics.lag.insert(stage.to_owned(), Lag { records, seconds });
            }
        }
        metrics
    }

    async fn page(&self, address: SocketAddr) -> Option<String> {
        let answer = self.http.get(format!("http://{address}/metrics")).send().await.ok()?;
        answer.error_for_status().ok()?.text().await.ok()
    }
}

/// Partitions are late side by side, so seconds are not added.
fn highest_of(text: &str, family: &str, group: &str) -> f64 {
    let label = format!("consumergroup=\"{group}\"");
    let of_group = text.lines().filter(|line| line.starts_with(family) && line.contains(&label));
    let values =
        of_group.filter_map(|line| line.rsplit_once("} ")?.1.split(' ').next()?.parse().ok());
    values.fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_as_late_as_its_latest_partition() {
        let family = "kafka_consumergroup_lag_seconds";
        let text = format!(
            "{family}{{consumergroup=\"orders.a\",partition=\"0\"}} 0.5\n\
             {family}{{consumergroup=\"orders.a\",partition=\"1\"}} 2.25\n\
             {family}{{consumergroup=\"orders.b\",partition=\"0\"}} 9\n"
        );

        assert_eq!(highest_of(&text, family, "orders.a"), 2.25);
        assert_eq!(highest_of(&text, family, "orders.c"), 0.0);
    }
}
