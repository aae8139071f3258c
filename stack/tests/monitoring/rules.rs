//! What holds for every rule and alert, asked of a real Prometheus that has loaded them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::board::{Board, boards};
use crate::http::{encode, json, send};
use crate::process::{Process, copy, root};

pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) query: String,
    labels: serde_json::Value,
    annotations: serde_json::Value,
    pub(crate) is_alert: bool,
}

pub(crate) fn loaded(prometheus: &Process) -> Vec<Rule> {
    let answer = json(prometheus.port, "/api/v1/rules");
    let groups = answer["data"]["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let rule = |rule: &serde_json::Value| Rule {
        name: rule["name"].as_str().unwrap().to_owned(),
        query: rule["query"].as_str().unwrap().to_owned(),
        labels: rule["labels"].clone(),
        annotations: rule["annotations"].clone(),
        is_alert: rule["type"] == "alerting",
    };
    rules.map(rule).collect()
}

pub(crate) fn start() -> (Process, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    copy(dir.path(), &|text| text);
    (Process::prometheus(dir.path(), "prometheus.yml", &[]), dir)
}

/// Family and type, of `families.txt`.
pub(crate) fn declared() -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join("families.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let columns: Vec<_> = line.split('|').map(str::trim).collect();
            assert_eq!(columns.len(), 5, "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&columns[1]), "{line}");
            (columns[0].to_owned(), columns[1].to_owned())
        })
        .collect()
}

/// Families that are exported and that nothing here reads.
fn for_people() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("families.txt")).unwrap();
    let lines =
        text.lines().filter(|line| !line.starts_with('#') && line.contains("| for people: "));
    lines.map(|line| line.split('|').next().unwrap().trim().to_owned()).collect()
}

#[test]
fn every_rule_reads_only_what_is_declared_or_recorded() {
    let (prometheus, _dir) = start();
    let rules = loaded(&prometheus);
    let recorded: BTreeSet<_> =
        rules.iter().filter(|rule| !rule.is_alert).map(|rule| rule.name.as_str()).collect();
    let declared = declared();

    let mut read = BTreeSet::new();
    let mut unknown = Vec::new();
    for rule in &rules {
        for name in names(&rule.query) {
            if !recorded.contains(name) {
                match family(name, &declared) {
                    Some(family) => drop(read.insert(family.to_owned())),
                    None => unknown.push(format!("{} reads {name}", rule.name)),
                }
            }
        }
    }

    assert!(rules.len() > 100, "{}", rules.len());
    assert_eq!(unknown, Vec::<String>::new());
    for query in boards().iter().flat_map(Board::queries) {
        read.extend(
            names(&query).iter().filter_map(|name| family(name, &declared)).map(str::to_owned),
        );
    }
    let for_people = for_people();
    let unread: BTreeSet<_> =
        declared.keys().filter(|family| !read.contains(*family)).cloned().collect();
    assert_eq!(unread, for_people, "read by no rule or board, and marked as being for people");
}

#[test]
fn every_alert_can_be_acted_on_and_is_tested() {
    let (prometheus, _dir) = start();
    let rules = loaded(&prometheus);
    let alerts: Vec<_> = rules.iter().filter(|rule| rule.is_alert).collect();
    let tests: String = fs::read_dir(root().join("tests"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();

    for alert in &alerts {
        let name = &alert.name;
        let severity = alert.labels["severity"].as_str().unwrap_or_default();
        assert!(
            ["critical", "warning", "info"].contains(&severity) || name == "Watchdog",
            "{name}"
        );
        let annotation = |key: &str| alert.annotations[key].as_str().unwrap_or_default();
        assert!(
            annotation("summary").ends_with('.') && !annotation("summary").contains("{{"),
            "{name}"
        );
        assert!(annotation("description").ends_with('.'), "{name}");
        assert_eq!(annotation("runbook_url"), format!("prometheus/runbooks/{name}.md"));
        let cases = |expectation: &str| {
            tests.contains(&format!("alertname: {name}\n        exp_alerts:{expectation}\n"))
        };
        assert!(cases(""), "no test shows that {name} fires");
        assert!(cases(" []") || name == "Watchdog", "no test shows that {name} is quiet");
        runbook(&prometheus, name);
    }

    let names: BTreeSet<_> = alerts.iter().map(|alert| format!("{}.md", alert.name)).collect();
    let pages = fs::read_dir(root().join("runbooks")).unwrap();
    let pages: BTreeSet<_> =
        pages.map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(pages, names, "runbooks and alerts");
}

/// Its parts are there, and each of its queries is one.
fn runbook(prometheus: &Process, alert: &str) {
    let page = fs::read_to_string(root().join(format!("runbooks/{alert}.md"))).unwrap();
    for part in ["## Meaning", "## Impact", "## Diagnosis", "## Mitigation"] {
        assert!(page.contains(part), "{alert}: {part}");
    }
    let mut queries = 0;
    for block in page.split("```promql\n").skip(1) {
        for query in block.split("```").next().unwrap().lines() {
            queries += 1;
            let path = format!("/api/v1/query?query={}", encode(query));
            let (status, body) = send(prometheus.port, "GET", &path, "").unwrap();
            assert_eq!(status, 200, "{alert}: {query}: {body}");
        }
    }
    assert!(queries > 0, "{alert}: nothing to ask");
}

#[test]
fn no_rule_knows_a_stage_by_name() {
    let (prometheus, _dir) = start();
    for rule in loaded(&prometheus) {
        for selector in [r#"stage=""#, r#"stage=~""#] {
            assert!(!rule.query.contains(selector), "{}: {}", rule.name, rule.query);
        }
    }
}

pub(crate) fn family<'a>(name: &'a str, declared: &BTreeMap<String, String>) -> Option<&'a str> {
    if declared.get(name).is_some_and(|kind| kind != "histogram") {
        return Some(name);
    }
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix))?;
    declared.get(base).filter(|kind| *kind == "histogram").map(|_| base)
}

/// The names of series in an expression: what is neither a function, an operator, a label nor a string.
pub(crate) fn names(query: &str) -> BTreeSet<&str> {
    const GROUPINGS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
    const WORDS: [&str; 14] = [
        "and", "or", "unless", "offset", "bool", "sum", "min", "max", "avg", "count", "group",
        "topk", "inf", "nan",
    ];
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut names = BTreeSet::new();
    let mut rest = query;
    while let Some(first) = rest.chars().next() {
        let end = |closing: char| rest[1..].find(closing).map_or(rest.len(), |at| at + 2);
        rest = match first {
            '"' => &rest[end('"')..],
            '{' => &rest[end('}')..],
            '[' => &rest[end(']')..],
            _ if is_name(first) => {
                let word_end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                let (word, after) = rest.split_at(word_end);
                let after = after.trim_start();
                if GROUPINGS.contains(&word) {
                    &after[after.find(')').map_or(0, |at| at + 1)..]
                } else {
                    let is_call = after.starts_with('(');
                    if !is_call && !WORDS.contains(&word) && !first.is_ascii_digit() {
                        names.insert(word);
                    }
                    after
                }
            }
            _ => &rest[first.len_utf8()..],
        };
    }
    names
}

#[test]
fn names_are_told_from_functions_labels_and_strings() {
    let query = r#"sum by (stage, le) (rate(a_total{x="b_total"}[5m])) / on (c) group_left (d) level:e:rate5m offset 1d > 0.5 or vector(1)"#;

    let found: Vec<_> = names(query).into_iter().collect();

    assert_eq!(found, ["a_total", "level:e:rate5m"]);
}
