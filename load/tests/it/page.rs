//! What a process says at `/metrics`, in the text format that every reader of Prometheus knows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;

/// A page of metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Page {
    pub(crate) text: String,
    pub(crate) families: BTreeMap<String, Family>,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) help: String,
    /// Names of the labels of its series; without `le`, which belongs to every histogram.
    pub(crate) labels: BTreeSet<String>,
    /// Whether it has any series now.
    pub(crate) is_alive: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Page {
    /// Asks the process whose operators' port is at `address`.
    pub(crate) async fn of(address: SocketAddr) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().build()?;
        let asked = http.get(format!("http://{address}/metrics")).header("accept", "text/plain");
        let answer = asked.send().await.and_then(reqwest::Response::error_for_status);
        let text = answer.context("ask for metrics")?.text().await?;
        Self::read(text)
    }

    fn read(text: String) -> anyhow::Result<Self> {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some((name, help)) =
                line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' '))
            {
                help.clone_into(&mut page.families.entry(name.to_owned()).or_default().help);
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                kind.clone_into(&mut page.families.entry(name.to_owned()).or_default().kind);
            } else if !line.starts_with('#') && !line.is_empty() {
                let sample = sample(line).with_context(|| format!("no sample: {line}"))?;
                let family = page.family_of(&sample.name).to_owned();
                let family = page.families.entry(family).or_default();
                family.is_alive = true;
                family.labels.extend(sample.labels.keys().filter(|name| *name != "le").cloned());
                page.samples.push(sample);
            }
        }
        page.text = text;
        Ok(page)
    }

    fn family_of<'a>(&self, sample: &'a str) -> &'a str {
        let histogram =
            ["_bucket", "_sum", "_count"].iter().find_map(|suffix| sample.strip_suffix(suffix));
        let is_histogram =
            |name: &&str| self.families.get(*name).is_some_and(|family| family.kind == "histogram");
        histogram.filter(is_histogram).unwrap_or(sample)
    }

    /// The samples of `name` whose labels contain all of `labels`.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let fits = |sample: &&Sample| {
            sample.name == name && labels.iter().all(|(name, value)| sample.label(name) == *value)
        };
        self.samples.iter().filter(fits).collect()
    }

    /// Their sum; `None` when there is none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.find(name, labels).iter().map(|sample| sample.value).reduce(|a, b| a + b)
    }

    /// The greatest of them.
    pub(crate) fn max(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        self.find(name, labels).iter().map(|sample| sample.value).reduce(f64::max)
    }

    /// Names and labels of everything on the page.
    pub(crate) fn series(&self) -> BTreeSet<String> {
        self.samples.iter().map(|sample| format!("{}{:?}", sample.name, sample.labels)).collect()
    }
}

impl Sample {
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, quoted) = rest.split_once("=\"")?;
            let mut value = String::new();
            let mut characters = quoted.chars();
            loop {
                match characters.next()? {
                    '"' => break,
                    '\\' => value.push(characters.next()?),
                    other => value.push(other),
                }
            }
            labels.insert(label.to_owned(), value);
            rest = characters.as_str().trim_start_matches(',');
        }
        rest = &rest[1..];
    }
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

#[test]
fn a_page_is_read_with_its_types_and_labels() {
    let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"{1},\\\"2\\\"\",y=\"\"} 3\n\
                # HELP b How long.\n# TYPE b histogram\nb_bucket{le=\"+Inf\"} 1\nb_sum 0.5\nb_count 1\n";

    let page = Page::read(text.to_owned()).unwrap();

    assert_eq!(page.sum("a_total", &[("x", "{1},\"2\""), ("y", "")]), Some(3.0));
    let [a, b] = ["a_total", "b"].map(|name| &page.families[name]);
    assert_eq!((a.kind.as_str(), a.help.as_str(), a.labels.len()), ("counter", "Things.", 2));
    assert!(b.is_alive && b.labels.is_empty() && page.families.len() == 2, "{page:?}");
}
