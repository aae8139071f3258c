//! The audit as a batch job: what it looked at and found, pushed to a Pushgateway, where alerts read it.
//!
//! The last success stays there when a later run fails, because a push only replaces the families it brings.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::Method;
use schemas::Timestamp;

use super::report::Report;
use super::rules::Kind;

/// Name of the job, and of its group at the Pushgateway.
const JOB: &str = "reconcile";

/// A gateway that does not answer in this time must not hold the report up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Deletes the group: a Pushgateway never forgets one by itself, and what it shows of a job that is no more is old for ever.
pub(super) async fn retire(gateway: &str) -> anyhow::Result<()> {
    tell(gateway, Method::DELETE, String::new()).await
}

/// Pushes the figures of a run that took `seconds`.
pub(super) async fn push(gateway: &str, report: &Report, seconds: f64) -> anyhow::Result<()> {
    tell(gateway, Method::POST, text(report, seconds, Timestamp::now())).await
}

async fn tell(gateway: &str, method: Method, body: String) -> anyhow::Result<()> {
    let url = format!("{}/metrics/job/{JOB}", gateway.trim_end_matches('/'));
    let client = reqwest::Client::builder().timeout(PATIENCE).build().context("making a client")?;
    let answer = client.request(method, &url).body(body).send().await;
    let answer = answer.with_context(|| format!("telling {url}"))?;
    let status = answer.status();
    if !status.is_success() {
        let said = answer.text().await.unwrap_or_default();
        bail!("{url} answered {status}: {}", said.trim());
    }
    Ok(())
}

/// In the text format that a Pushgateway takes.
fn text(report: &Report, seconds: f64, now: Timestamp) -> String {
    let mut text = String::new();
    let records = [("", report.records as f64)];
    family(&mut text, "batch_job_processed_total", "counter", "What a run looked at", records);
    let took = [("", seconds)];
    family(&mut text, "batch_job_duration_seconds", "gauge", "How long a run took", took);
    let found = [
        (Kind::Lost, report.lost),
        (Kind::Duplicated, report.duplicated),
        (Kind::Phantom, report.phantom),
        (Kind::Mismatched, report.mismatched),
    ];
    let found =
        found.map(|(kind, count)| (format!("{{kind=\"{}\"}}", kind.as_str()), count as f64));
    family(
        &mut text,
        "batch_job_mismatches",
        "gauge",
        "Orders of which the stores tell different stories, by kind",
        found.iter().map(|(labels, count)| (labels.as_str(), *count)),
    );
    // Orders on their way are no failure: a pipeline at work always has some.
    if report.is_sound() {
        let at = now.as_micros() as f64 / 1e6;
        let (name, help) =
            ("batch_job_last_success_timestamp_seconds", "When a run last found nothing");
        family(&mut text, name, "gauge", help, [("", at)]);
    }
    text
}

fn family<'a>(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    values: impl IntoIterator<Item = (&'a str, f64)>,
) {
    // Writing to a string never fails.
    writeln!(text, "# HELP {name} {help}.\n# TYPE {name} {kind}").ok();
    for (labels, value) in values {
        writeln!(text, "{name}{labels} {value}").ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        Timestamp::parse("2026-01-01T00:00:00Z").unwrap()
    }

    #[test]
    fn a_run_that_found_something_is_no_success_and_says_what() {
        let report = Report { records: 40, lost: 2, ..Report::default() };

        let text = text(&report, 1.5, at());

        assert!(text.contains("\nbatch_job_processed_total 40\n"), "{text}");
        assert!(text.contains("\nbatch_job_duration_seconds 1.5\n"), "{text}");
        assert!(text.contains("\nbatch_job_mismatches{kind=\"lost\"} 2\n"), "{text}");
        assert!(!text.contains("last_success"), "{text}");
    }

    #[test]
    fn a_run_in_the_middle_of_work_is_a_success() {
        let report = Report { placed: 5, final_orders: 3, pending: 2, ..Report::default() };

        let text = text(&report, 1.5, at());

        assert!(!report.is_reconciled() && text.contains("last_success"), "{text}");
    }

    #[test]
    fn a_good_run_moves_the_last_success() {
        let report = Report { reconciled: true, ..Report::default() };

        let text = text(&report, 1.5, at());

        assert!(text.ends_with("batch_job_last_success_timestamp_seconds 1767225600\n"), "{text}");
    }
}
