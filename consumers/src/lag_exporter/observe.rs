//! What the exporter tells about itself, and what it does with a refresh: show it, count it, say what went wrong.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use telemetry::Readiness;

use super::export::Exported;
use super::refresh::Refreshed;

/// Sentences about one refresh that are logged; the rest are counted.
const SENTENCES: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabel {
    source: &'static str,
}

/// The exporter's own metrics.
pub(super) struct Observations {
    exported: Exported,
    refresh: Histogram,
    requests: Counter,
    cluster_errors: Counter,
    database_errors: Counter,
    left_out: Gauge,
    /// Whether there is a database to be asked.
    database: bool,
    well: bool,
}

impl Observations {
    pub(super) fn register(registry: &mut Registry, exported: Exported, database: bool) -> Self {
        let errors: Family<SourceLabel, Counter> = Family::default();
        let this = Self {
            exported,
            // Around the interval of fifteen seconds, which a refresh must not outlast.
            refresh: Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0, 60.0]),
            requests: Counter::default(),
            cluster_errors: errors.get_or_create_owned(&SourceLabel { source: "cluster" }),
            database_errors: errors.get_or_create_owned(&SourceLabel { source: "postgres" }),
            left_out: Gauge::default(),
            database,
            well: true,
        };
        registry.register_with_unit(
            "kafka_lag_exporter_refresh",
            "Duration of a look at the whole cluster",
            Unit::Seconds,
            this.refresh.clone(),
        );
        registry.register(
            "kafka_lag_exporter_requests",
            "Requests to brokers",
            this.requests.clone(),
        );
        registry.register(
            "kafka_lag_exporter_errors",
            "Things that could not be found out, by whom did not tell them",
            errors,
        );
        registry.register(
            "kafka_lag_exporter_groups_left_out",
            "Groups that are not exported because there are too many positions or the name is no label",
            this.left_out.clone(),
        );
        this
    }

    /// Shows and counts what a refresh came to.
    pub(super) fn take(&mut self, refreshed: Refreshed, readiness: &Readiness) {
        self.refresh.observe(refreshed.took.as_secs_f64());
        self.requests.inc_by(refreshed.requests);
        self.cluster_errors.inc_by(refreshed.cluster_failures.len() as u64);
        self.database_errors.inc_by(u64::from(refreshed.database_failure.is_some()));
        let failures = refreshed.cluster_failures.iter().chain(&refreshed.database_failure);
        let mut said = String::new();
        for failure in failures.take(SENTENCES) {
            said = if said.is_empty() { failure.clone() } else { format!("{said}; {failure}") };
        }
        // Once when it begins and once when it ends, not with every refresh of a long night.
        if said.is_empty() != self.well {
            self.well = said.is_empty();
            match self.well {
                true => tracing::info!("everything can be found out again"),
                false => tracing::warn!(why = said, "not everything could be found out"),
            }
        }
        match refreshed.picture {
            Some(picture) => {
                self.left_out.set(i64::try_from(refreshed.left_out).unwrap_or(i64::MAX));
                self.exported.show(picture);
                readiness.set("kafka", Ok(()));
            }
            None => readiness.set("kafka", Err(said)),
        }
        if self.database {
            readiness.set("postgres", refreshed.database_failure.map_or(Ok(()), Err));
        }
    }
}

/// Now, as records tell times.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
