//! From what was seen of a run to its numbers. Pure.

use std::collections::{BTreeMap, HashSet};

use uuid::Uuid;

use super::look::Metrics;
use super::measure::{Moment, Second};
use super::observed::{Audited, Counter, Lag, Observed, Quantiles, Usage};
use super::tally::Felt;
use crate::pipeline::{Audit, FINAL, Fate};
use crate::usage::{self, Watch};

pub(super) const MIB: f64 = 1024.0 * 1024.0;
const IDS_SHOWN: usize = 5;

impl Observed {
    /// What became of every order that was accepted.
    pub(super) fn follow(&mut self, accepted: &HashSet<Uuid>, fates: &[Fate], late_after: f64) {
        let mut nowhere = accepted.clone();
        let mut times = Vec::with_capacity(accepted.len());
        for fate in fates.iter().filter(|fate| accepted.contains(&fate.order_id)) {
            nowhere.remove(&fate.order_id);
            match seconds_to_final(fate) {
                Some(seconds) => {
                    *self.completed.entry(fate.status.clone()).or_default() += 1;
                    self.late += u64::from(seconds > late_after);
                    times.push(seconds);
                }
                None => self.open += 1,
            }
        }
        self.late += self.open + nowhere.len() as u64;
        self.missing = nowhere.len() as u64;
        let mut ids: Vec<_> = nowhere.into_iter().collect();
        ids.sort();
        self.missing_ids = ids.iter().take(IDS_SHOWN).map(Uuid::to_string).collect();
        self.to_final = Quantiles::of(times);
    }
}

impl From<&Audit> for Audited {
    fn from(audit: &Audit) -> Self {
        let findings = audit.findings.iter();
        Self {
            reconciled: audit.reconciled,
            placed: audit.placed,
            lost: audit.lost,
            duplicated: audit.duplicated,
            phantom: audit.phantom,
            mismatched: audit.mismatched,
            pending: audit.pending,
            dead_lettered: audit.dead_lettered,
            findings: findings
                .map(|finding| format!("{}: {} ({})", finding.kind, finding.what, finding.count))
                .collect(),
        }
    }
}

/// Without a time it has an end and no beginning, which is no order.
pub(super) fn seconds_to_final(fate: &Fate) -> Option<f64> {
    fate.seconds.filter(|_| FINAL.contains(&fate.status.as_str()))
}

pub(super) fn counters(seen: &Observed, before: &Metrics, after: &Metrics) -> Vec<Counter> {
    let moved = |of: fn(&Metrics) -> Option<f64>| Some(of(after)? - of(before).unwrap_or(0.0));
    let completed = seen.completed_orders();
    let unknown = seen.unknown_orders();
    vec![
        Counter {
            name: "orders_created_total".to_owned(),
            moved: moved(|metrics| metrics.created),
            at_least: seen.accepted,
            at_most: seen.accepted + unknown,
        },
        Counter {
            name: "order_processing_duration_seconds_count".to_owned(),
            moved: moved(|metrics| metrics.finished),
            at_least: completed,
            at_most: completed + unknown,
        },
    ]
}

pub(super) fn peaks(moments: &[Moment]) -> BTreeMap<String, Lag> {
    let mut peaks: BTreeMap<String, Lag> = BTreeMap::new();
    for (stage, lag) in moments.iter().flat_map(|moment| &moment.metrics.lag) {
        let peak = peaks.entry(stage.clone()).or_default();
        peak.records = peak.records.max(lag.records);
        peak.seconds = peak.seconds.max(lag.seconds);
    }
    peaks
}

pub(super) fn usages(cpu: &usage::Cpu, watch: &Watch) -> BTreeMap<String, Usage> {
    let seen = watch.seen();
    let of = |(name, cpu_seconds): (&&'static str, &f64)| {
        let bytes = seen.get(name).map(Vec::as_slice).unwrap_or_default();
        let mib = |bytes: Option<&u64>| bytes.map_or(0.0, |bytes| *bytes as f64 / MIB);
        let usage = Usage {
            cpu_seconds: *cpu_seconds,
            peak_mib: mib(bytes.iter().max()),
            last_mib: mib(bytes.last()),
        };
        ((*name).to_owned(), usage)
    };
    cpu.iter().map(of).collect()
}

pub(super) fn by_second(felt: &[Felt]) -> Vec<Second> {
    let begun = felt.iter().map(|felt| felt.due).fold(f64::INFINITY, f64::min);
    let mut seconds: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for felt in felt {
        seconds.entry((felt.due - begun) as u64).or_default().push(felt.latency);
    }
    let second = |(second, latencies)| {
        let Quantiles { p50, p99, max, .. } = Quantiles::of(latencies)?;
        Some(Second { at: second as f64, p50, p99, max })
    };
    seconds.into_iter().filter_map(second).collect()
}

/// Share of requests and the latency that so many stay below, ever finer towards the slowest.
pub(super) fn distribution(felt: &[Felt]) -> Vec<(f64, f64)> {
    let mut latencies: Vec<f64> = felt.iter().map(|felt| felt.latency).collect();
    latencies.sort_by(f64::total_cmp);
    let shares = (0..=60).map(|n| 1.0 - 10_f64.powf(-f64::from(n) / 15.0));
    let at = |share: f64| {
        let rank = ((share * latencies.len() as f64).ceil() as usize).max(1);
        Some((share, *latencies.get(rank - 1)?))
    };
    shares.filter_map(at).collect()
}
