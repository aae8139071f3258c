//! What holds for every board and panel, asked of the files and of a real Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value, json};

use crate::board::{Board, boards, elements, stages, text};
use crate::http::{encode, send};
use crate::process::root;
use crate::rules::{declared, family, loaded, names, start};

const TIME_RANGES: &str = "5m,15m,30m,1h,6h,12h,24h,7d";

/// Grafana's names of units; a mistyped one is shown as a suffix.
const UNITS: [&str; 9] =
    ["none", "short", "s", "percentunit", "bytes", "cps", "eps", "ops", "reqps"];

const KINDS: [&str; 5] = ["bargauge", "piechart", "stat", "table", "timeseries"];

#[test]
fn boards_are_provisioned_and_belong_together() {
    let mut known = BTreeSet::new();
    for Board { file, json } in &boards() {
        let name = file.strip_suffix(".json").unwrap();
        assert_eq!(text(json, "uid"), format!("order-{name}"));
        assert!(known.insert(text(json, "title").to_owned()), "{file}: a title that is taken");
        assert!(text(json, "description").ends_with(['.', '?']), "{file}");
        assert_eq!(json["tags"], json!(["order-pipeline"]), "{file}");
        assert_eq!(json["editable"], false, "{file}");
        assert_eq!(json["id"], Value::Null, "{file}: a number of some database");
        let [others] = json["links"].as_array().unwrap().as_slice() else { panic!("{file}") };
        assert_eq!(others["tags"], json["tags"], "{file}");
        assert!(others["includeVars"] == true && others["keepTime"] == true, "{file}");
    }
    let provider = fs::read_to_string(root().join("../grafana/provisioning/dashboards/orders.yml"));
    assert!(provider.unwrap().contains("allowUiUpdates: false"));
    assert_eq!(known.len(), 8, "{known:?}");
}

#[test]
fn every_panel_is_a_question_with_an_explanation_and_a_unit() {
    for board in &boards() {
        let mut ids = BTreeSet::new();
        for panel in elements(&board.json["panels"]) {
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}: {panel}", board.file);
        }
        for panel in board.panels() {
            let name = format!("{}: {}", board.file, text(panel, "title"));
            assert!(name.ends_with('?'), "{name}");
            assert!(text(panel, "description").ends_with('.'), "{name}");
            assert!(KINDS.contains(&text(panel, "type")), "{name}");
            let unit = text(&panel["fieldConfig"]["defaults"], "unit");
            assert!(UNITS.contains(&unit), "{name}: unit {unit:?}");
            assert!(elements(&panel["targets"]).next().is_some(), "{name}: asks nothing");
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    for board in &boards() {
        let mut taken = BTreeMap::new();
        for panel in elements(&board.json["panels"]) {
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            assert!(at("x") + at("w") <= 24, "{}: {}", board.file, text(panel, "title"));
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    let before = taken.insert((x, y), text(panel, "title"));
                    assert_eq!(before, None, "{}: {}", board.file, text(panel, "title"));
                }
            }
        }
    }
}

#[test]
fn variables_are_those_that_are_used_and_the_same_everywhere() {
    let mut by_name = BTreeMap::new();
    for board in &boards() {
        let declared: BTreeSet<_> =
            board.variables().map(|variable| text(variable, "name")).collect();
        let whole = board.json.to_string();
        let used = |name: &str| {
            whole.contains(&format!("${name}")) || whole.contains(&format!("${{{name}}}"))
        };
        let expected: BTreeSet<_> =
            ["datasource", "instance", "job", "run", "runbooks", "stage", "time_range"]
                .into_iter()
                .filter(|name| used(name))
                .collect();
        assert_eq!(declared, expected, "{}", board.file);

        for variable in board.variables() {
            let name = text(variable, "name");
            assert!(variable["type"] != "interval" || variable["query"] == TIME_RANGES, "{name}");
            let same = by_name.entry(name.to_owned()).or_insert_with(|| variable.clone());
            assert_eq!(same, variable, "{}: not the {name} of other boards", board.file);
        }
        for asker in board.panels().chain(board.annotations()) {
            let source = json!({ "type": "prometheus", "uid": "${datasource}" });
            assert_eq!(asker["datasource"], source, "{}: {asker}", board.file);
        }
    }
}

