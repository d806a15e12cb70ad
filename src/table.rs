//! What a person sees on the terminal: tables, JSON, and errors. The only place that prints.

use std::io::Write as _;

use serde_json::Value;

/// One line on standard error.
pub(crate) fn complain(message: &str) {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(std::io::stderr(), "portcullis: {message}"));
}

/// Text on standard output; a closed pipe (`| head`) ends the command quietly.
pub(crate) fn say(text: &str) {
    drop(writeln!(
        std::io::stdout(),
        "{}",
        text.trim_end_matches('\n')
    ));
}

/// Pretty JSON on standard output.
pub(crate) fn json(value: &Value) {
    say(&format!("{value:#}"));
}

/// Rows of objects as an aligned table with the given columns, or with all keys where none are given.
pub(crate) fn rows(values: &[Value], columns: &[&str]) -> String {
    let mut keys: Vec<String> = columns.iter().map(ToString::to_string).collect();
    if keys.is_empty() {
        for key in values
            .iter()
            .filter_map(Value::as_object)
            .flat_map(|object| object.keys())
        {
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
    }
    let mut lines = vec![
        keys.iter()
            .map(|key| key.to_uppercase())
            .collect::<Vec<_>>(),
    ];
    lines.extend(
        values
            .iter()
            .map(|row| keys.iter().map(|key| cell(&row[key])).collect()),
    );
    let widths: Vec<usize> = (0..keys.len())
        .map(|i| {
            lines
                .iter()
                .map(|line| line[i].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for line in lines {
        let padded = line
            .iter()
            .zip(&widths)
            .map(|(text, width)| format!("{text:<width$}"));
        out.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// One value in a cell; what is absent is a dash, so that every column has something to look at.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Object(fields) => {
            let pairs = fields
                .iter()
                .map(|(key, value)| format!("{key} {}", cell(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_aligned_and_what_is_absent_is_a_dash() {
        let table = rows(
            &[json!({"a": "long text", "b": 1}), json!({"a": "x"})],
            &["a", "b"],
        );
        assert_eq!(table, "A          B\nlong text  1\nx          -\n");
    }
}
