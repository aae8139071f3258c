//! What Grafana puts in place of variables, in the faster time of those that watch.
//!
//! Windows that a query names and steps of `time_range` are shortened as the rules are, so a window holds as many samples
//! as it does for people; `$__rate_interval` follows from the scrape interval and the step, as in Grafana.

use std::collections::BTreeMap;

use anyhow::ensure;

use super::board::Variable;
use crate::scene::{FASTER, shorter};

/// Seconds between two scrapes, in `prometheus.yml` and in the provisioned data source.
const SCRAPE_SECONDS: u64 = 15;

/// What is chosen for a variable of which several values may be.
#[derive(Clone, Debug)]
pub(super) enum Chosen {
    /// What the board says that stands for all.
    All(String),
    These(Vec<String>),
}

/// What is chosen at the top of a board.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) time_range: String,
    pub(super) variables: BTreeMap<String, Chosen>,
}

/// Seconds between two scrapes here.
pub(super) fn scrape_seconds() -> f64 {
    shorter(SCRAPE_SECONDS).as_secs_f64()
}

/// Whether `expression` reads the variable `name`.
pub(super) fn reads(expression: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let plain = format!("${name}");
    let mut found = expression.match_indices(&plain);
    found.any(|(at, _)| ends(&expression[at + plain.len()..]))
        || expression.contains(&format!("${{{name}}}"))
}

impl Chosen {
    pub(super) fn all_of(variable: &Variable) -> Self {
        Self::All(variable.all.clone().unwrap_or_else(|| ".*".to_owned()))
    }

    /// Values are escaped for a regular expression inside a string of PromQL, and joined when there are several.
    fn text(&self) -> String {
        match self {
            Self::All(all) => all.clone(),
            Self::These(values) => {
                let values: Vec<_> = values.iter().map(|value| escaped(value)).collect();
                match values.as_slice() {
                    [one] => one.clone(),
                    several => format!("({})", several.join("|")),
                }
            }
        }
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::new();
    for c in value.chars() {
        match c {
            '\\' => text.push_str(r"\\\\"),
            '$' | '^' | '*' | '{' | '}' | '[' | ']' | '\'' | '+' | '?' | '.' | '(' | ')' | '|' => {
                text.push_str(r"\\");
                text.push(c);
            }
            c => text.push(c),
        }
    }
    text
}

impl Choice {
    /// `expression` as it is asked, with a point every `step` seconds.
    pub(super) fn fill(&self, expression: &str, step: f64) -> anyhow::Result<String> {
        let replaced = |text: String, name: &str, value: &str| {
            text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
        };
        let filled = replaced(expression.to_owned(), "time_range", &self.time_range);
        // A file ends with a line, an expression does not.
        let filled = stack::shortened(&filled, FASTER).trim_end().to_owned();
        let rate_interval = (step + scrape_seconds()).max(4.0 * scrape_seconds());
        let rate_interval = format!("{:.0}ms", rate_interval * 1000.0);
        let mut filled = replaced(filled, "__rate_interval", &rate_interval);
        for (name, chosen) in &self.variables {
            filled = replaced(filled, name, &chosen.text());
        }
        ensure!(!filled.contains('$'), "nothing stands for a variable of {filled}");
        Ok(filled)
    }

    /// The same with another value of one variable.
    pub(super) fn with(&self, name: &str, chosen: Chosen) -> Self {
        let mut this = self.clone();
        this.variables.insert(name.to_owned(), chosen);
        this
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice() -> Choice {
        let stages = Chosen::These(vec!["a".to_owned(), "b.c".to_owned()]);
        let variables = [("job", Chosen::All(".+".to_owned())), ("stage", stages)];
        Choice {
            time_range: "1h".to_owned(),
            variables: variables.map(|(name, chosen)| (name.to_owned(), chosen)).into(),
        }
    }

    #[test]
    fn windows_run_in_faster_time_and_values_are_escaped_as_grafana_does() {
        for (expression, expected) in [
            (
                "sum(increase(a[$time_range])) or vector(0)",
                "sum(increase(a[150000ms])) or vector(0)",
            ),
            ("rate(a[$__rate_interval])", "rate(a[2500ms])"),
            ("rate(a[5m]) / (b offset 1d)", "rate(a[12500ms]) / (b offset 3600000ms)"),
            (r#"a{job=~"$job", stage=~"${stage}"}"#, r#"a{job=~".+", stage=~"(a|b\\.c)"}"#),
        ] {
            assert_eq!(choice().fill(expression, 0.625).unwrap(), expected);
        }
        let one = choice().with("job", Chosen::These(vec!["127.0.0.1:9".to_owned()]));
        assert_eq!(one.fill(r#"a{b=~"$job"}"#, 1.0).unwrap(), r#"a{b=~"127\\.0\\.0\\.1:9"}"#);
    }

    #[test]
    fn a_zoom_beyond_four_scrapes_widens_the_rate() {
        assert_eq!(choice().fill("rate(a[$__rate_interval])", 10.0).unwrap(), "rate(a[10625ms])");
    }

    #[test]
    fn a_variable_that_nobody_fills_is_told() {
        assert!(choice().fill("a[$nobody]", 1.0).is_err());
        assert!(reads("a{b=~\"$run\"}", "run"));
        assert!(!reads("a{b=~\"$runbooks\"}", "run"));
    }
}
