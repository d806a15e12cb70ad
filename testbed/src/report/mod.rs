//! Results of benchmarks: rows on disk, as a table, as Markdown, as a picture.
//!
//! In: samples of one thing measured several times ([`Row::of`]), or what criterion left behind
//! ([`criterion::collect`]). Out: `<bench>.json`, an array of rows, which [`text`], [`markdown`] and
//! [`plot`] show. Each row says its unit, and the unit says which way is better ([`Better`]).
//! The files own the state: a [`Report`] is read, merged into and written whole.

pub mod criterion;
pub mod markdown;
pub mod plot;
pub mod text;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The subject that the others are compared with.
pub const OURS: &str = "portcullis";

/// The most rows of one benchmark: a run-away loop must not fill the disk or the table.
pub const ROWS_MAX: usize = 4096;

/// One thing measured: what `subject` reached in `case` of `bench`, over `rounds` samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The benchmark: `routing`, `lpm`, `http`; also the name of the file.
    pub bench: String,
    /// What was done, in words: `one TCP stream`.
    pub case: String,
    /// Who did it: [`OURS`], or the peer's name.
    pub subject: String,
    /// What the numbers count: `Gb/s`, `ns`, `requests/s`.
    pub unit: String,
    /// The middle sample.
    pub median: f64,
    /// The smallest sample.
    pub min: f64,
    /// The largest sample.
    pub max: f64,
    /// How many samples there were.
    pub rounds: u32,
}

impl Row {
    /// The row of some samples. `None` without samples, or when one is not a finite number.
    #[must_use]
    pub fn of(bench: &str, case: &str, subject: &str, unit: &str, samples: &[f64]) -> Option<Row> {
        if samples.is_empty() || samples.iter().any(|s| !s.is_finite()) {
            return None;
        }
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Row {
            bench: bench.to_owned(),
            case: case.to_owned(),
            subject: subject.to_owned(),
            unit: unit.to_owned(),
            median,
            min: sorted[0],
            max: sorted[sorted.len() - 1],
            rounds: u32::try_from(sorted.len()).ok()?,
        })
    }

    /// Whether `self` measures the same thing as `other`, so that the newer replaces the older.
    fn is_same_thing(&self, other: &Row) -> bool {
        self.case == other.case && self.subject == other.subject && self.unit == other.unit
    }
}

/// Which way a number of some unit is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    /// Rates, and what is done with one call.
    More,
    /// Times, costs and counts of what went wrong.
    Less,
}

impl Better {
    /// By the unit's name: something a second, something a call, and a share of the possible are
    /// better when more; times, costs and losses when less.
    #[must_use]
    pub fn of(unit: &str) -> Better {
        if unit.ends_with("/s") || unit.ends_with("/call") || unit.starts_with("share") {
            Better::More
        } else {
            Better::Less
        }
    }

    /// How many times better `ours` is than `theirs`. `None` where a zero makes that meaningless.
    #[must_use]
    pub fn ratio(self, ours: f64, theirs: f64) -> Option<f64> {
        let (over, under) = match self {
            Better::More => (ours, theirs),
            Better::Less => (theirs, ours),
        };
        (over > 0.0 && under > 0.0).then(|| over / under)
    }

    /// The same in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Better::More => "more is better",
            Better::Less => "less is better",
        }
    }
}

/// What a reader must know beside the numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notes {
    /// The command that measured.
    #[serde(default)]
    pub command: String,
    /// When, and on what machine.
    #[serde(default)]
    pub machine: String,
    /// Peers that were not there, each as `name: why`.
    #[serde(default)]
    pub absent: Vec<String>,
}

/// All rows of one benchmark.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Its name.
    pub bench: String,
    /// In the order in which they were first measured.
    pub rows: Vec<Row>,
    /// In a file of its own, so that the rows stay an array.
    pub notes: Notes,
}

impl Report {
    /// Reads `<dir>/<bench>.json` and its notes; empty when there is none yet.
    ///
    /// # Errors
    /// A name that is not a plain word, and a file that is not an array of rows.
    pub fn read(dir: &Path, bench: &str) -> anyhow::Result<Report> {
        check_name(bench)?;
        Ok(Report {
            bench: bench.to_owned(),
            rows: read_or_default(&path(dir, bench, "json"))?,
            notes: read_or_default(&path(dir, bench, "notes.json"))?,
        })
    }

