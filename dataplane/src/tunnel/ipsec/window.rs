//! The replay window of an SA: which of the newest sequence numbers have come.
//!
//! A ring of bit blocks that is never shifted (RFC 6479): to go forward, the blocks that come into
//! the window are cleared.

/// Sequence numbers below the highest one that are still told apart. Two workers' worth of a
/// receive burst: what a kernel queue (7 MiB) of full packets can be out of order by.
pub const WINDOW_LEN: u64 = 8192;

/// Bits of a block.
const BLOCK_BITS: u64 = u64::BITS as u64;
/// Blocks of the ring: one more than the window, because the newest is filled in part.
const BLOCKS: usize = 129;

/// Which of the last [`WINDOW_LEN`] sequence numbers have come, and the highest.
#[derive(Clone, Debug)]
pub struct Window {
    highest: u64,
    blocks: [u64; BLOCKS],
}

impl Default for Window {
    fn default() -> Self {
        Self::new()
    }
}

impl Window {
    /// No number has come. Number 0 never comes: the first packet of an SA has 1.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            highest: 0,
            blocks: [0; BLOCKS],
        }
    }

    /// The highest number that has come, 0 before the first.
    #[must_use]
    pub const fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether a number may still come: it is new, and not older than the window.
    #[must_use]
    pub fn is_fresh(&self, sequence: u64) -> bool {
        if sequence == 0 || self.is_too_old(sequence) {
            return false;
        }
        sequence > self.highest || self.blocks[place(sequence)] & bit(sequence) == 0
    }

    /// Notes that an authentic packet with this number has come. False, and nothing changed, when
    /// it is not fresh.
    #[must_use]
    pub fn note(&mut self, sequence: u64) -> bool {
        if !self.is_fresh(sequence) {
            return false;
        }
        if sequence > self.highest {
            let entered = sequence / BLOCK_BITS - self.highest / BLOCK_BITS;
            let first = self.highest / BLOCK_BITS + 1;
            for block in first..first + entered.min(BLOCKS as u64) {
                self.blocks[place(block * BLOCK_BITS)] = 0;
            }
            self.highest = sequence;
        }
        self.blocks[place(sequence)] |= bit(sequence);
        true
    }

    /// The high half of a sequence number whose low half a packet carries: the one that puts it
    /// nearest to the window (RFC 4303 appendix A2.2). `None` when that would be before the first
    /// number of all, or after the last.
    #[must_use]
    pub fn infer_high(&self, low: u32) -> Option<u32> {
        let (top_high, top_low) = halves(self.highest);
        let bottom = top_low.wrapping_sub(WINDOW_LEN_32 - 1);
        if top_low >= WINDOW_LEN_32 - 1 {
            // The window lies within one run of low halves.
            if low >= bottom {
                Some(top_high)
            } else {
                top_high.checked_add(1)
            }
        } else if low >= bottom {
            // The window begins in the run before.
            top_high.checked_sub(1)
        } else {
            Some(top_high)
        }
    }

    fn is_too_old(&self, sequence: u64) -> bool {
        sequence.saturating_add(WINDOW_LEN) <= self.highest
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "8192 fits into any of them"
)]
const WINDOW_LEN_32: u32 = WINDOW_LEN as u32;

#[expect(
    clippy::cast_possible_truncation,
    reason = "splitting a number is what this is for"
)]
const fn halves(number: u64) -> (u32, u32) {
    ((number >> 32) as u32, number as u32)
}

fn place(sequence: u64) -> usize {
    let block = (sequence / BLOCK_BITS) % BLOCKS as u64;
    usize::try_from(block).expect("a remainder of 129")
}

const fn bit(sequence: u64) -> u64 {
    1 << (sequence % BLOCK_BITS)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// The definition, with a set: what the window must equal.
    #[derive(Default)]
    struct Naive {
        highest: u64,
        seen: HashSet<u64>,
    }

    impl Naive {
        fn note(&mut self, sequence: u64) -> bool {
            let is_old = self.highest >= WINDOW_LEN && sequence <= self.highest - WINDOW_LEN;
            if sequence == 0 || is_old || !self.seen.insert(sequence) {
                return false;
            }
            self.highest = self.highest.max(sequence);
            true
        }
    }

    /// RFC 4303 appendix A2.2, as a search: of all numbers with this low half, the only one in the
    /// 2^32 numbers that begin at the bottom of the window.
    fn nearest(highest: u64, low: u32) -> Option<u32> {
        let bottom = i128::from(highest) - i128::from(WINDOW_LEN) + 1;
        (-1..=1)
            .map(|step| (i128::from(highest) >> 32) + step)
            .find(|high| {
                let number = (high << 32) + i128::from(low);
                (bottom..bottom + (1 << 32)).contains(&number)
            })
            .and_then(|high| u32::try_from(high).ok())
    }

    #[test]
    fn zero_and_what_came_before_are_not_fresh() {
        let mut window = Window::new();
        assert!(!window.note(0));
        assert!(window.note(1));
        assert!(!window.note(1));
        assert!(window.note(WINDOW_LEN + 1));
        assert!(!window.note(1), "just out of the window");
        assert!(window.note(2), "the oldest in the window");
        assert!(!window.note(2));
    }

    #[test]
    fn a_leap_of_the_whole_ring_forgets_everything_below() {
        let mut window = Window::new();
        for sequence in 1..=200 {
            assert!(window.note(sequence));
        }
        let far = 200 + 64 * 129 * 3;
        assert!(window.note(far));
        assert!(!window.is_fresh(far - WINDOW_LEN));
        assert!((far - WINDOW_LEN + 1..far).all(|sequence| window.is_fresh(sequence)));
    }

    #[test]
    fn the_last_number_of_all_is_taken_once() {
        let mut window = Window::new();
        assert!(window.note(u64::MAX));
        assert!(!window.note(u64::MAX));
        assert_eq!(window.infer_high(0), None);
    }

    proptest! {
        #[test]
        fn the_window_equals_a_set(
            start in prop::sample::select(vec![0_u64, 8190, 1 << 32, (1 << 40) - 70]),
            steps in prop::collection::vec(
                prop_oneof![4 => -40_i64..80, 2 => -8300_i64..8300, 1 => -20000_i64..100_000],
                1..400,
            ),
        ) {
            let (mut window, mut naive) = (Window::new(), Naive::default());
            let mut at = start;
            for step in steps {
                let sequence = at.saturating_add_signed(step);
                prop_assert_eq!(window.is_fresh(sequence), window.clone().note(sequence));
                prop_assert_eq!(window.note(sequence), naive.note(sequence), "{}", sequence);
                prop_assert_eq!(window.highest(), naive.highest);
                at = window.highest().max(start);
            }
        }

        #[test]
        fn the_high_half_is_the_one_next_to_the_window(
            highest in prop_oneof![
                0_u64..20_000,
                ((1_u64 << 32) - 20_000)..((1 << 32) + 20_000),
                any::<u64>().prop_map(|n| n >> 1),
                (u64::MAX - 20_000)..=u64::MAX,
            ],
            offset in prop_oneof![-20_000_i64..20_000, any::<i32>().prop_map(i64::from)],
        ) {
            let mut window = Window::new();
            prop_assume!(highest > 0 && window.note(highest));
            let (_, low) = halves(highest.wrapping_add_signed(offset));
            prop_assert_eq!(window.infer_high(low), nearest(highest, low));
        }
    }
}
