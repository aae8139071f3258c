//! A profile: what is sent, how fast, and what must hold. A file of `load/profiles`, or any other.

use std::path::{Path, PathBuf};

use anyhow::Context;
use producers::generate::Mix;
use serde::{Deserialize, Serialize};

use crate::targets::Traffic;

/// Where the profiles that have a name are.
const FOLDER: &str = "load/profiles";

/// A file, read.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    /// What it is for.
    pub(crate) about: String,
    #[serde(default)]
    pub(crate) phases: Vec<Phase>,
    /// Instead of phases: look for the highest rate that keeps the budget.
    pub(crate) search: Option<Search>,
    #[serde(default)]
    pub(crate) traffic: Requests,
    pub(crate) budget: Budget,
}

/// Some seconds at a rate, or from one rate to another.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Phase {
    /// Requests per second.
    pub(crate) rate: u32,
    /// The rate at the end; the same when absent.
    pub(crate) to: Option<u32>,
    pub(crate) seconds: u32,
    /// vegeta knows constant rates; a ramp is so many of them.
    #[serde(default = "ten")]
    pub(crate) steps: u32,
}

/// Trials, each twice as fast as the last until one fails; then halfway between good and bad.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Search {
    pub(crate) from: u32,
    pub(crate) most: u32,
    /// Of each trial.
    pub(crate) seconds: u32,
    /// Ends when good and bad are this close, as a share of the good rate.
    pub(crate) precision: f64,
    /// The rate that has to be reached for the run to pass.
    pub(crate) at_least: u32,
}

/// What the requests are like.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Requests {
    pub(crate) skus: u32,
    pub(crate) hot: f64,
    pub(crate) decline_ratio: f64,
    pub(crate) out_of_stock_ratio: f64,
    pub(crate) cancels: f64,
    pub(crate) reads: f64,
}

/// What must hold. Nothing lost and nothing doubled is asked for always.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budget {
    /// Share of the orders sent that may be turned away.
    pub(crate) rejected_ratio: f64,
    /// Share of the requests offered that vegeta must have sent.
    #[serde(default = "nearly_all")]
    pub(crate) sent_ratio: f64,
    /// Of answered and unanswered requests, from when each should have been sent.
    pub(crate) client_p99_seconds: f64,
    /// Of accepted orders, from when each was sent.
    pub(crate) accepted_p99_seconds: Option<f64>,
    /// From accepted to final.
    pub(crate) final_p99_seconds: f64,
    /// An order that takes longer is late.
    pub(crate) late_after_seconds: f64,
    pub(crate) late_ratio: f64,
    /// From the last request to the last order final.
    pub(crate) drain_seconds: f64,
    /// How long the drain is waited for before it counts as one that never ends.
    #[serde(default = "two_minutes")]
    pub(crate) drain_patience_seconds: u32,
    /// Most that any stage may be behind.
    pub(crate) lag_seconds: Option<f64>,
    /// Most resident memory of any of our processes.
    pub(crate) memory_mib: Option<f64>,
    /// Alerts that must begin to fire, and no others may, where Prometheus is asked.
    #[serde(default)]
    pub(crate) alerts: Vec<String>,
}

/// A constant rate for some seconds: one run of vegeta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) rate: u32,
    pub(crate) seconds: u32,
}

impl Default for Requests {
    fn default() -> Self {
        let Mix { skus, hot, decline_ratio, out_of_stock_ratio, .. } = Mix::default();
        Self { skus, hot, decline_ratio, out_of_stock_ratio, cancels: 0.0, reads: 0.0 }
    }
}

impl Requests {
    pub(crate) fn traffic(&self, seed: u64) -> Traffic {
        let Self { skus, hot, decline_ratio, out_of_stock_ratio, cancels, reads } = *self;
        Traffic { mix: Mix { seed, skus, hot, decline_ratio, out_of_stock_ratio }, cancels, reads }
    }
}

