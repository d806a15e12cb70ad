//! A histogram of durations with a bounded relative error, in fixed memory.

use std::time::Duration;

/// Steps per doubling: a value is known to 1/32, about 3 %.
const STEPS: u64 = 32;
/// Doublings above the first [`STEPS`] nanoseconds: 2^(5+36) ns are 36 minutes.
const DOUBLINGS: u64 = 36;
const CELLS: usize = 32 * 37;

/// Durations, counted in cells whose width grows with their value (the idea of HdrHistogram,
/// Gil Tene): below 32 ns exact, then 32 cells per doubling.
#[derive(Clone, Debug)]
pub struct Histogram {
    cells: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            cells: vec![0; CELLS],
            total: 0,
        }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, value: Duration) {
        let nanos = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
        self.cells[cell(nanos)] += 1;
        self.total += 1;
    }

    /// How many were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The smallest duration that `per_mille` of 1000 do not exceed, to 3 %. Zero when empty.
    #[must_use]
    pub fn per_mille(&self, per_mille: u64) -> Duration {
        let rank = (self.total * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, count) in self.cells.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(upper(index));
            }
        }
        Duration::ZERO
    }

    /// Counts everything that `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (cell, more) in self.cells.iter_mut().zip(&other.cells) {
            *cell += more;
        }
        self.total += other.total;
    }
}

fn cell(nanos: u64) -> usize {
    let doubling = u64::from((nanos / STEPS).checked_ilog2().map_or(0, |log| log + 1));
    let doubling = doubling.min(DOUBLINGS);
    let step = if doubling == 0 {
        nanos
    } else {
        (nanos >> (doubling - 1)).min(2 * STEPS - 1) - STEPS
    };
    usize::try_from(doubling * STEPS + step).expect("fewer than CELLS")
}

/// The largest number of nanoseconds that falls into the cell.
fn upper(index: usize) -> u64 {
    let index = u64::try_from(index).expect("fewer than CELLS");
    match (index / STEPS, index % STEPS) {
        (0, step) => step,
        (doubling, step) => ((STEPS + step + 1) << (doubling - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_known_to_three_percent() {
        for exponent in 0..41 {
            for nanos in [1_u64 << exponent, (1 << exponent) + (1 << exponent) / 3] {
                let found = upper(cell(nanos));
                assert!(found >= nanos, "{nanos} became {found}");
                assert!(found - nanos <= nanos / 32, "{nanos} became {found}");
            }
        }
        assert_eq!(cell(u64::MAX), CELLS - 1);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let mut histogram = Histogram::default();
        let mut list: Vec<u64> = (1..=10_000).map(|n| n * 7919 % 10_007 * 1000).collect();
        for nanos in &list {
            histogram.add(Duration::from_nanos(*nanos));
        }
        list.sort_unstable();
        for (per_mille, index) in [(500, 4999), (990, 9899), (999, 9989)] {
            let found = histogram.per_mille(per_mille).as_nanos();
            let exact = u128::from(list[index]);
            assert!(
                (exact..=exact + exact / 32).contains(&found),
                "{per_mille}: {found}"
            );
        }
        assert_eq!(Histogram::default().per_mille(500), Duration::ZERO);
    }
}
