//! The older text format (0.0.4), for readers that know no other: promtool, and scrapers that were not written for
//! OpenMetrics. Made from the OpenMetrics text, so that both say the same. Pure.
//!
//! What gets lost on the way: exemplars and units, which this format does not have.

use std::fmt::Write as _;

/// Content type of [`plain`].
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const PLAIN: &str = "text/plain";
const OPEN_METRICS: &str = "application/openmetrics-text";

/// Whether a reader that sends `accept` would rather have the older format. Who names neither gets OpenMetrics.
pub(super) fn is_wanted(accept: &str) -> bool {
    let weight = |wanted: &str| -> f32 {
        let ranges = accept.split(',').filter(|range| media(range).eq_ignore_ascii_case(wanted));
        ranges.map(quality).fold(0.0, f32::max)
    };
    weight(PLAIN) > weight(OPEN_METRICS)
}

fn media(range: &str) -> &str {
    range.split(';').next().unwrap_or_default().trim()
}

/// The `q` of a media range; 1 when it has none, 0 when it cannot be read.
fn quality(range: &str) -> f32 {
    let given = range.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    given.map_or(1.0, |number| number.trim().parse().unwrap_or(0.0))
}

/// The same metrics in the older format.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Written with the type, which decides how the family is called here.
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
        {
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            // Writing to a string never fails.
            if let Some(help) = help.take() {
                writeln!(text, "# HELP {name}{suffix} {help}").ok();
            }
            writeln!(text, "# TYPE {name}{suffix} {kind}").ok();
        } else if !line.starts_with('#') {
            writeln!(text, "{}", without_exemplar(line)).ok();
        }
    }
    text
}

/// A sample without the exemplar behind its value. Label values may hold anything, also what looks like one.
fn without_exemplar(sample: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (at, character) in sample.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return sample[..at].trim_end(),
            _ => {}
        }
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_called_as_the_older_format_calls_them() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{x=\"1\"} 3\n\
                    # HELP b_seconds How long.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\n\
                    b_seconds_sum 0.5\nb_seconds_count 1\nb_seconds_bucket{le=\"+Inf\"} 1\n\
                    # HELP c What runs.\n# TYPE c info\nc_info{version=\"1\"} 1\n# EOF\n";

        let expected = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\"} 3\n\
                        # HELP b_seconds How long.\n# TYPE b_seconds histogram\n\
                        b_seconds_sum 0.5\nb_seconds_count 1\nb_seconds_bucket{le=\"+Inf\"} 1\n\
                        # HELP c_info What runs.\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n";
        assert_eq!(plain(open), expected);
    }

    #[test]
    fn exemplars_are_left_out_and_labels_that_look_like_one_are_not() {
        let exemplar = r#"a_bucket{le="1.0"} 3 # {trace_id="4bf9"} 0.5 1700000000.0"#;
        assert_eq!(without_exemplar(exemplar), r#"a_bucket{le="1.0"} 3"#);
        let strange = r#"lag{group="a # {b=\"c\"} \\"} 3"#;
        assert_eq!(without_exemplar(strange), strange);
    }

    #[test]
    fn who_does_not_ask_for_the_older_format_gets_openmetrics() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for accept in ["", "*/*", prometheus, "text/html,*/*;q=0.8", "text/plain;q=nonsense"] {
            assert!(!is_wanted(accept), "{accept}");
        }
        for accept in [
            "text/plain",
            "Text/Plain; version=0.0.4",
            "application/openmetrics-text;q=0.2, text/plain",
        ] {
            assert!(is_wanted(accept), "{accept}");
        }
    }
}
