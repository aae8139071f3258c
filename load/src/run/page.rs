//! The report as one HTML page that needs nothing else: styles and pictures are in it, and it asks no network.

use std::collections::BTreeMap;

use super::judge;
use super::measure::Moment;
use super::observed::Quantiles;
use super::plot::{Axes, Line, escape, number, seconds, svg};
use super::report::Report;

const STYLE: &str = "
:root{color-scheme:light}
body{font:15px/1.45 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;color:#1b1f24}
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.1em;margin:1.8em 0 .4em}
.verdict{padding:.7em 1em;border-radius:6px;font:600 15px ui-monospace,monospace}
.pass{background:#d9f2e3}.fail{background:#fbdfd9}
table{border-collapse:collapse}td,th{padding:.2em .9em .2em 0;text-align:right;border-bottom:1px solid #e4e7eb}
td:first-child,th:first-child{text-align:left}th{font-weight:600;color:#57606a}
.missed{color:#b3261e;font-weight:600}
svg{width:100%;height:auto}svg text{font-size:11px;fill:#57606a}
.grid{stroke:#e4e7eb}.limit{stroke:#b3261e;stroke-dasharray:5 4}polyline{fill:none;stroke-width:1.6}
.legend{margin:.1em 0;font-size:13px;color:#57606a}.legend span{margin-right:1.2em}
.legend i{display:inline-block;width:14px;height:3px;margin-right:.4em;vertical-align:middle}
.legend .budget{background:#b3261e}
.trials td:last-child{text-align:left}
.columns{display:flex;flex-wrap:wrap;gap:0 3em}
";

/// The whole page.
pub(crate) fn html(report: &Report) -> String {
    let seen = report.observed();
    let class = if report.verdict.pass { "pass" } else { "fail" };
    let title = format!("Load run {}", report.run);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style>\
         <h1>{0}</h1><p>{1}. {2} requests in {3:.0} s, seed {4}, ended {5}.</p>\
         <p class=\"verdict {class}\">{6}</p>",
        escape(&title),
        escape(&report.profile.about),
        seen.sent,
        seen.seconds,
        report.seed,
        escape(&report.ended_at),
        judge::last_line(seen, report.verdict.pass),
    );
    if seen.interrupted {
        page += "<p>The run was interrupted; this is what happened so far.</p>";
    }
    if !report.verdict.reasons.is_empty() {
        page += "<ul>";
        for reason in &report.verdict.reasons {
            page += &format!("<li class=\"missed\">{}</li>", escape(reason));
        }
        page += "</ul>";
    }
    page += &budget(report);
    page += &trials(report);
    page += &orders(report);
    page += &pictures(report);
    page += &resources(report);
    page += &witnesses(report);
    page += &comparison(report);
    page
}

fn budget(report: &Report) -> String {
    let rows = report.verdict.checks.iter().map(|check| {
        let found = check.found.map_or("–".to_owned(), |found| number(found) + check.unit);
        let found = if check.holds { found } else { format!("<b class=\"missed\">{found}</b>") };
        vec![escape(check.what), found, format!("{}{}", number(check.limit), check.unit)]
    });
    section("Budget", &table(&["", "found", "at most"], rows))
}

fn trials(report: &Report) -> String {
    if report.trials.is_empty() {
        return String::new();
    }
    let p99 = |times: Option<Quantiles>| times.map_or("–".to_owned(), |times| number(times.p99));
    let rows = report.trials.iter().map(|trial| {
        let seen = &trial.observed;
        let verdict =
            if trial.pass { "pass".to_owned() } else { escape(&trial.reasons.join("; ")) };
        let (client, to_final) = (p99(seen.client), p99(seen.to_final));
        vec![trial.rate.to_string(), seen.accepted.to_string(), client, to_final, verdict]
    });
    let head = ["requests per second", "accepted", "client p99, s", "to final p99, s", "verdict"];
    section("Rates tried", &format!("<div class=\"trials\">{}</div>", table(&head, rows)))
}

fn orders(report: &Report) -> String {
    let seen = report.observed();
    let count = |name: &str, count: u64| vec![escape(name), count.to_string()];
    let mut rows = vec![
        count("requests offered", seen.offered),
        count("requests sent", seen.sent),
        count("orders sent", seen.orders_sent),
        count("accepted", seen.accepted),
        count("completed", seen.completed_orders()),
        count("lost", seen.lost()),
        count("duplicated", seen.duplicated()),
        count("late", seen.late),
        vec!["seconds to drain".to_owned(), number(seen.drain.seconds)],
    ];
    let left = table(&["", ""], rows.drain(..));
    let by = |prefix: &str, counts: &BTreeMap<String, u64>| {
        counts.iter().map(|(name, n)| count(&format!("{prefix}{name}"), *n)).collect::<Vec<_>>()
    };
    let answers = [
        by("completed: ", &seen.completed),
        by("rejected: ", &seen.rejected),
        by("unknown: ", &seen.unknown),
        by("", &seen.others),
    ];
    let middle = table(&["", ""], answers.into_iter().flatten());
    let rows = seen.latencies().into_iter().filter_map(|(name, times)| {
        let Quantiles { p50, p95, p99, max } = times?;
        let mut row = vec![name.to_owned()];
        row.extend([p50, p95, p99, max].map(number));
        Some(row)
    });
    let right = table(&["seconds", "p50", "p95", "p99", "max"], rows);
    section("Orders", &format!("<div class=\"columns\">{left}{middle}</div><br>{right}"))
}

fn pictures(report: &Report) -> String {
    let measured = &report.measured;
    let budget = &report.profile.budget;
    let latency = |name: &str, of: fn(&super::measure::Second) -> f64| Line {
        name: name.to_owned(),
        points: measured.latencies.iter().map(|second| (second.at, of(second))).collect(),
    };
    let over_time =
        [latency("p50", |s| s.p50), latency("p99", |s| s.p99), latency("max", |s| s.max)];
    let nines = |share: f64| -(1.0 - share).max(1e-9).log10();
    let distribution = [Line {
        name: "client".to_owned(),
        points: measured.distribution.iter().map(|(share, y)| (nines(*share), *y)).collect(),
    }];
    let shares = [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999];
    let shares = shares.map(|share| (nines(share), format!("{} %", share * 100.0))).to_vec();
    let moments = &measured.moments;
    let count = |name: &str, of: fn(&Moment) -> u64| Line {
        name: name.to_owned(),
        points: moments.iter().map(|moment| (moment.at, of(moment) as f64)).collect(),
    };
    let progress = [
        count("offered", |m| m.offered),
        count("accepted", |m| m.accepted),
        count("completed", |m| m.completed),
        count("not accepted", |m| m.rejected),
    ];
    let limit = Some(budget.client_p99_seconds);
    let mut text = picture("Client latency over time", &over_time, "seconds", limit);
    let axes = Axes { y: "seconds, by share of requests", x: shares, limit };
    text += &section("Client latency, distribution", &svg(&distribution, &axes));
    text += &picture(
        "Orders on their way: the gap between accepted and completed",
        &progress,
        "requests and orders",
        None,
    );
    text += &picture("Throughput of every stage", &throughput(moments), "events per second", None);
    let lag = by_name(moments, |moment| {
        moment.metrics.lag.iter().map(|(stage, lag)| (stage.clone(), lag.seconds)).collect()
    });
    text += &picture("Lag of every stage, in seconds", &lag, "seconds", budget.lag_seconds);
    let lag = by_name(moments, |moment| {
        moment.metrics.lag.iter().map(|(stage, lag)| (stage.clone(), lag.records)).collect()
    });
    text + &picture("Lag of every stage, in records", &lag, "records", None)
}

fn resources(report: &Report) -> String {
    let seen = report.observed();
    if seen.usage.is_empty() {
        return String::new();
    }
    let rows = seen.usage.iter().map(|(name, usage)| {
        let numbers = [usage.cpu_seconds, usage.peak_mib, usage.last_mib].map(number);
        [vec![escape(name)], numbers.to_vec()].concat()
    });
    let memory = by_name(&report.measured.moments, |moment| {
        moment.memory.iter().map(|(name, mib)| (name.clone(), *mib)).collect()
    });
    let table = table(&["process", "CPU seconds", "peak MiB", "last MiB"], rows);
    section("Resources", &table)
        + &picture("Memory", &memory, "MiB", report.profile.budget.memory_mib)
}

fn witnesses(report: &Report) -> String {
    let seen = report.observed();
    let audit = &seen.audit;
    let verdict = if audit.reconciled { "reconciled" } else { "NOT reconciled" };
    let mut text = format!(
        "<p>The auditor: {verdict}, placed {}, lost {}, duplicated {}, phantom {}, mismatched {}, pending {}, held up {}.</p>",
        audit.placed,
        audit.lost,
        audit.duplicated,
        audit.phantom,
        audit.mismatched,
        audit.pending,
        audit.dead_lettered
    );
    for finding in &audit.findings {
        text += &format!("<p class=\"missed\">{}</p>", escape(finding));
    }
    let rows = seen.counters.iter().map(|counter| {
        let moved = counter.moved.map_or("–".to_owned(), number);
        let bounds = [counter.at_least, counter.at_most].map(|bound| bound.to_string());
        [vec![escape(&counter.name), moved], bounds.to_vec()].concat()
    });
    if let Some(fired) = &report.alerts {
        let names: Vec<_> = fired.iter().map(|fired| escape(&fired.name)).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        text += &format!("<p>Alerts that fired: {names}.</p>");
    }
    text += &table(&["counted by the pipeline", "", "seen: at least", "at most"], rows);
    section("Witnesses", &text)
}

fn comparison(report: &Report) -> String {
    let Some(earlier) = &report.earlier else { return String::new() };
    let rows = report.changes().into_iter().map(|change| {
        let share = if change.then == 0.0 {
            "–".to_owned()
        } else {
            format!("{:+.1} %", (change.now / change.then - 1.0) * 100.0)
        };
        let name = format!("{} {}", change.name, change.unit);
        vec![escape(&name), number(change.then), number(change.now), share]
    });
    let head =
        format!("<p>With {}, ended {}.</p>", escape(&earlier.run), escape(&earlier.ended_at));
    section("Compared", &(head + &table(&["", "then", "now", "change"], rows)))
}

/// Events per second between one look and the next.
fn throughput(moments: &[Moment]) -> Vec<Line> {
    let applied = by_name(moments, |moment| moment.metrics.applied.clone());
    let rate = |line: Line| {
        let pairs = line.points.windows(2);
        let rate = |pair: &[(f64, f64)]| {
            let ((from, before), (to, after)) = (pair[0], pair[1]);
            (to, (after - before).max(0.0) / (to - from).max(0.001))
        };
        Line { name: line.name, points: pairs.map(rate).collect() }
    };
    applied.into_iter().map(rate).collect()
}

fn by_name(moments: &[Moment], of: impl Fn(&Moment) -> BTreeMap<String, f64>) -> Vec<Line> {
    let mut lines: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for moment in moments {
        for (name, value) in of(moment) {
            lines.entry(name).or_default().push((moment.at, value));
        }
    }
    lines.into_iter().map(|(name, points)| Line { name, points }).collect()
}

fn picture(title: &str, lines: &[Line], y: &str, limit: Option<f64>) -> String {
    section(title, &svg(lines, &Axes { y, x: seconds(lines), limit }))
}

fn section(title: &str, body: &str) -> String {
    format!("<h2>{}</h2>{body}", escape(title))
}

/// Cells are HTML already.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let cells = |tag: &str, cells: &[String]| {
        let cells = cells.iter().map(|cell| format!("<{tag}>{cell}</{tag}>"));
        format!("<tr>{}</tr>", cells.collect::<String>())
    };
    let head: Vec<String> = head.iter().map(|cell| escape(cell)).collect();
    let rows: String = rows.map(|row| cells("td", &row)).collect();
    format!("<div><table>{}{rows}</table></div>", cells("th", &head))
}
