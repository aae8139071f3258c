//! Lines over time as inline SVG. Knows nothing of runs.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;
const MOST_TICKS: f64 = 6.0;
/// Told apart by people who see red and green alike (Okabe and Ito).
pub(crate) const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// A line: its name and its points.
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What the lines are drawn on.
pub(crate) struct Axes<'a> {
    pub(crate) y: &'a str,
    /// Labels of the horizontal axis at its values.
    pub(crate) x: Vec<(f64, String)>,
    /// A limit to draw.
    pub(crate) limit: Option<f64>,
}

/// From 0 to `most` in steps of 1, 2 or 5 times a power of ten.
fn ticks(most: f64) -> Vec<f64> {
    let least = (most / MOST_TICKS).max(1e-9);
    let power = 10_f64.powf(least.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|s| *s >= least);
    let step = step.unwrap_or(10.0 * power);
    (0..=(most / step + 1e-6) as u32).map(|n| f64::from(n) * step).collect()
}

/// Seconds, labelled as such.
pub(crate) fn seconds(lines: &[Line]) -> Vec<(f64, String)> {
    let ticks = ticks(highest(lines, |(x, _)| x)).into_iter();
    ticks.map(|x| (x, format!("{} s", number(x)))).collect()
}

/// Draws `lines`, with a legend where there are several.
pub(crate) fn svg(lines: &[Line], axes: &Axes<'_>) -> String {
    if lines.iter().all(|line| line.points.is_empty()) {
        return "<p>nothing was seen</p>".to_owned();
    }
    let right = axes.x.iter().map(|(x, _)| *x).fold(highest(lines, |(x, _)| x), f64::max).max(1e-9);
    // A limit far above everything would flatten what is to be seen.
    let seen = highest(lines, |(_, y)| y).max(1e-9);
    let top =
        axes.limit.filter(|limit| *limit < seen * 4.0).map_or(seen, |limit| seen.max(limit)) * 1.05;
    let x_of = |x: f64| LEFT + x / right * (WIDTH - LEFT - RIGHT);
    let y_of = |y: f64| HEIGHT - BOTTOM - y.max(0.0) / top * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    let mut draw = |part: std::fmt::Arguments<'_>| {
        svg.write_fmt(part).expect("writing to a string never fails");
    };
    for value in ticks(top) {
        let y = y_of(value);
        draw(format_args!(
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            WIDTH - RIGHT
        ));
        draw(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            number(value)
        ));
    }
    for (x, label) in &axes.x {
        draw(format_args!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            x_of(*x).min(WIDTH - 22.0),
            HEIGHT - 8.0,
            escape(label)
        ));
    }
    if let Some(limit) = axes.limit.filter(|limit| *limit <= top) {
        let y = y_of(limit);
        draw(format_args!(
            "<line class=\"limit\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            WIDTH - RIGHT
        ));
    }
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        draw(format_args!("<polyline stroke=\"{colour}\" points=\""));
        for (x, y) in &line.points {
            draw(format_args!("{:.1},{:.1} ", x_of(*x), y_of(*y)));
        }
        draw(format_args!("\"/>"));
    }
    draw(format_args!("</svg><p class=\"legend\"><span>{}</span>", escape(axes.y)));
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        draw(format_args!(
            "<span><i style=\"background:{colour}\"></i>{}</span>",
            escape(&line.name)
        ));
    }
    if axes.limit.is_some_and(|limit| limit <= top) {
        draw(format_args!("<span><i class=\"budget\"></i>budget</span>"));
    }
    draw(format_args!("</p>"));
    svg
}

/// For text between tags and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// With as many digits as it is worth.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => {
            let text = format!("{value:.4}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

fn highest(lines: &[Line], of: impl Fn((f64, f64)) -> f64) -> f64 {
    lines.iter().flat_map(|line| &line.points).map(|point| of(*point)).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(0.525), [0.0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5]);
        assert_eq!(ticks(18_787.0), [0.0, 5_000.0, 10_000.0, 15_000.0]);
        assert_eq!(ticks(20.0), [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(number(0.30000000000000004), "0.3");
    }

    #[test]
    fn every_point_is_drawn_inside_the_picture() {
        let points = vec![(0.0, 0.0), (5.0, 40.0), (10.0, 20.0)];
        let lines = [Line { name: "a<b".to_owned(), points }];

        let drawn = svg(&lines, &Axes { y: "records", x: seconds(&lines), limit: Some(30.0) });

        let points = drawn.split("points=\"").nth(1).unwrap().split('"').next().unwrap();
        let points: Vec<(f64, f64)> = points
            .split_whitespace()
            .map(|point| point.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert_eq!(points.len(), 3);
        assert!(
            points.iter().all(|(x, y)| (LEFT..=WIDTH).contains(x) && (TOP..HEIGHT).contains(y))
        );
        // Higher is further up.
        assert!(points[1].1 < points[2].1 && points[2].1 < points[0].1, "{points:?}");
        assert!(drawn.contains("a&lt;b") && drawn.contains("class=\"limit\""));
    }
}
