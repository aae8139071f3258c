//! From a profile to its measurements: one, or as many as it takes to find the highest rate that keeps the budget.

use serde::Serialize;

use super::judge::{Verdict, judge};
use super::measure::{Measured, Plan, Site};
use super::profile::{Profile, Search, Step};
use super::vegeta::Vegeta;
use crate::signals::Signals;

/// One measurement and its verdict.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trial {
    /// Requests per second, where the rate is what was searched for.
    pub(crate) rate: Option<u32>,
    pub(crate) measured: Measured,
    pub(crate) verdict: Verdict,
}

/// Runs the phases, or the search.
pub(crate) async fn measure(
    site: &Site,
    vegeta: &Vegeta,
    profile: &Profile,
    plan: &Plan,
    signals: &Signals,
) -> anyhow::Result<Vec<Trial>> {
    let Some(search) = &profile.search else {
        let measured = site.measure(vegeta, plan, signals).await?;
        let verdict = judge(&measured.observed, &plan.budget);
        return Ok(vec![Trial { rate: None, measured, verdict }]);
    };
    let mut trials: Vec<Trial> = Vec::new();
    let mut rates = Rates::new(search);
    while let Some(rate) = rates.next(trials.last().map(|trial| trial.verdict.pass)) {
        super::say(&format!("trying {rate} requests per second"));
        let folder = plan.folder.join(format!("{}-at-{rate}", trials.len() + 1));
        std::fs::create_dir_all(&folder)?;
        let plan = Plan {
            run: format!("{}-{}", plan.run, trials.len() + 1),
            steps: vec![Step { rate, seconds: search.seconds }],
            folder,
            ..plan.clone()
        };
        let measured = site.measure(vegeta, &plan, signals).await?;
        let verdict = judge(&measured.observed, &plan.budget);
        let seen = &measured.observed;
        // What is still on its way would be counted against the next trial.
        let is_last = seen.interrupted || !seen.drain.ended;
        trials.push(Trial { rate: Some(rate), measured, verdict });
        if is_last {
            break;
        }
    }
    Ok(trials)
}

/// The rates to try, one after the other.
struct Rates<'a> {
    search: &'a Search,
    tried: u32,
    good: u32,
    bad: Option<u32>,
}

impl<'a> Rates<'a> {
    fn new(search: &'a Search) -> Self {
        Self { search, tried: 0, good: 0, bad: None }
    }

    /// The next one, after hearing how the last one went.
    fn next(&mut self, passed: Option<bool>) -> Option<u32> {
        match passed {
            None => {}
            Some(true) => self.good = self.tried,
            Some(false) => self.bad = Some(self.tried),
        }
        let most = self.search.most;
        self.tried = match (self.tried, self.bad) {
            (0, _) => self.search.from.min(most),
            (tried, None) if tried >= most => return None,
            (tried, None) => tried.saturating_mul(2).min(most),
            (_, Some(bad)) => {
                let close = (f64::from(self.good) * self.search.precision).max(1.0);
                if f64::from(bad - self.good) <= close || self.good == 0 {
                    return None;
                }
                self.good.midpoint(bad)
            }
        };
        Some(self.tried)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(limit: u32, most: u32) -> Vec<u32> {
        let search = Search { from: 100, most, seconds: 1, precision: 0.1, at_least: 1 };
        let mut rates = Rates::new(&search);
        let (mut tried, mut passed) = (Vec::new(), None);
        while let Some(rate) = rates.next(passed) {
            tried.push(rate);
            passed = Some(rate <= limit);
        }
        tried
    }

    #[test]
    fn a_limit_is_found_by_doubling_and_then_halving() {
        assert_eq!(tried(650, 10_000), [100, 200, 400, 800, 600, 700, 650]);
        assert_eq!(tried(1_000_000, 500), [100, 200, 400, 500]);
        assert_eq!(tried(50, 500), [100]);
    }
}
