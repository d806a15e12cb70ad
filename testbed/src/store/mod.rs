//! The control plane's store at its intended size: fills one, serves it, and asks it things.
//!
//! In: how much. Out: samples, as lines that `testbed/bench.sh` takes. State: the directory it fills.

mod ask;
mod fill;
mod nodes;
mod serve;

pub use ask::{Ask, ask};
pub use fill::{Size, fill};
pub use nodes::nodes;
pub use serve::{open, serve};

/// One number of one thing: `CASE<TAB>SUBJECT<TAB>UNIT<TAB>NUMBER`.
pub fn sample(case: &str, unit: &str, number: f64) -> String {
    format!("{case}\tportcullis\t{unit}\t{number:.4}")
}
