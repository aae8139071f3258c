//! Draws the pipeline as lines of text that fit a terminal. Pure.

use super::pipeline::{Pipeline, Stage};

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Head,
    Faint,
    Warning,
    Alarm,
}

pub(super) type Line = Vec<(Tone, String)>;

/// Seconds behind from which a stage deserves a look, and from which it needs somebody.
const SLOW: f64 = 10.0;
const LATE: f64 = 60.0;

/// The whole picture, at most `width` by `height`; `hint` stands at the right of the title.
pub(super) fn lines(
    pipeline: &Pipeline,
    note: Option<&str>,
    hint: &str,
    (width, height): (usize, usize),
) -> Vec<Line> {
    let title = "order pipeline";
    let gap = width.saturating_sub(title.len() + hint.chars().count());
    let mut lines = vec![
        vec![(Tone::Head, title.to_owned()), (Tone::Faint, format!("{}{hint}", " ".repeat(gap)))],
        Line::new(),
    ];
    lines.extend(table(&pipeline.stages));
    lines.push(Line::new());
    let counts = |counts: Vec<String>| (Tone::Plain, counts.join("   "));
    if !pipeline.finished.is_empty() {
        let by_status =
            pipeline.finished.iter().map(|(status, n)| format!("{status} {}", count(*n)));
        lines.push(vec![(Tone::Faint, "finished   ".to_owned()), counts(by_status.collect())]);
    }
    if !pipeline.workflows.is_empty() {
        let closed = pipeline.workflows.iter().map(|(how, n)| format!("{how} {}", count(*n)));
        lines.push(vec![(Tone::Faint, "workflows  ".to_owned()), counts(closed.collect())]);
    }
    for (place, (address, answer)) in pipeline.endpoints.iter().enumerate() {
        let head = if place == 0 { "endpoints  " } else { "           " };
        let (tone, what) = match answer {
            Ok(process) => (Tone::Plain, process.clone()),
            Err(why) => (Tone::Alarm, format!("does not answer: {why}")),
        };
        lines.push(vec![
            (Tone::Faint, head.to_owned()),
            (Tone::Plain, format!("{address:<22}")),
            (tone, what),
        ]);
    }
    if let Some(note) = note {
        lines.push(Line::new());
        lines.push(vec![(Tone::Warning, note.to_owned())]);
    }
    lines.truncate(height);
    lines.into_iter().map(|line| cut(line, width)).collect()
}

/// The table of stages alone: 79 columns.
pub(super) fn table(stages: &[Stage]) -> Vec<Line> {
    let head = format!(
        "{:<10}{:>9}{:>9}{:>8}{:>8}{:>8}{:>8}{:>7}{:>5}{:>7}",
        "STAGE", "EVENTS/S", "LAG", "BEHIND", "DRAIN", "P50", "P99", "OUTBOX", "DEAD", "PARKED"
    );
    let mut lines = vec![vec![(Tone::Head, head)]];
    lines.extend(stages.iter().map(row));
    lines
}

fn row(stage: &Stage) -> Line {
    let cell = |tone, text: String, width: usize| (tone, format!("{text:>width$}"));
    let whole = |number: Option<i64>| or_dash(number.map(|number| count(number as f64)));
    let behind = match stage.lag_seconds {
        Some(seconds) if seconds >= LATE => Tone::Alarm,
        Some(seconds) if seconds >= SLOW => Tone::Warning,
        _ => Tone::Plain,
    };
    let wrong = |number: Option<i64>| if number > Some(0) { Tone::Alarm } else { Tone::Plain };
    let name = if stage.source == "none" || stage.source == "lag-exporter" {
        Tone::Alarm
    } else {
        Tone::Plain
    };
    vec![
        (name, format!("{:<10}", cut_text(&stage.stage, 9))),
        cell(Tone::Plain, or_dash(stage.events_per_second.map(count)), 9),
        cell(behind, whole(stage.lag), 9),
        cell(behind, or_dash(stage.lag_seconds.map(duration)), 8),
        cell(Tone::Plain, or_dash(stage.drain_seconds.map(duration)), 8),
        cell(Tone::Plain, or_dash(stage.processing_p50_seconds.map(duration)), 8),
        cell(Tone::Plain, or_dash(stage.processing_p99_seconds.map(duration)), 8),
        cell(Tone::Plain, whole(stage.outbox), 7),
        cell(wrong(stage.dead_letters), whole(stage.dead_letters), 5),
        cell(wrong(stage.parked_orders), whole(stage.parked_orders), 7),
    ]
}

