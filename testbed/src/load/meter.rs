//! Counts what arrives: per flow its order and its gaps, over all flows the latency.

use std::time::Duration;

use super::histogram::Histogram;
use super::stamp::Stamp;

/// How far back a flow remembers which packets it has seen: beyond it, a late packet counts as
/// reordered even if it is a duplicate.
const REMEMBERED: u64 = 4096;
const WORDS: usize = 64;

/// What one receiving end has seen of a trial.
#[derive(Clone, Debug)]
pub struct Meter {
    trial: u32,
    flows: Vec<Flow>,
    /// The flow after the last.
    outsider: Flow,
    /// Time from the sender's stamp to the receiver's read.
    pub latency: Histogram,
    /// Packets that were not ours, or of another trial, or damaged.
    pub strays: u64,
    /// Bytes of inner packets.
    pub bytes: u64,
}

/// One flow's order.
#[derive(Clone, Debug)]
struct Flow {
    /// One more than the largest sequence number so far (RFC 4737 section 3.3, NextExp).
    next: u64,
    seen: [u64; WORDS],
    received: u64,
    reordered: u64,
    duplicates: u64,
}

impl Flow {
    fn take(&mut self, sequence: u64) {
        if sequence >= self.next {
            for skipped in self.next..sequence.min(self.next + REMEMBERED) {
                self.mark(skipped, false);
            }
            self.next = sequence + 1;
            self.mark(sequence, true);
            self.received += 1;
            return;
        }
        if self.next - sequence <= REMEMBERED {
            if self.is_marked(sequence) {
                self.duplicates += 1;
                return;
            }
            self.mark(sequence, true);
        }
        self.received += 1;
        self.reordered += 1;
    }

    fn place(sequence: u64) -> (usize, u64) {
        let place = sequence % REMEMBERED;
        let word = usize::try_from(place / 64).expect("fewer than WORDS");
        (word, 1 << (place % 64))
    }

    fn mark(&mut self, sequence: u64, is_seen: bool) {
        let (word, bit) = Self::place(sequence);
        if is_seen {
            self.seen[word] |= bit;
        } else {
            self.seen[word] &= !bit;
        }
    }

    fn is_marked(&self, sequence: u64) -> bool {
        let (word, bit) = Self::place(sequence);
        self.seen[word] & bit != 0
    }
}

impl Meter {
    /// A meter for a trial of so many flows. The flow after them is counted apart: an attacker's.
    #[must_use]
    pub fn new(trial: u32, flows: usize) -> Self {
        let flow = Flow {
            next: 0,
            seen: [0; WORDS],
            received: 0,
            reordered: 0,
            duplicates: 0,
        };
        Self {
            trial,
            flows: vec![flow.clone(); flows],
            outsider: flow,
            latency: Histogram::default(),
            strays: 0,
            bytes: 0,
        }
    }

    /// Counts one packet of `len` bytes with this payload, read at `now` nanoseconds.
    pub fn take(&mut self, payload: &[u8], len: usize, now: u64) {
        let stamp = Stamp::read(payload).filter(|stamp| stamp.trial == self.trial);
        let Some(stamp) = stamp else {
            self.strays += 1;
            return;
        };
        let number = usize::try_from(stamp.flow).unwrap_or(usize::MAX);
        let count = self.flows.len();
        let Some(flow) = self.flows.get_mut(number) else {
            if number == count {
                self.outsider.take(stamp.sequence);
            } else {
                self.strays += 1;
            }
            return;
        };
        flow.take(stamp.sequence);
        self.bytes += u64::try_from(len).unwrap_or(0);
        self.latency
            .add(Duration::from_nanos(now.saturating_sub(stamp.sent_at)));
    }

    /// Packets that arrived, each once.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.flows.iter().map(|flow| flow.received).sum()
    }

    /// Packets that came after a later one of their flow.
    #[must_use]
    pub fn reordered(&self) -> u64 {
        self.flows.iter().map(|flow| flow.reordered).sum()
    }

    /// Packets that came again.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.flows.iter().map(|flow| flow.duplicates).sum()
    }
}

impl Meter {
    /// Of the flow after the last: packets that arrived, came late, came again.
    #[must_use]
    pub fn outsider(&self) -> [u64; 3] {
        let flow = &self.outsider;
        [flow.received, flow.reordered, flow.duplicates]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(sequences: &[u64]) -> Meter {
        let mut meter = Meter::new(3, 2);
        for &sequence in sequences {
            let stamp = Stamp {
                trial: 3,
                flow: 1,
                sequence,
                sent_at: 10,
            };
            let mut payload = [0; 24];
            stamp.write(&mut payload);
            meter.take(&payload, 64, 15);
        }
        meter
    }

    fn counts(sequences: &[u64]) -> [u64; 3] {
        let meter = meter(sequences);
        [meter.received(), meter.reordered(), meter.duplicates()]
    }

    #[test]
    fn order_gaps_and_duplicates_are_told_apart() {
        assert_eq!(counts(&[0, 1, 2, 3]), [4, 0, 0]);
        assert_eq!(counts(&[0, 3, 4]), [3, 0, 0]);
        // RFC 4737 section 4.1.1: 1, 2, 3, 7, 8, 9, 10, 4, 5, 6 has three reordered packets.
        assert_eq!(counts(&[1, 2, 3, 7, 8, 9, 10, 4, 5, 6]), [10, 3, 0]);
        assert_eq!(counts(&[0, 1, 1, 2, 0]), [3, 0, 2]);
        assert_eq!(counts(&[0, 5000, 5000, 904, 5001]), [4, 1, 1]);
    }

    #[test]
    fn packets_of_another_trial_or_flow_are_strays() {
        let mut meter = meter(&[0]);
        for (trial, flow) in [(2, 1), (3, 3), (3, 2)] {
            let mut payload = [0; 24];
            Stamp {
                trial,
                flow,
                sequence: 1,
                sent_at: 0,
            }
            .write(&mut payload);
            meter.take(&payload, 64, 0);
        }
        meter.take(&[0; 23], 51, 0);
        assert_eq!((meter.received(), meter.strays), (1, 3));
        assert_eq!(meter.outsider(), [1, 0, 0]);
    }
}
