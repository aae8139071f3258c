//! One query of a panel, asked in every way that a person at the board may ask it.

use std::collections::BTreeMap;

use super::board::Target;
use super::filling::{Choice, Chosen, reads, scrape_seconds};
use super::walk::Walk;
use crate::scene::prometheus::Series;

/// Seconds between two points where it is only asked whether there are any.
const COARSE_STEP: f64 = 2.5;

/// One query of a panel, while it is asked.
pub(super) struct Query<'a> {
    pub(super) walk: &'a Walk<'a>,
    pub(super) target: &'a Target,
    /// Board, panel and query.
    pub(super) name: String,
    /// Whether it may answer nothing while all is well.
    pub(super) is_quiet: bool,
    pub(super) asked: usize,
    /// What is not as it should be.
    pub(super) wrong: Vec<String>,
}

impl Query<'_> {
    /// With everything, with each of `steps` and with each of `values`.
    pub(super) async fn ask(
        mut self,
        everything: &Choice,
        values: &BTreeMap<String, Vec<String>>,
        steps: &[&str],
    ) -> Self {
        let over = self.over(everything, scrape_seconds(), "over the run").await;
        if over.as_ref().is_some_and(|over| !has_data(over)) {
            self.wrong("never answered anything over the run");
        }
        let now = self.at(everything, "in the end").await;
        if now.is_some_and(|now| !has_data(&now)) && !self.is_quiet {
            self.wrong("answers nothing in the end");
        }
        for label in self.target.legend_labels() {
            let named = over.iter().flatten().any(|series| !series.label(label).is_empty());
            if !named && over.as_ref().is_some_and(|over| !over.is_empty()) {
                self.wrong(&format!("no series has the label {label} of its legend"));
            }
        }
        if reads(&self.target.expr, "time_range") {
            for step in steps {
                let choice = Choice { time_range: (*step).to_owned(), ..everything.clone() };
                let what = format!("with a time range of {step}");
                let found = self.at(&choice, &what).await;
                if found.is_some_and(|found| !has_data(&found)) {
                    self.wrong(&format!("answers nothing {what}"));
                }
            }
        }
        for (name, values) in values {
            if reads(&self.target.expr, name) && !values.is_empty() {
                self.each_value(everything, name, values).await;
            }
        }
        self
    }

    /// Each value finds only its own, one of them finds something, and all of them ticked find what everything does.
    async fn each_value(&mut self, everything: &Choice, name: &str, values: &[String]) {
        let mut found_any = false;
        for value in values {
            let choice = everything.with(name, Chosen::These(vec![value.clone()]));
            let what = format!("with {name} {value}");
            let Some(found) = self.as_shown(&choice, &what).await else { return };
            found_any |= has_data(&found);
            let stranger = found.iter().find(|series| {
                let label = series.label(name);
                !label.is_empty() && label != value
            });
            if let Some(stranger) = stranger {
                self.wrong(&format!("answers {:?} {what}", stranger.labels));
            }
        }
        if !found_any {
            self.wrong(&format!("answers nothing for any {name} alone"));
        }
        let ticked = everything.with(name, Chosen::These(values.to_vec()));
        let ticked = self.as_shown(&ticked, &format!("with every {name} ticked")).await;
        let all = self.as_shown(everything, "with everything").await;
        if let (Some(ticked), Some(all)) = (ticked, all)
            && ticked.len() != all.len()
        {
            let (ticked, all) = (ticked.len(), all.len());
            self.wrong(&format!(
                "has {ticked} series with every {name} ticked, and {all} with all"
            ));
        }
    }

    /// As the panel asks: for now, or over the time that is shown.
    async fn as_shown(&mut self, choice: &Choice, what: &str) -> Option<Vec<Series>> {
        match self.target.instant {
            true => self.at(choice, what).await,
            false => self.over(choice, COARSE_STEP, what).await,
        }
    }

    async fn at(&mut self, choice: &Choice, what: &str) -> Option<Vec<Series>> {
        let answer = async {
            let filled = choice.fill(&self.target.expr, scrape_seconds())?;
            self.walk.instant(&filled).await
        };
        let answer = answer.await;
        self.note(answer, what)
    }

    async fn over(&mut self, choice: &Choice, step: f64, what: &str) -> Option<Vec<Series>> {
        let answer = async {
            let filled = choice.fill(&self.target.expr, step)?;
            self.walk.range(&filled, step).await
        };
        let answer = answer.await;
        self.note(answer, what)
    }

    fn note(&mut self, answer: anyhow::Result<Vec<Series>>, what: &str) -> Option<Vec<Series>> {
        self.asked += 1;
        answer.map_err(|error| self.wrong(&format!("{what}: {error:#}"))).ok()
    }

    fn wrong(&mut self, what: &str) {
        self.wrong.push(format!("{} {what}", self.name));
    }
}

/// Whether there is a number to draw.
pub(super) fn has_data(series: &[Series]) -> bool {
    series.iter().any(Series::is_finite)
}