/// The lines without tones, each with its end.
pub(super) fn plain(lines: &[Line]) -> String {
    let text = |line: &Line| line.iter().map(|(_, text)| text.as_str()).collect::<String>();
    lines.iter().map(|line| format!("{}\n", text(line).trim_end())).collect()
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// At most four digits and a letter.
fn count(number: f64) -> String {
    match number {
        n if n >= 9.9995e9 => format!("{:.0}G", n / 1e9),
        n if n >= 9.9995e6 => format!("{:.1}M", n / 1e6),
        n if n >= 9_999.5 => format!("{:.1}k", n / 1e3),
        n if n < 10.0 && n.fract() != 0.0 => format!("{n:.1}"),
        n => format!("{n:.0}"),
    }
}

/// At most six characters.
fn duration(seconds: f64) -> String {
    match seconds {
        0.0 => "0s".to_owned(),
        s if s < 0.0095 => format!("{:.1}ms", s * 1e3),
        s if s < 0.9995 => format!("{:.0}ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1}s"),
        s if s < 99.5 => format!("{s:.0}s"),
        s if s < 5_999.5 => format!("{:.0}m{:02.0}s", (s / 60.0).floor(), (s % 60.0).floor()),
        s if s < 360_000.0 => {
            format!("{:.0}h{:02.0}m", (s / 3_600.0).floor(), (s % 3_600.0 / 60.0).floor())
        }
        s => format!("{:.0}d", s / 86_400.0),
    }
}

fn cut(line: Line, width: usize) -> Line {
    let mut room = width;
    line.into_iter()
        .map(|(tone, text)| {
            let text = cut_text(&text, room);
            room -= text.chars().count();
            (tone, text)
        })
        .collect()
}

/// What a terminal may be shown of a text from elsewhere.
fn cut_text(text: &str, width: usize) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).take(width).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> Stage {
        Stage {
            stage: "inventory".to_owned(),
            source: "stage",
            events_per_second: Some(123_456.7),
            lag: Some(1_234_567),
            lag_seconds: Some(3_725.0),
            drain_seconds: None,
            processing_p50_seconds: Some(0.0042),
            processing_p99_seconds: Some(0.25),
            outbox: Some(0),
            dead_letters: Some(2),
            parked_orders: Some(0),
            ..Stage::default()
        }
    }

    fn pipeline() -> Pipeline {
        Pipeline {
            stages: vec![stage(); 5],
            finished: [("shipped".to_owned(), 990.0)].into(),
            workflows: [("completed", 7.0)].into(),
            endpoints: vec![
                ("127.0.0.1:9102".to_owned(), Ok("order-consumer 0.1.0".to_owned())),
                ("10.0.0.7:9102".to_owned(), Err("\u{1b}[31mConnection refused\n".repeat(9))),
            ],
        }
    }

    #[test]
    fn everything_fits_a_small_terminal() {
        let lines = lines(&pipeline(), Some("a note"), "q ends", (80, 24));

        let text = plain(&lines);
        assert!(lines.len() <= 24, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("inventory"), "{text}");
        assert!(text.contains("does not answer") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn a_row_is_read_at_a_glance() {
        let text = plain(&table(&[stage()]));

        let row: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(
            row,
            ["inventory", "123.5k", "1234.6k", "62m05s", "-", "4.2ms", "250ms", "0", "2", "0"]
        );
        assert_eq!(text.lines().next().unwrap().len(), 79);
    }

    #[test]
    fn what_needs_somebody_stands_out() {
        let row = row(&stage());

        let alarms: Vec<&str> =
            row.iter().filter(|(tone, _)| *tone == Tone::Alarm).map(|(_, t)| t.trim()).collect();
        assert_eq!(alarms, ["1234.6k", "62m05s", "2"]);
    }

    #[test]
    fn numbers_keep_to_their_columns() {
        for seconds in [0.0, 0.00001, 0.0099, 0.9999, 9.99, 99.9, 5_999.9, 359_999.0, 1e7] {
            assert!(duration(seconds).len() <= 6, "{}", duration(seconds));
        }
        for number in [0.0, 0.04, 9.96, 9_999.0, 9_999.9, 9_999_999.0, 1e9, 1e12] {
            assert!(count(number).len() <= 7, "{}", count(number));
        }
        assert_eq!((count(9_999.0), count(0.5)), ("9999".to_owned(), "0.5".to_owned()));
    }

    #[test]
    fn a_terminal_of_any_size_is_never_overrun() {
        for width in 0..100 {
            for height in [0, 1, 5] {
                let lines = lines(&pipeline(), None, "q ends", (width, height));
                assert!(lines.len() <= height);
                assert!(plain(&lines).lines().all(|line| line.chars().count() <= width));
            }
        }
    }
}
