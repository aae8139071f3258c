//! Monitoring in faster time: the very files of `prometheus/` with every length of time divided by one factor, so that what
//! takes a day there takes an hour here.
//!
//! Shortened: intervals, `for`, `keep_firing_for`, windows, offsets, waiting times of Alertmanager, and thresholds on
//! time that passes (how far behind, how long ago, accepted to final). Left alone: what one call costs (a query, a request, a
//! task that waits for its worker), because the machine gets no faster. A window holds as many scrapes as before, but for
//! Postgres' exporter, which needs its time.

/// What is measured in seconds and stays as it is: a slope, the cost of one call, and an age that programs read every 15 s,
/// which would be older than a shortened bound whenever it is looked at.
const NOT_PASSING: [&str; 4] = [
    "stage:stage_outbox_age_seconds:max",
    "consumergroup:kafka_consumergroup_lag_seconds:deriv10m",
    "operation:db_operation_duration_seconds:p95_5m",
    "namespace_task_queue:temporal_workflow_task_schedule_to_start_latency_seconds:p99_5m",
];

/// Keys of Prometheus' and Alertmanager's files whose value is a length of time.
const KEYS: [&str; 10] = [
    "scrape_interval",
    "evaluation_interval",
    "interval",
    "for",
    "keep_firing_for",
    "resolve_timeout",
    "group_wait",
    "group_interval",
    "repeat_interval",
    "refresh_interval",
];

/// The one that takes a second to answer when what it is asked about is gone: asked as seldom as the others it would
/// seem to be gone itself.
const SLOW_TO_ANSWER: &str = "  - job_name: postgres";
const SLOWLY: [&str; 2] = ["    scrape_interval: 1250ms", "    scrape_timeout: 1250ms"];

/// Bounds of the histogram of `order_processing_seconds` that may stand for a shortened one.
const ORDER_BOUNDS: [f64; 12] =
    [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// `text`, a file of `prometheus/` or an expression of a board, in time that runs `factor` times as fast; the same for 1.
pub fn shortened(text: &str, factor: u32) -> String {
    if factor <= 1 {
        return text.to_owned();
    }
    let mut lines = Vec::new();
    for text in text.lines() {
        lines.push(line(text, factor));
        if text == SLOW_TO_ANSWER {
            lines.extend(SLOWLY.map(str::to_owned));
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// A length of time as Prometheus writes it: `90s`, shortened.
pub(crate) fn duration(length: &str, factor: u32) -> String {
    milliseconds(length).map_or_else(|| length.to_owned(), |long| shorter(long, factor))
}

fn line(text: &str, factor: u32) -> String {
    let (code, comment) = text.split_once(" #").unwrap_or((text, ""));
    if code.trim_start().starts_with('#') || !comment.is_empty() {
        return text.to_owned();
    }
    if let Some((key, value)) = code.split_once(": ") {
        let name = key.trim_start().trim_start_matches("- ");
        if name == "scrape_timeout" {
            // The longest that Prometheus allows: a scrape takes here what it takes anywhere.
            return format!("{key}: {}", duration("15s", factor));
        }
        if KEYS.contains(&name) && milliseconds(value).is_some() {
            return format!("{key}: {}", duration(value, factor));
        }
    }
    let code = windows(code, "[", factor);
    let code = windows(&code, "offset ", factor);
    bounds(&thresholds(&code, factor), factor)
}

/// Shortens each length of time right behind `opening`.
fn windows(text: &str, opening: &str, factor: u32) -> String {
    let mut parts = text.split(opening);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(part.len());
        let (length, rest) = part.split_at(end);
        out += opening;
        out += &duration(length, factor);
        out += rest;
    }
    out
}

/// Shortens what a series of seconds is compared with.
fn thresholds(text: &str, factor: u32) -> String {
    let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
    for at in 2..words.len() {
        let is_comparison = [">", "<"].contains(&words[at - 1].as_str());
        let series = words[at - 2].as_str();
        let passes = series.contains("_seconds") && !NOT_PASSING.contains(&series);
        if let (true, true, Ok(seconds)) = (is_comparison, passes, words[at].parse::<f64>()) {
            words[at] = (seconds / f64::from(factor)).to_string();
        }
    }
    words.join(" ")
}

/// A minute as a bound of a histogram: the next bound there is above a shortened one.
fn bounds(text: &str, factor: u32) -> String {
    let shorter = 60.0 / f64::from(factor);
    let bound = ORDER_BOUNDS.into_iter().find(|bound| *bound >= shorter).unwrap_or(60.0);
    text.replace(r#"le=~"60(\\.0)?""#, &format!(r#"le=~"{bound}(\\.0)?""#))
}

fn milliseconds(length: &str) -> Option<u64> {
    let unit_at = length.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = length.split_at(unit_at);
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit)
}

fn shorter(milliseconds: u64, factor: u32) -> String {
    format!("{}ms", milliseconds.div_ceil(u64::from(factor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_takes_an_hour_and_a_minute_two_seconds_and_a_half() {
        for (text, expected) in [
            ("  scrape_interval: 15s", "  scrape_interval: 625ms"),
            ("        for: 2m", "        for: 5000ms"),
            ("    interval: 1m", "    interval: 2500ms"),
            ("      group_wait: 0s", "      group_wait: 0ms"),
            ("a offset 1d > 0.1", "a offset 3600000ms > 0.1"),
            (
                "rate(a[5m]) and avg_over_time(b[1h] offset 10m)",
                "rate(a[12500ms]) and avg_over_time(b[150000ms] offset 25000ms)",
            ),
            (
                "time() - a:b_timestamp_seconds:max > 7200",
                "time() - a:b_timestamp_seconds:max > 300",
            ),
            (r#"a_bucket{le=~"60(\\.0)?"}"#, r#"a_bucket{le=~"2.5(\\.0)?"}"#),
        ] {
            assert_eq!(line(text, 24), expected);
        }
    }

    #[test]
    fn what_is_no_length_of_time_stays() {
        for text in [
            "# Two full runs: for: 5m",
            "      - alert: BatchJobStale",
            "    expr: rate5m > 0.5",
            "operation:db_operation_duration_seconds:p95_5m > 1",
            "consumergroup:kafka_consumergroup_lag_seconds:deriv10m > 0.05",
            r#"le="0.25"}[x]"#,
            "            the hour before had 5m",
        ] {
            assert_eq!(line(text, 24), text);
        }
        assert_eq!(shortened("for: 5m\n", 1), "for: 5m\n");
    }

    #[test]
    fn a_target_that_is_slow_to_answer_is_given_the_time() {
        let file = include_str!("../../../prometheus/prometheus.yml");

        let text = shortened(file, 24);

        let job = text.split("- job_name: ").find(|job| job.starts_with("postgres\n")).unwrap();
        assert!(SLOWLY.iter().all(|line| job.contains(line)), "{job}");
        assert_eq!(text.matches(SLOWLY[1]).count(), 1);
    }
}