#[test]
fn no_board_knows_a_stage_by_name() {
    let stages = stages();
    for board in &boards() {
        for query in board.written() {
            let rest = query.replace(r#"stage=~"$stage""#, "");
            assert!(
                !rest.contains("stage=") && !rest.contains("stage!"),
                "{}: {query}",
                board.file
            );
            assert!(
                !rest.contains("consumergroup=") && !rest.contains("topic="),
                "{}: {query}",
                board.file
            );
            let named = rest.split('"').skip(1).step_by(2).find(|string| stages.contains(*string));
            assert_eq!(named, None, "{}: {query}", board.file);
        }
        for target in board.panels().flat_map(|panel| elements(&panel["targets"])) {
            let legend = text(target, "legendFormat");
            assert!(
                !legend.split(' ').any(|word| stages.contains(word)),
                "{}: {legend}",
                board.file
            );
        }
    }
}

#[test]
fn boards_read_only_what_is_declared_or_recorded_and_counters_as_rates() {
    let (prometheus, _dir) = start();
    let rules = loaded(&prometheus);
    let recorded: BTreeSet<_> =
        rules.iter().filter(|rule| !rule.is_alert).map(|rule| rule.name.as_str()).collect();
    let declared = declared();

    for board in &boards() {
        for query in board.queries() {
            for name in names(&query) {
                let known = recorded.contains(name) || family(name, &declared).is_some();
                assert!(known, "{} reads {name}: {query}", board.file);
                let counter = declared.get(name).is_some_and(|kind| kind == "counter");
                let mut before = query.match_indices(name).map(|(at, _)| &query[..at]);
                let wrapped =
                    before.all(|text| text.ends_with("rate(") || text.ends_with("increase("));
                assert!(!counter || wrapped, "{}: {name} as it is: {query}", board.file);
            }
        }
    }
}

#[test]
fn every_query_of_every_board_is_understood_by_prometheus() {
    let (prometheus, _dir) = start();
    let mut asked = 0;
    for board in &boards() {
        for query in board.queries() {
            let path = format!("/api/v1/query?query={}", encode(&query));
            let (status, body) = send(prometheus.port, "GET", &path, "").unwrap();
            assert!(status == 200 && !query.contains('$'), "{}: {query}: {body}", board.file);
            asked += 1;
        }
    }
    assert!(asked > 200, "{asked}");
}

#[test]
fn lines_are_drawn_where_alerts_have_them_and_every_alert_is_seen() {
    let (prometheus, _dir) = start();
    let alerts: BTreeMap<_, _> = loaded(&prometheus)
        .into_iter()
        .filter(|rule| rule.is_alert)
        .map(|rule| (rule.name, rule.query))
        .collect();
    let boards = boards();
    let uids: BTreeSet<_> = boards.iter().map(|board| text(&board.json, "uid")).collect();

    let mut seen = BTreeSet::new();
    for board in &boards {
        for panel in board.panels() {
            let name = format!("{}: {}", board.file, text(panel, "title"));
            let mut bounds = Vec::new();
            for link in elements(&panel["links"]) {
                let url = text(link, "url");
                let runbook =
                    url.strip_prefix("${runbooks}/").and_then(|page| page.strip_suffix(".md"));
                if let Some(alert) = runbook {
                    let query = alerts.get(alert).unwrap_or_else(|| panic!("{name}: {alert}"));
                    bounds.extend(numbers(query));
                    seen.insert(alert.to_owned());
                } else {
                    let uid = url.strip_prefix("/d/").and_then(|rest| rest.split('?').next());
                    assert!(uid.is_some_and(|uid| uids.contains(uid)), "{name}: {url}");
                }
            }
            let steps = elements(&panel["fieldConfig"]["defaults"]["thresholds"]["steps"]);
            for line in steps.filter_map(|step| step["value"].as_f64()) {
                // The other side of a ratio, and the first whole number above nothing, are the same bound.
                let drawn = |bound: &f64| {
                    let same = [*bound, 1.0 - bound];
                    same.iter().any(|value| (value - line).abs() < 1e-9)
                };
                assert!(bounds.iter().any(drawn), "{name}: no alert has {line}: {bounds:?}");
            }
        }
    }
    assert_eq!(seen, alerts.into_keys().collect(), "alerts, and those some panel leads to");
}

/// What an expression compares with.
fn numbers(query: &str) -> Vec<f64> {
    let words: Vec<_> = query.split_whitespace().collect();
    let compared = words.windows(2).filter(|pair| ["<", ">", "=="].contains(&pair[0]));
    compared.filter_map(|pair| pair[1].trim_end_matches(')').parse().ok()).collect()
}