impl Profile {
    /// The file of `load/profiles` that `name` means, or the file that it is the path of.
    pub(crate) fn find(name: &str) -> anyhow::Result<Self> {
        let is_path = name.contains('/') || Path::new(name).extension().is_some();
        let path = if is_path {
            PathBuf::from(name)
        } else {
            Path::new(FOLDER).join(format!("{name}.toml"))
        };
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("read the profile {}; there are {}", path.display(), names().join(", "))
        })?;
        Self::parse(&text).with_context(|| format!("understand the profile {}", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let profile: Self = toml::from_str(text)?;
        let Requests { hot, decline_ratio, out_of_stock_ratio, cancels, reads, skus } =
            profile.traffic;
        let shares = [hot, decline_ratio, out_of_stock_ratio, cancels + reads];
        anyhow::ensure!(
            shares.iter().all(|share| (0.0..=1.0).contains(share)) && skus > 0,
            "a share is a number from 0 to 1, and there is at least one SKU"
        );
        anyhow::ensure!(
            profile.search.is_some() == profile.phases.is_empty(),
            "a profile has either phases or a search"
        );
        let search = profile.search.iter();
        anyhow::ensure!(
            profile.steps().iter().all(|step| step.rate > 0 && step.seconds > 0)
                && search.clone().all(|search| search.from > 0 && search.seconds > 0)
                && search.clone().all(|search| search.precision > 0.0),
            "rates, seconds and precision are above 0"
        );
        Ok(profile)
    }

    /// The phases as constant rates.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.phases.iter().flat_map(Phase::steps).collect()
    }
}

impl Phase {
    fn steps(&self) -> Vec<Step> {
        let Some(to) = self.to else {
            return vec![Step { rate: self.rate, seconds: self.seconds }];
        };
        let steps = self.steps.clamp(2, self.seconds.max(2));
        let (from, to) = (f64::from(self.rate), f64::from(to));
        let rate = |n: u32| from + (to - from) * f64::from(n) / f64::from(steps - 1);
        // Whole seconds, and the last step takes what is left.
        let each = self.seconds / steps;
        let seconds = |n: u32| if n + 1 == steps { self.seconds - each * n } else { each };
        (0..steps).map(|n| Step { rate: rate(n).round() as u32, seconds: seconds(n) }).collect()
    }
}

fn names() -> Vec<String> {
    let files = std::fs::read_dir(FOLDER).into_iter().flatten().flatten();
    let mut names: Vec<_> = files
        .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(".toml")?.to_owned()))
        .collect();
    names.sort();
    names
}

fn ten() -> u32 {
    10
}

/// vegeta sends its first request one interval after it began, and counts whole seconds.
fn nearly_all() -> f64 {
    0.99
}

fn two_minutes() -> u32 {
    120
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_profile_of_the_folder_is_understood() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("profiles");
        let mut found = Vec::new();
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            Profile::find(path.to_str().unwrap()).unwrap();
            found.push(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
        found.sort();
        let all =
            ["burst", "hot-sku", "limit", "mixed", "overload", "ramp", "smoke", "soak", "steady"];
        assert_eq!(found, all);
    }

    #[test]
    fn a_ramp_is_steps_that_take_its_time_from_one_rate_to_the_other() {
        let phase = Phase { rate: 10, to: Some(100), seconds: 33, steps: 10 };

        let steps = phase.steps();

        assert_eq!((steps[0].rate, steps[9].rate), (10, 100));
        assert_eq!(steps.iter().map(|step| step.seconds).sum::<u32>(), 33);
        assert!(steps.is_sorted_by_key(|step| step.rate));
    }

    #[test]
    fn a_profile_with_a_mistake_is_refused() {
        let good = include_str!("../../profiles/smoke.toml");
        Profile::parse(good).unwrap();

        for (from, to) in
            [("about", "abuot"), ("rate = ", "rate = -"), ("seconds = 10", "seconds = 0")]
        {
            assert!(good.contains(from));
            assert!(Profile::parse(&good.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
