//! Lag and progress of owned partitions, as series. Holds no number of its own: it asks [`Partition`] when scraped.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use schemas::Timestamp;

use crate::runner::progress::{Owned, Partition};

/// Lag and progress of the partitions each stage owns here, read when scraped: never stale, gone when revoked.
#[derive(Clone, Debug, Default)]
pub(super) struct LagCollector {
    stages: Arc<Mutex<Vec<OwnedByStage>>>,
}

#[derive(Clone, Debug)]
pub(super) struct OwnedByStage {
    pub(super) stage: &'static str,
    /// The consumer group, as Kafka knows it.
    pub(super) group: String,
    pub(super) owned: Owned,
}

impl LagCollector {
    pub(super) fn add(&self, stage: OwnedByStage) {
        self.stages.lock().expect("no code panics while it holds this lock").push(stage);
    }

    /// Encodes one family; a partition without a `value` has no series.
    fn family(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        owner: impl for<'a> Fn(&'a OwnedByStage) -> (&'static str, &'a str),
        value: impl Fn(&Partition) -> Option<f64>,
    ) -> std::fmt::Result {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for stage in self.stages.lock().expect("no code panics while it holds this lock").iter() {
            for partition in stage.owned.all() {
                let Some(value) = value(&partition) else { continue };
                let number = partition.source.partition.to_string();
                let topic = partition.source.topic.as_str();
                let labels = [owner(stage), ("topic", topic), ("partition", number.as_str())];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Collector for LagCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> std::fmt::Result {
        let (now, clock) = (Timestamp::now(), Instant::now());
        let lag = (
            "kafka_consumergroup_lag",
            "Records after the last committed one, per partition owned here",
        );
        let seconds = (
            "kafka_consumergroup_lag_seconds",
            "Age of the oldest record not yet committed; 0 when drained",
        );
        let progress = (
            "stage_last_progress_timestamp_seconds",
            "When the partition last moved, or was assigned",
        );
        self.family(
            &mut encoder,
            lag,
            |stage| ("consumergroup", &stage.group),
            |p| p.lag(clock).map(|lag| lag as f64),
        )?;
        self.family(
            &mut encoder,
            seconds,
            |stage| ("consumergroup", &stage.group),
            |p| p.lag_seconds(now, clock),
        )?;
        self.family(
            &mut encoder,
            progress,
            |stage| ("stage", stage.stage),
            |p| Some(p.last_progress_seconds()),
        )
    }
}
