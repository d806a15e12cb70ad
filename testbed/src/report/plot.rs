//! Results as a picture: an SVG of horizontal bars, one panel for each case and unit, with whiskers
//! from the smallest to the largest sample. It brings its own background, light or dark as the reader's.

use std::fmt::Write as _;

use super::{OURS, Panel, Report, Row, number};

const WIDTH: f64 = 860.0;
const MARGIN: f64 = 24.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
/// Title of a panel, its unit, and air above.
const PANEL_HEAD: f64 = 46.0;
const TITLE: f64 = 52.0;
const FOOT: f64 = 40.0;
/// Room right of the longest whisker for the number.
const VALUE: f64 = 170.0;
/// A character of the 13-pixel face, roughly: labels only need not to collide.
const GLYPH: f64 = 7.1;

/// Colours and faces; dark where the reader prefers it.
const STYLE: &str = "
svg { font: 13px system-ui, 'Segoe UI', 'Helvetica Neue', Arial, sans-serif; }
.ground { fill: #ffffff; stroke: #d8dee4; }
.title { font-size: 18px; font-weight: 650; fill: #1f2328; }
.case { font-size: 14px; font-weight: 600; fill: #1f2328; }
.unit, .foot { font-size: 12px; fill: #656d76; }
.name, .value { fill: #1f2328; }
.ratio { fill: #656d76; }
.ours { fill: #0969da; }
.kin { fill: #79b8ff; }
.peer { fill: #afb8c1; }
.whisker { stroke: #1f2328; stroke-width: 1.4; fill: none; opacity: .75; }
.axis { stroke: #d8dee4; }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117; stroke: #30363d; }
.title, .case, .name, .value { fill: #e6edf3; }
.title, .case { fill: #e6edf3; }
.unit, .foot, .ratio { fill: #9198a1; }
.ours { fill: #4493f8; }
.kin { fill: #2b5f9e; }
.peer { fill: #59636e; }
.whisker { stroke: #e6edf3; }
.axis { stroke: #30363d; }
}
";

/// The picture of a whole report, or of the given cases only.
#[must_use]
pub fn svg(report: &Report, cases: &[&str]) -> String {
    let panels: Vec<Panel<'_>> = report
        .panels()
        .into_iter()
        .filter(|panel| cases.is_empty() || cases.contains(&panel.case))
        .collect();
    let bars = panels.iter().map(|panel| panel.rows.len()).sum::<usize>();
    let height = TITLE + real(panels.len()) * PANEL_HEAD + real(bars) * STEP + FOOT;
    let mut out = String::new();
    put(
        &mut out,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" role=\"img\">\n<title>{}</title>\n\
             <style>{STYLE}</style>\n<rect class=\"ground\" x=\".5\" y=\".5\" width=\"{}\" \
             height=\"{}\" rx=\"8\"/>\n",
            escape(&report.bench),
            WIDTH - 1.0,
            height - 1.0
        ),
    );
    text(&mut out, "title", (MARGIN, 34.0), &report.bench);
    let left = MARGIN + 12.0 + widest(&panels) * GLYPH;
    let mut top = TITLE;
    for panel in &panels {
        top = draw(&mut out, panel, left, top);
    }
    text(&mut out, "foot", (MARGIN, height - 16.0), &foot(report));
    out.push_str("</svg>\n");
    out
}

/// Draws one panel and returns where the next begins.
fn draw(out: &mut String, panel: &Panel<'_>, left: f64, top: f64) -> f64 {
    text(out, "case", (MARGIN, top + 18.0), panel.case);
    let unit = format!("{}, {}", panel.unit, panel.better().words());
    text(out, "unit", (MARGIN, top + 34.0), &unit);
    let largest = panel.rows.iter().map(|row| row.max).fold(0.0, f64::max);
    let room = WIDTH - MARGIN - VALUE - left;
    let scale = if largest > 0.0 { room / largest } else { 0.0 };
    let first = top + PANEL_HEAD;
    let bottom = first + real(panel.rows.len()) * STEP;
    for (i, row) in panel.rows.iter().enumerate() {
        bar(out, panel, row, (left, first + real(i) * STEP, scale));
    }
    put(
        out,
        format_args!(
            "<line class=\"axis\" x1=\"{left:.1}\" y1=\"{:.1}\" x2=\"{left:.1}\" y2=\"{:.1}\"/>\n",
            first - 2.0,
            bottom - 6.0
        ),
    );
    bottom
}

fn bar(out: &mut String, panel: &Panel<'_>, row: &Row, (left, top, scale): (f64, f64, f64)) {
    let class = match row.subject.as_str() {
        OURS => "ours",
        subject if subject.starts_with(OURS) => "kin",
        _ => "peer",
    };
    let length = |value: f64| (value.max(0.0) * scale).max(1.0);
    let middle = top + BAR / 2.0;
    put(
        out,
        format_args!(
            "<text class=\"name\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" \
             height=\"{BAR}\" rx=\"2\"/>\n",
            left - 8.0,
            middle + 4.5,
            escape(&row.subject),
            length(row.median)
        ),
    );
    let (low, high) = (left + length(row.min), left + length(row.max));
    if row.rounds > 1 {
        let (up, down) = (middle - 4.0, middle + 4.0);
        put(
            out,
            format_args!(
                "<path class=\"whisker\" d=\"M{low:.1} {up:.1}V{down:.1}M{low:.1} {middle:.1}\
                 H{high:.1}M{high:.1} {up:.1}V{down:.1}\"/>\n"
            ),
        );
    }
    let ratio = panel.ratio(row).map_or_else(String::new, |ratio| {
        let times = format!("portcullis ×{}", number(ratio));
        format!("<tspan class=\"ratio\" dx=\"8\">{times}</tspan>")
    });
    put(
        out,
        format_args!(
            "<text class=\"value\" x=\"{:.1}\" y=\"{:.1}\">{}{ratio}</text>\n",
            high + 8.0,
            middle + 4.5,
            number(row.median)
        ),
    );
}

fn foot(report: &Report) -> String {
    let mut parts = vec!["Bars: median. Whiskers: minimum and maximum.".to_owned()];
    if !report.notes.machine.is_empty() {
        parts.push(format!("Measured {}.", report.notes.machine));
    }
    parts.join(" ")
}

fn text(out: &mut String, class: &str, (x, y): (f64, f64), words: &str) {
    let words = escape(words);
    put(
        out,
        format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>\n"),
    );
}

/// Characters of the longest subject.
fn widest(panels: &[Panel<'_>]) -> f64 {
    let rows = panels.iter().flat_map(|panel| &panel.rows);
    real(
        rows.map(|row| row.subject.chars().count())
            .max()
            .unwrap_or(0),
    )
}

/// A count as a coordinate: reports are bounded far below 2^32 rows.
fn real(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a String takes everything");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
