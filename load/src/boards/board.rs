//! Grafana's boards, as far as they ask something: read from the files of a folder, looked up by uid, title and query.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

/// One file.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Board {
    pub(super) uid: String,
    /// Rows too; they ask nothing.
    pub(super) panels: Vec<Panel>,
    templating: Listed<Variable>,
    annotations: Listed<Annotation>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Panel {
    pub(super) title: String,
    #[serde(default)]
    pub(super) targets: Vec<Target>,
}

/// One query of a panel.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Target {
    #[serde(rename = "refId")]
    pub(super) id: String,
    pub(super) expr: String,
    /// Asked for now, and not over the time that is shown.
    #[serde(default)]
    pub(super) instant: bool,
    #[serde(rename = "legendFormat", default)]
    legend: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Variable {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) query: String,
    #[serde(rename = "allValue")]
    pub(super) all: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Annotation {
    pub(super) name: String,
    pub(super) expr: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Listed<T> {
    list: Vec<T>,
}

/// Every board of `folder`, by file name.
pub(super) fn read(folder: &Path) -> anyhow::Result<Vec<Board>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        files.push(entry.with_context(|| format!("read {}", folder.display()))?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    anyhow::ensure!(!files.is_empty(), "{} holds no board", folder.display());
    let board = |file: &std::path::PathBuf| {
        let read = || -> anyhow::Result<Board> { Ok(serde_json::from_slice(&fs::read(file)?)?) };
        read().with_context(|| format!("read {}", file.display()))
    };
    files.iter().map(board).collect()
}

/// The query `id` of the panel called `title` on the board `uid`.
pub(super) fn target<'a>(
    boards: &'a [Board],
    uid: &str,
    title: &str,
    id: &str,
) -> anyhow::Result<&'a Target> {
    let board = boards.iter().find(|board| board.uid == uid);
    let panels = &board.with_context(|| format!("there is no board {uid}"))?.panels;
    let panel = panels.iter().find(|panel| panel.title == title);
    let panel = panel.with_context(|| format!("{uid} has no panel called {title}"))?;
    let target = panel.targets.iter().find(|target| target.id == id);
    target.with_context(|| format!("{uid}: {title} has no query {id}"))
}

impl Board {
    pub(super) fn variables(&self) -> &[Variable] {
        &self.templating.list
    }

    pub(super) fn annotations(&self) -> &[Annotation] {
        &self.annotations.list
    }
}

impl Target {
    /// The labels that its legend names.
    pub(super) fn legend_labels(&self) -> Vec<&str> {
        let parts = self.legend.split("{{").skip(1);
        parts.filter_map(|part| Some(part.split_once("}}")?.0.trim())).collect()
    }
}

impl Variable {
    /// Series and label of `label_values(<series>, <label>)`.
    pub(super) fn label_values(&self) -> anyhow::Result<(&str, &str)> {
        let inside = self.query.strip_prefix("label_values(");
        let inside = inside.and_then(|rest| rest.strip_suffix(')'));
        let parts = inside.and_then(|inside| inside.rsplit_once(','));
        let (series, label) = parts.with_context(|| format!("{}: {}", self.name, self.query))?;
        Ok((series.trim(), label.trim()))
    }

    /// The steps of an interval.
    pub(super) fn steps(&self) -> impl Iterator<Item = &str> {
        self.query.split(',').map(str::trim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_and_a_legend_say_what_they_are_about() {
        let variable = Variable {
            name: "instance".to_owned(),
            kind: "query".to_owned(),
            query: r#"label_values(up{job=~"$job"}, instance)"#.to_owned(),
            all: None,
        };
        assert_eq!(variable.label_values().unwrap(), (r#"up{job=~"$job"}"#, "instance"));

        let target = Target {
            id: "A".to_owned(),
            expr: "up".to_owned(),
            instant: false,
            legend: "{{stage}} at {{ partition }}".to_owned(),
        };
        assert_eq!(target.legend_labels(), ["stage", "partition"]);
    }
}
