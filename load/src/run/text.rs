//! The report for people at a terminal.

use std::fmt::Write as _;
use std::path::Path;

use super::observed::{Observed, Quantiles};
use super::report::Report;

/// Everything but the verdict's last line.
pub(crate) fn text(report: &Report, folder: &Path) -> String {
    let mut text = String::new();
    write(&mut text, report, folder).expect("writing to a string never fails");
    text
}

fn write(text: &mut String, report: &Report, folder: &Path) -> std::fmt::Result {
    let seen = report.observed();
    if !report.trials.is_empty() {
        writeln!(
            text,
            "{:<10}{:>10}{:>12}{:>14}  verdict",
            "rate", "accepted", "client p99", "to final p99"
        )?;
        for trial in &report.trials {
            let p99 = |times: Option<Quantiles>| times.map_or(f64::NAN, |times| times.p99);
            writeln!(
                text,
                "{:<10}{:>10}{:>10.3} s{:>12.3} s  {}",
                trial.rate,
                trial.observed.accepted,
                p99(trial.observed.client),
                p99(trial.observed.to_final),
                if trial.pass { "pass".to_owned() } else { trial.reasons.join("; ") }
            )?;
        }
        writeln!(text)?;
    }
    write_orders(text, seen)?;
    writeln!(text, "\n{:<26}{:>10}{:>10}{:>10}{:>10}", "seconds", "p50", "p95", "p99", "max")?;
    for (name, times) in seen.latencies() {
        let Some(Quantiles { p50, p95, p99, max }) = times else { continue };
        writeln!(text, "{name:<26}{p50:>10.3}{p95:>10.3}{p99:>10.3}{max:>10.3}")?;
    }
    writeln!(text, "\n{:<26}{:>10}{:>10}", "peak lag", "records", "seconds")?;
    for (stage, lag) in &seen.lag {
        writeln!(text, "{stage:<26}{:>10.0}{:>10.3}", lag.records, lag.seconds)?;
    }
    if !seen.usage.is_empty() {
        writeln!(text, "\n{:<26}{:>10}{:>10}{:>10}", "process", "CPU s", "peak MiB", "last MiB")?;
        for (name, usage) in &seen.usage {
            let (cpu, peak, last) = (usage.cpu_seconds, usage.peak_mib, usage.last_mib);
            writeln!(text, "{name:<26}{cpu:>10.2}{peak:>10.0}{last:>10.0}")?;
        }
    }
    writeln!(text, "\n{:<34}{:>12}{:>12}", "budget", "found", "at most")?;
    for check in &report.verdict.checks {
        let name = format!("{}{}", check.what, in_unit(check.unit));
        let found = check.found.map_or("-".to_owned(), |found| format!("{found:.3}"));
        let holds = if check.holds { "" } else { "  MISSED" };
        writeln!(text, "{name:<34}{found:>12}{:>12}{holds}", check.limit)?;
    }
    if let Some(fired) = &report.alerts {
        let names: Vec<_> = fired.iter().map(|fired| fired.name.as_str()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        writeln!(text, "\nalerts that fired: {names}")?;
    }
    let changes = report.changes();
    if !changes.is_empty() {
        writeln!(text, "\n{:<34}{:>12}{:>12}", "compared", "then", "now")?;
        for change in &changes {
            let name = format!("{}{}", change.name, in_unit(change.unit));
            writeln!(text, "{name:<34}{:>12.3}{:>12.3}", change.then, change.now)?;
        }
    }
    if seen.interrupted {
        writeln!(text, "\ninterrupted after {:.1} s", seen.seconds)?;
    }
    if !report.verdict.pass {
        writeln!(text)?;
    }
    for reason in &report.verdict.reasons {
        writeln!(text, "FAILED: {reason}")?;
    }
    writeln!(text, "\n{}", folder.join("report.html").display())
}

fn write_orders(text: &mut String, seen: &Observed) -> std::fmt::Result {
    let mut line = |name: &str, count: u64| writeln!(text, "{name:<34}{count:>12}");
    line("requests offered", seen.offered)?;
    line("requests sent", seen.sent)?;
    line("orders sent", seen.orders_sent)?;
    line("orders accepted", seen.accepted)?;
    for (code, count) in &seen.rejected {
        line(&format!("  rejected: {code}"), *count)?;
    }
    for (what, count) in &seen.unknown {
        line(&format!("  outcome unknown: {what}"), *count)?;
    }
    line("orders completed", seen.completed_orders())?;
    for (status, count) in &seen.completed {
        line(&format!("  {status}"), *count)?;
    }
    line("lost", seen.lost())?;
    line("duplicated", seen.duplicated())?;
    line("late", seen.late)?;
    for (what, count) in &seen.others {
        line(what, *count)?;
    }
    writeln!(text, "{:<34}{:>12.3}", "seconds to drain", seen.drain.seconds)
}

fn in_unit(unit: &str) -> String {
    if unit.is_empty() { String::new() } else { format!(", {}", unit.trim()) }
}
