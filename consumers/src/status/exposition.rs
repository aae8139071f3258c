//! Reads the text that `/metrics` serves, OpenMetrics or Prometheus'. Pure; lines that are none are skipped.

use std::collections::BTreeMap;

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

impl Sample {
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The samples of `text`, without timestamps and exemplars.
pub(super) fn parse(text: &str) -> Vec<Sample> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect()
}

fn sample(line: &str) -> Option<Sample> {
    let name_ends = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(name_ends);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, value })
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        let end = loop {
            match chars.next()? {
                (end, '"') => break end,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(name.trim().to_owned(), value);
        rest = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn samples_are_read_with_labels_and_without_exemplars() {
        let text = "# TYPE a histogram\na_bucket{le=\"+Inf\",stage=\"x\"} 3 # {trace_id=\"1\"} 0.5\nb 1.5e3 1700000000\n# EOF\n";

        let samples = parse(text);

        assert_eq!(samples.len(), 2);
        assert_eq!((samples[0].label("le"), samples[0].label("stage")), ("+Inf", "x"));
        assert_eq!((samples[0].value, samples[1].value), (3.0, 1500.0));
        assert_eq!(samples[1].name, "b");
    }

    #[test]
    fn quotes_braces_and_line_ends_in_values_are_theirs() {
        let samples = parse("a{x=\"q\\\"}, \\\\ \\n λ\",y=\"\"} 1");

        assert_eq!(samples[0].label("x"), "q\"}, \\ \n λ");
        assert_eq!(samples[0].label("y"), "");
    }

    #[test]
    fn what_is_no_sample_is_skipped() {
        for line in ["", "a", "a{", "a{x=\"1\"", "a{x=\"1\"} one", "<html>", "{} 1"] {
            assert_eq!(parse(line), [], "{line}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_text_is_safe(text in any::<String>(), tail in ".*") {
            parse(&text);
            parse(&format!("a{{x=\"{tail}"));
        }
    }
}
