//! A number that is known, where it is shown, and whether the two agree.

use anyhow::Context;

use super::board::{Board, target};
use super::filling::{Choice, Chosen, scrape_seconds};
use crate::scene::prometheus::{Prometheus, Series};

/// Seconds over which an average is looked at.
const AVERAGED: f64 = 10.0;

/// Where to look: board, panel, query.
pub(super) type Place = (&'static str, &'static str, &'static str);

/// How to read what is shown there, summed over the series that carry the labels.
#[derive(Clone, Copy, Debug)]
pub(super) enum Look {
    At(f64),
    /// On average over some seconds before.
    Before(f64),
    /// The highest between two moments, times so much.
    Peak((f64, f64), f64),
    /// How many series there are.
    Count(f64),
}

/// A number that is known.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) place: Place,
    pub(super) look: Look,
    /// A value may have a pipeline's prefix before it.
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: f64,
    /// How far apart they may be.
    pub(super) tolerance: f64,
}

/// What a board shows of it.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) known: Known,
    pub(super) shown: Option<f64>,
}

impl Known {
    pub(super) fn new(place: Place, look: Look, value: f64, tolerance: f64) -> Self {
        Self { place, look, labels: Vec::new(), value, tolerance }
    }

    /// The same of series with this label.
    pub(super) fn with(mut self, label: &'static str, value: &str) -> Self {
        self.labels.push((label, value.to_owned()));
        self
    }

    /// Looks it up.
    pub(super) async fn compare(
        self,
        boards: &[Board],
        prometheus: &Prometheus,
    ) -> anyhow::Result<Compared> {
        let filled = filled(boards, self.place)?;
        let step = scrape_seconds();
        let mut series = match self.look {
            Look::At(at) | Look::Count(at) => prometheus.instant(&filled, at).await?,
            Look::Before(at) => prometheus.range(&filled, (at - AVERAGED, at), step).await?,
            Look::Peak(span, _) => prometheus.range(&filled, span, step).await?,
        };
        series.retain(|series| self.is_about(series));
        let each = series.iter().map(|series| self.look.read(series));
        let shown = match self.look {
            Look::Count(_) => Some(series.len() as f64),
            _ => each.reduce(|sum, value| sum + value),
        };
        Ok(Compared { known: self, shown })
    }

    fn is_about(&self, series: &Series) -> bool {
        self.labels.iter().all(|(name, wanted)| {
            let found = series.label(name);
            found == wanted || found.ends_with(&format!(".{wanted}"))
        })
    }
}

impl Look {
    fn read(self, series: &Series) -> f64 {
        let values = series.values.iter().map(|(_, value)| *value);
        match self {
            Self::At(_) | Self::Count(_) => values.sum(),
            Self::Before(_) => values.sum::<f64>() / series.values.len().max(1) as f64,
            Self::Peak(_, times) => values.fold(0.0, f64::max) * times,
        }
    }
}

impl Compared {
    pub(super) fn agrees(&self) -> bool {
        self.shown.is_some_and(|shown| (shown - self.known.value).abs() <= self.known.tolerance)
    }

    /// Board, panel, and of what.
    pub(super) fn what(&self) -> String {
        let (uid, title, _) = self.known.place;
        let labels: Vec<_> = self.known.labels.iter().map(|(_, value)| value.as_str()).collect();
        format!("{uid}: {title} {}", labels.join(" ")).trim_end().to_owned()
    }
}

/// Everything chosen, over a time range that holds the whole run.
fn filled(boards: &[Board], (uid, title, id): Place) -> anyhow::Result<String> {
    let board = boards.iter().find(|board| board.uid == uid).context("no such board")?;
    let several = board.variables().iter().filter(|variable| variable.kind == "query");
    let all = several.map(|variable| (variable.name.clone(), Chosen::all_of(variable)));
    let choice = Choice { time_range: "6h".to_owned(), variables: all.collect() };
    choice.fill(&target(boards, uid, title, id)?.expr, scrape_seconds())
}
