//! What a run saw, in numbers: what the verdict is about and a later run is compared with.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything that is judged.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Observed {
    pub(crate) interrupted: bool,
    pub(crate) seconds: f64,
    /// Requests that the profile asked for, up to the interruption if there was one.
    pub(crate) offered: u64,
    /// Requests that vegeta sent.
    pub(crate) sent: u64,
    /// Of these, the ones that place an order.
    pub(crate) orders_sent: u64,
    pub(crate) accepted: u64,
    /// Orders turned away, by status and code.
    pub(crate) rejected: BTreeMap<String, u64>,
    /// Orders whose outcome the client cannot know, by what it heard.
    pub(crate) unknown: BTreeMap<String, u64>,
    /// Cancellations and reads, by kind and status.
    pub(crate) others: BTreeMap<String, u64>,
    /// Accepted orders that are final, by status.
    pub(crate) completed: BTreeMap<String, u64>,
    /// Accepted orders that have a row and no end.
    pub(crate) open: u64,
    /// Accepted orders that have no row at all.
    pub(crate) missing: u64,
    pub(crate) missing_ids: Vec<String>,
    /// Orders accepted under an id that was accepted before.
    pub(crate) repeated: u64,
    /// Accepted orders that ended after the budget's time, or not.
    pub(crate) late: u64,
    /// Seconds from when a request should have been sent to its answer.
    pub(crate) client: Option<Quantiles>,
    /// Seconds from when an accepted order was sent to its answer: what the API takes, whatever held the client up.
    #[serde(default)]
    pub(crate) answered: Option<Quantiles>,
    /// Seconds from accepted to final.
    pub(crate) to_final: Option<Quantiles>,
    /// Highest lag by stage.
    pub(crate) lag: BTreeMap<String, Lag>,
    pub(crate) drain: Drain,
    /// By process; empty where they are out of sight.
    pub(crate) usage: BTreeMap<String, Usage>,
    /// The pipeline's own counters beside what was seen from outside.
    pub(crate) counters: Vec<Counter>,
    pub(crate) audit: Audited,
}

/// Of seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// How far a stage is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Lag {
    pub(crate) records: f64,
    pub(crate) seconds: f64,
}

/// From the last request to the last order final.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Drain {
    pub(crate) seconds: f64,
    /// Whether every accepted order came to its end in that time.
    pub(crate) ended: bool,
}

/// What a process used.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Usage {
    pub(crate) cpu_seconds: f64,
    pub(crate) peak_mib: f64,
    pub(crate) last_mib: f64,
}

/// A counter of the pipeline and the bounds that the outside view sets it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Counter {
    pub(crate) name: String,
    /// How far it moved; absent when it could not be read.
    pub(crate) moved: Option<f64>,
    pub(crate) at_least: u64,
    pub(crate) at_most: u64,
}

/// The auditor's word.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Audited {
    pub(crate) reconciled: bool,
    pub(crate) placed: u64,
    pub(crate) lost: u64,
    pub(crate) duplicated: u64,
    pub(crate) phantom: u64,
    pub(crate) mismatched: u64,
    pub(crate) pending: u64,
    pub(crate) dead_lettered: u64,
    pub(crate) findings: Vec<String>,
}

impl Quantiles {
    /// `None` of nothing. Nearest rank: every value shown was seen.
    pub(crate) fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * seconds.len() as f64).ceil() as usize;
            seconds.get(rank.saturating_sub(1)).copied()
        };
        Some(Self { p50: at(0.5)?, p95: at(0.95)?, p99: at(0.99)?, max: at(1.0)? })
    }
}

impl Observed {
    pub(crate) fn completed_orders(&self) -> u64 {
        self.completed.values().sum()
    }

    pub(crate) fn rejected_orders(&self) -> u64 {
        self.rejected.values().sum()
    }

    pub(crate) fn unknown_orders(&self) -> u64 {
        self.unknown.values().sum()
    }

    /// Those the client was told of, or the topics tell of, and that are nowhere.
    pub(crate) fn lost(&self) -> u64 {
        self.missing.max(self.audit.lost)
    }

    pub(crate) fn duplicated(&self) -> u64 {
        self.audit.duplicated + self.repeated
    }

    /// Every latency there is, by what it is of.
    pub(crate) fn latencies(&self) -> [(&'static str, Option<Quantiles>); 3] {
        [
            ("client", self.client),
            ("sent to accepted", self.answered),
            ("accepted to final", self.to_final),
        ]
    }

    /// The numbers that a later run is compared by, and their units.
    pub(crate) fn figures(&self) -> Vec<(String, f64, &'static str)> {
        let mut figures = vec![
            ("offered".to_owned(), self.offered as f64, ""),
            ("accepted".to_owned(), self.accepted as f64, ""),
            ("completed".to_owned(), self.completed_orders() as f64, ""),
            ("rejected".to_owned(), self.rejected_orders() as f64, ""),
            ("unknown".to_owned(), self.unknown_orders() as f64, ""),
            ("late".to_owned(), self.late as f64, ""),
            ("drain".to_owned(), self.drain.seconds, "s"),
        ];
        for (name, quantiles) in self.latencies() {
            let Some(Quantiles { p50, p95, p99, max }) = quantiles else { continue };
            for (which, value) in [("p50", p50), ("p95", p95), ("p99", p99), ("max", max)] {
                figures.push((format!("{name} {which}"), value, "s"));
            }
        }
        for (stage, lag) in &self.lag {
            figures.push((format!("peak lag of {stage}"), lag.seconds, "s"));
        }
        for (name, usage) in &self.usage {
            figures.push((format!("CPU of {name}"), usage.cpu_seconds, "s"));
            figures.push((format!("memory of {name}"), usage.peak_mib, "MiB"));
        }
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let found = Quantiles::of((1..=100).rev().map(f64::from).collect());

        assert_eq!(found, Some(Quantiles { p50: 50.0, p95: 95.0, p99: 99.0, max: 100.0 }));
        assert_eq!(Quantiles::of(vec![7.0]).unwrap().p50, 7.0);
        assert_eq!(Quantiles::of(Vec::new()), None);
    }
}
