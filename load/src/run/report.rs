//! Everything about a run in one value: what is written as JSON, and what text and page are made from.

use std::path::Path;

use anyhow::Context;
use schemas::Timestamp;
use serde::{Deserialize, Serialize};

use super::RunArgs;
use super::judge::{Verdict, judge_alerts};
use super::measure::{Measured, Plan};
use super::monitoring::Fired;
use super::observed::Observed;
use super::profile::Profile;
use super::search::Trial;

/// A run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) run: String,
    pub(crate) profile_name: String,
    pub(crate) ended_at: String,
    pub(crate) seed: u64,
    pub(crate) profile: Profile,
    pub(crate) verdict: Verdict,
    /// The measurement that counts: the only one, or the best of a search.
    pub(crate) measured: Measured,
    /// Alerts that began to fire meanwhile; absent where nobody watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) alerts: Option<Vec<Fired>>,
    /// The trials of a search.
    pub(crate) trials: Vec<Rate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) earlier: Option<Earlier>,
}

/// A trial of a search.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Rate {
    pub(crate) rate: u32,
    pub(crate) pass: bool,
    pub(crate) observed: Observed,
    pub(crate) reasons: Vec<String>,
}

/// What is read of an earlier report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Earlier {
    pub(crate) run: String,
    pub(crate) ended_at: String,
    pub(crate) measured: EarlierMeasured,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct EarlierMeasured {
    pub(crate) observed: Observed,
}

/// A number then and now.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) then: f64,
    pub(crate) now: f64,
}

/// Reads an earlier report.
pub(crate) fn earlier(path: &Path) -> anyhow::Result<Earlier> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("understand the report {}", path.display()))
}

impl Report {
    pub(crate) fn new(
        args: &RunArgs,
        profile: Profile,
        plan: &Plan,
        trials: Vec<Trial>,
        alerts: Option<Vec<Fired>>,
        earlier: Option<Earlier>,
    ) -> anyhow::Result<Self> {
        let rates = trials.iter().filter_map(|trial| {
            let observed = trial.measured.observed.clone();
            let reasons = trial.verdict.reasons.clone();
            Some(Rate { rate: trial.rate?, pass: trial.verdict.pass, observed, reasons })
        });
        let rates: Vec<Rate> = rates.collect();
        let best = trials.iter().filter(|trial| trial.verdict.pass).max_by_key(|trial| trial.rate);
        let counted = best.or(trials.first()).context("nothing was measured")?;
        let (measured, mut verdict) = (counted.measured.clone(), counted.verdict.clone());
        if let Some(search) = &profile.search {
            judge_search(&rates, counted.rate.unwrap_or(0), search.at_least, &mut verdict);
        }
        if let Some(fired) = &alerts {
            judge_alerts(fired, &profile.budget, &mut verdict);
        }
        Ok(Self {
            run: plan.run.clone(),
            profile_name: args.profile.clone(),
            ended_at: Timestamp::now().to_string(),
            seed: args.seed,
            profile,
            verdict,
            measured,
            alerts,
            trials: rates,
            earlier,
        })
    }

    pub(crate) fn observed(&self) -> &Observed {
        &self.measured.observed
    }

    /// What differs from the earlier run, number by number.
    pub(crate) fn changes(&self) -> Vec<Change> {
        let Some(earlier) = &self.earlier else { return Vec::new() };
        let then = earlier.measured.observed.figures();
        let figures = self.observed().figures().into_iter();
        let change = |(name, now, unit): (String, f64, &'static str)| {
            let (_, then, _) = then.iter().find(|(other, ..)| *other == name)?;
            Some(Change { name, unit, then: *then, now })
        };
        figures.filter_map(change).collect()
    }
}

/// Too fast is what a search is for; to lose an order is allowed at no rate.
fn judge_search(rates: &[Rate], found: u32, at_least: u32, verdict: &mut Verdict) {
    if verdict.pass && found < at_least {
        verdict
            .reasons
            .push(format!("the highest rate is {found}/s, below the {at_least}/s asked for"));
    }
    for Rate { rate, observed, .. } in rates {
        if observed.lost() + observed.duplicated() > 0 {
            verdict.reasons.push(format!(
                "at {rate}/s {} orders were lost and {} doubled",
                observed.lost(),
                observed.duplicated()
            ));
        }
    }
    verdict.pass = verdict.reasons.is_empty();
}
