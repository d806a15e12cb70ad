//! The largest rate without a loss, by halving (RFC 2544 section 26.1, with shorter trials).

use std::time::Duration;

use super::drive::Offer;
use super::pair::{Pair, Trial, Way};

/// Inner packet sizes: RFC 2544 section 9.1 as far as a tunnel of 1420 bytes takes them.
pub const SIZES: [usize; 7] = [64, 128, 256, 512, 1024, 1280, 1420];
/// Trials of a search: after seven the rate is known to 1 % of the capacity.
const TRIALS: u32 = 7;
/// Packets under way when the capacity is found: less than any queue on the way holds.
pub const WINDOW: u64 = 2048;

/// How much later than the last packet was sent it may arrive, besides 5 % of a trial.
const QUEUE_TIME_MAX: Duration = Duration::from_millis(5);

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the edge's kernel to the peers.
    Down,
    /// From the peers to the edge's kernel.
    Up,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Down, Self::Up];

    /// As tables show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Down => "to peers",
            Self::Up => "from peers",
        }
    }
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// Packets a second that came through when the sender waited for the receiver.
    pub capacity: u64,
    /// The largest offered rate of which nothing was lost; 0 if every trial lost something.
    pub zero_loss: u64,
    /// The trial at that rate.
    pub best: Option<Way>,
}

/// A trial in one direction, silent in the other.
#[must_use]
pub fn one_way(direction: Direction, offer: Offer, base: &Trial) -> Trial {
    let (down, up) = match direction {
        Direction::Down => (offer, Offer::Silence),
        Direction::Up => (Offer::Silence, offer),
    };
    Trial { down, up, ..*base }
}

/// Runs one trial in one direction.
///
/// # Errors
/// Those of the trial.
pub fn run(
    pair: &mut Pair,
    direction: Direction,
    offer: Offer,
    base: &Trial,
) -> anyhow::Result<Way> {
    let run = pair.run(&one_way(direction, offer, base))?;
    Ok(match direction {
        Direction::Down => run.down,
        Direction::Up => run.up,
    })
}

/// Searches the rate for packets and flows as in `base`.
///
/// # Errors
/// Those of a trial.
pub fn search(pair: &mut Pair, direction: Direction, base: &Trial) -> anyhow::Result<Found> {
    let window = Offer::Window(WINDOW.max(base.burst * 4));
    let capacity = run(pair, direction, window, base)?.rate();
    // The capacity with a window is close to the rate without loss, seldom above it.
    let mut high = capacity * 13 / 10 + 1;
    let mut low = 0;
    let mut best = None;
    for _ in 0..TRIALS {
        let rate = low + (high - low) / 2;
        let way = run(pair, direction, Offer::PerSecond(rate), base)?;
        // A sender that could not keep up has not offered the rate.
        let offered = u128::from(rate) * base.duration.as_nanos() / 1_000_000_000;
        let is_offered = u128::from(way.sent) * 100 >= offered * 98;
        // Nothing may wait in a queue at the end: RFC 2544's trials of a minute need no such rule.
        let is_in_time = way.time * 20 <= base.duration * 21 + QUEUE_TIME_MAX * 20;
        if way.lost() == 0 && is_offered && is_in_time {
            low = rate;
            best = Some(way);
        } else {
            high = rate;
        }
    }
    Ok(Found {
        capacity,
        zero_loss: low,
        best,
    })
}
