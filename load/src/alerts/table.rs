//! What is printed: the catalogue, and the table of detection times.

use std::fmt::Write as _;
use std::time::Duration;

use super::catalogue::{CATALOGUE, STANDS_IN};
use super::fault::Fault;
use super::known::ALWAYS;
use super::proof::{Proven, Times};
use crate::scene::FASTER;

/// A fault that was tried.
pub(super) struct Row {
    pub(super) fault: &'static Fault,
    pub(super) outcome: anyhow::Result<Proven>,
}

/// What would be done.
pub(super) fn list() -> String {
    let mut text = String::new();
    for fault in CATALOGUE.iter().flat_map(|family| family.iter()) {
        let proves: Vec<_> = fault.proves.iter().map(|expected| expected.alert).collect();
        line(&mut text, &format!("{}\n    proves   {}", fault.what, proves.join(", ")));
        for (alert, why) in fault.follows {
            line(&mut text, &format!("    follows  {alert}: {why}"));
        }
    }
    line(&mut text, "\nat any time");
    for always in &ALWAYS {
        line(&mut text, &format!("    {}", always.text()));
    }
    if !STANDS_IN.is_empty() {
        line(&mut text, "\nnot here, and what stands in");
        for (alert, why) in STANDS_IN {
            line(&mut text, &format!("    {alert}: {why}"));
        }
    }
    text
}

/// Detection times in real seconds, and in brackets as long as they are in `prometheus/`.
pub(super) fn text(rows: &[Row], finished: bool) -> String {
    let width = rows.iter().map(|row| row.fault.what.len()).max().unwrap_or_default();
    let mut text = format!(
        "{:<34} {:<width$} {:>16} {:>16} {:>16}\n",
        "alert", "fault", "pending", "told", "resolved"
    );
    for Row { fault, outcome } in rows {
        let Ok(proven) = outcome else { continue };
        for (alert, Times { pending, told, resolved }) in &proven.alerts {
            let [pending, told, resolved] = [pending, told, resolved].map(|time| shown(*time));
            line(
                &mut text,
                &format!(
                    "{alert:<34} {:<width$} {pending:>16} {told:>16} {resolved:>16}",
                    fault.what
                ),
            );
        }
    }
    for Row { fault, outcome } in rows {
        match outcome {
            Ok(proven) if proven.followed.is_empty() => {}
            Ok(proven) => {
                line(&mut text, &format!("{} also: {}", fault.what, proven.followed.join(", ")));
            }
            Err(error) => line(&mut text, &format!("FAILED: {}: {error:#}", fault.what)),
        }
    }
    let failed = rows.iter().filter(|row| row.outcome.is_err()).count();
    let alerts: usize = rows
        .iter()
        .filter_map(|row| row.outcome.as_ref().ok())
        .map(|proven| proven.alerts.len())
        .sum();
    let verdict = match (failed, finished) {
        (0, true) => "proven",
        (0, false) => "stopped before the end",
        _ => "NOT proven",
    };
    line(
        &mut text,
        &format!(
            "{verdict}: alerts={alerts} faults={} failed={failed} faster={FASTER}",
            rows.len()
        ),
    );
    text
}

fn shown(time: Option<Duration>) -> String {
    let Some(time) = time else { return "-".to_owned() };
    let written = time.as_secs() * u64::from(FASTER);
    format!("{:.1}s ({}m{:02}s)", time.as_secs_f64(), written / 60, written % 60)
}

fn line(text: &mut String, what: &str) {
    writeln!(text, "{what}").expect("writing to a string never fails");
}