    /// Takes rows in: each replaces the one of the same case, subject and unit, or comes last.
    ///
    /// # Errors
    /// A row of another benchmark, and more than [`ROWS_MAX`] rows.
    pub fn merge(&mut self, rows: impl IntoIterator<Item = Row>) -> anyhow::Result<()> {
        for row in rows {
            anyhow::ensure!(row.bench == self.bench, "a row of {}: {row:?}", row.bench);
            match self.rows.iter_mut().find(|old| old.is_same_thing(&row)) {
                Some(old) => *old = row,
                None => self.rows.push(row),
            }
            anyhow::ensure!(
                self.rows.len() <= ROWS_MAX,
                "{} has more than {ROWS_MAX} rows",
                self.bench
            );
        }
        Ok(())
    }

    /// Writes rows and notes; a reader sees the old file or the new one, never a half.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        check_name(&self.bench)?;
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write_json(&path(dir, &self.bench, "json"), &self.rows)?;
        write_json(&path(dir, &self.bench, "notes.json"), &self.notes)
    }

    /// The rows by what can be compared: one panel for each case and unit, the panels of one case
    /// together, all in order of appearance.
    #[must_use]
    pub fn panels(&self) -> Vec<Panel<'_>> {
        let mut panels: Vec<Panel<'_>> = Vec::new();
        for row in &self.rows {
            let same = |p: &&mut Panel<'_>| p.case == row.case && p.unit == row.unit;
            match panels.iter_mut().find(same) {
                Some(panel) => panel.rows.push(row),
                None => panels.push(Panel {
                    case: &row.case,
                    unit: &row.unit,
                    rows: vec![row],
                }),
            }
        }
        let cases: Vec<&str> = panels.iter().map(|panel| panel.case).collect();
        panels.sort_by_key(|panel| cases.iter().position(|case| *case == panel.case));
        panels
    }
}

/// Rows that differ in their subject only.
#[derive(Debug, Clone)]
pub struct Panel<'a> {
    /// What all of them did.
    pub case: &'a str,
    /// What all of them count.
    pub unit: &'a str,
    /// One for each subject.
    pub rows: Vec<&'a Row>,
}

impl Panel<'_> {
    /// Which way is better here.
    #[must_use]
    pub fn better(&self) -> Better {
        Better::of(self.unit)
    }

    /// How many times better [`OURS`] is than `row`'s subject; `None` for our own row, or without one.
    #[must_use]
    pub fn ratio(&self, row: &Row) -> Option<f64> {
        let ours = self.rows.iter().find(|r| r.subject == OURS)?;
        (row.subject != OURS)
            .then(|| self.better().ratio(ours.median, row.median))
            .flatten()
    }
}

/// Three digits that mean something, and thousands apart: `5.83`, `0.044`, `15 100`.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 999.5 {
        return thousands(value);
    }
    let digits = match size {
        s if s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        s if s >= 0.9995 || s == 0.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

fn thousands(value: f64) -> String {
    let plain = format!("{value:.0}");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", plain.as_str()),
    };
    let mut out = String::from(sign);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn path(dir: &Path, bench: &str, extension: &str) -> PathBuf {
    dir.join(format!("{bench}.{extension}"))
}

/// A benchmark's name becomes a file's name.
fn check_name(bench: &str) -> anyhow::Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    anyhow::ensure!(
        !bench.is_empty() && bench.chars().all(fits),
        "'{bench}' is not the name of a benchmark: letters, digits, - and _"
    );
    Ok(())
}

fn read_or_default<T: serde::de::DeserializeOwned + Default>(path: &Path) -> anyhow::Result<T> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is not what a benchmark writes", path.display())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(T::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let part = path.with_extension("part");
    let text = serde_json::to_string_pretty(value)?;
    fs::write(&part, text + "\n").with_context(|| format!("cannot write {}", part.display()))?;
    fs::rename(&part, path).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
