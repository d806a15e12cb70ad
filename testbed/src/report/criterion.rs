//! Rows out of the files that criterion leaves in `target/criterion`.
//!
//! The convention: a group's name is `<bench>/<case>`, a function's name is the subject, a parameter
//! belongs to the case, and `Throughput::Elements(n)` says that one iteration does `n` operations.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use super::Row;

/// Directories between `target/criterion` and a benchmark's files: group, function, parameter, `new`.
const DEPTH_MAX: usize = 4;

/// `new/benchmark.json`: what was measured.
#[derive(Debug, Deserialize)]
struct Benchmark {
    group_id: String,
    function_id: Option<String>,
    value_str: Option<String>,
    throughput: Option<serde_json::Value>,
}

/// `new/sample.json`: iterations of each sample, and its nanoseconds.
#[derive(Debug, Deserialize)]
struct Sample {
    iters: Vec<f64>,
    times: Vec<f64>,
}

/// Every row of `bench` below `dir`, in nanoseconds an operation, ordered by case and subject.
///
/// # Errors
/// Files that criterion would not have written.
pub fn collect(dir: &Path, bench: &str) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    walk(dir, DEPTH_MAX, &mut |new| {
        rows.extend(read(new, bench)?);
        Ok(())
    })?;
    rows.sort_by(|a, b| (natural(&a.case), &a.subject).cmp(&(natural(&b.case), &b.subject)));
    Ok(rows)
}

fn walk(
    dir: &Path,
    depth: usize,
    found: &mut impl FnMut(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if dir.ends_with("new") && dir.join("benchmark.json").is_file() {
        return found(dir);
    }
    if depth == 0 || !dir.is_dir() {
        return Ok(());
    }
    let mut below: Vec<_> = fs::read_dir(dir)
        .with_context(|| format!("cannot read {}", dir.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    below.sort();
    below
        .iter()
        .try_for_each(|path| walk(path, depth - 1, found))
}

fn read(new: &Path, bench: &str) -> anyhow::Result<Option<Row>> {
    let of: Benchmark = parse(&new.join("benchmark.json"))?;
    let Some((group, case)) = of.group_id.split_once('/') else {
        return Ok(None);
    };
    if group != bench {
        return Ok(None);
    }
    let case = match &of.value_str {
        Some(value) => format!("{case} {value}"),
        None => case.to_owned(),
    };
    let sample: Sample = parse(&new.join("sample.json"))?;
    let operations = elements(of.throughput.as_ref());
    let times = sample.times.iter().zip(&sample.iters);
    let samples: Vec<f64> = times.map(|(time, n)| time / n / operations).collect();
    let subject = of.function_id.as_deref().unwrap_or(super::OURS);
    Ok(Row::of(bench, &case, subject, "ns", &samples))
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not criterion's", path.display()))
}

/// Operations an iteration; one where the throughput counts something else, or nothing.
fn elements(throughput: Option<&serde_json::Value>) -> f64 {
    throughput
        .and_then(|t| t.get("Elements")?.as_f64())
        .filter(|n| *n > 0.0)
        .unwrap_or(1.0)
}

/// A key that puts `16` before `100`, and `1k` before `1M`: digits by their value.
fn natural(case: &str) -> Vec<(u64, String)> {
    let multiple = |c: Option<char>| match c {
        Some('k') => 1_000,
        Some('M') => 1_000_000,
        _ => 1,
    };
    let mut key = Vec::new();
    let mut rest = case;
    while !rest.is_empty() {
        let start = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let (words, tail) = rest.split_at(start);
        let end = tail
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(tail.len());
        let (digits, tail) = tail.split_at(end);
        let value = digits.parse::<u64>().unwrap_or(0);
        key.push((0, words.to_owned()));
        key.push((
            value.saturating_mul(multiple(tail.chars().next())),
            String::new(),
        ));
        rest = tail;
    }
    key
}
