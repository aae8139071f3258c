//! Every question of every board, asked of the Prometheus that watched: with everything chosen, with each step of `time_range`,
//! with each value of each variable, and with all of them ticked.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};

use super::board::{Annotation, Board, Variable};
use super::filling::{Choice, Chosen, scrape_seconds};
use super::query::{Query, has_data};
use crate::scene::prometheus::{Prometheus, Series};

/// Questions on their way at a time: those who answer share two cores with the pipeline.
const AT_A_TIME: usize = 4;

/// What the boards begin with.
const USUAL_TIME_RANGE: &str = "1h";

/// Queries that answer nothing while all is well, and that no 0 can stand for. The run causes what they tell of, so that they
/// must have answered at some time.
const QUIET: [(&str, &str, &str); 2] = [
    // How close retention is to what is unread, where nothing is unread.
    ("order-lag", "How many records are left until retention takes some unread?", "A"),
    // Names the partitions that are; the second query counts them, and says 0.
    ("order-lag", "Which partitions are stuck?", "A"),
];

/// What came of the walk over one board.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) uid: String,
    pub(super) panels: usize,
    /// Queries and annotations as they are written, and as often as they were asked.
    pub(super) queries: usize,
    pub(super) asked: usize,
    /// What is not as it should be.
    pub(super) wrong: Vec<String>,
}

/// The span that is looked at, in seconds since 1970; its end is also the moment that an instant is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: f64,
    pub(super) to: f64,
}

pub(super) struct Walk<'a> {
    prometheus: &'a Prometheus,
    span: Span,
}

impl<'a> Walk<'a> {
    pub(super) fn new(prometheus: &'a Prometheus, span: Span) -> Self {
        Self { prometheus, span }
    }

    /// Fills the variables of `board` and asks everything it may ask.
    pub(super) async fn over(&self, board: &Board) -> anyhow::Result<Walked> {
        let mut walked = Walked { uid: board.uid.clone(), ..Walked::default() };
        let (everything, values) = self.variables(board, &mut walked).await?;
        let steps: Vec<&str> = board
            .variables()
            .iter()
            .filter(|variable| variable.kind == "interval")
            .flat_map(Variable::steps)
            .collect();
        let mut queries = Vec::new();
        for panel in board.panels.iter().filter(|panel| !panel.targets.is_empty()) {
            walked.panels += 1;
            queries.extend(panel.targets.iter().map(|target| (panel.title.as_str(), target)));
        }
        let (everything, values, steps) = (&everything, &values, &steps);
        let asking = queries.iter().map(|&(title, target)| async move {
            let name = format!("{}: {title} {}", board.uid, target.id);
            let is_quiet = QUIET.contains(&(board.uid.as_str(), title, target.id.as_str()));
            let query = Query { walk: self, target, name, is_quiet, asked: 0, wrong: Vec::new() };
            query.ask(everything, values, steps).await
        });
        let answers: Vec<Query<'_>> =
            stream::iter(asking).buffer_unordered(AT_A_TIME).collect().await;
        for query in answers {
            walked.queries += 1;
            walked.asked += query.asked;
            walked.wrong.extend(query.wrong);
        }
        for annotation in board.annotations() {
            walked.queries += 1;
            walked.asked += 1;
            walked.wrong.extend(self.annotation(board, annotation, everything).await);
        }
        walked.wrong.sort();
        Ok(walked)
    }

    /// Everything chosen, and what there is to choose from, by variable.
    async fn variables(
        &self,
        board: &Board,
        walked: &mut Walked,
    ) -> anyhow::Result<(Choice, BTreeMap<String, Vec<String>>)> {
        let mut choice =
            Choice { time_range: USUAL_TIME_RANGE.to_owned(), variables: BTreeMap::new() };
        let mut values = BTreeMap::new();
        for variable in board.variables().iter().filter(|variable| variable.kind == "query") {
            let found = self.values(variable, &choice).await?;
            walked.asked += 1;
            if found.is_empty() {
                walked.wrong.push(format!("{}: ${} has no value", board.uid, variable.name));
            }
            choice.variables.insert(variable.name.clone(), Chosen::all_of(variable));
            values.insert(variable.name.clone(), found);
        }
        Ok((choice, values))
    }

    async fn values(&self, variable: &Variable, choice: &Choice) -> anyhow::Result<Vec<String>> {
        let (series, label) = variable.label_values()?;
        let selector = choice.fill(series, scrape_seconds())?;
        let span = (self.span.from, self.span.to);
        let found = self.prometheus.matching(&selector, span).await?;
        let mut values: Vec<String> =
            found.into_iter().filter_map(|mut labels| labels.remove(label)).collect();
        values.sort();
        values.dedup();
        Ok(values)
    }

    async fn annotation(
        &self,
        board: &Board,
        annotation: &Annotation,
        choice: &Choice,
    ) -> Option<String> {
        let asked = async {
            let filled = choice.fill(&annotation.expr, scrape_seconds())?;
            self.range(&filled, scrape_seconds()).await
        };
        let said = match asked.await {
            Ok(series) if has_data(&series) => return None,
            Ok(_) => "marks nothing".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        Some(format!("{}: the annotation {} {said}", board.uid, annotation.name))
    }

    /// Over the whole span.
    pub(super) async fn range(&self, filled: &str, step: f64) -> anyhow::Result<Vec<Series>> {
        self.prometheus.range(filled, (self.span.from, self.span.to), step).await
    }

    /// At its end.
    pub(super) async fn instant(&self, filled: &str) -> anyhow::Result<Vec<Series>> {
        self.prometheus.instant(filled, self.span.to).await
    }
}
