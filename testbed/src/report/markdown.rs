//! Results as Markdown, and the places in documents where they go.
//!
//! A document says where: everything between `<!-- bench:NAME -->` and `<!-- /bench -->` is ours.
//! `<!-- bench:NAME CASE; CASE -->` takes those cases only.

use std::path::Path;

use anyhow::Context as _;

use super::{Panel, Report, number};

/// Begins a place; the rest of the comment names the benchmark, and cases.
const BEGIN: &str = "<!-- bench:";
/// Ends it.
const END: &str = "<!-- /bench -->";

/// A table of `cases`, of all when there are none: whichever there is less of, subjects or panels,
/// becomes the columns. Each cell is the median, with minimum and maximum.
#[must_use]
pub fn table(report: &Report, cases: &[&str]) -> String {
    let panels: Vec<Panel<'_>> = report
        .panels()
        .into_iter()
        .filter(|panel| cases.is_empty() || cases.contains(&panel.case))
        .collect();
    let mut subjects: Vec<&str> = Vec::new();
    for row in panels.iter().flat_map(|panel| &panel.rows) {
        if !subjects.contains(&row.subject.as_str()) {
            subjects.push(&row.subject);
        }
    }
    let heads: Vec<String> = panels.iter().map(head).collect();
    let cells: Vec<Vec<String>> = panels
        .iter()
        .map(|panel| subjects.iter().map(|s| cell(panel, s)).collect())
        .collect();
    let mut out = if panels.len() <= subjects.len() {
        let rows = subjects.iter().enumerate();
        let rows = rows.map(|(i, s)| (*s, cells.iter().map(|c| c[i].clone()).collect()));
        grid("", &heads, rows)
    } else {
        let names: Vec<String> = subjects.iter().map(|s| (*s).to_owned()).collect();
        let rows = heads.iter().map(String::as_str).zip(cells);
        grid("", &names, rows)
    };
    out.push_str(&footer(report));
    out
}

/// The document with each of its places filled from the reports below `dir`.
///
/// # Errors
/// A place without an end, and a report that cannot be read. A benchmark that was not run leaves its place as it is.
pub fn refresh(document: &str, dir: &Path) -> anyhow::Result<String> {
    let mut out = String::new();
    let mut rest = document;
    while let Some(at) = rest.find(BEGIN) {
        let (before, place) = rest.split_at(at);
        let (mark, inside) = place
            .split_once("-->")
            .context("a place for a benchmark has no '-->'")?;
        let (old, after) = inside
            .split_once(END)
            .with_context(|| format!("'{mark}-->' has no '{END}'"))?;
        let (bench, cases) = named(mark);
        let report = Report::read(dir, bench)?;
        out.push_str(before);
        out.push_str(mark);
        out.push_str("-->");
        if report.rows.is_empty() {
            out.push_str(old);
        } else {
            out.push_str(&format!("\n\n{}\n", table(&report, &cases)));
        }
        out.push_str(END);
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

/// What `<!-- bench:NAME CASE; CASE ` names.
fn named(mark: &str) -> (&str, Vec<&str>) {
    let words = mark[BEGIN.len()..].trim();
    let (bench, cases) = words.split_once(' ').unwrap_or((words, ""));
    let cases = cases.split(';').map(str::trim);
    (bench, cases.filter(|case| !case.is_empty()).collect())
}

fn head(panel: &Panel<'_>) -> String {
    format!("{}, {}", escape(panel.case), escape(panel.unit))
}

fn cell(panel: &Panel<'_>, subject: &str) -> String {
    let Some(row) = panel.rows.iter().find(|row| row.subject == subject) else {
        return "–".to_owned();
    };
    let median = number(row.median);
    if row.rounds < 2 {
        return format!("**{median}**");
    }
    format!("**{median}** ({}–{})", number(row.min), number(row.max))
}

fn grid<'a>(
    corner: &str,
    heads: &[String],
    rows: impl Iterator<Item = (&'a str, Vec<String>)>,
) -> String {
    let mut out = format!("| {corner} | {} |\n", heads.join(" | "));
    out.push_str(&format!("|---|{}\n", "---:|".repeat(heads.len())));
    for (name, cells) in rows {
        out.push_str(&format!("| {} | {} |\n", escape(name), cells.join(" | ")));
    }
    out
}

fn footer(report: &Report) -> String {
    let mut parts = vec!["Median (minimum–maximum)".to_owned()];
    if !report.notes.machine.is_empty() {
        parts.push(report.notes.machine.clone());
    }
    if !report.notes.absent.is_empty() {
        parts.push(format!("absent: {}", report.notes.absent.join(", ")));
    }
    if !report.notes.command.is_empty() {
        parts.push(format!("`{}`", report.notes.command));
    }
    format!("\n{}.\n", parts.join("; "))
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}
