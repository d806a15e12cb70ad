//! Results as a table for a terminal.

use std::fmt::Write as _;

use super::{OURS, Panel, Report, Row, number};

/// The whole report: a block for each case and unit, then what was absent.
#[must_use]
pub fn table(report: &Report) -> String {
    let width = report
        .rows
        .iter()
        .map(|row| row.subject.chars().count())
        .fold("subject".len(), usize::max);
    let mut out = String::new();
    for panel in report.panels() {
        block(&mut out, &report.bench, &panel, width);
    }
    for absent in &report.notes.absent {
        line(&mut out, &format!("absent: {absent}"));
    }
    if !report.notes.machine.is_empty() {
        line(&mut out, &format!("measured {}", report.notes.machine));
    }
    out
}

fn block(out: &mut String, bench: &str, panel: &Panel<'_>, width: usize) {
    let better = panel.better().words();
    line(
        out,
        &format!("{bench}: {} [{}, {better}]", panel.case, panel.unit),
    );
    let head = ["subject", "median", "min–max", "n", "portcullis is"];
    columns(out, width, head.map(str::to_owned));
    for row in &panel.rows {
        columns(out, width, cells(panel, row));
    }
    out.push('\n');
}

fn cells(panel: &Panel<'_>, row: &Row) -> [String; 5] {
    let ratio = panel.ratio(row).map_or_else(
        || if row.subject == OURS { "" } else { "-" }.to_owned(),
        |ratio| format!("{}x", number(ratio)),
    );
    [
        row.subject.clone(),
        number(row.median),
        format!("{}–{}", number(row.min), number(row.max)),
        row.rounds.to_string(),
        ratio,
    ]
}

fn columns(out: &mut String, width: usize, cells: [String; 5]) {
    let [subject, median, range, rounds, ratio] = cells;
    line(
        out,
        format!("  {subject:<width$}  {median:>12}  {range:>22}  {rounds:>4}  {ratio:>13}")
            .trim_end(),
    );
}

fn line(out: &mut String, text: &str) {
    writeln!(out, "{text}").expect("a String takes everything");
}
