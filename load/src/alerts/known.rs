//! The alerts of `prometheus/alerts`, read from its very files, and what every message about one must look like.

use anyhow::{Context, ensure};

use crate::notification::Labels;
use crate::scene::prometheus::Active;
use crate::scene::receiver::Told;

/// An alert that may be there at any time, and why.
pub(super) struct Always {
    alert: &'static str,
    label: Option<(&'static str, &'static str)>,
    why: &'static str,
}

pub(super) const ALWAYS: [Always; 3] = [
    Always { alert: "Watchdog", label: None, why: "fires for ever, and the dead man must hear it" },
    Always {
        alert: "ErrorBudgetBurnFast",
        label: Some(("slo", "order-freshness")),
        why: "orders wait at most faults; the others' budgets stay closed to it",
    },
    Always {
        alert: "ErrorBudgetBurnSlow",
        label: None,
        why: "the faults of a whole run are more than a month's budget; proven first, while it is full",
    },
];

impl Always {
    pub(super) fn text(&self) -> String {
        let label = self.label.map(|(name, value)| format!(" {{{name}={value}}}"));
        format!("{}{}: {}", self.alert, label.unwrap_or_default(), self.why)
    }

    pub(super) fn covers(&self, labels: &Labels) -> bool {
        let is = |name: &str, value: &str| labels.get(name).is_some_and(|found| found == value);
        is("alertname", self.alert) && self.label.is_none_or(|(name, value)| is(name, value))
    }
}

const FILES: [&str; 8] = [
    include_str!("../../../prometheus/alerts/batch.yml"),
    include_str!("../../../prometheus/alerts/database.yml"),
    include_str!("../../../prometheus/alerts/kafka.yml"),
    include_str!("../../../prometheus/alerts/meta.yml"),
    include_str!("../../../prometheus/alerts/orders.yml"),
    include_str!("../../../prometheus/alerts/slo.yml"),
    include_str!("../../../prometheus/alerts/stages.yml"),
    include_str!("../../../prometheus/alerts/temporal.yml"),
];

/// An alert as its file has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: &'static str,
    pub(super) severity: &'static str,
}

/// Every alert there is.
pub(super) fn alerts() -> impl Iterator<Item = Known> {
    let rules = FILES.iter().flat_map(|file| file.split("- alert: ").skip(1));
    rules.map(|rule| {
        let word = |text: &'static str| text.split_whitespace().next().unwrap_or_default();
        let severity = rule.split("severity: ").nth(1).map_or("", word);
        Known { name: word(rule), severity }
    })
}

/// Whoever gets this message can act on it: severity, cluster, a page to read, and a text in which every blank was filled.
pub(super) fn check(told: &Told) -> anyhow::Result<()> {
    let name = told.name();
    let known = alerts().find(|alert| alert.name == name);
    let known = known.with_context(|| format!("{name} is no alert of prometheus/alerts"))?;
    let label = |name: &str| told.labels.get(name).map_or("", String::as_str);
    ensure!(label("severity") == known.severity, "{name} has the severity {}", label("severity"));
    ensure!(label("cluster") == "local", "{name} names the cluster {}", label("cluster"));
    ensure!(!told.labels.contains_key("replica"), "{name} names the replica that sent it");
    let text = |name: &str| told.annotations.get(name).map_or("", String::as_str);
    let page = format!("prometheus/runbooks/{name}.md");
    ensure!(text("runbook_url") == page, "{name} points at {}", text("runbook_url"));
    for part in ["summary", "description"] {
        let text = text(part);
        let is_whole = text.ends_with('.')
            && !["{{", "%!", "<no value>", "<error", "NaN"].iter().any(|bad| text.contains(bad));
        ensure!(is_whole, "the {part} of {name} is {text:?}");
    }
    Ok(())
}

/// What is active, in a few words.
pub(super) fn summary(active: &[Active]) -> String {
    let one = |alert: &Active| {
        let labels = alert.labels.iter().filter(|(name, _)| {
            !["alertname", "cluster", "severity", "depends"].contains(&name.as_str())
        });
        let labels: Vec<_> = labels.map(|(name, value)| format!("{name}={value}")).collect();
        format!("{} {} {{{}}}", alert.name(), alert.state, labels.join(","))
    };
    let all: Vec<_> = active.iter().map(one).collect();
    if all.is_empty() { "nothing is active".to_owned() } else { all.join("; ") }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_alerts_is_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../prometheus/alerts");
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let texts: BTreeSet<String> = files.map(|file| fs::read_to_string(file).unwrap()).collect();

        let read: BTreeSet<String> = FILES.map(str::to_owned).into_iter().collect();

        assert!(read == texts, "a file of prometheus/alerts is missing here");
        assert!(alerts().count() > 30);
        for alert in alerts() {
            assert!(["critical", "warning", "info", "none"].contains(&alert.severity), "{alert:?}");
        }
    }

    #[test]
    fn a_message_with_a_blank_or_without_a_page_is_refused() {
        let pairs = |pairs: &[(&str, &str)]| -> Labels {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let good = Told {
            at: std::time::Instant::now(),
            firing: true,
            labels: pairs(&[
                ("alertname", "TargetDown"),
                ("severity", "critical"),
                ("cluster", "local"),
            ]),
            annotations: pairs(&[
                ("summary", "A process cannot be scraped."),
                ("description", "consumers at 127.0.0.1:1 does not answer Prometheus."),
                ("runbook_url", "prometheus/runbooks/TargetDown.md"),
            ]),
        };
        check(&good).unwrap();

        for (name, value) in [
            ("description", "<no value> at 127.0.0.1:1 does not answer."),
            ("summary", ""),
            ("runbook_url", "prometheus/runbooks/JobGone.md"),
        ] {
            let mut bad = good.clone();
            bad.annotations.insert(name.to_owned(), value.to_owned());
            assert!(check(&bad).is_err(), "{name}={value}");
        }
        let mut bad = good;
        bad.labels.insert("severity".to_owned(), "warning".to_owned());
        assert!(check(&bad).is_err());
    }
}
