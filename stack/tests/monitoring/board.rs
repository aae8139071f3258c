//! The boards of `grafana/dashboards`, read from their JSON, and their queries with something in place of the variables.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use crate::process::root;

pub(crate) struct Board {
    pub(crate) file: String,
    pub(crate) json: Value,
}

pub(crate) fn boards() -> Vec<Board> {
    let mut paths: Vec<_> = fs::read_dir(root().join("../grafana/dashboards"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let board = |path: &std::path::PathBuf| Board {
        file: path.file_name().unwrap().to_str().unwrap().to_owned(),
        json: serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap(),
    };
    paths.iter().map(board).collect()
}

/// The stages there are, by the files of `consumers/src/stages`.
pub(crate) fn stages() -> BTreeSet<String> {
    let files = fs::read_dir(root().join("../consumers/src/stages")).unwrap();
    let stages: BTreeSet<_> = files
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "mod")
        .collect();
    assert!(stages.contains("payment"), "{stages:?}");
    stages
}

/// The elements of an array, or of none.
pub(crate) fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

impl Board {
    pub(crate) fn panels(&self) -> impl Iterator<Item = &Value> {
        elements(&self.json["panels"]).filter(|panel| panel["type"] != "row")
    }

    pub(crate) fn variables(&self) -> impl Iterator<Item = &Value> {
        elements(&self.json["templating"]["list"])
    }

    pub(crate) fn annotations(&self) -> impl Iterator<Item = &Value> {
        elements(&self.json["annotations"]["list"])
    }

    /// What the panels and annotations ask, as it is written.
    pub(crate) fn written(&self) -> Vec<&str> {
        self.panels()
            .flat_map(|panel| elements(&panel["targets"]))
            .chain(self.annotations())
            .map(|target| text(target, "expr"))
            .collect()
    }

    /// Everything the board may ask: for every step of `time_range`, and what fills the variables.
    pub(crate) fn queries(&self) -> BTreeSet<String> {
        let steps: Vec<_> = self
            .variables()
            .filter(|variable| variable["type"] == "interval")
            .flat_map(|variable| text(variable, "query").split(','))
            .collect();
        let mut queries = BTreeSet::new();
        for written in self.written() {
            for choice in [".+", "one|an\\\\.other"] {
                let filled = written
                    .replace("$__rate_interval", "1m0s")
                    .replace("$job", choice)
                    .replace("$instance", choice)
                    .replace("$stage", choice)
                    .replace("$run", choice);
                if filled.contains("$time_range") {
                    queries.extend(steps.iter().map(|step| filled.replace("$time_range", step)));
                } else {
                    queries.insert(filled);
                }
            }
        }
        queries.extend(self.fillings());
        queries
    }

    /// The series whose labels fill the variables: `label_values(<series>, <label>)`.
    fn fillings(&self) -> impl Iterator<Item = String> {
        self.variables().filter(|variable| variable["type"] == "query").map(|variable| {
            let inside = text(variable, "query")
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'))
                .unwrap_or_else(|| panic!("{}: {variable}", self.file));
            inside.rsplit_once(',').unwrap().0.replace("$job", ".+")
        })
    }
}
