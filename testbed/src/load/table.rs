//! Results as they come: aligned columns for people, or a JSON value per line.

use serde_json::Value;

/// Where results go. A table's head is printed when its columns change.
#[derive(Debug)]
pub struct Table {
    is_json: bool,
    columns: Vec<&'static str>,
}

/// One cell: its column, and what it says.
pub type Cell = (&'static str, Value);

impl Table {
    /// A table on standard output.
    #[must_use]
    pub fn new(is_json: bool) -> Self {
        Self {
            is_json,
            columns: Vec::new(),
        }
    }

    /// Prints one row.
    pub fn row(&mut self, cells: &[Cell]) {
        if self.is_json {
            let object = cells
                .iter()
                .map(|(name, value)| (name.replace(' ', "_"), value.clone()));
            line(&Value::Object(object.collect()).to_string());
            return;
        }
        let columns: Vec<&'static str> = cells.iter().map(|(name, _)| *name).collect();
        if columns != self.columns {
            let head = cells.iter().map(|cell| aligned(cell, cell.0));
            line(&head.collect::<Vec<_>>().join("  "));
            self.columns = columns;
        }
        let words = cells.iter().map(|cell| aligned(cell, &text(&cell.1)));
        line(&words.collect::<Vec<_>>().join("  "));
    }
}

/// Words to the left, numbers to the right.
fn aligned((column, value): &Cell, words: &str) -> String {
    if value.is_string() {
        return format!("{words:<24}");
    }
    let width = column.len().max(9);
    format!("{words:>width$}")
}

fn text(value: &Value) -> String {
    match value {
        Value::String(words) => words.clone(),
        Value::Number(number) if number.is_f64() => {
            format!("{:.1}", number.as_f64().unwrap_or_default())
        }
        Value::Array(several) => several.iter().map(text).collect::<Vec<_>>().join("/"),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[expect(clippy::print_stdout, reason = "the program's output")]
fn line(words: &str) {
    println!("{words}");
}
